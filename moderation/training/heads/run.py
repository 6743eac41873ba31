"""`moderation train-head`: labelled pictures -> a head over a detector's network, and its quality."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.model import Config
from moderation.detectors.weights.locator import default_cache
from moderation.errors import UsageError
from moderation.sources import open_source
from moderation.training.heads.backbone import FoundBackbone, LoadedBackbone, load_backbone
from moderation.training.heads.batches import FinetuneSettings
from moderation.training.heads.bundle import CHECKPOINT, HeadOutcome, write_bundle
from moderation.training.heads.checkpoint import load_progress, save_progress
from moderation.training.heads.features import Features, compute_features
from moderation.training.heads.finetune import embed_views, finetune
from moderation.training.heads.fit import FittedHead, HeadData, Tune, answer, count_folds, fit_head
from moderation.training.heads.labelled import (
    ClassifiedItems,
    LabelReading,
    classify_items,
    refuse_small_classes,
    refuse_two_labels,
)
from moderation.training.heads.quality import HeadQuality, measure_head
from moderation.training.heads.replay import ReplayMemory, trim_replay
from moderation.training.heads.request import HeadRequest, find_requested
from moderation.training.heads.split import group_folds
from moderation.training.heads.views import VIEWS_VERSION
from moderation.types import Item

_MAX_PICTURES: Final = 200_000  # their embeddings take 1 GB
_MAX_FEATURE_BYTES: Final = 6 << 30  # in memory; one view of a picture takes 44 KB for six layers of `imagenet`


# Fills the cache of features for these items.
Warm = Callable[[Sequence[Item], Config, HeadRequest, FinetuneSettings], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dataset:
    """Pictures with their features. targets float32 [N,A]."""

    labelled: ClassifiedItems
    features: Features
    targets: torch.Tensor

    @property
    def groups(self) -> list[str]:
        """The group of each picture; a picture without one is a group by itself."""
        named = [self.labelled.groups[row] for row in self.features.kept]
        return [f"group {g}" if g else name for g, name in zip(named, self.features.names, strict=True)]


def train_head(
    config: Config,
    request: HeadRequest,
    settings: FinetuneSettings,
    *,
    tune: Tune = finetune,
    warm: Warm | None = None,
) -> HeadOutcome:
    """Train a head and write it to `request.out`; the same call goes on where it was interrupted.

    tune: trains the layers. warm: fills the cache of features before they are read from it; None: they are computed
    here, one after another.

    Raises UsageError before any network is loaded where the call is wrong; FatalError for weights and storage.
    """
    if not 0 < request.held_share <= 0.5:
        raise UsageError(f"--held-share {request.held_share}: more than 0, at most 0.5")
    found = find_requested(config, request)
    labelled = classify_items(list_pictures(request.images, config), request.images, request.reading)
    test_items = _read_test(config, request, labelled)
    backbone = load_backbone(found, config, blocks=request.blocks)
    _refuse_too_many(len(labelled.items), backbone, request)
    if warm is not None:
        warm(labelled.items, config, request, settings)
    data = _prepare(labelled, backbone, config, request, views=request.views, seed=settings.seed)
    counts = dict(zip(labelled.classes, data.targets.sum(dim=0).int().tolist(), strict=True))
    refuse_small_classes(counts, data.features.failed)
    folds = group_folds(data.targets.numpy(), data.groups, count_folds(request.held_share), settings.seed)
    key = _key(data, backbone, request, settings)
    checkpoint = storage.join(request.out, CHECKPOINT)
    head = fit_head(
        HeadData(features=data.features, targets=data.targets, fold_of=folds),
        backbone,
        settings,
        resume=lambda stage: load_progress(f"{checkpoint}.{stage}", f"{key} {stage}"),
        save=lambda stage, progress: save_progress(f"{checkpoint}.{stage}", progress, f"{key} {stage}"),
        tune=tune,
    )
    test = None
    if test_items is not None:
        test = _measure_test(head, test_items, data, backbone, config, request)
    outcome = write_bundle(
        config,
        found,
        head,
        out=request.out,
        name=request.name,
        classes=labelled.classes,
        depth=backbone.depth,
        several=settings.several,
        record=_record(data, found, request, settings, counts),
        held=_measure_held(head, data, settings),
        test=test,
        memory=_remember(head, data, backbone, request.replay, settings) if request.replay else None,
    )
    for stage in ("held", "whole"):
        storage.delete_tree(f"{checkpoint}.{stage}")
    return outcome


def list_pictures(images: str, config: Config) -> list[Item]:
    """The items of a source. Raises UsageError where they are too many."""
    listed = list(islice(open_source(images, config.source), _MAX_PICTURES + 1))
    if len(listed) > _MAX_PICTURES:
        raise UsageError(f"{images}: over {_MAX_PICTURES:,} pictures")
    return listed


def _read_test(config: Config, request: HeadRequest, labelled: ClassifiedItems) -> ClassifiedItems | None:
    if request.test is None:
        return None
    old = request.reading
    reading = LabelReading(labels=request.test_labels, column=old.column, several=old.several, learned=False)
    return classify_items(list_pictures(request.test, config), request.test, reading, classes=labelled.classes)


def _refuse_too_many(pictures: int, backbone: LoadedBackbone, request: HeadRequest) -> None:
    """Raises UsageError, naming what would fit, where features exceed the memory for them."""
    if backbone.depth is None:
        return
    size = backbone.feature_bytes()
    if pictures * size * request.views > _MAX_FEATURE_BYTES:
        raise UsageError(
            f"--blocks {request.blocks} of {pictures:,} pictures in {request.views} views: their features take "
            f"{pictures * size * request.views / 2**30:.0f} GiB, at most {_MAX_FEATURE_BYTES >> 30} are held; "
            f"with --views 1 at most {_MAX_FEATURE_BYTES // size:,} pictures, or --blocks 0"
        )


def features_folder(cache: Path | None) -> Path:
    """Where features are kept."""
    return (cache or default_cache()) / "features"


def _prepare(
    labelled: ClassifiedItems, backbone: LoadedBackbone, config: Config, request: HeadRequest, *, views: int, seed: int
) -> _Dataset:
    folder = features_folder(request.cache)
    features = compute_features(labelled.items, backbone, config, folder, views=views, seed=seed)
    refuse_two_labels(labelled.items, labelled.targets, features.repeated)
    return _Dataset(
        labelled=labelled, features=features, targets=torch.from_numpy(labelled.targets[features.kept].copy())
    )


def _remember(
    head: FittedHead, data: _Dataset, backbone: LoadedBackbone, most: int, settings: FinetuneSettings
) -> ReplayMemory:
    """What is kept of the pictures: embeddings as the head reads them, after its own layers where it has some."""
    rows = [int(row) for row in data.features.kept]
    outside = torch.full_like(data.targets, float("nan"))
    outside[torch.from_numpy(head.outside_rows)] = head.outside
    embeddings = data.features.embeddings
    if head.tuned is not None:
        assert data.features.features is not None  # its layers have learned from them
        embeddings = embed_views(head.tuned, data.features.features, device=backbone.device, dtype=backbone.dtype)
    whole = ReplayMemory(
        names=data.features.names,
        uris=tuple(data.labelled.items[row].uri for row in rows),
        groups=tuple(data.labelled.groups[row] for row in rows),
        classes=data.labelled.classes,
        embeddings=embeddings,
        targets=data.targets,
        outside=outside,
    )
    return trim_replay(whole, most, several=settings.several, seed=settings.seed)


def _measure_held(head: FittedHead, data: _Dataset, settings: FinetuneSettings) -> HeadQuality:
    rows = torch.from_numpy(head.outside_rows)
    return measure_head(
        head.outside,
        data.targets[rows],
        data.labelled.classes,
        temperature=head.temperature,
        several=settings.several,
    )


def _measure_test(
    head: FittedHead,
    items: ClassifiedItems,
    data: _Dataset,
    backbone: LoadedBackbone,
    config: Config,
    request: HeadRequest,
) -> dict[str, HeadQuality]:
    """Method -> its quality on the pictures of `--test`, without those that were learned from."""
    test = _prepare(items, backbone, config, request, views=1, seed=0)
    learned = set(data.features.names)
    fresh = torch.tensor([name not in learned for name in test.features.names], dtype=torch.bool)
    if not fresh.any():
        raise UsageError(f"--test {request.test}: every picture of it is one that was learned from")
    several = request.reading.several
    answers = {"probe": head.probe.logits(test.features.embeddings[:, 0])}
    if head.tuned is not None:
        answers["tuned"] = answer(head, test.features, backbone)
    names = data.labelled.classes
    return {
        method: measure_head(logits[fresh], test.targets[fresh], names, temperature=head.temperature, several=several)
        for method, logits in answers.items()
    }


def hash_pictures(names: Sequence[str], targets: torch.Tensor, classes: Sequence[str]) -> str:
    """sha256 of pictures, by the hashes of their bytes, with their classes; targets [N,A]."""
    rows = sorted(
        f"{name} {'|'.join(c for c, yes in zip(classes, own, strict=True) if yes)}"
        for name, own in zip(names, targets.bool().tolist(), strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _key(data: _Dataset, backbone: LoadedBackbone, request: HeadRequest, settings: FinetuneSettings) -> str:
    """Hash of all that training depends on: a checkpoint with another key is ignored."""
    facts = {
        "data": hash_pictures(data.features.names, data.targets, data.labelled.classes),
        "groups": data.groups,
        "backbone": backbone.facts,
        "depth": backbone.depth,
        "settings": asdict(settings),
        "views": request.views,
        "augmentation": VIEWS_VERSION if request.views > 1 else 0,
        "held_share": request.held_share,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _record(
    data: _Dataset,
    found: FoundBackbone,
    request: HeadRequest,
    settings: FinetuneSettings,
    counts: dict[str, int],
) -> dict[str, Any]:
    return {
        "data": {
            "hash": hash_pictures(data.features.names, data.targets, data.labelled.classes),
            "pictures": len(data.targets),
            "classes": counts,
            "groups": len(set(data.groups)),
            "repeated": len(data.features.repeated),
            "unlabelled": data.labelled.unlabelled,
            "failed": len(data.features.failed),
            "first_failed": list(islice(data.features.failed.items(), 3)),
            "licence": request.licence,
        },
        "settings": {
            **asdict(settings),
            "blocks": request.blocks,
            "views": request.views,
            "held_share": request.held_share,
            "workers": request.workers,
        },
        "weights": {"origin": found.weights.origin, "licence": found.weights.licence},
    }
