"""What recognition costs a face, and what a large gallery adds; JSON into benchmarks/results/.

`python -m benchmarks.gallery [--people 100000] [--faces 64] [--threads 2]`: made-up embeddings, matched in batches as
the detector does. The ratio is of matching to making the embeddings of as many faces, within the same rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.machine import median, write_result
from moderation.detectors.faces.chip import CHIP
from moderation.detectors.faces.gallery import FACE_WEIGHTS, Matcher, load_face
from moderation.detectors.faces.parts import DEFAULT_PARTS, embed_faces
from moderation.detectors.weights.locator import resolve
from tests.tiny_gallery import made_up

ROUNDS = 7


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description="Matching faces against a large gallery.")
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--faces", type=int, default=64, help="faces in a batch")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cpu = torch.device("cpu")
    gallery = made_up(given.people)
    matcher = Matcher(gallery, cpu)
    network = load_face(str(resolve(FACE_WEIGHTS)), cpu)
    chips = torch.rand(given.faces, 3, CHIP, CHIP) * 255
    rows = np.random.default_rng(1).integers(0, given.people, given.faces)
    asked = torch.from_numpy(gallery.embeddings[rows]) + 0.01
    with torch.inference_mode():
        found = matcher.match(asked)
        assert found.rows.tolist() == rows.tolist()  # warmed, and right
        embed_faces(network, chips, DEFAULT_PARTS)
        times: dict[str, list[float]] = {"match": [], "embed": []}
        for _ in range(ROUNDS):
            times["match"].append(timed(lambda: matcher.match(asked)))
            times["embed"].append(timed(lambda: embed_faces(network, chips, DEFAULT_PARTS)))
    each = {name: [1000 * t / given.faces for t in values] for name, values in times.items()}
    record = {
        "benchmark": "gallery",
        **vars(given),
        "rounds": ROUNDS,
        "match_ms_a_face": median(each["match"]),
        "embed_ms_a_face": median(each["embed"]),
        "rounds_ms_a_face": {name: [round(v, 3) for v in values] for name, values in each.items()},
        "ratio_match_to_embed": median([m / e for m, e in zip(each["match"], each["embed"], strict=True)]),
    }
    write_result("gallery", record)
    print(json.dumps(record, indent=1))


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
