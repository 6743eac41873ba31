"""`python -m benchmarks.peers.ray_data FOLDER --out OUT`: a stack over a folder as Ray Data's guides would write it.

`read_images`, a map that makes large pictures small (fused with the reading), a callable class in an actor for the
stack, `write_parquet`: https://docs.ray.io/en/latest/data/working-with-images.html and batch_inference.html there.
One actor with one CPU leaves the others to reading; two actors on two cores leave it none, and nothing moves. The
actor's torch has all cores, or they would be idle while the networks run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.scorer import BATCH, FrameScorer, parse_call, shrink_picture, tell

START_ATTEMPTS = 3


class StackActor:
    """The stack in an actor: a batch of pictures in, its scores out."""

    def __init__(self, config: str | None, settings: Sequence[str], ready: str) -> None:
        self.scorer = FrameScorer(config, settings)
        Path(ready).write_text(repr(self.scorer.ready))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        scores = self.scorer.score(list(batch["image"]))
        return {"path": batch["path"], "scores": np.asarray(scores, np.float32)}


def start_ray() -> None:
    """A cluster here; as our own job does, with patience on a busy machine, where its processes answer late."""
    import ray

    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(log_to_driver=False, include_dashboard=False)
            return
        except Exception:  # Ray raises a bare one when a process of its own is late
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise


def main() -> None:
    """Score the folder, write Parquet, tell the times."""
    given = parse_call(__doc__ or "")
    import ray

    start_ray()
    ready = given.out.parent / f"{given.out.name}.ready"
    ray.data.DataContext.get_current().enable_progress_bars = False
    pictures = ray.data.read_images(str(given.folder), mode="RGB", include_paths=True)
    if given.shrink:
        short_side = given.shrink
        pictures = pictures.map(lambda row: {**row, "image": shrink_picture(row["image"], short_side)})
    scored = pictures.map_batches(
        StackActor,
        fn_constructor_args=(given.config, given.settings, str(ready)),
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
        batch_size=BATCH,
    )
    scored.write_parquet(str(given.out))
    tell(ready=float(ready.read_text()), done=time.time())


if __name__ == "__main__":
    main()
