"""A batch of hashes against a million listed ones: the index beside products of matrices; JSON into results/.

`python -m benchmarks.known [--listed 1000000] [--queries 256]`. Random hashes, half of the queries near copies. All are
exact and must agree; rounds are interleaved, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import median, write_result
from moderation.hashes.search import HashIndex
from moderation.types import U8

ROUNDS = 5
DISTANCE = 31
_BLOCK = 65_536  # listed hashes that a product takes at once


def signs(hashes: U8, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [N,32] -> +1, -1 [N,256]."""
    return torch.from_numpy(np.unpackbits(hashes, axis=1)).to(dtype) * 2 - 1


def by_product(listed: torch.Tensor, queries: torch.Tensor) -> npt.NDArray[np.int64]:
    """The nearest distance of each query, by 256 - 2 d = the product of their signs."""
    best = torch.full((len(queries),), -257.0)
    for start in range(0, len(listed), _BLOCK):
        block = listed[start : start + _BLOCK]
        product = torch._int_mm(queries, block.T) if listed.dtype == torch.int8 else queries @ block.T
        best = torch.maximum(best, product.amax(dim=1).float())
    return ((256 - best) / 2).long().numpy()


def by_counting(listed: U8, queries: U8) -> npt.NDArray[np.int64]:
    """The same by exclusive or and counting bits."""
    ours, theirs = queries.view(np.uint64), listed.view(np.uint64)
    best = np.full(len(ours), 257, np.int64)
    for i, query in enumerate(ours):
        best[i] = np.bitwise_count(theirs ^ query).sum(axis=1, dtype=np.uint16).min()
    return best


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="A batch of hashes against a list.")
    parser.add_argument("--listed", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=256)
    given = parser.parse_args()
    chance = np.random.default_rng(0)
    listed = chance.integers(0, 256, (given.listed, 32), dtype=np.uint8)
    queries = chance.integers(0, 256, (given.queries, 32), dtype=np.uint8)
    near = given.queries // 2
    flips = np.packbits(chance.random((near, 256)) < 0.08, axis=1)
    queries[:near] = listed[chance.integers(0, given.listed, near)] ^ flips
    began = time.perf_counter()
    index = HashIndex(listed)
    build_s = time.perf_counter() - began

    def indexed() -> npt.NDArray[np.int64]:
        found = index.nearest(queries, DISTANCE)[1].astype(np.int64)
        return np.where(found < 0, 257, found)

    ways: dict[str, Callable[[], npt.NDArray[np.int64]]] = {"index": indexed}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
        tensors = signs(listed, dtype), signs(queries, dtype)
        ways[f"product_{name}"] = lambda tensors=tensors: by_product(*tensors)
    ways["counting"] = lambda: by_counting(listed, queries)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            found = way()
            spent[name].append(time.perf_counter() - began)
            answers[name] = np.where(found <= DISTANCE, found, -1).tolist()
    if any(answer != answers["index"] for answer in answers.values()):
        raise SystemExit("the ways do not agree")
    seconds = {name: median(times) for name, times in spent.items()}
    record = {
        "listed": given.listed,
        "queries": given.queries,
        "threads": torch.get_num_threads(),
        "matched": sum(bits >= 0 for bits in answers["index"]),
        "build_s": round(build_s, 2),
        "seconds": seconds,
        "least_seconds": {name: round(min(times), 4) for name, times in spent.items()},
        "times_the_index": {name: median([value / seconds["index"]]) for name, value in seconds.items()},
    }
    for name, value in seconds.items():
        print(f"{name:14} {value:8.3f} s")
    print(write_result("known", record))


if __name__ == "__main__":
    main()
