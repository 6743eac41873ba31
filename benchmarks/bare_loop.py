"""`python -m benchmarks.bare_loop FOLDER [DETECTOR]`: the stack over a folder without anything around it."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from moderation.config.load import load_config
from moderation.media import decode_item
from moderation.policy.bind import bind
from moderation.policy.judge import judge_item
from moderation.policy.model import load_policy
from moderation.scoring.build import build_stack
from moderation.types import Item, ItemVotes, MediaObject


def main(folder: str, only: str = "") -> None:
    """Print images a second as JSON."""
    config = load_config(None, [f"stack.only=[{only}]"] if only else [])
    stack = build_stack(config)
    stack.load()
    policy = bind(load_policy(Path(config.policy)), stack.labels, gated=stack.gated, disabled=stack.disabled)
    paths = sorted(Path(folder).iterdir())
    size = config.stack.frames_per_batch(on_gpu=False)

    def read(path: Path):  # type: ignore[no-untyped-def] # a loop of a notebook
        item = Item(item_id=path.name, uri=str(path), objects=(MediaObject(uri=str(path), name=path.name),))
        return decode_item(item, [path.read_bytes()], config.media)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(read, paths[:size]))
        stack.score([read(p).frames[0] for p in paths[:size]])  # kernels are chosen at the first call
        began = time.perf_counter()
        passed = 0
        for start in range(0, len(paths), size):
            media = list(pool.map(read, paths[start : start + size]))
            votes = stack.score([m.frames[0] for m in media])
            for row in range(len(media)):
                one = ItemVotes(labels=stack.labels, frames=(0,), times_s=(None,), scores=votes.scores[row : row + 1])
                passed += judge_item(one, None, policy).verdict == "pass"
        seconds = time.perf_counter() - began
    print(json.dumps({"images_per_s": len(paths) / seconds, "passed": passed, "images": len(paths)}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
