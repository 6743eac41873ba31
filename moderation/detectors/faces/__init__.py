"""Faces, and whose faces they are."""
