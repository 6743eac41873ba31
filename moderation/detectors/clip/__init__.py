"""Questions in words, answered by open_clip networks."""
