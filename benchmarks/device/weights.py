"""The packaged weights in half their size: float32 numbers rounded to some bits, and taken apart so that they compress.

All files of the full stack are 108 MB and compress to 91 MB, which is more than the pack may have. Rounded to 8 bits
of mantissa (bf16 has 7, so that rounding to it still costs something) they are 40 MB. A rounded file has another
sha256: the pack lists it, and `accept_packed` makes the detectors expect that one. With 23 bits files stay as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACK = Path(__file__).resolve().parents[2]
FOLDER = "weights"
LISTING = "listing.json"
EXACT_BITS = 23
ROUNDED_BITS = 8
_LEAST_NUMBERS = 1024  # smaller tensors (norms, biases) stay exact: they are next to nothing
_PLANES = (24, 16, 8, 0)

_Words = npt.NDArray[np.uint32]


def pack_weights(locators: Sequence[str], files: Sequence[Path], target: Path, bits: int) -> dict[str, Any]:
    """Write each file rounded and compressed into `target`; returns the listing, which is written beside them."""
    target.mkdir(parents=True, exist_ok=True)
    listing: dict[str, Any] = {}
    for locator, file in zip(locators, files, strict=True):
        content, tensors = _round_file(file, bits)
        ranges = _find_all(content, tensors)
        name = f"{len(listing):02d}.planes"
        streams = [zlib.compress(_outside(content, ranges), 9), *_planes(content, ranges)]
        (target / name).write_bytes(b"".join(streams))
        listing[locator] = {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "ranges": ranges,
            "streams": [len(stream) for stream in streams],
            "mantissa_bits": bits,
        }
    (target / LISTING).write_text(json.dumps(listing), encoding="utf-8")
    return listing


def restore_weights(pack: Path, site: Path) -> int:
    """Write every listed file where its `pkg://` locator finds it below `site`; returns how many."""
    folder = pack / FOLDER
    if not (folder / LISTING).is_file():
        return 0
    listing = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    for locator, entry in listing.items():
        content = _join((folder / entry["file"]).read_bytes(), entry)
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{locator}: restored to other bytes than were packed")
        package, _, inside = locator.removeprefix("pkg://").partition("/")
        path = site / package / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        # A package of its own, so that it hides one that is installed there with the file as it was.
        (site / package / "__init__.py").touch()
    return len(listing)


def accept_packed(pack: Path = PACK) -> int:
    """Make the detectors expect the checksums that the pack lists; how many were changed. Does nothing elsewhere."""
    file = pack / FOLDER / LISTING
    if not file.is_file():
        return 0
    from moderation.detectors.registry import available
    from moderation.errors import UsageError

    listing = json.loads(file.read_text(encoding="utf-8"))
    changed = 0
    known = available()
    for name in known:
        try:
            detector: Any = known[name]
        except UsageError:
            continue  # a package that it needs is not there
        own = tuple(getattr(detector, "weights", ()))  # CLIP's are the configuration's
        packed = tuple(replace(w, sha256=listing.get(w.locator, {}).get("sha256", w.sha256)) for w in own)
        if packed != own:
            detector.weights = packed
            changed += 1
    return changed


def _round_file(file: Path, bits: int) -> tuple[bytes, list[bytes]]:
    """A file with its larger float32 tensors rounded, and the bytes of these."""
    return _round_torch(file, bits) if file.suffix == ".pth" else _round_onnx(file, bits)


def _round_onnx(file: Path, bits: int) -> tuple[bytes, list[bytes]]:
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    constants = (a.t for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.TENSOR)
    tensors: list[bytes] = []
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.raw_data) < 4 * _LEAST_NUMBERS:
            continue
        tensor.raw_data = _round(np.frombuffer(tensor.raw_data, np.uint32), bits).tobytes()
        tensors.append(tensor.raw_data)
    return (file.read_bytes() if bits == EXACT_BITS else model.SerializeToString()), tensors


def _round_torch(file: Path, bits: int) -> tuple[bytes, list[bytes]]:
    import torch

    state = torch.load(file, weights_only=True)
    tensors: list[bytes] = []
    for name, tensor in state.items():
        if tensor.dtype == torch.float32 and tensor.numel() >= _LEAST_NUMBERS:
            rounded = _round(tensor.contiguous().numpy().view(np.uint32), bits)
            tensors.append(rounded.tobytes())
            state[name] = torch.from_numpy(rounded.view(np.float32).copy()).view(tensor.shape)
    if bits == EXACT_BITS:
        return file.read_bytes(), tensors
    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue(), tensors


def _round(words: _Words, bits: int) -> _Words:
    drop = EXACT_BITS - bits
    if not drop:
        return words
    rounded: _Words = ((words.astype(np.uint64) + (1 << (drop - 1))) >> drop << drop).astype(np.uint32)
    return rounded


def _find_all(content: bytes, tensors: Sequence[bytes]) -> list[tuple[int, int]]:
    """Where the tensors lie in a file: start and length of each, in order, none in another."""
    found = {content.find(tensor): len(tensor) for tensor in tensors}
    found.pop(-1, None)
    ranges: list[tuple[int, int]] = []
    for start, length in sorted(found.items()):
        if not ranges or start >= sum(ranges[-1]):
            ranges.append((start, length))
    return ranges


def _outside(content: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    starts = [0, *(start + length for start, length in ranges)]
    ends = [*(start for start, _ in ranges), len(content)]
    return b"".join(content[start:end] for start, end in zip(starts, ends, strict=True))


def _planes(content: bytes, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Exponents, then the rest from its highest byte on. Each byte is coded alone: there are no repeats."""
    words = np.frombuffer(b"".join(content[start : start + length] for start, length in ranges), np.uint32)
    words = ((words >> 23) & 0xFF) << 24 | (words >> 31) << 23 | (words & 0x7FFFFF)
    streams = []
    for shift in _PLANES:
        plane = ((words >> shift) & 0xFF).astype(np.uint8)
        how = zlib.Z_HUFFMAN_ONLY if plane.any() else zlib.Z_DEFAULT_STRATEGY
        coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, how)
        streams.append(coder.compress(plane.tobytes()) + coder.flush())
    return streams


def _join(packed: bytes, entry: dict[str, Any]) -> bytes:
    ends = np.cumsum(entry["streams"])
    outside, *planes = (
        zlib.decompress(packed[end - size : end]) for end, size in zip(ends, entry["streams"], strict=True)
    )
    words = np.zeros(len(planes[0]), np.uint32)
    for shift, plane in zip(_PLANES, planes, strict=True):
        words |= np.frombuffer(plane, np.uint8).astype(np.uint32) << shift
    words = (words >> 24) << 23 | ((words >> 23) & 1) << 31 | (words & 0x7FFFFF)
    numbers = words.tobytes()
    parts: list[bytes] = []
    taken = done = 0
    for start, length in entry["ranges"]:
        gap = start - done - taken
        parts += [outside[done : done + gap], numbers[taken : taken + length]]
        done, taken = done + gap, taken + length
    return b"".join([*parts, outside[done:]])
