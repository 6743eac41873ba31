"""What learns from labels."""
