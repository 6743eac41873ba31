"""What is done to objects after a verdict: tags, quarantine, webhooks; a receipt for each, and undo."""
