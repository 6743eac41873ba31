"""The data learned from: labelled pictures that could be read, each once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moderation.errors import UsageError
from moderation.training.prompts.embed import Embedded
from moderation.training.prompts.labelled import Labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The pictures learned from. hash: of content hashes and labels. classes: name -> number of pictures.

    repeated: pictures with the same bytes as another; one of each is kept, or a fold would be tested on pictures that
    it learned from.
    """

    pictures: int
    repeated: int
    classes: Mapping[str, int]
    hash: str
    unlabelled: int
    failed: Mapping[str, str]
    computed: int


def describe_data(
    labelled: Labelled, embedded: Embedded, targets: npt.NDArray[np.int64], names: Sequence[str], repeated: int
) -> Data:
    """Describe the data learned from. repeated: how many pictures `select_distinct` left out."""
    return Data(
        pictures=len(targets),
        repeated=repeated,
        classes={name: int((targets == i).sum()) for i, name in enumerate(names)},
        hash=_data_hash(embedded.hashes, targets, names),
        unlabelled=labelled.unlabelled,
        failed=embedded.failed,
        computed=embedded.computed,
    )


def select_distinct(labelled: Labelled, embedded: Embedded) -> tuple[Embedded, npt.NDArray[np.int64], int]:
    """Pictures with distinct bytes, and their classes. Raises UsageError where equal pictures have two labels."""
    targets = np.array(labelled.targets, dtype=np.int64)[embedded.kept]
    first: dict[str, int] = {}
    for row, name in enumerate(embedded.hashes):
        other = first.setdefault(name, row)
        if targets[other] != targets[row]:
            uris = [labelled.items[embedded.kept[r]].uri for r in (other, row)]
            raise UsageError(f"{uris[0]} and {uris[1]} are the same picture, labelled as two classes")
    rows = np.array(list(first.values()), dtype=np.int64)
    single = replace(
        embedded,
        kept=embedded.kept[rows],
        hashes=tuple(first),
        vectors={name: vectors[rows] for name, vectors in embedded.vectors.items()},
    )
    return single, targets[rows], len(targets) - len(rows)


def refuse_too_few(targets: npt.NDArray[np.int64], names: Sequence[str], embedded: Embedded) -> None:
    """Raises UsageError for a class with fewer than two readable pictures."""
    counts = Counter(targets.tolist())
    for index, name in enumerate(names):
        if counts[index] < 2:
            first = next(iter(embedded.failed.items()), ("", ""))
            raise UsageError(
                f"class {name!r} has {counts[index]} pictures that can be read; at least two are needed "
                f"({len(embedded.failed)} failed, the first: {first[0]} {first[1]})"
            )


def _data_hash(hashes: Sequence[str], targets: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    rows = sorted(f"{name} {names[target]}" for name, target in zip(hashes, targets.tolist(), strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
