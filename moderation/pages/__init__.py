"""Self-contained HTML pages: no script, all text escaped."""
