"""Configuration: its keys, how it is loaded, and how it is shown. Loads without torch."""
