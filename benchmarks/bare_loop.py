"""`python -m benchmarks.bare_loop FOLDER`: the stack over a folder without anything around it.

What a notebook would do: one process, all cores, read, decode, score, judge, a batch at a time; nothing that can fail.
`--engine` runs the networks elsewhere, `--decode pillow` decodes as Pillow's tutorial does, whole and then made small;
`--out` writes the scores once the clock has stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.peers.engines import ENGINES, use_engine
from benchmarks.peers.inputs import CANVAS_PX
from benchmarks.peers.scorer import shrink_picture, tell, write_scores
from moderation.config.load import load_config
from moderation.config.model import Config
from moderation.media import decode_item
from moderation.policy.bind import bind
from moderation.policy.judge import judge_item
from moderation.policy.model import load_policy
from moderation.scoring.build import build_stack
from moderation.types import F32, Frame, Item, ItemVotes, MediaObject


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default=None)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--engine", choices=ENGINES, default="ours")
    parser.add_argument("--decode", choices=("ours", "pillow"), default="ours")
    parser.add_argument("--out", type=Path, default=None, help="folder for the table of scores")
    return parser.parse_args(argv)


def main() -> None:
    """Print images a second, the time of loading and of the end, as JSON."""
    given = parse()
    config = load_config(given.config, given.settings)
    stack = build_stack(config)
    stack.load()
    use_engine(stack, given.engine)
    policy = bind(load_policy(Path(config.policy)), stack.labels, gated=stack.gated, disabled=stack.disabled)
    paths = sorted(given.folder.iterdir())
    size = config.stack.frames_per_batch(on_gpu=False)
    read: Callable[[Path], Frame] = read_pillow if given.decode == "pillow" else partial(read_ours, config)
    scores: list[F32] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        # Kernels are chosen at the first call, or the network is compiled.
        stack.score([read(path) for path in paths[:size]])
        ready = time.time()
        began = time.perf_counter()
        passed = 0
        for start in range(0, len(paths), size):
            frames = list(pool.map(read, paths[start : start + size]))
            votes = stack.score(frames)
            scores.append(votes.scores)
            for row in range(len(frames)):
                one = ItemVotes(labels=stack.labels, frames=(0,), times_s=(None,), scores=votes.scores[row : row + 1])
                passed += judge_item(one, None, policy).verdict == "pass"
        seconds = time.perf_counter() - began
    done = time.time()
    if given.out is not None:
        write_scores(given.out, [str(path) for path in paths], stack.labels, np.concatenate(scores))
    dtype = str(stack.dtype).removeprefix("torch.")
    tell(images_per_s=len(paths) / seconds, passed=passed, images=len(paths), ready=ready, done=done, dtype=dtype)


def read_ours(config: Config, path: Path) -> Frame:
    """As the library decodes it."""
    item = Item(item_id=path.name, uri=str(path), objects=(MediaObject(uri=str(path), name=path.name),))
    return decode_item(item, [path.read_bytes()], config.media).frames[0]


def read_pillow(path: Path) -> Frame:
    """Decoded whole, then made small."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    return Frame(index=0, pixels=shrink_picture(pixels, CANVAS_PX), width=width, height=height)


if __name__ == "__main__":
    main()
