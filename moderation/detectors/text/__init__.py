"""What is written on a picture, and QR and bar codes."""
