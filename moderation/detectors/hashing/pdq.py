"""PDQ: the 256-bit perceptual hash of a picture, and how much content there is to hash.

Source: "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm", Meta, 2019
(https://github.com/facebook/ThreatExchange, hashing/hashing.pdf); written from that description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.general.quality import LUMA
from moderation.detectors.hashing.content_box import can_have_bars, find_content, may_have_bars
from moderation.detectors.hashing.parts import PARTS_BYTES, edge_bits, quarter_bits
from moderation.detectors.hashing.sampling import SIDE, SamplingBank, sampling_matrix
from moderation.detectors.registry import check_options
from moderation.detectors.transfer import to_device
from moderation.types import F32, U8

if TYPE_CHECKING:
    import torch
else:
    from moderation.detectors.deferred import torch

_BITS_SIDE: Final = 16
HASH_BYTES: Final = _BITS_SIDE * _BITS_SIDE // 8
_QUALITY_PER_GRADIENT: Final = 90.0
_USABLE: Final = 0.5  # quality of a hash that may be compared


class Pdq(DetectorDefaults):
    """Label `quality` 0..1 (PDQ's own 0..100 over 100) and the blob `hash`, 32 bytes.

    Two pictures are near copies when their hashes differ in at most 31 of 256 bits and both qualities are at least 0.5
    (Meta's advice); a picture with little content, such as a plain sky, has an arbitrary hash. The bytes equal the
    usual 64 hexadecimal digits: the first bit is the transform's last. The canvas is hashed, a scaled copy of a large
    picture; for the same pixels the hash equals the reference's except for bits decided by rounding.

    Blobs besides, for copies that were framed or marked: `inner`, the hash of the picture within bars; `quarters` and
    `edges`, 64 bits for each of four parts of the picture within bars (see `parts`). Null where there are no bars, or
    too little content (a quality below 0.5).
    """

    name = "pdq"
    version = "2"  # 2: inner, quarters, edges
    labels: Sequence[str] = ("quality",)
    view = View(mode="canvas")
    cost_ms = 1.3
    blob_sizes: Mapping[str, int] = {
        "hash": HASH_BYTES, "inner": HASH_BYTES, "quarters": PARTS_BYTES, "edges": PARTS_BYTES
    }  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {})

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Nothing to load."""
        self._bank = SamplingBank(device)

    def _shrink_padded(self, batch: FrameBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Like `shrink`, in a few products per group of similar shapes: frame by frame a GPU waits for its calls.

        And which frames may have bars, bool [B]: those cost a CPU milliseconds each.
        """
        small = torch.empty((len(batch), SIDE, SIDE), dtype=torch.float32, device=batch.device)
        framed = torch.empty(len(batch), dtype=torch.bool, device=batch.device)
        weights = to_device(LUMA, torch.float32, batch.device)
        for group in batch.padded:
            _, height, width, _ = group.pixels_BHWC.shape
            sides = [batch.host_HWC[row].shape[:2] for row in group.rows]
            places = to_device(group.rows, torch.int64, batch.device)
            luma = group.pixels_BHWC.to(torch.float32) @ weights
            rows = self._bank.matrices([high for high, _ in sides], height)
            columns = self._bank.matrices([wide for _, wide in sides], width)
            small[places] = rows @ (luma @ columns.transpose(1, 2))
            framed[places] = can_have_bars(luma, *to_device(sides, torch.int64, batch.device).T)
        return small, framed & may_have_bars(small)

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,1]; blobs of 32 bytes per frame: `hash`, `inner`, `quarters`, `edges`."""
        # Not in bf16, whose rounding would decide a third of the bits.
        with torch.autocast(batch.device.type, enabled=False):
            if batch.padded:
                small, framed = self._shrink_padded(batch)
            else:
                small, framed = shrink(batch.frames_HWC, batch.device), None
            return Scored(scores=quality(small).unsqueeze(1), blobs=content_hashes(batch.host_HWC, small, framed))


def content_hashes(
    frames: Sequence[U8], small: torch.Tensor, framed: torch.Tensor | None = None
) -> dict[str, Sequence[bytes | None]]:
    """`hash`, `inner`, `quarters` and `edges` of each frame; None where there are no bars, or too little content.

    frames: uint8 [H,W,3], in the host's memory; small: as `shrink` makes it of them, on any device. framed: bool [B],
    which are looked at for bars, where that is known.
    """
    likely = np.flatnonzero((may_have_bars(small) if framed is None else framed).cpu().numpy())
    content, cut = _look_within_bars(frames, small, likely.tolist())
    enough = quality(content) >= _USABLE - 1e-6
    parts = (hash_bits(small).flip(1), hash_bits(content).flip(1), quarter_bits(content), edge_bits(content))
    # One copy for all: each waits for the device.
    bits = torch.cat([*parts, enough[:, None]], dim=1).cpu().numpy()
    hashes, inner, quarters, edges = (np.packbits(part, axis=1) for part in np.split(bits[:, :-1], len(parts), axis=1))
    usable = [bool(each) for each in bits[:, -1]]
    return {
        "hash": [row.tobytes() for row in hashes],
        "inner": [h.tobytes() if usable[row] and row in cut else None for row, h in enumerate(inner)],
        "quarters": [h.tobytes() if usable[row] else None for row, h in enumerate(quarters)],
        "edges": [h.tobytes() if usable[row] else None for row, h in enumerate(edges)],
    }


def _look_within_bars(
    frames: Sequence[U8], small: torch.Tensor, likely: Sequence[int]
) -> tuple[torch.Tensor, set[int]]:
    """`small` of the pictures within bars, float32 [B,64,64]; and the frames that have bars."""
    # In this thread: steps of a tenth of a millisecond, whose threads would wait for each other's Python (63 ms for 44
    # frames with one thread or two, 129 with 16).
    found = {row: sample for row in likely if (sample := _sample_within(frames[row])) is not None}
    if not found:
        return small, set()
    content = small.clone()
    samples = torch.stack(list(found.values()))
    content[to_device(list(found), torch.int64, small.device)] = samples.to(small.device)
    return content, set(found)


def _sample_within(frame: U8) -> torch.Tensor | None:
    """As `shrink`, float32 [64,64] of the picture within bars, on a CPU; None where there are no bars."""
    luma = _luma(frame)
    box = find_content(luma)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    rows, columns = (sampling_matrix(side) for side in (y1 - y0, x1 - x0))
    return rows @ (torch.from_numpy(luma[y0:y1, x0:x1]) @ columns.T)


def shrink(frames: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """uint8 [H,W,3] frames -> luma float32 [B,64,64], 0..255: a tent filter, then every n-th sample.

    Filter and sampling are linear and separable, so both are one small matrix per side. Frames of one size are batched.
    """
    return _shrink(frames, device, sampling_matrix)


def shrink_mirrored(frames: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Like `shrink` for each frame, its mirror image, its vertical flip and both: float32 [B,4,64,64].

    They are mirrored before sampling, because PDQ's filter reaches one pixel further to one side for every other size.
    Mirroring the result instead put 4% of photographs rotated by 180 degrees more than 31 bits away.
    """
    both = _shrink(frames, device, lambda side: torch.cat([sampling_matrix(side), sampling_matrix(side).flip(1)]))
    return both.view(-1, 2, SIDE, 2, SIDE).transpose(2, 3).reshape(-1, 4, SIDE, SIDE)


def _shrink(
    frames: Sequence[torch.Tensor], device: torch.device, sampling: Callable[[int], torch.Tensor]
) -> torch.Tensor:
    luma = _lumas(frames, device)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, frame in enumerate(frames):
        groups.setdefault((frame.shape[0], frame.shape[1]), []).append(i)
    samples = len(sampling(1))
    small = torch.empty((len(frames), samples, samples), dtype=torch.float32, device=device)
    for (height, width), indices in groups.items():
        rows, columns = (sampling(side).to(device) for side in (height, width))
        for i in indices:
            small[i] = rows @ (luma[i] @ columns.T)
    return small


def _lumas(frames: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """uint8 [H,W,3] frames -> float32 [H,W], 0..255, not rounded."""
    if device.type != "cpu":
        weights = to_device(LUMA, torch.float32, device)
        return [frame.to(torch.float32) @ weights for frame in frames]
    # numpy in threads of our own: torch would split each of these short steps over its threads and wait for the
    # slowest, which takes long when decoding threads share the cores (measured 4 to 15 ms instead of 0.8).
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        return list(pool.map(lambda frame: torch.from_numpy(_luma(frame.numpy())), frames))


def _luma(pixels: U8) -> F32:
    red, green, blue = (np.float32(share) for share in LUMA)
    luma: F32 = pixels[..., 0] * red
    luma += pixels[..., 1] * green
    luma += pixels[..., 2] * blue
    return luma


def quality(small: torch.Tensor) -> torch.Tensor:
    """The amount of gradient: luma [B,64,64] -> [B], 0..1."""
    # In whole percents of the range, like the reference: faint noise adds nothing.
    down = ((small[:, 1:] - small[:, :-1]) * 100 / 255).trunc().abs().sum(dim=(1, 2))
    across = ((small[:, :, 1:] - small[:, :, :-1]) * 100 / 255).trunc().abs().sum(dim=(1, 2))
    return ((down + across) / _QUALITY_PER_GRADIENT).trunc().clamp_(max=100) / 100


def hash_bits(small: torch.Tensor) -> torch.Tensor:
    """luma [B,64,64] -> bool [B,256]: which low frequencies (1 to 16 in each direction) lie above their median."""
    return above_median(low_frequencies(small))


def low_frequencies(small: torch.Tensor) -> torch.Tensor:
    """luma [B,64,64] -> float32 [B,16,16]: frequencies 1 to 16 of its cosine transform, rows downwards."""
    basis = _dct(small.device)
    return basis @ small @ basis.T


def above_median(frequencies: torch.Tensor) -> torch.Tensor:
    """float32 [B,16,16] -> bool [B,256]."""
    flat = frequencies.flatten(1)
    return flat > flat.median(dim=1, keepdim=True).values


def dihedral_bits(small: torch.Tensor) -> torch.Tensor:
    """`shrink_mirrored`'s result [B,4,64,64] -> bool [B,8,256]: a picture and its mirrored and rotated copies.

    The other four are transposed, and so are their frequencies; the median is the same.
    """
    frequencies = low_frequencies(small)
    every = torch.cat([frequencies, frequencies.transpose(2, 3)], dim=1)
    return above_median(every.flatten(0, 1)).view(-1, 2 * small.shape[1], _BITS_SIDE * _BITS_SIDE)


def pack(bits: torch.Tensor) -> list[bytes]:
    """bool [B,256] -> 32 bytes each; the first bit is the highest frequency."""
    return [row.tobytes() for row in np.packbits(bits.flip(1).cpu().numpy(), axis=1)]


def distance(left: bytes, right: bytes) -> int:
    """The number of bits in which two hashes differ, 0..256."""
    return (int.from_bytes(left) ^ int.from_bytes(right)).bit_count()


@lru_cache(maxsize=8)
def _dct(device: torch.device) -> torch.Tensor:
    """float32 [16,64]: frequencies 1 to 16 of the DCT-II; the constant term is left out."""
    frequency = np.arange(1, _BITS_SIDE + 1)[:, None]
    place = 2 * np.arange(SIDE)[None, :] + 1
    with torch.inference_mode(False):
        basis = np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * frequency * place)
        return torch.from_numpy(basis).to(device, torch.float32)
