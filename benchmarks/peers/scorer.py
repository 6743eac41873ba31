"""What the programs in this folder share: their arguments, the stack as torch modules, and the table of scores."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from moderation.scoring.stack import Stack
    from moderation.types import F32, U8

BATCH = 16  # of every pipeline: what `stack.batch_size` is on a CPU


def parse_call(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """FOLDER, `--config`, `--set`, `--out`, `--shrink`, `--limit`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default=None)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table of scores")
    parser.add_argument("--shrink", type=int, default=0, metavar="PX", help="short side of what is scored; 0: as it is")
    return parser.parse_args(argv)


class FrameScorer:
    """A loaded stack over RGB arrays; `ready` is when it was loaded, in seconds since 1970."""

    def __init__(self, config: str | None, settings: Sequence[str], threads: int = 0) -> None:
        import torch

        from moderation.config.load import load_config
        from moderation.scoring.build import build_stack

        # Ray gives an actor of one CPU one thread. The others would be idle: it is the networks that take the time.
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        self.stack: Stack = build_stack(load_config(config, list(settings)))
        self.stack.load()
        self.ready = time.time()

    def score(self, pictures: Sequence[U8]) -> F32:
        """uint8 RGB [H,W,3] each -> float32 [B,labels]."""
        from moderation.types import Frame

        # Arrays of Arrow cannot be written to, and torch warns of that.
        writable = [np.require(pixels, requirements=["C", "W"]) for pixels in pictures]
        frames = [Frame(index=0, pixels=pixels, width=pixels.shape[1], height=pixels.shape[0]) for pixels in writable]
        return self.stack.score(frames).scores


def read_labels(config: str | None, settings: Sequence[str]) -> tuple[str, ...]:
    """The columns of a stack that is not loaded."""
    from moderation.config.load import load_config
    from moderation.scoring.build import build_stack

    return build_stack(load_config(config, list(settings))).labels


def shrink_picture(pixels: U8, short_side: int) -> U8:
    """As a pipeline without DCT scaling does it: decoded whole, then made small by Pillow's bilinear filter."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = short_side / min(width, height)
    if scale >= 1:
        return pixels
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def write_scores(out: Path, paths: Sequence[str], labels: Sequence[str], scores: F32) -> None:
    """`scores.parquet` in `out`: `path` and `scores`, a list in the order of the labels, which its metadata has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({"path": list(paths), "scores": list(np.asarray(scores, np.float32))})
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(list(labels))}), out / "scores.parquet")


def tell(**facts: Any) -> None:  # noqa: ANN401 - JSON
    """The last line of a program: when the stack was loaded, when all was written, how many."""
    print(json.dumps(facts))
    sys.stdout.flush()
