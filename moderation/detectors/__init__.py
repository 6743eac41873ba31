"""Detectors: a model or a measurement that scores frames, one file each; `registry` finds them, `base` says what one is."""
