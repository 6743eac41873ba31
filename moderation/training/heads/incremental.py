"""`moderation train-head --from`: a head goes on with new labels and does not forget what it has learned.

The new pictures are learned together with those that the head remembers (`replay`), from the embeddings of both. A new
label of a remembered picture replaces the old one: it is a correction. What was gained and forgotten is told by class;
a head that forgets more than the limit is not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.training.heads.additions import AdditionReading, read_additions
from moderation.training.heads.backbone import LoadedBackbone
from moderation.training.heads.base import (
    HeadBase,
    base_embeddings,
    base_network,
    load_base_backbone,
    read_base,
    with_classifier,
)
from moderation.training.heads.batches import FinetuneSettings
from moderation.training.heads.bundle import HeadOutcome, write_bundle, write_change
from moderation.training.heads.features import Features, compute_features
from moderation.training.heads.fit import FittedHead, count_folds
from moderation.training.heads.forgetting import HeadChange, HeadPair, compare_heads
from moderation.training.heads.labelled import (
    ClassifiedItems,
    LabelReading,
    classify_items,
    refuse_small_classes,
    refuse_two_labels,
)
from moderation.training.heads.mixture import Mixture, mix_pictures, unseen_rows
from moderation.training.heads.probe import choose_probes
from moderation.training.heads.quality import HeadQuality, fit_temperature, measure_head
from moderation.training.heads.replay import ReplayMemory, trim_replay
from moderation.training.heads.run import features_folder, hash_pictures, list_pictures
from moderation.training.heads.split import group_folds

_ENOUGH: Final = 20  # pictures for a temperature; with fewer the older head's stays


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueRequest:
    """What to continue. base: bundle of the older head. reading: the added labels.

    max_forgotten: largest share of the older pictures of a class that may be lost. replay: most pictures that are
    remembered. test: other labelled pictures, on which both heads are measured.
    """

    base: str
    reading: AdditionReading
    out: str
    name: str | None = None
    max_forgotten: float = 0.05
    held_share: float = 0.2
    replay: int = 2000
    test: str | None = None
    test_labels: str | None = None
    licence: str = "unknown"
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuedHead:
    """outcome: None where the head was refused. corrected: remembered pictures that got another label.

    change_uri: where `change` is written.
    """

    outcome: HeadOutcome | None
    change: HeadChange
    change_uri: str
    remembered: int
    added: int
    corrected: int
    failed: Mapping[str, str]
    disputed: int
    unused: int


def continue_head(config: Config, request: ContinueRequest) -> ContinuedHead:
    """Learn added labels on top of an older head, and write the new one where it has not forgotten too much.

    Raises UsageError before any network is loaded where the call is wrong; FatalError for weights and storage.
    """
    if not 0 < request.held_share <= 0.5:
        raise UsageError(f"--held-share {request.held_share}: more than 0, at most 0.5")
    if not 0 <= request.max_forgotten < 1:
        raise UsageError(f"--max-forgotten {request.max_forgotten}: at least 0 and under 1")
    base = read_base(request.base)
    settings = _settings_of(base)
    reading = replace(request.reading, several=settings.several)
    additions = read_additions(config, reading, base.record.classes)
    test_items = _read_test(config, request, additions.classes, settings)
    backbone = load_base_backbone(base, config)
    base = with_classifier(base, backbone)
    folder = features_folder(request.cache)
    features = compute_features(additions.items, backbone, config, folder, views=base.views, seed=settings.seed)
    refuse_two_labels(additions.items, additions.targets, features.repeated)
    mixture = mix_pictures(base, additions, features, base_embeddings(base, backbone, features))
    memory = mixture.memory
    counts = dict(zip(memory.classes, memory.targets.sum(dim=0).int().tolist(), strict=True))
    refuse_small_classes(counts, features.failed)
    head = _fit(base, backbone, mixture, settings, request.held_share)
    tested = None if test_items is None else _answer_test(base, head, test_items, memory, backbone, config, folder)
    change = _compare(mixture, head, tested, settings, request.max_forgotten)
    continued = ContinuedHead(
        outcome=None,
        change=change,
        change_uri=write_change(request.out, change),
        remembered=int((~mixture.is_added).sum()),
        added=int(mixture.is_added.sum()),
        corrected=mixture.corrected,
        failed=features.failed,
        disputed=additions.disputed,
        unused=additions.unused,
    )
    if change.refused:
        return continued
    outcome = write_bundle(
        config,
        backbone.found,
        head,
        out=request.out,
        name=request.name or base.record.name,
        classes=memory.classes,
        depth=base.record.depth,
        several=settings.several,
        record=_record(base, request, settings, continued, memory, counts, features),
        held=measure_head(
            head.outside[head.outside_rows],
            memory.targets[head.outside_rows],
            memory.classes,
            temperature=head.temperature,
            several=settings.several,
        ),
        test=None if tested is None else _measure_test(base, head, tested, memory.classes),
        memory=trim_replay(
            replace(memory, outside=head.outside), request.replay, several=settings.several, seed=settings.seed
        ),
        change=change,
    )
    return replace(continued, outcome=outcome)


def _settings_of(base: HeadBase) -> FinetuneSettings:
    """How the older head was trained, which holds for the newer one."""
    kept = base.settings
    return FinetuneSettings(
        several=base.record.several, balance=bool(kept.get("balance", True)), seed=int(kept.get("seed", 0))
    )


def _read_test(
    config: Config, request: ContinueRequest, classes: Sequence[str], settings: FinetuneSettings
) -> ClassifiedItems | None:
    if request.test is None:
        return None
    reading = LabelReading(labels=request.test_labels, several=settings.several, learned=False)
    return classify_items(list_pictures(request.test, config), request.test, reading, classes=classes)


def _fit(
    base: HeadBase, backbone: LoadedBackbone, mixture: Mixture, settings: FinetuneSettings, held_share: float
) -> FittedHead:
    """The probe on all pictures, below it the older head's own layers as they are.

    outside: of all pictures, by a probe that has not seen their groups.
    """
    memory = mixture.memory
    folds = group_folds(memory.targets.numpy(), mixture.groups, count_folds(held_share), settings.seed)
    probe, _, outside = choose_probes(
        memory.embeddings,
        memory.targets,
        folds,
        several=settings.several,
        balance=settings.balance,
        classifier=backbone.classifier if base.record.depth is None else None,  # its layers have changed the embedding
    )
    rows = unseen_rows(base, mixture)
    temperature = float(base.tensors["temperature"][0])
    if base.record.depth is None or len(rows) >= _ENOUGH:
        temperature = fit_temperature(outside[rows], memory.targets[rows], several=settings.several)
    return FittedHead(
        probe=probe,
        tuned=base_network(base, backbone, probe),
        temperature=temperature,
        outside=outside,
        outside_rows=rows,
    )


def _answer_test(
    base: HeadBase,
    head: FittedHead,
    items: ClassifiedItems,
    memory: ReplayMemory,
    backbone: LoadedBackbone,
    config: Config,
    folder: Path,
) -> HeadPair:
    """Both heads on the pictures of `--test` that neither has learned from, as far as it is remembered."""
    features = compute_features(items.items, backbone, config, folder, views=1, seed=0)
    learned = set(memory.names)
    rows = [row for row, name in enumerate(features.names) if name not in learned]
    if not rows:
        raise UsageError("--test: every picture of it is one that was learned from")
    embeddings = base_embeddings(base, backbone, features)[rows, 0]
    return HeadPair(
        before=base.logits(embeddings),
        after=head.probe.logits(embeddings),
        targets=torch.from_numpy(items.targets[features.kept].copy())[rows],
        kinds=["test"] * len(rows),
    )


def _compare(
    mixture: Mixture, head: FittedHead, tested: HeadPair | None, settings: FinetuneSettings, max_forgotten: float
) -> HeadChange:
    pair = HeadPair(
        before=mixture.before,
        after=head.outside,
        targets=mixture.memory.targets,
        kinds=["added" if added else "old" for added in mixture.is_added],
    )
    if tested is not None:
        pair = HeadPair(
            before=torch.cat([pair.before, tested.before]),
            after=torch.cat([pair.after, tested.after]),
            targets=torch.cat([pair.targets, tested.targets]),
            kinds=[*pair.kinds, *tested.kinds],
        )
    return compare_heads(pair, mixture.memory.classes, several=settings.several, max_forgotten=max_forgotten)


def _measure_test(base: HeadBase, head: FittedHead, tested: HeadPair, classes: Sequence[str]) -> dict[str, HeadQuality]:
    """`before` and `after`."""
    # The older head has no answer for new classes: one that never wins.
    missing = torch.full((len(tested.before), len(classes) - tested.before.shape[1]), -1e4)
    before = torch.cat([tested.before, missing], dim=1)
    sides = {"before": (before, float(base.tensors["temperature"][0])), "after": (tested.after, head.temperature)}
    return {
        which: measure_head(logits, tested.targets, classes, temperature=warmth, several=base.record.several)
        for which, (logits, warmth) in sides.items()
    }


def _record(
    base: HeadBase,
    request: ContinueRequest,
    settings: FinetuneSettings,
    continued: ContinuedHead,
    memory: ReplayMemory,
    counts: Mapping[str, int],
    features: Features,
) -> dict[str, Any]:
    weights = {"licence": base.record.backbone.licence}
    return {
        "data": {
            "hash": hash_pictures(memory.names, memory.targets, memory.classes),
            "pictures": len(memory.names),
            "classes": dict(counts),
            "groups": len({group or name for group, name in zip(memory.groups, memory.names, strict=True)}),
            "repeated": len(features.repeated),
            "unlabelled": 0,
            "failed": len(features.failed),
            "first_failed": list(features.failed.items())[:3],
            "licence": request.licence,
        },
        "settings": {**asdict(settings), "views": base.views, "held_share": request.held_share, "blocks": 0},
        "continues": {
            "head": base.sha256,
            "learned": base.learned,
            "remembered": continued.remembered,
            "added": continued.added,
            "corrected": continued.corrected,
            "max_forgotten": request.max_forgotten,
        },
        "weights": weights,
    }
