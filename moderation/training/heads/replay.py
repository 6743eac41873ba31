"""What a head has learned from, kept beside it: pictures as embeddings, chosen by class and hardness.

`moderation train-head --from` mixes them with new labels, so that the head does not forget the old ones (rehearsal,
Robins 1995, https://doi.org/10.1080/09540099550039318). Pictures themselves are not kept: they may have to be deleted.

Shape suffixes: N pictures, V views, D embedding, A classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.errors import UsageError
from moderation.training.heads.probe import head_losses

_KEY: Final = b"moderation"
_MAX_BYTES: Final = 2 << 30
_HARD_SHARE: Final = 0.5  # of a class: those with the largest loss; the rest is drawn, so that it stays like the class


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayMemory:
    """N pictures that a head has learned from.

    names: sha256 of their bytes. embeddings: float32 [N,V,D], of view 0 and augmented ones. targets: float32 [N,A].
    outside: float32 [N,A]: logits by a head that has not seen the picture's group; NaN where there is none.
    """

    names: tuple[str, ...]
    uris: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    embeddings: torch.Tensor
    targets: torch.Tensor
    outside: torch.Tensor

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> ReplayMemory:
        """These rows, in this order."""
        chosen = [int(row) for row in rows]
        return ReplayMemory(
            names=tuple(self.names[row] for row in chosen),
            uris=tuple(self.uris[row] for row in chosen),
            groups=tuple(self.groups[row] for row in chosen),
            classes=self.classes,
            embeddings=self.embeddings[chosen],
            targets=self.targets[chosen],
            outside=self.outside[chosen],
        )


def choose_replay(
    targets: npt.NDArray[np.float32], losses: npt.NDArray[np.float64], names: Sequence[str], most: int, seed: int
) -> npt.NDArray[np.int64]:
    """At most `most` rows, sorted: classes get equal shares, and give what they cannot fill to the others.

    targets float32 [N,A]; of a picture of several classes the rarest counts, of none a class of its own. losses float64
    [N]: of answers by a head that has not seen the picture; NaN where there is none. Pure: the order of the pictures
    makes no difference.
    """
    of_class: dict[int, list[int]] = {}
    counts = targets.sum(axis=0)
    for row, own in enumerate(targets):
        yes = np.flatnonzero(own > 0)
        rarest = int(yes[np.argmin(counts[yes])]) if len(yes) else -1
        of_class.setdefault(rarest, []).append(row)
    chosen: list[int] = []
    left = most
    for place, (_, rows) in enumerate(sorted(of_class.items(), key=lambda entry: (len(entry[1]), entry[0]))):
        share = min(len(rows), left // (len(of_class) - place))
        left -= share
        chosen += _choose_of_class(rows, losses, names, share, seed)
    return np.array(sorted(chosen), dtype=np.int64)


def trim_replay(memory: ReplayMemory, most: int, *, several: bool, seed: int) -> ReplayMemory:
    """At most `most` of its pictures, by class and hardness."""
    own = head_losses(memory.outside, memory.targets, several=several).double().numpy()
    return memory.select(choose_replay(memory.targets.numpy(), own, memory.names, most, seed))


def _choose_of_class(
    rows: Sequence[int], losses: npt.NDArray[np.float64], names: Sequence[str], count: int, seed: int
) -> list[int]:
    """The hardest, then drawn ones."""

    def draw(row: int) -> bytes:
        return hashlib.sha256(f"{seed} {names[row]}".encode()).digest()

    def hardness(row: int) -> tuple[float, bytes]:
        return (0.0 if np.isnan(losses[row]) else -float(losses[row]), draw(row))

    hardest = sorted(rows, key=hardness)[: round(count * _HARD_SHARE)]
    others = sorted(set(rows) - set(hardest), key=draw)
    return [*hardest, *others[: count - len(hardest)]]


def encode_replay(memory: ReplayMemory, record: Mapping[str, Any]) -> bytes:
    """An Arrow file, one row a picture; embeddings as float16. record: what they were computed with."""
    views, width = memory.embeddings.shape[1:]
    schema = _schema(views * width, len(memory.classes)).with_metadata(
        {
            _KEY: canonical_json(
                {**record, "version": 1, "classes": list(memory.classes), "views": views, "width": width}
            )
        }
    )
    columns = [
        pa.array(memory.names, pa.string()),
        pa.array(memory.uris, pa.string()),
        pa.array(memory.groups, pa.string()),
        _fixed(memory.targets > 0.5, len(memory.classes)),
        _fixed(memory.outside.float(), len(memory.classes)),
        _fixed(memory.embeddings.half().flatten(1), views * width),
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_replay(uri: str) -> tuple[ReplayMemory, Mapping[str, Any]]:
    """A file of `encode_replay` and its record. Raises UsageError where there is none, or it is another or damaged."""
    try:
        if storage.info(uri).size_bytes > _MAX_BYTES:
            raise UsageError(f"{uri}: over {_MAX_BYTES >> 30} GiB are no pictures of a head")
        data = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise UsageError(
            f"{uri}: not there, so nothing is known of what the head has learned from; train it again with"
            " `moderation train-head`, which keeps it"
        ) from error
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        record = json.loads(table.schema.metadata[_KEY])
        classes, views, width = tuple(record["classes"]), int(record["views"]), int(record["width"])
        if table.schema.remove_metadata() != _schema(views * width, len(classes)):
            raise ValueError("other columns")
        return _from_table(table, classes, views, width), record
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{uri}: damaged, or not of a head: {' '.join(str(error).split())[:200]}") from error


def _schema(numbers: int, classes: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("targets", pa.list_(pa.bool_(), classes), nullable=False),
            pa.field("outside", pa.list_(pa.float32(), classes), nullable=False),
            pa.field("embeddings", pa.list_(pa.float16(), numbers), nullable=False),
        ]
    )


def _fixed(tensor: torch.Tensor, size: int) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(tensor.reshape(-1).numpy()), size)


def _from_table(table: pa.Table, classes: tuple[str, ...], views: int, width: int) -> ReplayMemory:
    def numbers(name: str) -> npt.NDArray[Any]:
        column = table[name].combine_chunks()
        flat: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(table), -1).astype(np.float32)

    embeddings = torch.from_numpy(numbers("embeddings")).reshape(-1, views, width)
    if not torch.isfinite(embeddings).all():
        raise ValueError("an embedding is not finite")
    return ReplayMemory(
        names=tuple(table["name"].to_pylist()),
        uris=tuple(table["uri"].to_pylist()),
        groups=tuple(table["group"].to_pylist()),
        classes=classes,
        embeddings=embeddings,
        targets=torch.from_numpy(numbers("targets")),
        outside=torch.from_numpy(numbers("outside")),
    )
