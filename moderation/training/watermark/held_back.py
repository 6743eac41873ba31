"""Scores and threshold of a trained watermark network, fitted on composites on backgrounds that it has not seen.

A threshold from a few hundred clean pictures is luck: one false alarm in 256 is 0.4%, and a precision of 0.95 at one
marked picture in eight allows 0.5%. And pictures of one background are not independent. So many clean composites are
scored, and the threshold has its precision with the false alarms and one standard error (by background) more.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from moderation.detectors.general.watermark_network import MarkHead, MarkNetwork, picture_logits
from moderation.detectors.hashing.pdq import HASH_BYTES, hash_bits, pack, quality, shrink
from moderation.detectors.nn.prepare import infer, prepare
from moderation.hashes.pairs import near_pairs
from moderation.training.heads.quality import fit_line
from moderation.training.watermark.batches import scale_frames, stack_composites
from moderation.training.watermark.composites import Composite, make_composite
from moderation.training.watermark.marks import known_families
from moderation.types import U8

CLEAN_PER_MARKED: Final = 7.0  # one picture in eight is marked, as in the evaluation
_PRECISION: Final = 0.95
_BATCH: Final = 16
_NEAR_BITS: Final = 31  # of 256, and the least quality: Meta's advice for near copies
_USABLE: Final = 0.5
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkFit:
    """After training: the mean loss of its last batches, and figures on the held-back composites.

    held_right: share of them that a threshold of 0.5 gets right. threshold, recall: from `careful_threshold`.
    """

    loss: float
    held_right: float
    threshold: float | None
    recall: float


def hold_back(grounds: Sequence[U8], share: float = 0.1) -> tuple[list[U8], list[U8]]:
    """(backgrounds to learn on, backgrounds held back): every n-th is held back, at least one.

    A picture that stands there twice, or is a near copy of another, is on the side of the first: else it would be
    learned and held back.
    """
    every = max(2, round(1 / share))
    places = _first_alike(grounds)
    learned = [ground for ground, place in zip(grounds, places, strict=True) if place % every]
    return learned, [ground for ground, place in zip(grounds, places, strict=True) if place % every == 0]


def _first_alike(grounds: Sequence[U8]) -> list[int]:
    """For each, the number of the first that it is like, directly or by others between."""
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(hashlib.sha256(ground.tobytes()).digest(), i) for i, ground in enumerate(grounds)]

    def find(number: int) -> int:
        while first[number] != number:
            first[number] = number = first[first[number]]
        return number

    distinct = sorted(seen.values())
    hashes = [_hash_content(grounds[number]) for number in distinct]
    usable = [(number, own) for number, own in zip(distinct, hashes, strict=True) if own is not None]
    rows = np.frombuffer(b"".join(own for _, own in usable), np.uint8).reshape(-1, HASH_BYTES)
    pairs = near_pairs(rows, _NEAR_BITS)
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        one, other = find(usable[left][0]), find(usable[right][0])
        first[max(one, other)] = min(one, other)
    return [find(number) for number in range(len(grounds))]


def _hash_content(ground: U8) -> bytes | None:
    """PDQ of a background; None where it has too little content to be compared."""
    small = shrink([torch.from_numpy(ground)], torch.device("cpu"))
    return pack(hash_bits(small))[0] if float(quality(small)) >= _USABLE else None


def even_tuned(
    network: MarkNetwork,
    held: Sequence[U8],
    *,
    pairs: int,
    more_clean: int,
    seed: Sequence[int],
    loss: float,
    device: torch.device,
    dtype: torch.dtype,
) -> MarkFit:
    """Fit the scores, so that 0.5 is an even chance for a picture of which half are marked, and the threshold.

    pairs: marked composites, and as many clean ones, that the scores are fitted on; more_clean: for the threshold.
    """
    ready = prepare(copy.deepcopy(network), device, dtype)
    logits, marked, places = answer_composites(ready, held, pairs, more_clean, seed)
    fitted = slice(0, 2 * pairs)
    slope, shift = even_scores(network.head, logits[fitted], marked[fitted])
    even = slope * logits + shift
    threshold, recall = careful_threshold(even.sigmoid().double().numpy(), marked.numpy() > 0, places)
    return MarkFit(
        loss=loss,
        held_right=((even > 0) == (marked > 0))[fitted].float().mean().item(),
        threshold=threshold,
        recall=recall,
    )


def answer_composites(
    network: MarkNetwork, grounds: Sequence[U8], pairs: int, more_clean: int, seed: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, npt.NDArray[np.int64]]:
    """(picture logits float32 [N], marked float32 [N], background of each int64 [N]) of fresh composites.

    `pairs` marked and as many clean ones in turn, then more clean ones; half of each have look-alikes. Backgrounds are
    as they were read, not changed as for learning. network: prepared.
    """
    like = next(network.parameters())
    count = 2 * pairs + more_clean
    places = np.random.default_rng([*seed, 5]).integers(len(grounds), size=count)
    families = known_families()

    def make(number: int) -> Composite:
        marked, confusing = number < 2 * pairs and number % 2 == 0, number % 4 >= 2
        return make_composite(grounds[places[number]], families, (*seed, number), marked=marked, confusing=confusing)

    logits, marks = [], []
    for start in range(0, count, _BATCH):
        batch = stack_composites([make(number) for number in range(start, min(count, start + _BATCH))])
        with torch.inference_mode():
            answer = infer(network, scale_frames(batch.frames.to(like.device), like.dtype))
            logits.append(picture_logits(answer[:, 0].float()).cpu())
        marks.append(batch.marked)
    return torch.cat(logits), torch.cat(marks), places


def careful_threshold(
    scores: _Numbers,
    marked: npt.NDArray[np.bool_],
    places: npt.NDArray[np.int64],
    *,
    precision: float = _PRECISION,
    clean_per_marked: float = CLEAN_PER_MARKED,
) -> tuple[float | None, float]:
    """(least threshold with this precision, its recall); (None, 0.0) where there is none. All [N], by picture.

    Precision is that of a world with so many clean pictures to a marked one, if false alarms there are as frequent as
    among the clean ones here and one standard error more. places: whole number of a picture's background.
    """
    hits, clean, own = scores[marked], scores[~marked], places[~marked]
    for threshold in np.unique(hits):
        recall = float((hits >= threshold).mean())
        alarms = clean_per_marked * _upper_rate(clean >= threshold, own)
        if recall >= precision * (recall + alarms):
            return float(threshold), recall
    return None, 0.0


def _upper_rate(alarms: npt.NDArray[np.bool_], places: npt.NDArray[np.int64]) -> float:
    """The share of false alarms and one standard error, where pictures of one background stand or fall together.

    At least one false alarm is counted. Error of a ratio of sums over clusters: Cochran, Sampling Techniques, 9A.
    """
    if not len(alarms):
        return 1.0
    rate = max(1, int(alarms.sum())) / len(alarms)
    sizes = np.bincount(places)
    counts = np.bincount(places, weights=alarms)
    error = float(np.sqrt(((counts - rate * sizes) ** 2).sum())) / len(alarms)
    return min(1.0, rate + error)


@torch.no_grad()
def even_scores(head: MarkHead, logits: torch.Tensor, marked: torch.Tensor) -> tuple[float, float]:
    """Scale and shift the head's logits of cells, so that a picture's score is its chance to be marked among these.

    Returns scale and shift, which hold for picture logits, too.
    """
    slope, shift = fit_line(logits, marked)
    last = head.last
    assert last.bias is not None  # built with one
    last.weight[0].mul_(slope)
    last.bias[0].mul_(slope).add_(shift)
    return slope, shift
