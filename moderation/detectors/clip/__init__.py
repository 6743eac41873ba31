"""Questions in words, by open_clip networks."""
