"""Ours beside what ADRs 9 to 11 did without: faiss, onnxruntime, obstore; JSON into benchmarks/results/.

`python -m benchmarks.alternatives [--listed 100000 1000000]`. faiss-cpu and obstore are not in the lock: install them
into a folder of their own (`uv pip install --no-deps --target /tmp/others faiss-cpu obstore`) and put it behind, with
`PYTHONPATH=/tmp/others`. What is not there is left out. Rounds are interleaved, so that what else the machine does
meets all alike; each pair must give the same answer.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import median, write_result
from moderation import storage
from moderation.config.model import Config, DetectorConfig
from moderation.detectors import registry
from moderation.detectors.weights import locator
from moderation.hashes.search import HashIndex
from moderation.types import U8
from tests.s3_server import BUCKET, KEY_ID, SECRET, environment, serve_s3

ROUNDS = 5
QUERIES = 256
DISTANCE = 31
SIDE = 960  # of the pictures that text is looked for in
OBJECTS, OBJECT_BYTES = 500, 20_000


def interleaved(ways: Mapping[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """Way -> median seconds of some rounds, after one that is not counted, by the clock and of this process's cores.

    On a busy machine the second is the fairer: time in which others had the cores is not in it.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            way()
            if turn:
                spent[name].append((time.perf_counter() - began, time.process_time() - began_cpu))
    medians = {name: [median(times) for times in zip(*rounds, strict=True)] for name, rounds in spent.items()}
    return {
        "seconds": {name: wall for name, (wall, _) in medians.items()},
        "cpu_seconds": {name: cpu for name, (_, cpu) in medians.items()},
    }


def measure_search(listed: int) -> dict[str, Any]:
    """All listed hashes within 31 bits of 256 queries: our index, faiss's flat scan, and its index of the same idea."""
    faiss: Any = import_module("faiss")
    chance = np.random.default_rng(0)
    hashes: U8 = chance.integers(0, 256, (listed, 32), dtype=np.uint8)
    queries: U8 = chance.integers(0, 256, (QUERIES, 32), dtype=np.uint8)
    flips = np.packbits(chance.random((QUERIES // 2, 256)) < 0.08, axis=1)
    queries[: QUERIES // 2] = hashes[chance.integers(0, listed, QUERIES // 2)] ^ flips
    # 16 words of 16 bits, one flipped bit each: exact up to 31 bits, like ours.
    indexes: dict[str, Any] = {
        "flat": faiss.IndexBinaryFlat(256),
        "multi_hash": faiss.IndexBinaryMultiHash(256, 16, 16),
    }
    indexes["multi_hash"].nflip = 1
    build_s: dict[str, float] = {}
    for name, index in indexes.items():
        began = time.perf_counter()
        index.add(hashes)
        build_s[name] = time.perf_counter() - began
    began = time.perf_counter()
    ours = HashIndex(hashes)
    build_s["ours"] = time.perf_counter() - began
    # faiss takes what is nearer than the radius.
    pairs = {name: len(index.range_search(queries, DISTANCE + 1)[1]) for name, index in indexes.items()}
    pairs["ours"] = len(ours.pairs(queries, DISTANCE).entry)
    if len(set(pairs.values())) > 1:
        raise SystemExit(f"the ways find different pairs: {pairs}")
    ways: dict[str, Callable[[], object]] = {
        name: lambda index=index: index.range_search(queries, DISTANCE + 1) for name, index in indexes.items()
    }
    ways["ours"] = lambda: ours.pairs(queries, DISTANCE)
    return {
        "pairs": pairs["ours"],
        "build_s": {name: round(value, 2) for name, value in build_s.items()},
        **interleaved(ways),
    }


def measure_text_network() -> dict[str, Any]:
    """The text detection network on one picture of 960 x 960, on one core: onnxruntime, and ours in fp32 and bf16."""
    runtime: Any = import_module("onnxruntime")
    torch.set_num_threads(1)  # no thread waits for another that somebody else's work keeps from its core
    detectors: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        text: Any = registry.build(DetectorConfig(name="text"))
        paths = [str(locator.resolve(weights)) for weights in text.weights]
        text.load(torch.device("cpu"), dtype, paths)
        detectors[name] = text.detector
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(paths[0], options)
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32))
    theirs = {session.get_inputs()[0].name: pixels.flip(1).numpy()}  # their channels are blue, green, red

    def run_ours(dtype: torch.dtype, name: str) -> torch.Tensor:
        with torch.inference_mode():
            view = pixels.to(dtype).contiguous(memory_format=torch.channels_last)
            probabilities: torch.Tensor = detectors[name](view).float()
        return probabilities

    difference = np.abs(run_ours(torch.float32, "fp32").numpy() - session.run(None, theirs)[0][:, 0]).max()
    return {
        "largest_difference_fp32": float(f"{difference:.1e}"),
        **interleaved(
            {
                "onnxruntime_fp32": lambda: session.run(None, theirs),
                "ours_fp32": lambda: run_ours(torch.float32, "fp32"),
                "ours_bf16": lambda: run_ours(torch.bfloat16, "bf16"),
            }
        ),
    }


def measure_s3() -> dict[str, Any]:
    """500 objects of 20 kB from a local S3 server, by as many threads as a worker has: our seam and obstore."""
    obstore: Any = import_module("obstore")
    stores: Any = import_module("obstore.store")
    threads = Config().runtime.fetch_threads
    body = random.Random(0).randbytes(OBJECT_BYTES)
    names = [f"{index:04d}.jpg" for index in range(OBJECTS)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / BUCKET).mkdir()
        for name in names:
            (Path(folder) / BUCKET / name).write_bytes(body)
        with serve_s3(Path(folder)) as server, environment(server.env()), ThreadPoolExecutor(threads) as pool:
            store = stores.S3Store(
                BUCKET,
                endpoint=server.endpoint,
                region="us-east-1",
                access_key_id=KEY_ID,
                secret_access_key=SECRET,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            )

            def read_all(read: Callable[[str], Any]) -> Sequence[int]:
                sizes = [len(data) for data in pool.map(read, names)]
                if sum(sizes) != OBJECTS * OBJECT_BYTES:
                    raise SystemExit("not every byte was read")
                return sizes

            times = interleaved(
                {
                    "ours": lambda: read_all(lambda name: storage.read_bytes(f"s3://{BUCKET}/{name}")),
                    "obstore": lambda: read_all(lambda name: obstore.get(store, name).bytes()),
                }
            )
    return {
        "threads": threads,
        **times,
        "objects_per_s": {name: round(OBJECTS / value) for name, value in times["seconds"].items()},
    }


def main() -> None:
    """Measure what is installed, print, write."""
    parser = argparse.ArgumentParser(description="Ours beside faiss, onnxruntime and obstore.")
    parser.add_argument("--listed", type=int, nargs="*", default=[100_000, 1_000_000])
    given = parser.parse_args()
    record: dict[str, Any] = {"rounds": ROUNDS, "threads": torch.get_num_threads()}
    if find_spec("faiss"):
        record["search"] = {str(listed): measure_search(listed) for listed in given.listed}
    if find_spec("onnxruntime"):
        record["text_network"] = measure_text_network()
    if find_spec("obstore"):
        record["s3"] = measure_s3()
    print(record)
    print(write_result("alternatives", record))


if __name__ == "__main__":
    main()
