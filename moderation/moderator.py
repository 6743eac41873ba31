"""The call for notebooks: pictures, paths and bytes in, verdicts out; no Ray, nothing written.

from moderation import Moderator

moderator = Moderator.from_config("configs/default.yaml")
for row in moderator.moderate(["holiday.jpg", open("clip.mp4", "rb").read(), pillow_image]):
    print(row.verdict, row.reason, row.scores)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from moderation import storage
from moderation.concurrency import usable_cores
from moderation.config.load import load_config, resolve_config_path
from moderation.config.model import Config
from moderation.errors import ItemError, UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.media.encode import encode_picture, is_pillow
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import make_pools
from moderation.policy.bind import bind
from moderation.policy.judge import judge_item
from moderation.policy.model import policy_hash
from moderation.results.certificates import certify_policy
from moderation.results.record import RunFacts
from moderation.results.tables import ItemRow, verdicts_table
from moderation.scoring.build import build_stack
from moderation.sources.fetch import Fetcher
from moderation.sources.items import UniqueIds, base_name, clean_text, make_id
from moderation.types import (
    ErrorCode,
    Evidence,
    Item,
    ItemVotes,
    Judgement,
    Kind,
    MediaObject,
    Segment,
    Status,
    Verdict,
)

_ENCODED = bytes | bytearray | memoryview
Input = object  # str | Path | bytes | a Pillow image | uint8 array; Pillow is no dependency of this module's types


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """What became of one input: a row of the verdicts table, with the votes it rests on.

    verdict is None only for a file that is no media at all (`status=skipped`). scores: one number a check, None = not
    computed. error_code is None unless `status` is not `ok`.
    """

    uri: str
    item_id: str
    kind: Kind
    status: Status
    verdict: Verdict | None
    reason: str | None
    check: str | None
    score: float | None
    confidence: float | None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    threshold: float | None = None
    severity: str | None = None
    label: str | None = None
    reason_text: str = ""
    segments: tuple[Segment, ...] = ()
    audit: bool = False
    error_code: ErrorCode | None = None
    error_detail: str = ""
    frames_total: int = 0
    frames_scored: int = 0
    duration_s: float | None = None
    widest_gap_s: float | None = None
    unseen: tuple[str, ...] = ()
    reader: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    pdq: str | None = None
    votes: ItemVotes | None = field(default=None, repr=False)


class Moderator:
    """A loaded stack and a policy in this process; may be shared by threads.

    A context manager: leaving it ends its threads; one that is forgotten ends them when it is collected.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stack = build_stack(config)
        policy, _ = certify_policy(load_whole_policy(Path(config.policy)), config.policy, self._stack.fingerprint)
        # Before the weights are read: a policy that does not fit is said at once.
        today = datetime.now(UTC).date()  # by which lists may have ended
        self._policy = bind(
            policy, self._stack.labels, gated=self._stack.gated, disabled=self._stack.disabled, as_of=today
        )
        self.checks = tuple(policy.checks)
        self.facts = RunFacts(
            run_id="moderator",
            stack_fingerprint=self._stack.fingerprint,
            policy_hash=policy_hash(policy),
            as_of=today.isoformat() if policy.dated else None,
        )
        self._stack.load()
        threads = config.runtime.decode_threads
        self._pools = make_pools(config, usable_cores() if threads == "auto" else threads)

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, policy: str | Path | None = None, overrides: Sequence[str] = ()
    ) -> Self:
        """A moderator with its weights loaded (seconds).

        path: a YAML file, one packaged (`default.yaml`), or None for the default. policy: a YAML file instead of the
        configuration's. overrides: `["stack.batch_size=8"]`, as `--set`.
        Raises UsageError naming what is wrong and the nearest right name, FatalError for weights of another checksum.
        """
        config = load_config(None if path is None else str(path), overrides)
        if policy is not None:
            config = config.model_copy(update={"policy": str(resolve_config_path(str(policy)))})
        return cls(config)

    def moderate(self, inputs: Iterable[Input]) -> list[VerdictRow]:
        """Verdicts of paths or URIs (str, Path), encoded bytes, Pillow images and uint8 arrays, in order, one each.

        Arrays are RGB: uint8 [H,W,3], [H,W,4] with alpha, or [H,W]. What cannot be read, decoded or scored is a row
        with `status=error` and verdict `review`, never an exception. In-memory inputs have the uri `input:<position>`.
        Raises UsageError when an input is of another type: before anything is read.
        """
        given = _listed(inputs)
        items = _make_items(given)
        by_id = dict(zip((i.item_id for i in items), given, strict=True))
        stored = Fetcher(items, self.config.media)

        def fetch(item: Item) -> Sequence[bytes | ItemError]:
            value = by_id[item.item_id]
            if isinstance(value, str | Path):
                return stored(item)
            return [_encoded(value)]

        rows = moderate_items(
            items, config=self.config, stack=self._stack, policy=self._policy, pools=self._pools, fetch=fetch
        )
        return [_flatten(self._as_given(row, value)) for row, value in zip(rows, given, strict=True)]

    def to_table(self, rows: Iterable[VerdictRow]) -> pa.Table:
        """Rows as the Arrow table that a run writes to `verdicts/`: same columns, types and metadata."""
        return verdicts_table([_to_row(row) for row in rows], self.checks, self.facts.metadata())

    def close(self) -> None:
        """End the threads; calls in progress finish."""
        self._pools.fetch.shutdown()
        self._pools.decode.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _as_given(self, row: ItemRow, value: Input) -> ItemRow:
        if isinstance(value, str | Path):
            return row
        if not isinstance(value, _ENCODED):
            # Our own encoding of a picture says nothing about it.
            row = replace(row, size_bytes=None, content_hash=None)
        if row.error_code is not ErrorCode.NOT_MEDIA:
            return row
        # A file that is no media is skipped; bytes that were handed over to be judged are not.
        code = ErrorCode.UNSUPPORTED_TYPE
        detail = "these bytes are neither a picture nor a video"
        judgement = judge_item(None, code, self._policy)
        return replace(row, status=Status.ERROR, error_code=code, error_detail=detail, judgement=judgement)


def _listed(inputs: Iterable[Input]) -> list[Input]:
    if isinstance(inputs, str | Path | _ENCODED) or is_pillow(inputs):
        raise UsageError("moderate() takes a list: moderate([photo]) for a single one")
    if isinstance(inputs, np.ndarray) and inputs.ndim < 4:
        raise UsageError("moderate() takes a list of pictures or an array [N,H,W,3]: moderate([picture]) for one")
    given = list(inputs)
    for position, value in enumerate(given):
        problem = _problem_of(value)
        if problem:
            raise UsageError(f"input {position}: {problem}")
    return given


def _problem_of(value: Input) -> str | None:
    if isinstance(value, np.ndarray):
        fine = value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4)))
        given = f"{value.dtype} [{','.join(map(str, value.shape))}]"
        return None if fine else f"an array must be uint8 [H,W], [H,W,3] or [H,W,4], this is {given}"
    if isinstance(value, str | Path | _ENCODED) or is_pillow(value):
        return None
    kinds = "a path, a URI, bytes, a Pillow image or a uint8 array"
    return f"expected {kinds}, got {type(value).__name__}"


def _make_items(given: Sequence[Input]) -> list[Item]:
    unique = UniqueIds()
    items: list[Item] = []
    for position, value in enumerate(given):
        if isinstance(value, str | Path):
            uri = _spelled(str(value))
            name = base_name(uri)
        else:
            uri, name = f"input:{position}", ""
        # The id that a run over the same file gives; a path that stands twice gets two.
        item_id = unique.claim(make_id(uri), position)
        items.append(Item(item_id=item_id, uri=clean_text(uri), objects=(MediaObject(uri=uri, name=name),)))
    return items


def _spelled(uri: str) -> str:
    try:
        return storage.canonical(uri)
    except UsageError:
        return uri  # an unknown scheme: reading it says so, in its row


def _encoded(value: Input) -> bytes | ItemError:
    if isinstance(value, _ENCODED):
        return bytes(value)
    assert isinstance(value, np.ndarray) or is_pillow(value)
    try:
        return encode_picture(value)
    except ItemError as error:
        return error


def _flatten(row: ItemRow) -> VerdictRow:
    judged = row.judgement
    return VerdictRow(
        uri=row.item.uri,
        item_id=row.item.item_id,
        kind=row.kind,
        status=row.status,
        **(_NOT_JUDGED if judged is None else {name: getattr(judged, name) for name in _OF_JUDGEMENT}),
        scores=dict(judged.scores) if judged else {},
        frames_scored=row.frames_scored,
        votes=row.votes,
        **{name: getattr(row, name) for name in _SAME},
    )


def _to_row(row: VerdictRow) -> ItemRow:
    judgement = None
    if row.verdict is not None:
        judgement = Judgement(scores=row.scores, **{name: getattr(row, name) for name in _OF_JUDGEMENT})
    return ItemRow(
        item=Item(item_id=row.item_id, uri=row.uri, objects=()),
        status=row.status,
        kind=row.kind,
        judgement=judgement,
        votes=row.votes,
        **{name: getattr(row, name) for name in _SAME},
    )


# Fields of a judgement that both forms have.
_OF_JUDGEMENT = ("verdict", "reason", "check", "score", "confidence", "evidence", "threshold", "severity", "label",
                 "reason_text", "segments", "audit")  # fmt: skip
_NOT_JUDGED: Mapping[str, None] = dict.fromkeys(_OF_JUDGEMENT[:5])
# Fields that the row of the pipeline and the one of this module share.
_SAME = ("frames_total", "duration_s", "widest_gap_s", "unseen", "reader", "width", "height", "size_bytes",
         "content_hash", "pdq", "error_code", "error_detail")  # fmt: skip
