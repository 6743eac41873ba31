"""What the runs know of decided items: their content, and the hash of those that are a single picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from moderation.analysis.sweep_tables import ROW, StoredPart
from moderation.errors import UsageError
from moderation.labels.decisions import Answer, ContentKey, Decision, DecisionSource
from moderation.results.intact import PartChangedError, PartMissingError
from moderation.results.layout import VERDICTS
from moderation.results.reader import StoredRun, open_run

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedItem:
    """A decided item. shard_id: its part; None: no run has it any more.

    hash, quality: PDQ, 64 hexadecimal digits and 0..100, of an item that is one picture; inner: the same of what lies
    within its bars. verdict, cause, entry: what holds of it: see `sweep_targets.SweepTarget`.
    """

    item_id: str
    uri: str
    run: str
    shard_id: str | None
    content_hash: str | None
    hash: str | None = None
    inner: str | None = None
    quality: int = -1
    verdict: str = "none"
    cause: str = "decision"
    entry: str = ""

    @property
    def key(self) -> ContentKey:
        """Its id and its content."""
        return self.item_id, self.content_hash

    def hash_of_picture(self, quality: int) -> str | None:
        """Its hash, if it is one picture with enough content."""
        return self.hash if self.quality >= quality else None

    def with_decision(self, decision: Decision | None) -> LearnedItem:
        """The item with what holds of it; None: nobody says anything of it any more."""
        if decision is None:
            return self
        cause = "appeal" if decision.source == DecisionSource.APPEAL else "decision"
        verdict = "block" if decision.decision is Answer.BLOCK else "pass"
        return replace(self, verdict=verdict, cause=cause, entry=decision.decision_id)


def find_learned_items(
    decisions: Mapping[str, Sequence[Decision]],
) -> tuple[list[Decision], dict[ContentKey, LearnedItem]]:
    """The decisions with the content that each is about, and the decided items by id and content.

    decisions: by OUT. A decision that names no content is about the one that its run has, else about the last one that
    another decision names. What a run lacks, or has with other content by now, keeps what its decision says of it.
    """
    rows = [item for out, said in decisions.items() for item in _in_run(out, {decision.item_id for decision in said})]
    of_run = {(item.run, item.item_id): item.content_hash for item in rows}
    named = {d.item_id: own for said in decisions.values() for d in said if (own := _content(d.content_hash))}
    settled: list[Decision] = []
    items: dict[ContentKey, LearnedItem] = {}
    for out, said in decisions.items():
        for decision in said:
            at = (out, decision.item_id)
            content = _content(decision.content_hash)
            if content is None:
                content = of_run[at] if at in of_run else named.get(decision.item_id)
            settled.append(replace(decision, content_hash=content))
            items[decision.item_id, content] = LearnedItem(
                item_id=decision.item_id, uri=decision.uri, run=out, shard_id=None, content_hash=content
            )
    items.update((item.key, item) for item in rows if item.key in items)
    return settled, items


def _content(text: str | None) -> str | None:
    text = (text or "").strip().lower()
    return text if _SHA256.fullmatch(text) else None


def _in_run(out: str, wanted: set[str]) -> Iterator[LearnedItem]:
    try:
        run = open_run(out)
    except UsageError:
        return  # decisions were kept, the run was not
    for shard_id in run.shard_ids:
        try:
            ids = run.read_present(VERDICTS, shard_id, ("item_id",))["item_id"]
            here = ids.filter(pc.is_in(ids, value_set=pa.array(sorted(wanted), pa.string())))
            if len(here):
                yield from _in_part(run, shard_id, set(here.to_pylist()))
        except (PartMissingError, PartChangedError):
            continue


def _in_part(run: StoredRun, shard_id: str, wanted: set[str]) -> Iterator[LearnedItem]:
    part = StoredPart(run, shard_id, wanted, columns=ROW)
    inner = part.frames.parts.inner
    hashes = dict(zip(part.frames.item.tolist(), range(len(part.frames.item)), strict=True))
    for row, (item_id, uri) in enumerate(zip(part.item_ids.to_pylist(), part.column("uri"), strict=True)):
        at = hashes.get(row) if part.frames.counts[row] == 1 else None
        yield LearnedItem(
            item_id=item_id,
            uri=uri or "",
            run=run.out,
            shard_id=shard_id,
            content_hash=_content(part.contents[row]),
            hash=None if at is None else part.frames.hashes[at].tobytes().hex(),
            inner=None if at is None or not inner[at].any() else inner[at].tobytes().hex(),
            quality=-1 if at is None else int(part.frames.quality[at]),
        )
