"""`python -m benchmarks.peers.openmoderate_scan FOLDER --weights FILE --out OUT`: openmoderate's batch call.

Its own `Moderator.analyze_batch` over the files, in batches, results as JSON lines, as its command `scan --json` does.
Comparable is the CLIP alone: the same network and weights (ours is told by its environment), its own prompts, fp32. So
its scores are of other words; that the network is the same is told by the least cosine between its embeddings of the
first pictures and ours, once the clock has stopped.
openmoderate is not in the lock: `uv pip install --no-deps --target DIR openmoderate`, and PYTHONPATH=DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.scorer import FrameScorer, tell

if TYPE_CHECKING:
    from moderation.types import F32

BATCH = 16  # its command's default


def main() -> None:
    """Score the folder, write JSON lines, tell the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--config", required=True, help="of our stack, for the cosine")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    os.environ["OPENMODERATE_PRETRAINED"] = given.weights
    from openmoderate import Moderator
    from openmoderate.io import load_image

    moderator = Moderator(device="cpu")
    moderator.engine._ensure_loaded()
    moderator._text_embeddings()  # its words, once, as ours are encoded at loading
    ready = time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(str(path) for path in given.folder.iterdir())
    with (given.out / "results.jsonl").open("w") as sink:
        for start in range(0, len(paths), BATCH):
            for path, result in zip(
                paths[start : start + BATCH], moderator.analyze_batch(paths[start : start + BATCH]), strict=True
            ):
                row = {label.name: label.confidence for label in result.labels}
                sink.write(json.dumps({"path": path, "labels": row}) + "\n")
    done = time.time()
    pictures = [load_image(path) for path in paths[:BATCH]]
    theirs = moderator.engine.encode_images(pictures)
    cosine = float((theirs * _embed_by_ours(given.config, pictures)).sum(axis=1).min())
    tell(ready=ready, done=done, images=len(paths), least_cosine=round(cosine, 5))


def _embed_by_ours(config: str, pictures: Sequence[Any]) -> F32:
    """float32 [B,D], of length 1, in fp32."""
    import torch

    from moderation.detectors.clip.detector import Clip
    from moderation.detectors.views import TensorFrames

    detector = FrameScorer(config, ["stack.dtype=fp32"]).stack.slots[0].detector
    assert isinstance(detector, Clip)
    arrays = [np.array(picture) for picture in pictures]
    batch = TensorFrames(arrays, [picture.size for picture in pictures], torch.device("cpu"))
    with torch.inference_mode():
        embeddings: F32 = torch.nn.functional.normalize(detector.embed(batch).float(), dim=1).numpy()
    return embeddings


if __name__ == "__main__":
    main()
