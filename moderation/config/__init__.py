"""Configuration: what a file may say, how it is loaded, and how it is shown. Loads without torch."""
