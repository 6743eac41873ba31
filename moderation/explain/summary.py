"""Which things drive a score over many items: the responsible regions, grouped by what they show, and averaged.

A region is named after what an ImageNet network calls its crop: a guess by one network about a cut-out, good for
groups, not for one item. Classes with a single region are counted together.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch

from moderation import storage
from moderation.config.model import DetectorConfig
from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.general.imagenet_classes import class_names
from moderation.detectors.registry import weights_of
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.explain.overlay import scale_down
from moderation.explain.run import Explained
from moderation.labels.decision_store import read_decisions
from moderation.labels.decisions import Answer, standing_decisions
from moderation.labels.effective import answers_by_item
from moderation.media import encode_jpeg
from moderation.pages.render import render
from moderation.results.explanations import Explanation
from moderation.results.layout import EXPLANATION_SUMMARY_FILE, EXPLANATION_SUMMARY_PAGE
from moderation.results.reader import StoredRun
from moderation.types import U8

OTHERS: Final = "other things, seen once each"
_EXAMPLES: Final = 6
_EXAMPLE_PX: Final = 96
_BATCH: Final = 32
_MIN_GROUP: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionClass:
    """What a crop shows: its ImageNet class, and the probability of it, 0..1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGroup:
    """Regions that show the same thing.

    share: of the regions of that vote. score, drop, alone: means, see `Explanation`. passed: of how many people said
    that the item is fine (the latest decision of each); None where nobody has decided. average: a JPEG, the mean of
    the crops; examples: JPEGs of the crops that lower the score most when they are covered.
    """

    name: str
    vote: str
    regions: int
    share: float
    score: float
    drop: float
    alone: float
    verdicts: dict[str, int]
    passed: int | None
    item_ids: tuple[str, ...]
    average: bytes
    examples: tuple[bytes, ...]


def classify_crops(crops: Sequence[U8]) -> list[RegionClass]:
    """The ImageNet class of each crop, uint8 [224,224,3], by the packaged network. Raises FatalError, UsageError."""
    detector = ImageNet({})
    weights = weights_of(detector, DetectorConfig(name="imagenet"))
    device = torch.device("cpu")
    detector.load(device, torch.float32, [str(resolve(one)) for one in weights])
    assert detector.network is not None
    classes: list[RegionClass] = []
    for start in range(0, len(crops), _BATCH):
        chunk = crops[start : start + _BATCH]
        batch = TensorFrames(chunk, [(crop.shape[1], crop.shape[0]) for crop in chunk], device)
        with torch.inference_mode():
            embedding = detector.score(batch, {}).embedding
            assert embedding is not None
            best = detector.network.head(embedding).float().softmax(dim=1).max(dim=1)
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            classes.append(RegionClass(name=class_names()[index][1], probability=value))
    return classes


def group_regions(
    explained: Iterable[Explained], classes: Sequence[RegionClass], passed: Set[str] | None = None
) -> list[RegionGroup]:
    """Groups by vote and class, the largest first. explained: those with a crop, in the order of `classes`.

    passed: ids of the items that people found fine; None where they have decided nothing.
    """
    groups: dict[tuple[str, str], list[Explained]] = defaultdict(list)
    for one, of in zip(explained, classes, strict=True):
        groups[one.explanation.vote, of.name].append(one)
    total = Counter(vote for (vote, _), own in groups.items() for _ in own)
    merged: dict[tuple[str, str], list[Explained]] = defaultdict(list)
    for (vote, name), own in groups.items():
        merged[vote, name if len(own) >= _MIN_GROUP else OTHERS] += own
    made = [_group(vote, name, own, total[vote], passed) for (vote, name), own in merged.items()]
    return sorted(made, key=lambda g: (g.name == OTHERS, -g.regions, -g.drop, g.vote, g.name))


def _group(vote: str, name: str, own: Sequence[Explained], total: int, passed: Set[str] | None) -> RegionGroup:
    rows = [one.explanation for one in own]
    ordered = sorted(own, key=lambda one: (-(one.explanation.drop or 0.0), one.explanation.item_id))
    crops = _crops(ordered)
    average = np.mean([crop.astype(np.float32) for crop in crops], axis=0).round().astype(np.uint8)
    return RegionGroup(
        name=name,
        vote=vote,
        regions=len(own),
        share=len(own) / total,
        score=_mean(rows, "score"),
        drop=_mean(rows, "fall"),
        alone=_mean(rows, "alone"),
        verdicts=dict(sorted(Counter(row.verdict or "none" for row in rows).items())),
        passed=None if passed is None else sum(row.item_id in passed for row in rows),
        item_ids=tuple(one.explanation.item_id for one in ordered),
        average=encode_jpeg(scale_down(average, _EXAMPLE_PX)),
        examples=tuple(encode_jpeg(scale_down(crop, _EXAMPLE_PX)) for crop in crops[:_EXAMPLES]),
    )


def _crops(explained: Sequence[Explained]) -> list[U8]:
    return [one.crop for one in explained if one.crop is not None]


def _mean(rows: Sequence[Explanation], name: str) -> float:
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    return float(np.mean(values)) if values else 0.0


def read_passed(out: str) -> set[str] | None:
    """Items of a run that people found fine, by the answer that holds; None where there is no decision.

    Raises UsageError where decisions cannot be read.
    """
    decisions = read_decisions(out)
    passed = {item_id for item_id, answer in answers_by_item(decisions).items() if answer is Answer.PASS}
    return passed if standing_decisions(decisions) else None


def write_summary(run: StoredRun, to: str, explained: Sequence[Explained]) -> tuple[str, list[RegionGroup]]:
    """Write `summary.html` and `summary.json` over these explanations; the page's URI and the groups."""
    with_crop = [one for one in explained if one.crop is not None]
    classes = classify_crops(_crops(with_crop)) if with_crop else []
    groups = group_regions(with_crop, classes, read_passed(run.out))
    plain = [{k: v for k, v in asdict(g).items() if k not in ("average", "examples")} for g in groups]
    facts = {"run_id": run.run_id, "explained": len(explained), "regions": len(with_crop), "groups": plain}
    storage.publish(
        storage.join(to, EXPLANATION_SUMMARY_FILE), json.dumps(facts, indent=1, ensure_ascii=False).encode()
    )
    page = storage.join(to, EXPLANATION_SUMMARY_PAGE)
    html = render("responsible.html", out=run.out, groups=groups, explained=len(explained), regions=len(with_crop))
    storage.publish(page, html.encode())
    return page, groups
