"""Perceptual hashes of frames, and known pictures by them."""
