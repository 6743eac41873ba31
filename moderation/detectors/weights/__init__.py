"""Weights by locator and checksum: found, mirrored, read."""
