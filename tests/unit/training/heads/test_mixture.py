"""Remembered and added pictures together: a new label replaces an old one, and nobody is counted twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moderation.detectors.heads.head_file import BackboneRecord, HeadRecord
from moderation.errors import UsageError
from moderation.training.heads.additions import Additions
from moderation.training.heads.base import HeadBase
from moderation.training.heads.features import Features
from moderation.training.heads.labelled import refuse_two_labels
from moderation.training.heads.mixture import Mixture, mix_pictures, unseen_rows
from moderation.training.heads.replay import ReplayMemory
from moderation.types import Item, MediaObject

NAMES = ("n0", "n1", "n2")


def base() -> HeadBase:
    memory = ReplayMemory(
        names=NAMES,
        uris=NAMES,
        groups=("", "ana", ""),
        classes=("a", "b"),
        embeddings=torch.arange(6.0).reshape(3, 1, 2),
        targets=torch.tensor([[1.0, 0], [0, 1], [0, 1]]),
        outside=torch.tensor([[2.0, 0], [0, 3], [4, 0]]),
    )
    record = HeadRecord(
        kind="head",
        version=1,
        name="goods",
        classes=("a", "b"),
        backbone=BackboneRecord(detector="imagenet", sha256="", width=2),
    )
    tensors = {"weight": torch.eye(2), "bias": torch.tensor([1.0, 0]), "temperature": torch.ones(1)}
    return HeadBase(uri="u", sha256="", record=record, tensors=tensors, memory=memory, settings={}, learned=3)


def item(name: str) -> Item:
    return Item(item_id=name, uri=name, objects=(MediaObject(uri=name, name=name),), attributes={})


def mix(
    names: list[str],
    targets: list[list[float]],
    classes: tuple[str, ...] = ("a", "b"),
    *,
    own: HeadBase | None = None,
) -> Mixture:
    additions = Additions(
        items=tuple(map(item, names)),
        targets=np.array(targets, dtype=np.float32),
        classes=classes,
        groups=("",) * len(names),
        disputed=0,
        unused=0,
    )
    embeddings = torch.full((len(names), 1, 2), 5.0)
    features = Features(
        kept=np.arange(len(names)),
        names=tuple(names),
        embeddings=embeddings,
        features=None,
        failed={},
        repeated=(),
        computed=0,
    )
    return mix_pictures(own or base(), additions, features, embeddings)


def test_new_pictures_come_after_the_remembered_ones_with_the_older_heads_answers() -> None:
    mixed = mix(["x"], [[1, 0]])
    assert mixed.memory.names == (*NAMES, "x")
    assert mixed.is_added.tolist() == [False, False, False, True]
    assert mixed.before.tolist() == [[2, 0], [0, 3], [4, 0], [6, 5]]
    assert mixed.corrected == 0
    assert mixed.groups == ["n0", "group ana", "n2", "x"]


def test_correction_replaces_the_old_label_and_keeps_the_old_unlearned_answer() -> None:
    mixed = mix(["n1", "n2"], [[1, 0], [0, 1]])
    assert mixed.memory.names == ("n0", "n1", "n2")
    assert mixed.memory.targets.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert mixed.corrected == 1
    assert mixed.before.tolist() == [[2, 0], [0, 3], [4, 0]]


def test_new_class_widens_what_is_remembered() -> None:
    mixed = mix(["x"], [[0, 0, 1]], classes=("a", "b", "c"))
    assert mixed.memory.targets.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert mixed.before.shape == (4, 2)


def test_same_bytes_with_two_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="x and y are the same picture"):
        refuse_two_labels([item("x"), item("y")], np.eye(2, dtype=np.float32), [(0, 1)])
    refuse_two_labels([item("x"), item("y")], np.ones((2, 2), dtype=np.float32), [(0, 1)])


def test_a_head_with_layers_of_its_own_is_measured_on_pictures_that_these_have_not_seen() -> None:
    plain, tuned = base(), replace(base(), record=base().record.model_copy(update={"depth": 3}))
    for own, rows in ((plain, [0, 1, 2, 3]), (tuned, [3])):
        mixture = mix(["n1", "new"], [[1.0, 0], [0, 1]], own=own)
        assert mixture.memory.names == ("n0", "n2", "n1", "new")
        assert unseen_rows(own, mixture).tolist() == rows
    # On older pictures both heads answer from these layers: the older one, too.
    kept = tuned.memory.embeddings[[0, 2], 0]
    torch.testing.assert_close(mixture.before[:2], tuned.logits(kept))
    # Where all are corrections nothing else is left.
    assert unseen_rows(tuned, mix(["n1"], [[1.0, 0]], own=tuned)).tolist() == [0, 1, 2]
