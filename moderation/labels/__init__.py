"""Labels: what reviewers say that items are; read from files, checked, and resolved to one answer per item."""
