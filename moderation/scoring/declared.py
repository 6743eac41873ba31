"""A configuration -> what its stack declares: columns, weights, fingerprint. Nothing is loaded, torch least of all.

The driver of a run needs no more than this; `build.build_stack` makes of the same slots a stack that scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from moderation.config.hints import did_you_mean
from moderation.config.model import Config
from moderation.detectors.base import Detector
from moderation.detectors.heads.trained import TrainedHead
from moderation.detectors.registry import build, weights_of
from moderation.errors import UsageError
from moderation.scoring.conditions import parse_condition
from moderation.scoring.slots import Slot, fingerprint


class DeclaredStack:
    """Detectors in their slots, and what follows from them: columns, sizes of other values, the fingerprint."""

    def __init__(self, slots: Sequence[Slot], config: Config, disabled: Sequence[str] = ()) -> None:
        self.slots = tuple(slots)
        self.disabled = tuple(disabled)  # labels of detectors that stack.only leaves out
        self.labels = tuple(column for slot in slots for column in slot.labels)
        self.gated = tuple(column for slot in slots if slot.condition is not None for column in slot.labels)
        self.blob_sizes = {name: size for slot in slots for name, size in slot.blob_sizes.items()}
        self.embedding_dims = _embedding_dims(slots) if config.stack.keep_embeddings else {}
        self.fingerprint = fingerprint(slots, config)


def declare_stack(config: Config) -> DeclaredStack:
    """What the stack of a configuration declares.

    Raises UsageError that names the wrong detector, option or condition.
    """
    slots, disabled = make_slots(config)
    return DeclaredStack(slots, config, disabled)


def make_slots(config: Config) -> tuple[list[Slot], list[str]]:
    """The slots of a configuration's detectors, and the labels of those that `stack.only` leaves out.

    Raises UsageError that names the wrong detector, option or condition.
    """
    entries = config.stack.detectors
    _check_names(config)
    slots: list[Slot] = []
    labels: list[str] = []
    disabled: list[str] = []
    for entry in entries:
        detector = build(entry)
        own = [f"{detector.name}.{label}" for label in detector.labels]
        if config.stack.only and entry.title not in config.stack.only:
            disabled.extend(own)
            continue
        _check_requirements(detector, slots)
        _attach_head(detector, slots)
        condition = parse_condition(entry.when, labels) if entry.when else None
        columns = slice(len(labels), len(labels) + len(own))
        labels.extend(own)
        weights = weights_of(detector, entry)
        slots.append(Slot(detector=detector, condition=condition, columns=columns, weights=weights))
    return slots, disabled


def _attach_head(detector: Detector, slots: Sequence[Slot]) -> None:
    """A trained head is told which network it builds on, and that network what to hand on."""
    if isinstance(detector, TrainedHead):
        slot = next(slot for slot in slots if slot.detector.name == detector.requires[0])
        detector.attach(slot.detector, slot.weights[0].sha256 if slot.weights else "")


def _check_names(config: Config) -> None:
    titles = [entry.title for entry in config.stack.detectors]
    if not titles:
        raise UsageError("stack.detectors is empty: name at least one detector")
    for name in config.stack.only:
        if name not in titles:
            raise UsageError(f"stack.only: {name!r} is not in stack.detectors{did_you_mean(name, titles)}")
    for title in titles:
        if titles.count(title) > 1:
            raise UsageError(f"stack.detectors: {title!r} stands twice; give one an `alias:`")


def _check_requirements(detector: Detector, slots: Sequence[Slot]) -> None:
    ungated = {slot.detector.name for slot in slots if slot.condition is None}
    for name in detector.requires:
        if name not in ungated:
            raise UsageError(f"stack.detectors: {detector.name!r} needs {name!r} before it, without `when:`")


def _embedding_dims(slots: Sequence[Slot]) -> dict[str, int]:
    return {slot.detector.name: slot.detector.embedding_dim for slot in slots if slot.detector.embedding_dim}
