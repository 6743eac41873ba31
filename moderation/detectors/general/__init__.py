"""What a picture shows, and how good it is technically."""
