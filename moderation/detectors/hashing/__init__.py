"""Perceptual hashes of frames, and the search for known pictures with them."""
