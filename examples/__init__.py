"""Runnable examples; `make demo` runs `python -m examples.demo`."""
