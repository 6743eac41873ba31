"""The pipelines that `benchmarks.end_to_end` holds beside one another, each a program of its own."""
