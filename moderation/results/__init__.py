"""All that is in a run's output folder: its names, tables, receipts and records. Loads without torch."""
