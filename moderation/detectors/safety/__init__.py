"""Explicit and violent pictures."""
