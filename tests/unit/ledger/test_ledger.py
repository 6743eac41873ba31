"""Nights against the ledger, without a cluster: what is judged, taken over and marked, and the effect of crashes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderation import storage
from moderation.config.model import Config, ShardConfig
from moderation.errors import FatalError
from moderation.ledger import store
from moderation.ledger.copies import Target, write_copies
from moderation.ledger.difference import Choice, difference
from moderation.ledger.entry import FinishedNight, judged_rows, marked_rows
from moderation.ledger.index import ContentSet, Provenance, load_index, locate
from moderation.ledger.listing import Spool, read_listing, read_marks
from moderation.ledger.records import LogFile
from moderation.ledger.rows import content_id, item_key, item_version, split_keys
from moderation.ledger.store import Log, append, compact, is_entered, open_log, should_compact
from moderation.planning.names import plan_uri
from moderation.planning.plan import decode_shards, plan_shards
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy
from moderation.results.after_layout import escalations_part_uri
from moderation.results.escalations import (
    ESCALATED_JUDGEMENT,
    Escalation,
    escalations_part,
    list_escalations,
    publish_escalations,
    read_escalations,
)
from moderation.results.receipts import commit_shard, committed_ids, read_receipts
from moderation.results.schema import votes_schema
from moderation.results.tables import ItemRow, decode_table, encode_table, verdicts_table, votes_table
from moderation.sources.items import make_id
from moderation.types import F32, ErrorCode, Item, ItemVotes, Judgement, Kind, MediaObject, Shard, Status, Verdict

CONFIG = Config(shards=ShardConfig(max_items=3))
FACTS = Provenance(source="s3://b/in", stack_fingerprint="stack-1", policy_hash="policy-1")
LABELS = ("tiny.red",)
MD5 = "0123456789abcdef0123456789abcde"  # and one more digit
numbers = itertools.count()


def item(name: str, etag: str | None = "v1", size: int = 10, **attributes: str) -> Item:
    uri = f"s3://b/in/{name}"
    media = MediaObject(uri=uri, name=name, size_bytes=size, etag=etag)
    return Item(item_id=make_id(uri), uri=uri, objects=(media,), attributes=attributes)


def listed(*names: str, etag: str = "v1") -> list[Item]:
    return [item(name, etag) for name in names]


@dataclass(slots=True)
class World:
    """A ledger and its nights; the judge needs no network: its scores are a function of the etag."""

    base: str
    errors: dict[str, ErrorCode] = field(default_factory=dict)  # file name -> what goes wrong with it
    listed: frozenset[str] = frozenset()  # file names that match an illegal list
    hashes: dict[str, str] = field(default_factory=dict)  # file name -> sha256
    facts: Provenance = FACTS
    policy: BoundPolicy | None = None
    nights: int = 0
    started: datetime = datetime(2026, 11, 22, tzinfo=UTC)

    @property
    def ledger(self) -> str:
        return f"{self.base}/ledger"

    def out(self, night: int | None = None) -> str:
        return f"{self.base}/out/{self.nights if night is None else night:04d}"

    def listing(self, items: Sequence[Item], choice: Choice) -> Iterator[Item]:
        log = open_log(self.ledger)
        return difference(iter(items), load_index(log, self.facts), log, self.facts, choice, Spool(self.out()))

    def night(self, items: Sequence[Item], choice: Choice | None = None, *, enter: bool = True) -> Counts:
        self.nights += 1
        return self.go_on(items, choice, enter=enter)

    def go_on(self, items: Sequence[Item], choice: Choice | None = None, *, enter: bool = True) -> Counts:
        out = self.out()
        plan = plan_shards("", out, CONFIG, open_items=lambda: self.listing(items, choice or Choice()))
        judged = [self.judge(shard) for shard in plan]
        listing = read_listing(out)
        assert listing is not None
        copies = write_copies(self.target(), listing, planned(out), committed_ids(out))
        if enter:
            self.enter(copies)
        rows = list(itertools.chain.from_iterable(rows_of(out)))
        return Counts(listing.counts, [name_of(i) for s in judged for i in s.items], rows)

    def judge(self, shard: Shard) -> Shard:
        rows = [self.row(i) for i in shard.items]
        verdicts, votes = verdicts_table(rows, ("red",), {"run_id": "r"}), votes_table(rows, LABELS, {}, {}, {})
        publish_escalations(self.out(), shard.shard_id, [r.escalation for r in rows if r.escalation is not None], "r")
        commit_shard(
            self.out(),
            shard,
            parts={"verdicts": encode_table(verdicts, CONFIG.output), "votes": encode_table(votes, CONFIG.output)},
            rows={"verdicts": len(rows), "votes": votes.num_rows},
            format_="parquet",
            facts={},
        )
        return shard

    def row(self, found: Item) -> ItemRow:
        name = name_of(found)
        size = found.objects[0].size_bytes if found.objects else None
        code = found.error or self.errors.get(name)
        if code is not None:
            skipped = code is ErrorCode.NOT_MEDIA
            judged = None if skipped else judgement(Verdict.REVIEW, f"error:{code}", None)
            status = Status.SKIPPED if skipped else Status.ERROR
            return ItemRow(
                item=found, status=status, kind=Kind.UNKNOWN, judgement=judged, error_code=code, size_bytes=size
            )
        if name in self.listed:
            match = Escalation(item_id=found.item_id, uri=found.uri, rule="known", list_entry="entry 7", distance=3)
            return ItemRow(
                item=found,
                status=Status.ESCALATED,
                kind=Kind.IMAGE,
                judgement=ESCALATED_JUDGEMENT,
                size_bytes=size,
                escalation=match,
            )
        score = sum((found.objects[0].etag or "").encode()) % 100 / 100
        scores: F32 = np.array([[score]], np.float32)
        return ItemRow(
            item=found,
            status=Status.OK,
            kind=Kind.IMAGE,
            judgement=judgement(Verdict.PASS, "default", score),
            votes=ItemVotes(labels=LABELS, frames=(0,), times_s=(None,), scores=scores),
            frames_total=1,
            size_bytes=size,
            content_hash=self.hashes.get(name),
        )

    def target(self) -> Target:
        return Target(
            out=self.out(),
            config=CONFIG,
            checks=("red",),
            votes_schema=votes_schema(LABELS, {}, {}, {}),
            metadata={"run_id": "r"},
            policy=self.policy,
        )

    def enter(self, copies: Sequence[Shard]) -> None:
        out = self.out()
        at = self.started + timedelta(days=self.nights)
        facts = FinishedNight(out=out, format="parquet", provenance=self.facts, judged_at=at)
        shards = itertools.chain(planned(out), copies)
        rows = itertools.chain(marked_rows(open_log(self.ledger), read_marks(out), at), judged_rows(shards, facts))
        append(self.ledger, f"{self.nights:04d}", rows)

    def current(self) -> dict[str, dict[str, object]]:
        """File name -> its newest row in the ledger."""
        log = open_log(self.ledger)
        tables = [t for f in log.newest_first for t in store.read_file(log.ledger, f, store.LEDGER_SCHEMA.names)]
        if not tables:
            return {}
        table = store.newest(pa.concat_tables([t.cast(store.LEDGER_SCHEMA) for t in tables]))
        return {str(row["uri"]).rsplit("/", 1)[-1]: row for row in table.to_pylist()}


@dataclass(frozen=True, slots=True)
class Counts:
    counts: Mapping[str, int]
    judged: list[str]
    rows: list[dict[str, object]]

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)

    @property
    def names(self) -> list[str]:
        return sorted(str(row["uri"]).rsplit("/", 1)[-1] for row in self.rows)


def judgement(verdict: Verdict, reason: str, score: float | None) -> Judgement:
    return Judgement(verdict=verdict, reason=reason, check=None, score=score, confidence=None, scores={"red": score})


def name_of(found: Item) -> str:
    return found.uri.rsplit("/", 1)[-1]


def planned(out: str) -> Iterator[Shard]:
    return decode_shards(storage.read_bytes(plan_uri(out)))


def rows_of(out: str, table: str = "verdicts") -> Iterator[list[dict[str, object]]]:
    for shard in sorted(committed_ids(out)):
        data = storage.read_bytes(f"{out}/{table}/part-{shard}.parquet")
        yield decode_table(data, "parquet").to_pylist()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(f"memory://ledger-{tmp_path.name}-{next(numbers)}")


def test_the_first_night_judges_all_and_the_second_nothing(world: World) -> None:
    items = listed("a", "b", "c", "d")
    first, second = world.night(items), world.night(items)
    assert first.names == ["a", "b", "c", "d"]
    assert (first["looked_at"], first["new"], first["unchanged"]) == (4, 4, 0)
    assert second.rows == []
    assert (second["looked_at"], second["new"], second["unchanged"]) == (4, 0, 4)


def test_new_changed_and_gone_are_told_apart(world: World) -> None:
    world.night(listed("a", "b", "c"))
    night = world.night([item("a"), item("b", "v2"), item("d")])
    assert night.names == ["b", "d"]
    assert {n: night[n] for n in ("new", "changed", "unchanged", "deleted")} == {
        "new": 1,
        "changed": 1,
        "unchanged": 1,
        "deleted": 1,
    }
    assert world.current()["c"]["deleted_at"] is not None
    assert world.current()["a"]["deleted_at"] is None


@pytest.mark.parametrize(
    "other",
    [
        replace(item("a"), objects=(replace(item("a").objects[0], size_bytes=11),)),
        item("a", "v2"),
        item("a", etag=None, size=10, last_modified="tomorrow"),
    ],
)
def test_another_size_etag_or_time_is_a_change(world: World, other: Item) -> None:
    world.night(listed("a"))
    assert world.night([other])["changed"] == 1


def test_an_unknown_version_counts_as_unchanged_and_is_counted(world: World) -> None:
    unknown = replace(item("a"), objects=(MediaObject(uri="s3://b/in/a", name="a"),))
    world.night([unknown])
    night = world.night([unknown])
    assert (night["unchanged"], night["unversioned"]) == (1, 1)


def test_columns_of_a_manifest_tell_versions(world: World) -> None:
    bare = MediaObject(uri="s3://b/in/a", name="a")
    before, after = (replace(item("a", etag=v), objects=(bare,), attributes={"etag": v}) for v in ("1", "2"))
    world.night([before])
    assert world.night([before])["unchanged"] == 1
    assert world.night([after])["changed"] == 1


def test_an_album_changes_with_its_members(world: World) -> None:
    def album(*etags: str) -> Item:
        pictures = tuple(
            MediaObject(uri=f"s3://b/in/{n}", name=str(n), etag=e, size_bytes=1) for n, e in enumerate(etags)
        )
        return Item(item_id="album", uri="s3://b/in/0", objects=pictures, kind=Kind.ALBUM)

    world.night([album("1", "2")])
    assert world.night([album("1", "2")])["unchanged"] == 1
    assert world.night([album("1", "3")])["changed"] == 1
    assert world.night([album("1", "3", "4")])["changed"] == 1


def test_a_deleted_object_is_marked_once_and_comes_back_unjudged(world: World) -> None:
    world.night(listed("a", "b"))
    assert world.night(listed("a"))["deleted"] == 1
    assert world.night(listed("a"))["deleted"] == 0
    night = world.night(listed("a", "b"))
    assert (night["returned"], night.rows) == (1, [])
    assert world.current()["b"]["deleted_at"] is None
    assert world.night(listed("a", "b"))["returned"] == 0


def test_a_deleted_object_that_comes_back_changed_is_judged(world: World) -> None:
    world.night(listed("a", "b"))
    world.night(listed("a"))
    night = world.night([item("a"), item("b", "v2")])
    assert (night["changed"], night.names) == (1, ["b"])
    assert world.current()["b"]["deleted_at"] is None


def test_a_listing_that_breaks_marks_nothing(world: World) -> None:
    world.night(listed("a", "b"))

    def broken() -> Iterator[Item]:
        yield item("a")
        raise storage.StorageError("the store went away")

    world.nights += 1
    log = open_log(world.ledger)
    found = difference(broken(), load_index(log, FACTS), log, FACTS, Choice(), Spool(world.out()))
    with pytest.raises(storage.StorageError):
        list(found)
    assert read_listing(world.out()) is None
    assert world.current()["b"]["deleted_at"] is None


def test_only_the_source_that_listed_an_object_can_miss_it(world: World) -> None:
    world.night(listed("a", "b"))
    world.facts = replace(FACTS, source="s3://b/other")
    assert world.night(listed("c"))["deleted"] == 0
    world.facts = FACTS
    assert world.night(listed("a"))["deleted"] == 1


def test_keep_missing_marks_nothing(world: World) -> None:
    world.night(listed("a", "b"))
    assert world.night(listed("c"), Choice(keep_missing=True))["deleted"] == 0


def test_a_missed_night_is_caught_up(world: World) -> None:
    world.night(listed("a"))
    world.night(listed("a", "b"), enter=False)  # it died before the ledger knew
    assert world.night(listed("a", "b", "c")).names == ["b", "c"]


@pytest.mark.parametrize("code", [ErrorCode.FETCH_FAILED, ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN])
def test_what_could_not_be_read_is_tried_again(world: World, code: ErrorCode) -> None:
    world.errors = {"a": code}
    world.night(listed("a", "b"))
    world.errors = {}
    night = world.night(listed("a", "b"))
    assert (night["retried"], night.names) == (1, ["a"])
    assert world.night(listed("a", "b"))["retried"] == 0


@pytest.mark.parametrize("code", [ErrorCode.CORRUPT, ErrorCode.NOT_MEDIA, ErrorCode.DECODER_CRASHED])
def test_what_is_wrong_with_the_object_itself_is_not_tried_again(world: World, code: ErrorCode) -> None:
    world.errors = {"a": code}
    world.night(listed("a"))
    assert world.night(listed("a"))["unchanged"] == 1


def test_an_error_of_the_listing_is_a_row_once(world: World) -> None:
    wrong = replace(item("a"), objects=(), error=ErrorCode.FORBIDDEN, error_detail="line 7")
    assert world.night([wrong])["new"] == 1
    assert world.night([replace(wrong, error_detail="line 8")])["unchanged"] == 1
    assert world.night([item("a")])["changed"] == 1


def test_rows_of_another_stack_are_counted_or_judged_again(world: World) -> None:
    world.night(listed("a", "b"))
    world.facts = replace(FACTS, stack_fingerprint="stack-2")
    night = world.night(listed("a", "b", "c"))
    assert (night["older"], night["unchanged"], night.names) == (2, 2, ["c"])
    again = world.night(listed("a", "b", "c"), Choice(rejudge_older=True))
    assert (again["rejudged"], again["older"], again.names) == (2, 0, ["a", "b"])
    assert world.night(listed("a", "b", "c"))["older"] == 0


# The same content under two names.


def test_a_copy_takes_over_the_verdict_and_the_votes_of_an_earlier_night(world: World) -> None:
    world.night([item("a.png", f"{MD5}1"), item("b.png", f"{MD5}2")])
    night = world.night([item("a.png", f"{MD5}1"), item("b.png", f"{MD5}2"), item("c.png", f"{MD5}1", caption="hi")])
    assert (night["new"], night["same_content"], night.judged) == (1, 1, [])
    (row,) = night.rows
    origin = world.current()["a.png"]
    assert row["reason"] == f"same_content:{origin['item_id']}"
    assert (row["verdict"], row["uri"], row["etag"]) == ("pass", "s3://b/in/c.png", f"{MD5}1")
    assert row["item_id"] == item("c.png").item_id
    assert dict(row["attributes"]) == {"caption": "hi"}  # type: ignore[call-overload]  # a list of pairs
    (votes,) = rows_of(world.out(), "votes")
    (before, _), *_ = rows_of(world.out(1), "votes")
    assert votes == [{**before, "item_id": row["item_id"]}]
    assert world.night([item("a.png", f"{MD5}1"), item("c.png", f"{MD5}1")])["unchanged"] == 2


def test_copies_within_one_night_are_judged_once_and_counted_in_receipts(world: World) -> None:
    night = world.night([item(f"{n}.png", f"{MD5}{n % 2}") for n in range(7)])
    assert (night["new"], night["same_content"], len(night.judged)) == (7, 5, 2)
    assert len(night.rows) == 7
    receipts = list(read_receipts(world.out(), committed_ids(world.out())))
    assert sum(r.rows_in for r in receipts) == 7
    assert sum(r.counts.get("verdict:pass", 0) for r in receipts) == 5
    by_name = {str(r["uri"]).rsplit("/", 1)[-1]: r for r in night.rows}
    assert by_name["4.png"]["reason"] == f"same_content:{by_name['0.png']['item_id']}"
    assert by_name["5.png"]["score"] == by_name["1.png"]["score"] != by_name["0.png"]["score"]


def test_a_renamed_object_is_not_judged_again(world: World) -> None:
    world.night([item("a.png", f"{MD5}1")])
    night = world.night([item("b.png", f"{MD5}1")])
    assert (night["deleted"], night["same_content"], night.judged) == (1, 1, [])


@pytest.mark.parametrize("etag", [f"{MD5}1-2", "10-1700000000", f"{MD5}G"])
def test_an_etag_that_is_no_md5_says_nothing_of_the_content(world: World, etag: str) -> None:
    assert world.night([item("a", etag), item("b", etag)])["same_content"] == 0


def test_an_equal_md5_with_another_size_is_another_content(world: World) -> None:
    assert world.night([item("a", f"{MD5}1", 10), item("b", f"{MD5}1", 11)])["same_content"] == 0


def test_judge_copies_judges_each_name(world: World) -> None:
    items = [item("a", f"{MD5}1"), item("b", f"{MD5}1")]
    assert world.night(items, Choice(judge_copies=True)).judged == ["a", "b"]


def test_a_name_that_says_another_type_is_judged_by_itself(world: World) -> None:
    world.errors = {"a.txt": ErrorCode.NOT_MEDIA, "a.jpg": ErrorCode.UNSUPPORTED_TYPE}
    assert world.night([item("a.txt", f"{MD5}1"), item("a.jpg", f"{MD5}1")]).judged == ["a.txt", "a.jpg"]


def escalations_of(out: str) -> dict[str, dict[str, object]]:
    """File name -> what a night reports of it."""
    tables = [read_escalations(out, name) for name in list_escalations(out)]
    return {str(row["uri"]).rsplit("/", 1)[-1]: row for table in tables for row in table.to_pylist()}


def test_another_name_of_an_escalated_item_is_reported_too(world: World) -> None:
    world.listed = frozenset({"a"})
    items = [item(name, f"{MD5}1") for name in "abc"]
    night = world.night([*items, item("d")])
    assert night.judged == ["a", "d"]
    rows = [row for row in night.rows if row["uri"] != items[0].uri and row["etag"] == f"{MD5}1"]
    assert [(r["status"], r["reason"], r["verdict"]) for r in rows] == [("escalated", "escalated:illegal", "block")] * 2
    reported = escalations_of(world.out())
    assert {name: row["item_id"] for name, row in reported.items()} == {name_of(i): i.item_id for i in items}
    assert reported["c"]["etag"] == f"{MD5}1" and reported["c"]["found_at"] is not None
    assert {name: reported["c"][name] for name in ("rule", "list_entry", "distance", "run_id")} == {
        "rule": "known", "list_entry": "entry 7", "distance": 3, "run_id": "r",
    }  # fmt: skip
    receipts = read_receipts(world.out(), committed_ids(world.out()))
    assert sorted(r.counts["escalated"] for r in receipts if "escalated" in r.counts) == [2]  # of the copies' shard


@pytest.mark.parametrize("damage", [b"no table", None])
def test_a_copy_whose_escalation_cannot_be_read_is_an_error_and_judged_the_next_night(
    world: World, damage: bytes | None
) -> None:
    world.listed = frozenset({"a", "b"})
    items = [item("a", f"{MD5}1"), item("b", f"{MD5}1")]
    world.night(items, enter=False)
    out, listing = world.out(), read_listing(world.out())
    judged = {shard.shard_id for shard in planned(out)}
    storage.delete_tree(f"{out}/escalations")
    if damage is not None:
        storage.publish(escalations_part_uri(out, escalations_part(*judged)), damage)
    assert listing is not None
    (copies,) = write_copies(world.target(), listing, planned(out), judged)
    world.enter([copies])
    data = storage.read_bytes(f"{out}/verdicts/part-{copies.shard_id}.parquet")
    (row,) = decode_table(data, "parquet").to_pylist()
    assert (row["status"], row["verdict"], row["error_code"]) == ("error", "review", "fetch_failed")
    assert world.night(items).judged == ["b"]
    assert list(escalations_of(world.out())) == ["b"]


def test_an_error_is_not_taken_over_from_an_earlier_night(world: World) -> None:
    world.errors = {"a": ErrorCode.CORRUPT}
    world.night([item("a", f"{MD5}1")])
    assert world.night([item("a", f"{MD5}1"), item("b", f"{MD5}1")]).judged == ["b"]


def test_a_verdict_of_another_policy_is_not_taken_over(world: World) -> None:
    world.night([item("a", f"{MD5}1")])
    world.facts = replace(FACTS, policy_hash="policy-2")
    assert world.night([item("a", f"{MD5}1"), item("b", f"{MD5}1")]).judged == ["b"]


def test_a_copy_whose_origin_was_deleted_from_storage_is_judged(world: World) -> None:
    world.night([item("a", f"{MD5}1")])
    storage.delete_tree(world.out(1))
    night = world.night([item("a", f"{MD5}1"), item("b", f"{MD5}1"), item("c", f"{MD5}1")])
    assert night.judged == ["b"]
    assert night.names == ["b", "c"]


def test_a_copy_of_an_origin_whose_table_was_changed_is_an_error_and_judged_the_next_night(world: World) -> None:
    world.night([item("a", f"{MD5}1")])
    (part,) = storage.list_objects(storage.join(world.out(1), "votes"))
    storage.publish(part.uri, storage.read_bytes(part.uri) + b" ")
    items = [item("a", f"{MD5}1"), item("b", f"{MD5}1")]
    night = world.night(items)
    assert [(r["status"], r["verdict"], r["error_code"]) for r in night.rows] == [("error", "review", "fetch_failed")]
    assert world.night(items).judged == ["b"]


def test_a_manifest_hash_counts_only_if_the_origin_measured_it(world: World) -> None:
    world.hashes = {"a": "a" * 64, "b": "b" * 64}
    told = {"content_hash": "a" * 64}
    night = world.night([item("a", None, **told), item("b", None, **told)])
    assert night.judged == ["a"]
    assert {str(r["uri"])[-1]: r["status"] for r in night.rows} == {"a": "ok", "b": "ok"}
    # The claim is compared with what was measured of the origin.
    liar = {"content_hash": "c" * 64}
    known = [item("a", None, **told), item("b", None, **told)]
    lies = [item("d", None, **liar), item("e", None, **liar)]
    night = world.night([*known, *lies])
    assert night.judged == ["d"]
    by_name = {str(r["uri"])[-1]: r for r in night.rows}
    assert (by_name["e"]["status"], by_name["e"]["verdict"], by_name["e"]["error_code"]) == (
        "error",
        "review",
        "fetch_failed",
    )
    assert world.night([*known, *lies]).judged == ["e"]


# Crashes.


def test_a_night_that_died_while_listing_goes_on_to_one_row_a_name(world: World) -> None:
    items = [item(f"{n}.png", f"{MD5}{n % 3}") for n in range(9)] + listed("x", "y", "z")
    world.nights += 1
    shards = plan_shards("", world.out(), CONFIG, open_items=lambda: world.listing(items, Choice()))
    world.judge(next(shards))  # the first chunk of the plan is published
    shards.close()  # type: ignore[attr-defined]  # a generator
    # Meanwhile a name was added that sorts before all others, with the content of a planned item.
    night = world.go_on([item("!.png", f"{MD5}0"), *items])
    assert night.names == sorted(["!.png", *(name_of(i) for i in items)])
    assert world.night([item("!.png", f"{MD5}0"), *items]).rows == []


def test_entering_a_night_twice_changes_nothing(world: World) -> None:
    world.night(listed("a", "b"))
    before = world.current()
    world.go_on(listed("a", "b"))
    assert world.current() == before


def test_a_batch_counts_only_when_it_is_whole(world: World) -> None:
    world.night(listed("a"))
    storage.delete_tree(f"{world.ledger}/entries/0001.json")
    assert not is_entered(world.ledger, "0001")
    assert world.night(listed("a"))["new"] == 1


def test_a_broken_head_is_a_clear_error(world: World) -> None:
    storage.publish(f"{world.ledger}/head.json", b"{")
    with pytest.raises(FatalError, match=r"the ledger's head.json is not readable"):
        open_log(world.ledger)


def test_a_part_that_is_not_its_shard_is_not_entered(world: World) -> None:
    world.night(listed("a"), enter=False)
    (shard,) = planned(world.out())
    wrong = replace(shard, items=(item("b"),))
    facts = FinishedNight(out=world.out(), format="parquet", provenance=FACTS, judged_at=world.started)
    with pytest.raises(FatalError, match="does not hold the shard's items"):
        list(judged_rows([wrong], facts))


# The log.


def test_compaction_keeps_the_newest_row_of_each_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FILE_ROWS", 4)
    world.night(listed("a", "b", "c", "d", "e", "f"))
    world.night([item("a", "v2"), *listed("b", "c", "d", "e", "f", "g")])
    world.night([item("a", "v2"), *listed("c", "d", "e", "f", "g")])
    before = world.current()
    merged = compact(open_log(world.ledger))
    assert merged.rows == len(before) == 7
    assert len(merged.snapshot) > 1
    assert open_log(world.ledger) == merged
    assert world.current() == before
    night = world.night([item("a", "v2"), *listed("c", "d", "e", "f", "g", "h")])
    assert (night["unchanged"], night["new"], night["deleted"]) == (6, 1, 0)


def test_compactions_in_a_row_leave_only_what_is_needed(world: World) -> None:
    for number in range(5):
        world.night(listed(*(f"f{n}" for n in range(number + 1))))
        compact(open_log(world.ledger))
    assert set(world.current()) == {f"f{n}" for n in range(5)}
    kept = {info.uri.split("/ledger/")[1] for info in storage.list_objects(world.ledger)}
    assert {k for k in kept if k.startswith("snapshots/")} == {
        "snapshots/000004/00000.parquet",
        "snapshots/000005/00000.parquet",
    }
    assert {k for k in kept if k.endswith(".json")} == {"head.json", "entries/0005.json"}


def test_a_batch_that_compaction_had_no_time_to_delete_does_not_come_back(world: World) -> None:
    world.night(listed("a"))
    stale = storage.read_bytes(f"{world.ledger}/entries/0001.json")
    rows = storage.read_bytes(f"{world.ledger}/entries/0001/00000.parquet")
    compact(open_log(world.ledger))
    world.night([item("a", "v2")])
    compact(open_log(world.ledger))
    assert not storage.read_optional(f"{world.ledger}/entries/0001.json")
    # It died before the deletion: the files exist, and the head of that compaction names them.
    head = storage.read_bytes(f"{world.ledger}/head.json")
    assert b'"0001"' in head
    storage.publish(f"{world.ledger}/entries/0001.json", stale)
    storage.publish(f"{world.ledger}/entries/0001/00000.parquet", rows)
    world.night([item("a", "v2"), item("b")])
    compact(open_log(world.ledger))
    assert world.current()["a"]["etag"] == "v2"
    assert world.night([item("a", "v2"), item("b")])["unchanged"] == 2


def test_many_or_large_batches_are_merged() -> None:
    def log(batches: int, rows: int, snapshot: int) -> Log:
        files = {str(n): (LogFile(name=str(n), rows=rows),) for n in range(batches)}
        return Log(ledger="x", snapshot=(LogFile(name="s", rows=snapshot),), batches=files)

    assert not should_compact(log(store.MAX_BATCHES, 10, 10))
    assert should_compact(log(store.MAX_BATCHES + 1, 10, 10))
    assert should_compact(log(1, store.SMALL_ROWS + 1, 0))
    assert not should_compact(log(1, store.SMALL_ROWS + 1, 10 * store.SMALL_ROWS))


# Properties.

NAMES = st.sampled_from([f"{n}.png" for n in range(8)])
LISTINGS = st.lists(st.dictionaries(NAMES, st.integers(0, 3), max_size=8), min_size=1, max_size=5)


@settings(max_examples=20, deadline=None)
@given(LISTINGS, st.booleans(), st.data())
def test_after_any_nights_the_ledger_is_the_last_listing(
    listings: list[dict[str, int]], copies: bool, data: st.DataObject
) -> None:
    world = World(f"memory://ledger-property-{next(numbers)}")
    for listing in listings:
        items = [item(name, f"{MD5}{v}" if copies else f"v{v}") for name, v in sorted(listing.items())]
        before = world.current()
        night = world.night(items)
        wanted = {
            name: f"{MD5}{v}" if copies else f"v{v}"
            for name, v in listing.items()
            if name not in before or before[name]["etag"] != (f"{MD5}{v}" if copies else f"v{v}")
        }
        # Rows out = new or changed items, each judged once or taken over.
        assert {str(r["uri"]).rsplit("/", 1)[-1]: r["etag"] for r in night.rows} == wanted
        assert len(night.rows) == len(night.names) == len(wanted)
        assert night["new"] + night["changed"] == len(wanted)
        assert len(night.judged) + night["same_content"] == len(wanted)
        assert night["looked_at"] == len(items)
        alive = {name: row["etag"] for name, row in world.current().items() if row["deleted_at"] is None}
        assert alive == {name: f"{MD5}{v}" if copies else f"v{v}" for name, v in listing.items()}
        if data.draw(st.booleans()):
            compact(open_log(world.ledger))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1),
)
def test_keys_are_found_also_where_their_first_halves_are_equal(
    have: list[tuple[int, int]], want: list[tuple[int, int]]
) -> None:
    have.sort()
    high, low = (np.array([pair[n] for pair in have], np.uint64) for n in (0, 1))
    wanted = [np.array([pair[n] for pair in want], np.uint64) for n in (0, 1)]
    where, found = locate(high, low, wanted[0], wanted[1])
    for pair, at, there in zip(want, where.tolist(), found.tolist(), strict=True):
        assert there == (pair in have)
        assert at == sum(other < pair for other in have)


@given(st.lists(st.lists(st.integers(1, 50), max_size=10)))
def test_a_content_set_holds_what_was_added(added: list[list[int]]) -> None:
    known = ContentSet()
    for keys in added:
        known.add(np.array(keys, np.uint64))
    expected = {key for keys in added for key in keys}
    asked = np.arange(60, dtype=np.uint64)
    assert known.contains(asked).tolist() == [n in expected for n in range(60)]


def test_keys_sort_as_their_bytes_do() -> None:
    keys = sorted(item_key(item(str(n))) for n in range(100))
    high, low = split_keys(keys)
    assert np.lexsort((low, high)).tolist() == list(range(100))


def test_two_items_of_one_uri_are_two_in_the_ledger() -> None:
    one, other = item("a"), replace(item("a"), item_id="another")
    assert item_key(one) != item_key(other)
    assert item_version(one) == item_version(other)


def test_content_is_known_only_of_whole_single_objects() -> None:
    whole = item("a", f"{MD5}1")
    member = replace(whole, objects=(replace(whole.objects[0], offset=512),))
    assert content_id(whole) == f"md5:{MD5}1|10"
    assert content_id(member) is None
    assert content_id(replace(whole, kind=Kind.ALBUM)) is None
    assert content_id(replace(whole, objects=whole.objects * 2)) is None


def by_region(world: World) -> None:
    """A policy that reviews at 0.5, in one region at 0.1; the ledger notes `region`."""
    check = {"side": "negative", "votes": ["tiny.red"], "review": 0.5, "by": {"region": {"strict": {"review": 0.1}}}}
    policy = Policy.model_validate({"default": "pass", "checks": {"red": check}})
    assert policy.attributes_read == ("region",)
    world.policy = bind(policy, LABELS)
    world.facts = replace(FACTS, attributes=policy.attributes_read)


def test_other_attributes_are_judged_again_from_stored_votes(world: World) -> None:
    by_region(world)
    # Scores are functions of the etag: "2" is 0.5, "x" 0.2.
    world.night([item("a", "x", region="mild"), item("b", "x", region="mild"), item("c", "x", region="mild")])
    second = world.night([item("a", "x", region="strict"), item("b", "x", region="mild"), item("c", "x", views="9")])
    assert second.judged == []  # no picture is read
    assert (second["reattributed"], second["unchanged"], second["looked_at"]) == (2, 1, 3)
    rows = {str(row["uri"]).rsplit("/", 1)[-1]: row for row in second.rows}
    assert {name: (row["verdict"], row["reason"]) for name, row in rows.items()} == {
        "a": ("review", "negative:red:review"),
        "c": ("pass", "default:pass"),
    }
    assert rows["a"]["attributes"] == [("region", "strict")]
    assert world.current()["a"]["verdict"] == "review"
    third = world.night([item("a", "x", region="strict"), item("b", "x", region="mild"), item("c", "x")])
    assert (third["unchanged"], third.rows) == (3, [])  # `views` is nothing that the policy reads


def test_other_attributes_of_an_item_whose_votes_are_gone_are_judged_anew(world: World) -> None:
    by_region(world)
    world.night([item("a", "x", region="mild")])
    storage.delete_tree(f"{world.out()}/receipts")
    second = world.night([item("a", "x", region="strict")])
    assert (second["reattributed"], second["changed"], second.judged) == (0, 1, ["a"])


def test_other_attributes_of_an_item_of_another_stack_are_judged_anew(world: World) -> None:
    by_region(world)
    world.night([item("a", "x", region="mild"), item("b", "x", region="mild")])
    world.facts = replace(world.facts, stack_fingerprint="stack-2")
    second = world.night([item("a", "x", region="strict"), item("b", "x", region="mild")])
    assert (second["rejudged"], second["older"], second.judged) == (1, 1, ["a"])


def test_of_another_policy_older_items_are_not_judged_for_their_attributes(world: World) -> None:
    by_region(world)
    world.night([item("a", "x", region="mild")])
    world.facts = replace(world.facts, policy_hash="policy-2", attributes=("region", "views"))
    second = world.night([item("a", "x", region="mild")])
    assert (second["rejudged"], second["older"], second.judged) == (0, 1, [])


def test_a_ledger_of_before_says_nothing_of_attributes(world: World) -> None:
    by_region(world)
    facts = world.facts
    world.facts = FACTS
    world.night([item("a", "x", region="mild")])
    world.facts = facts
    second = world.night([item("a", "x", region="strict")])
    assert (second["unchanged"], second["reattributed"]) == (1, 0)


def test_files_of_the_first_version_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = pa.schema([f for f in store.LEDGER_SCHEMA if f.name != "attributes_key"])
    encode = store.encode
    with monkeypatch.context() as patch:
        patch.setattr(store, "encode", lambda table: encode(table.select(old.names)))
        world.night(listed("a", "b"))
    by_region(world)
    second = world.night([*listed("a", "b"), item("c", region="mild")])
    assert (second["unchanged"], second["new"]) == (2, 1)
    store.compact(open_log(world.ledger))
    assert world.current()["a"]["attributes_key"] == 0
    assert world.current()["c"]["attributes_key"] != 0
    assert world.night([*listed("a", "b"), item("c", region="strict")])["reattributed"] == 1
