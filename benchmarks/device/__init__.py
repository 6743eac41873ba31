"""The library on a GPU: a folder to carry to a machine without a network, and what is measured there.

`python -m benchmarks.device pack OUT_DIR` makes the folder; `bash OUT_DIR/run.sh` on that machine writes one JSON.
"""
