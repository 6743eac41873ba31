"""Text on a picture, and QR and bar codes."""
