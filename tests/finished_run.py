"""An OUT as a run leaves it, made of votes that a test writes down: no pictures, no detectors, no Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from moderation import storage
from moderation.config.model import Config
from moderation.ledger.entry import FinishedNight, judged_rows
from moderation.ledger.index import Provenance
from moderation.ledger.store import append
from moderation.lists.policy_file import load_whole_policy
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards, encode_shards
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.judge import judge_item
from moderation.results.escalations import ESCALATED_JUDGEMENT
from moderation.results.receipts import commit_shard
from moderation.results.tables import ItemRow, encode_table, verdicts_table, votes_table
from moderation.types import ErrorCode, Item, ItemFacts, ItemVotes, Kind, MediaObject, Region, Seen, Shard, Status

RUN_ID = "0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One item: its frames' votes (None: it could not be decoded), and what its manifest said."""

    name: str
    votes: Sequence[Sequence[float | None]] | None
    attributes: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = Kind.IMAGE
    times_s: Sequence[float | None] = ()  # of its frames; empty: none has one
    hashes: Sequence[str | None] = ()  # PDQ of its frames
    parts: Mapping[str, Sequence[bytes | None]] = field(default_factory=dict)  # `inner`, `quarters`, `edges` of them
    content_hash: str | None = None
    people: Sequence[str] = ()  # that the gallery knows in its first frame
    unseen: tuple[str, ...] = ()
    embedding: Sequence[float] | None = None  # of every frame, by the detector `net`
    members: Sequence[str] = ()  # files of an album, beside each other; empty: the one of its name
    escalated: bool = False  # its votes are to be None each, as `pipeline.escalating` leaves them


def write_run(
    folder: Path,
    labels: Sequence[str],
    items: Sequence[Made],
    policy: str,
    *,
    shard_items: int = 4,
    format_: str = "parquet",
    keep_policy: bool = True,
    as_of: str | None = None,
    prefix: str | None = None,
    policy_hash: str = "policy",
) -> str:
    """The OUT of a run over these items; uris are `<folder>/in/<name>`, where a test may put pictures.

    prefix: of the uris instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    policy_path = folder / "policy.yaml"
    policy_path.write_text(policy, encoding="utf-8")
    config = Config.model_validate({"policy": str(policy_path), "output": {"format": format_}})
    day = None if as_of is None else date.fromisoformat(as_of)
    bound = bind(load_whole_policy(policy_path), tuple(labels), as_of=day)
    out = str(folder / "out")
    metadata = {"run_id": RUN_ID, "stack_fingerprint": "stack", "policy_hash": policy_hash, "code_version": "test"}
    hashed = any(made.hashes for made in items)
    parts = {f"pdq.{name}": 32 for made in items for name in made.parts}
    blob_sizes = {"pdq.hash": 32, **parts} if hashed else {}
    width = next((len(made.embedding) for made in items if made.embedding), None)
    dims = {} if width is None else {"net": width}
    shards: list[Shard] = []
    for start in range(0, len(items), shard_items):
        chunk = items[start : start + shard_items]
        rows = [_row(prefix or str(folder / "in"), made, tuple(labels), bound) for made in chunk]
        shard = Shard(shard_id=f"{start:032x}", items=tuple(row.item for row in rows))
        tables = {
            "votes": votes_table(rows, labels, blob_sizes, dims, metadata),
            "verdicts": verdicts_table(rows, tuple(bound.policy.checks), metadata),
        }
        parts = {name: encode_table(table, config.output) for name, table in tables.items()}
        counts = {name: table.num_rows for name, table in tables.items()}
        commit_shard(out, shard, parts=parts, rows=counts, format_=format_, facts={})
        shards.append(shard)
    storage.publish(plan_uri(out), encode_shards(shards))
    record = {"run_id": RUN_ID, "source": str(folder / "in"), "config": config.model_dump(mode="json")}
    if as_of is not None:
        record["as_of"] = as_of
    (folder / "out" / "run.json").write_text(json.dumps(record))
    if not keep_policy:
        policy_path.unlink()
    return out


def enter_run(ledger: str, night: str, out: str) -> None:
    """Enter a run in a ledger, as a finished night does."""
    shards = decode_shards(storage.read_bytes(plan_uri(out)), where=plan_uri(out))
    facts = FinishedNight(
        out=out,
        format="parquet",
        provenance=Provenance(source="in", stack_fingerprint="stack", policy_hash="policy"),
        judged_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    append(ledger, night, judged_rows(shards, facts))


def _row(prefix: str, made: Made, labels: tuple[str, ...], bound: BoundPolicy) -> ItemRow:
    uri = f"{prefix}/{made.name}"
    objects = tuple(MediaObject(uri=f"{prefix}/{name}", name=name) for name in made.members or (made.name,))
    item = Item(item_id=made.name, uri=uri, objects=objects, attributes=dict(made.attributes))
    votes = None
    blobs: dict[str, tuple[bytes | None, ...]] = {f"pdq.{name}": tuple(rows) for name, rows in made.parts.items()}
    if made.hashes:
        blobs["pdq.hash"] = tuple(h and bytes.fromhex(h) for h in made.hashes)
    code = ErrorCode.CORRUPT if made.votes is None else None
    if made.votes is not None:
        scores = np.array([[np.nan if s is None else s for s in row] for row in made.votes], np.float32)
        count = len(scores)
        named = tuple(Region(detector="gallery", label=n, score=1.0, x0=0, y0=0, x1=1, y1=1) for n in made.people)
        votes = ItemVotes(
            labels=labels,
            frames=tuple(range(count)),
            times_s=tuple(made.times_s) or (None,) * count,
            scores=scores,
            regions=(named, *((),) * (count - 1)),
            blobs=blobs,
        )
    pdq = made.hashes[len(made.hashes) // 2] if made.hashes else None
    seen = Seen(kind=made.kind, unseen=made.unseen)
    facts = ItemFacts(item_id=made.name, attributes=item.attributes, content_hash=made.content_hash, pdq=pdq)
    judged = ESCALATED_JUDGEMENT if made.escalated else judge_item(votes, code, bound, seen, facts)
    decoded = Status.ESCALATED if made.escalated else Status.OK
    return ItemRow(
        item=item,
        status=decoded if code is None else Status.ERROR,
        kind=made.kind,
        unseen=made.unseen,
        content_hash=made.content_hash,
        pdq=pdq,
        judgement=judged,
        votes=votes,
        embeddings={"net": np.array([made.embedding] * len(made.votes or ()), np.float16)} if made.embedding else None,
        error_code=code,
    )
