"""The content of a picture, and its technical quality."""
