"""All that is in a run's output folder: names, tables, receipts and records. Loads without torch."""
