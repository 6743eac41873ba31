"""Weights by locator and checksum: resolved, mirrored, read."""
