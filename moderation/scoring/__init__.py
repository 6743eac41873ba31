"""Detectors over batches of frames of many items."""
