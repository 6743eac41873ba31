"""Heads learned from labelled pictures on networks that detectors have: a linear probe, then the last layers."""
