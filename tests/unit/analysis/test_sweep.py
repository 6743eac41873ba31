"""A policy, a list or a decision over everything that was ever judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from moderation.analysis.rejudge import rejudge
from moderation.analysis.sweep import SweepChange, Swept, sweep
from moderation.analysis.sweep_by_decision import CopyLimits
from moderation.analysis.sweep_changes import CHANGES_SCHEMA, read_changes
from moderation.analysis.sweep_lists import ListWords, read_swept_lists
from moderation.analysis.sweep_sources import find_sources
from moderation.analysis.sweep_targets import find_targets
from moderation.errors import UsageError
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource
from moderation.ledger.rows import LEDGER_SCHEMA
from moderation.ledger.store import append
from moderation.lists.policy_file import load_whole_policy
from moderation.types import Kind
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "a.gore", "pdq.quality")
POLICY = """
default: pass
severities: [low, critical]
checks:
  mask: {side: negative, votes: [a.mask], review: 0.5, block: 0.9}
  gore: {side: negative, votes: [a.gore], review: 0.5, block: 0.9, severity: critical}
"""
CHANCE = np.random.default_rng(5)
HASH = CHANCE.integers(0, 256, (40, 32), dtype=np.uint8)
DAY = date(2026, 11, 26)


def turned(row: int, bits: int) -> str:
    """A hash that differs in so many bits, in hexadecimal."""
    unpacked = np.unpackbits(HASH[row])
    unpacked[:bits] ^= 1
    return np.packbits(unpacked).tobytes().hex()


def picture(name: str, row: int, *, bits: int = 0, content: int | None = None, **scores: float) -> Made:
    votes = [(scores.get("mask", 0.1), scores.get("gore", 0.1), scores.get("quality", 1.0))]
    sha256 = f"{abs(hash(name)) if content is None else content:064x}"
    return Made(name=name, votes=votes, hashes=[turned(row, bits)], content_hash=sha256)


def film(name: str, rows: Sequence[int]) -> Made:
    votes = [(0.1, 0.1, 1.0)] * len(rows)
    times = [float(n) for n in range(len(rows))]
    return Made(name=name, votes=votes, hashes=[turned(r, 0) for r in rows], kind=Kind.VIDEO, times_s=times)


OLD = [
    picture("bad.jpg", 0, content=1),
    picture("same.jpg", 0, content=1),
    picture("near.jpg", 0, bits=10),
    picture("far.jpg", 0, bits=25),
    picture("vague.jpg", 0, bits=2, quality=0.2),
    picture("other.jpg", 1),
    picture("masked.jpg", 2, mask=0.6),
    picture("gory.jpg", 3, content=3, gore=0.7),
    Made(name="broken.jpg", votes=None, content_hash=f"{1:064x}"),
]
NEW = [replace(made, name=f"new-{made.name}") for made in OLD]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [write_run(tmp_path / name, LABELS, made, POLICY) for name, made in (("old", OLD), ("new", NEW))]


def changed(to: str | Path) -> dict[str, dict[str, Any]]:
    table = pa.concat_tables(read_changes(str(to)))
    assert table.schema.equals(CHANGES_SCHEMA)
    return {row["item_id"]: row for row in table.to_pylist()}


def decide(
    runs: Sequence[str], item: str, said: str | None, to: Path | None, earlier: Sequence[Path] = (), **limits: Any
) -> Swept:
    sources = find_sources(runs)
    targets = find_targets(sources, [item], said, embedding="auto")
    change = SweepChange(name=item, targets=tuple(targets), limits=CopyLimits(**limits))
    where = None if to is None else str(to)
    return sweep(sources, change, where, as_of=DAY, earlier=[str(e) for e in earlier], workers=1)


def test_a_policy_changes_what_a_rejudge_would_change(runs: list[str], tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("review: 0.5", "review: 0.05"))
    change = SweepChange(name="strict", policy=load_whole_policy(strict))
    swept = sweep(find_sources(runs), change, str(tmp_path / "swept"), as_of=DAY)
    again = [rejudge(out, str(strict), str(tmp_path / f"again{n}")) for n, out in enumerate(runs)]
    assert swept.moved == {("pass", "review"): sum(r.moved["pass", "review"] for r in again)}
    rows = changed(tmp_path / "swept")
    assert len(rows) == swept.changed
    row = rows["new-other.jpg"]
    assert (row["run"], row["cause"], row["cause_entry"]) == (runs[1], "policy", "negative:gore:review")
    assert row["old_verdict"] == "pass" and row["new_verdict"] == "review" and row["distance"] is None


def test_a_policy_that_a_run_cannot_be_judged_by_is_refused_before_any_work(runs: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("[a.mask]", "[a.maks]"))
    change = SweepChange(name="other", policy=load_whole_policy(other))
    with pytest.raises(UsageError, match=r"a\.mask"):
        sweep(find_sources(runs), change, str(tmp_path / "swept"), as_of=DAY)
    assert not (tmp_path / "swept").exists()


def test_a_list_blocks_in_every_run_what_it_names_also_what_could_not_be_decoded(
    runs: list[str], tmp_path: Path
) -> None:
    (tmp_path / "spam.csv").write_text(f"value,reason\n{1:064x},sells pills\n")
    lists = read_swept_lists(str(tmp_path / "spam.csv"), ListWords())
    sweep(find_sources(runs), SweepChange(name="spam", lists=lists), str(tmp_path / "swept"), as_of=DAY)
    rows = changed(tmp_path / "swept")
    assert set(rows) == {f"{new}{name}.jpg" for new in ("", "new-") for name in ("bad", "same", "broken")}
    assert {row["new_reason"] for row in rows.values()} == {"list:spam:block"}
    assert "sells pills" in rows["bad.jpg"]["cause_entry"]


def test_a_list_that_has_ended_changes_nothing(runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "spam.csv").write_text(f"value,until\n{1:064x},2026-11-25\n")
    lists = read_swept_lists(str(tmp_path / "spam.csv"), ListWords())
    assert sweep(find_sources(runs), SweepChange(name="spam", lists=lists), None, as_of=DAY).changed == 0


def test_a_list_by_hash_takes_near_pictures_and_says_how_near(runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text(turned(0, 0) + "\n")
    lists = read_swept_lists(str(tmp_path / "known.txt"), ListWords(by="pdq", verdict="review"))
    sweep(find_sources(runs[:1]), SweepChange(name="known", lists=lists), str(tmp_path / "swept"), as_of=DAY)
    distances = {name: row["distance"] for name, row in changed(tmp_path / "swept").items()}
    assert distances == {"bad.jpg": 0, "same.jpg": 0, "near.jpg": 10, "far.jpg": 25}


def test_an_allow_list_passes_nothing_that_a_severe_check_objects_to(runs: list[str], tmp_path: Path) -> None:
    masked = next(made for made in OLD if made.name == "masked.jpg")
    (tmp_path / "fine.csv").write_text(f"value\n{3:064x}\n{masked.content_hash}\n{1:064x}\n")
    lists = read_swept_lists(str(tmp_path / "fine.csv"), ListWords(action="allow"))
    sweep(find_sources(runs[:1]), SweepChange(name="fine", lists=lists), str(tmp_path / "swept"), as_of=DAY)
    rows = changed(tmp_path / "swept")
    assert set(rows) == {"masked.jpg"}  # neither the gory one, nor the one that could not be decoded
    assert rows["masked.jpg"]["new_verdict"] == "pass"


def test_copies_of_a_blocked_item_are_found_in_every_run(runs: list[str], tmp_path: Path) -> None:
    decide(runs, "bad.jpg", "block", tmp_path / "swept")
    rows = changed(tmp_path / "swept")
    told = {name: (row["relation"], row["new_verdict"], row["distance"]) for name, row in rows.items()}
    assert told == {
        "bad.jpg": ("self", "block", 0),
        "new-bad.jpg": ("exact", "block", 0),
        **{f"{new}same.jpg": ("exact", "block", 0) for new in ("", "new-")},
        **{f"{new}broken.jpg": ("exact", "block", 0) for new in ("", "new-")},
        **{f"{new}near.jpg": ("pdq", "block", 10) for new in ("", "new-")},
        **{f"{new}far.jpg": ("pdq", "review", 25) for new in ("", "new-")},
    }
    assert {row["origin_item_id"] for row in rows.values()} == {"bad.jpg"}


def test_videos_with_the_frames_of_a_blocked_one_are_found(tmp_path: Path) -> None:
    made = [film("bad.mp4", range(10, 20)), film("cut.mp4", range(12, 18)), film("title.mp4", [10, *range(20, 29)])]
    out = write_run(tmp_path / "run", LABELS, [*made, film("other.mp4", range(30, 39))], POLICY)
    decide([out], "bad.mp4", "block", tmp_path / "swept")
    rows = changed(tmp_path / "swept")
    # A trimmed copy has only a part of what was blocked: a person looks.
    assert {name: row["new_verdict"] for name, row in rows.items()} == {"bad.mp4": "block", "cut.mp4": "review"}


def test_embeddings_find_a_crop_that_hashes_miss(tmp_path: Path) -> None:
    near, far = [1.0, 0.1, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]
    made = [
        replace(picture("bad.jpg", 0), embedding=[1.0, 0.0, 0.0, 0.0]),
        replace(picture("crop.jpg", 0, bits=60), embedding=near),
        replace(picture("alike.jpg", 4), embedding=near),  # its hash is that of another picture
        replace(picture("other.jpg", 0, bits=70), embedding=far),
    ]
    out = write_run(tmp_path / "run", LABELS, made, POLICY)
    decide([out], "bad.jpg", "block", tmp_path / "swept")
    rows = changed(tmp_path / "swept")
    assert {name: (row["relation"], row["new_verdict"]) for name, row in rows.items()} == {
        "bad.jpg": ("self", "block"),
        "crop.jpg": ("embedding", "review"),
    }


def decision(id_: str, item: str, said: Answer, **more: Any) -> Decision:
    at = datetime(2026, 11, 26, 12, len(id_), tzinfo=UTC)
    return Decision(
        decision_id=id_, item_id=item, decision=said, reviewer=more.pop("reviewer", "ann"), decided_at=at, **more
    )


def test_an_upheld_appeal_takes_back_what_the_block_had_done(runs: list[str], tmp_path: Path) -> None:
    append_decisions(runs[0], [decision("d1", "bad.jpg", Answer.BLOCK)])
    first = decide(runs, "bad.jpg", None, tmp_path / "blocked")
    assert {row["cause"] for row in changed(tmp_path / "blocked").values()} == {"decision"}
    appeal = decision("d22", "bad.jpg", Answer.PASS, source=DecisionSource.APPEAL, reviewer="bob")
    append_decisions(runs[0], [appeal])
    second = decide(runs, "bad.jpg", None, tmp_path / "passed", [tmp_path / "blocked"])
    before, after = changed(tmp_path / "blocked"), changed(tmp_path / "passed")
    assert set(before) == set(after) and first.changed == second.changed
    for name, row in after.items():
        assert (row["cause"], row["cause_entry"]) == ("appeal", "d22")
        assert row["old_verdict"] == before[name]["new_verdict"]
        assert row["new_verdict"] == ("review" if "broken" in name else "pass")


def test_a_pass_gives_nothing_to_a_near_copy(tmp_path: Path) -> None:
    made = [picture("fine.jpg", 0, mask=0.6), picture("altered.jpg", 0, bits=4, mask=0.6)]
    out = write_run(tmp_path / "run", LABELS, made, POLICY)
    decide([out], "fine.jpg", "pass", tmp_path / "swept")
    assert {name: row["new_verdict"] for name, row in changed(tmp_path / "swept").items()} == {"fine.jpg": "pass"}


def test_a_pass_frees_what_a_list_of_the_run_had_blocked(tmp_path: Path) -> None:
    listed = POLICY + f"lists: {{known: {{action: deny, by: pdq, distance: 15, entries: ['{turned(0, 0)}']}}}}\n"
    out = write_run(tmp_path / "run", LABELS, [picture("fine.jpg", 0), picture("near.jpg", 0, bits=10)], listed)
    decide([out], "fine.jpg", "pass", tmp_path / "swept")
    rows = changed(tmp_path / "swept")
    assert {name: (row["old_reason"], row["new_verdict"]) for name, row in rows.items()} == {
        "fine.jpg": ("list:known:block", "pass"),
        "near.jpg": ("list:known:block", "pass"),
    }


def test_what_a_person_said_of_an_item_holds_against_policies_and_neighbours(runs: list[str], tmp_path: Path) -> None:
    append_decisions(runs[0], [decision("d1", "near.jpg", Answer.PASS)])
    swept = decide(runs[:1], "bad.jpg", "block", tmp_path / "swept")
    assert swept.kept == 1 and "near.jpg" not in changed(tmp_path / "swept")
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("review: 0.5", "review: 0.05"))
    change = SweepChange(name="strict", policy=load_whole_policy(strict))
    assert sweep(find_sources(runs[:1]), change, None, as_of=DAY).kept == 1


@pytest.fixture
def replaced(tmp_path: Path) -> list[str]:
    """Two nights over one bucket: on the second another picture lies at the same place."""
    nights = [picture("x.jpg", 0, content=1), picture("x.jpg", 1, content=2, mask=0.4)]
    return [
        write_run(tmp_path / f"night{n}", LABELS, [made], POLICY, prefix="s3://b/in") for n, made in enumerate(nights)
    ]


def test_a_block_of_what_lay_there_before_blocks_not_what_lies_there_now(replaced: list[str], tmp_path: Path) -> None:
    append_decisions(replaced[0], [decision("d1", "x.jpg", Answer.BLOCK, content_hash=f"{1:064x}")])
    targets = find_targets(find_sources(replaced[:1]), ["x.jpg"], None, embedding=None)
    change = SweepChange(name="x", targets=tuple(targets), limits=CopyLimits())
    swept = sweep(find_sources(replaced), change, str(tmp_path / "swept"), as_of=DAY, workers=1)
    assert swept.changed == 1 and changed(tmp_path / "swept")["x.jpg"]["content_hash"] == f"{1:064x}"


@pytest.mark.parametrize(
    ("seen", "kept"),
    [([1], 1), ([2], 1), ([1, 2], 2), ([None], 2), ([1, None], 1)],
    ids=["old", "new", "both", "unknown", "one named"],
)
def test_a_pass_shields_only_the_content_that_was_seen(
    replaced: list[str], seen: list[int | None], kept: int, tmp_path: Path
) -> None:
    passed = [
        decision(f"d{'1' * n}", "x.jpg", Answer.PASS, content_hash=None if content is None else f"{content:064x}")
        for n, content in enumerate(seen)
    ]
    append_decisions(replaced[0], passed)
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY.replace("review: 0.5", "review: 0.05"))
    change = SweepChange(name="strict", policy=load_whole_policy(strict))
    swept = sweep(find_sources(replaced), change, None, as_of=DAY)
    assert (swept.kept, swept.changed) == (kept, 2 - kept)


def test_a_dry_run_tells_the_same_and_writes_nothing(runs: list[str], tmp_path: Path) -> None:
    dry, wet = decide(runs, "bad.jpg", "block", None), decide(runs, "bad.jpg", "block", tmp_path / "swept")
    assert replace(dry, to=wet.to) == wet
    assert sum(n for moved in dry.by_run.values() for n in moved.values()) == dry.changed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old", "swept"]


def test_a_sweep_that_was_killed_goes_on(runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.analysis.sweep._PORTION_PARTS", 1)
    whole = decide(runs, "bad.jpg", "block", tmp_path / "swept")
    files = {path: path.read_bytes() for path in (tmp_path / "swept").rglob("*.arrow")}
    removed = sorted(files)[1]
    removed.unlink()
    (tmp_path / "swept" / "sweep.json").write_text(json.dumps({"state": "running", "sweep_id": whole.sweep_id}))
    with pytest.raises(UsageError, match="not finished"):
        changed(tmp_path / "swept")
    assert decide(runs, "bad.jpg", "block", tmp_path / "swept") == whole
    assert {path: path.read_bytes() for path in (tmp_path / "swept").rglob("*.arrow")} == files


def test_processes_find_what_one_finds(runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.analysis.sweep._PORTION_PARTS", 2)
    sources = find_sources(runs)
    targets = tuple(find_targets(sources, ["bad.jpg"], "block", embedding="auto"))
    change = SweepChange(name="x", targets=targets, limits=CopyLimits())
    one, two = (sweep(sources, change, str(tmp_path / f"w{n}"), as_of=DAY, workers=n) for n in (1, 2))
    assert replace(one, to=None) == replace(two, to=None)
    assert changed(tmp_path / "w1") == changed(tmp_path / "w2")


def test_a_part_that_is_gone_is_told_and_the_rest_is_swept(runs: list[str], tmp_path: Path) -> None:
    next((Path(runs[0]) / "votes").iterdir()).unlink()
    swept = decide(runs, "new-bad.jpg", "block", tmp_path / "swept")
    assert len(swept.unread) == 1 and "is gone" in swept.unread[0]
    assert "new-same.jpg" in changed(tmp_path / "swept")


WRONG: dict[str, Callable[[list[str], Path], object]] = {
    r"no item 'bda\.jpg'": lambda runs, to: decide(runs, "bda.jpg", "block", to),
    "nobody has decided": lambda runs, to: decide(runs, "bad.jpg", None, to),
    "lies in": lambda runs, to: decide(runs, "bad.jpg", "block", Path(runs[0]) / "x"),
    "is not empty": lambda runs, to: decide(runs, "bad.jpg", "block", Path(runs[0]).parent),
    "neither the output of a run": lambda runs, to: decide([*runs, str(to)], "bad.jpg", "block", to),
    "must be 0 to 47": lambda runs, to: decide(runs, "bad.jpg", "block", to, distance=48),
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_call_is_refused_in_a_sentence(runs: list[str], tmp_path: Path, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        WRONG[said](runs, tmp_path / "swept")
    assert not (tmp_path / "swept").exists()


def write_ledger(ledger: str, nights: dict[str, list[tuple[str, str]]], gone: Sequence[str] = ()) -> None:
    """A ledger of these nights; rows are (OUT, item id). The key of an item is its id without `new-`."""
    for night, rows in nights.items():
        table = pa.Table.from_pylist(
            [
                {
                    "key": item.removeprefix("new-").encode().ljust(16)[:16], "version": 1, "content_key": 0,
                    "uri": f"x/{item}", "item_id": item, "verdict": "pass", "status": "ok", "run_out": out,
                    "part": f"{next(n for n, m in enumerate(OLD) if item.endswith(m.name)) // 4 * 4:032x}",
                    "format": "parquet", "judged_at": datetime(2026, 1, 1, tzinfo=UTC),
                    "deleted_at": datetime(2026, 1, 2, tzinfo=UTC) if item in gone else None,
                }
                for out, item in rows
            ],
            schema=LEDGER_SCHEMA,
        )  # fmt: skip
        append(ledger, night, [table])


def test_of_a_ledger_the_newest_row_of_each_item_counts(runs: list[str], tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    nights = {
        "1": [(runs[0], made.name) for made in OLD],
        "2": [(runs[1], "new-same.jpg"), (runs[1], "new-near.jpg")],
    }
    write_ledger(ledger, nights, gone=["far.jpg"])
    swept = decide([ledger], "bad.jpg", "block", tmp_path / "swept")
    assert set(changed(tmp_path / "swept")) == {"bad.jpg", "new-same.jpg", "new-near.jpg", "broken.jpg"}
    assert (swept.items, swept.deleted) == (len(OLD) - 1, 1)


def test_a_run_of_a_ledger_that_is_gone_is_told(runs: list[str], tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    write_ledger(ledger, {"1": [(runs[0], "bad.jpg"), (str(tmp_path / "none"), "same.jpg")]})
    swept = decide([ledger], "bad.jpg", "block", tmp_path / "swept")
    assert swept.lost == {str(tmp_path / "none"): 1} and swept.items == 1


def test_another_sweep_is_not_written_over(runs: list[str], tmp_path: Path) -> None:
    decide(runs, "bad.jpg", "block", tmp_path / "swept")
    with pytest.raises(UsageError, match="holds another sweep"):
        decide(runs, "other.jpg", "block", tmp_path / "swept")


def test_a_decision_of_another_picture_at_the_same_place_is_not_applied(tmp_path: Path) -> None:
    nights = [
        write_run(tmp_path / f"night{n}", LABELS, [picture("x.jpg", n, content=content)], POLICY, prefix="s3://b/in")
        for n, content in enumerate((0xAA, 0xBB))
    ]
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)
    said = Decision(
        decision_id="1", item_id="x.jpg", decision=Answer.PASS, reviewer="ann", decided_at=noon,
        content_hash=f"{0xAA:064x}",
    )  # fmt: skip
    append_decisions(nights[0], [said])
    with pytest.raises(UsageError, match=r"other content than .* --as pass decides this one"):
        find_targets(find_sources(nights), ["x.jpg"], None, embedding=None)
    (target,) = find_targets(find_sources(nights), ["x.jpg"], "pass", embedding=None)
    assert target.content_hash == f"{0xBB:064x}"
    append_decisions(nights[1], [replace(said, decision_id="2", decision=Answer.BLOCK, content_hash=f"{0xBB:064x}")])
    (target,) = find_targets(find_sources(nights), ["x.jpg"], None, embedding=None)
    assert (target.verdict, target.entry) == ("block", "2")


def test_a_pass_of_what_lies_there_now_does_not_free_copies_of_what_lay_there(tmp_path: Path) -> None:
    nights = [
        write_run(
            tmp_path / "night0", LABELS, [picture("x.jpg", 0, content=1), picture("copy.jpg", 0, content=1)], POLICY
        ),
        write_run(tmp_path / "night1", LABELS, [picture("x.jpg", 1, content=2, mask=0.6)], POLICY),
    ]
    decide(nights[:1], "x.jpg", "block", tmp_path / "blocked")
    assert set(changed(tmp_path / "blocked")) == {"x.jpg", "copy.jpg"}
    sources = find_sources(nights)
    targets = tuple(find_targets(find_sources(nights[1:]), ["x.jpg"], "pass", embedding=None))
    change = SweepChange(name="x", targets=targets, limits=CopyLimits())
    sweep(sources, change, str(tmp_path / "passed"), as_of=DAY, earlier=[str(tmp_path / "blocked")], workers=1)
    assert {row["content_hash"] for row in changed(tmp_path / "passed").values()} == {f"{2:064x}"}


def test_what_a_person_blocked_stays_blocked_when_an_earlier_sweep_is_taken_back(tmp_path: Path) -> None:
    """The sweep of another picture had blocked it first; its own block changed nothing, and still holds."""
    out = write_run(tmp_path / "run", LABELS, [picture("a.jpg", 0), picture("b.jpg", 0, bits=10)], POLICY)
    decide([out], "a.jpg", "block", tmp_path / "blocked")
    assert set(changed(tmp_path / "blocked")) == {"a.jpg", "b.jpg"}
    append_decisions(out, [decision("d1", "b.jpg", Answer.BLOCK)])
    swept = decide([out], "a.jpg", "pass", tmp_path / "passed", [tmp_path / "blocked"], distance=5, block_distance=5)
    assert set(changed(tmp_path / "passed")) == {"a.jpg"} and swept.kept == 1


def test_a_decided_item_that_a_later_night_could_not_fetch_is_found_where_it_was_seen(tmp_path: Path) -> None:
    nights = [picture("x.jpg", 0, content=1), Made(name="x.jpg", votes=None)]
    outs = [write_run(tmp_path / f"n{n}", LABELS, [made], POLICY, prefix="s3://b/in") for n, made in enumerate(nights)]
    append_decisions(outs[0], [decision("d1", "x.jpg", Answer.BLOCK, content_hash=f"{1:064x}")])
    (target,) = find_targets(find_sources(outs), ["x.jpg"], None, embedding=None)
    assert (target.verdict, target.content_hash) == ("block", f"{1:064x}")


def test_a_night_that_has_only_begun_does_not_hold_up_the_others(runs: list[str], tmp_path: Path) -> None:
    home = tmp_path / "nights"
    home.mkdir()
    Path(runs[0]).rename(home / "20261101-000000-0")
    begun = home / "20261102-000000-0"
    begun.mkdir()
    (begun / "run.json").write_text((home / "20261101-000000-0" / "run.json").read_text())
    assert [run.out for run in find_sources([str(home)]).runs] == [str(home / "20261101-000000-0")]
