"""Detectors: a model or a measurement that scores frames, one file each; `base` says what one is."""
