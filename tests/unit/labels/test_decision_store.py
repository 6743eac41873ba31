"""The store of decisions: what was acknowledged is there, once, in order, and a changed part is found."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation import storage
from moderation.errors import FatalError, UsageError
from moderation.labels import decision_store
from moderation.labels.decision_parts import DamagedDecisionsError, decode_part, encode_part, hash_rows
from moderation.labels.decision_store import append_decisions, open_decisions, read_decisions, verify_decisions
from moderation.labels.decisions import Answer, Decision, DecisionSource, standing_decisions
from moderation.storage.lease import LeaseHeldError

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def said(number: int, choice: Answer = Answer.BLOCK, **more: object) -> Decision:
    values = {"reviewer": "ann", "decided_at": NOON + timedelta(seconds=number), **more}
    return Decision(decision_id=f"d{number}", item_id=f"i{number}", decision=choice, **values)  # type: ignore[arg-type] # keywords of the row


def filled(folder: Path, parts: int = 3) -> str:
    out = str(folder / "out")
    for number in range(parts):
        append_decisions(out, [said(2 * number), said(2 * number + 1)])
    return out


def part_files(out: str) -> list[Path]:
    return sorted((Path(out) / "decisions").glob("part-*.arrow"))


def test_decisions_come_back_as_they_were_given(tmp_path: Path) -> None:
    full = said(
        7, Answer.ESCALATE, uri="s3://b/ü.jpg", content_hash="ab", pdq="cd", group_id="g", labels=("explicit", "gore"),
        reason="minor", comment="looks\nyoung", expert=True, source=DecisionSource.AUDIT, exposure_s=1.25,
        shown={"blurred": "true"}, undoes="d1", claim="c",
    )  # fmt: skip
    out = str(tmp_path / "out")
    append_decisions(out, [said(1), full])
    assert read_decisions(out) == [said(1), full]
    assert verify_decisions(out) == ()
    assert [path.name for path in part_files(out)] == [f"part-00000000-{hash_rows([said(1), full])}.arrow"]


def test_an_output_without_decisions_has_none(tmp_path: Path) -> None:
    assert read_decisions(str(tmp_path / "out")) == []
    assert verify_decisions(str(tmp_path / "out")) == ()


def test_times_are_kept_as_microseconds_of_utc(tmp_path: Path) -> None:
    there = timezone(timedelta(hours=9))
    append_decisions(str(tmp_path), [said(1, decided_at=datetime(2026, 11, 26, 21, 0, 0, 5, tzinfo=there))])
    assert read_decisions(str(tmp_path))[0].decided_at == datetime(2026, 11, 26, 12, 0, 0, 5, tzinfo=UTC)


def test_an_id_that_is_sent_again_is_the_same_decision(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    append_decisions(out, [said(1)])
    again = append_decisions(out, [said(1, decided_at=NOON), said(2), said(2)])
    assert again.repeated == ("d1", "d2") and [decision.decision_id for decision in again.written] == ["d2"]
    assert [decision.decision_id for decision in read_decisions(out)] == ["d1", "d2"]


def test_an_id_with_another_answer_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    append_decisions(out, [said(1)])
    with pytest.raises(UsageError, match="'d1' is there already, of another item or with another answer"):
        append_decisions(out, [said(2), said(1, Answer.PASS)])
    assert len(read_decisions(out)) == 1


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (said(1, reviewer=" "), "`reviewer` is empty"),
        (said(1, comment="x" * 5000), "`comment` has more than 4,096"),
        (said(1, labels=("a|b",)), "has a | in it"),
        (said(1, labels=("a",) * 33), "more than 32 `labels`"),
        (said(1, shown={str(n): "" for n in range(65)}), "more than 64 entries"),
        (said(1, exposure_s=float("nan")), "`exposure_s` is not a time"),
        (said(1, exposure_s=-1.0), "`exposure_s` is not a time"),
        (said(1, decided_at=datetime(2026, 1, 1)), "has no time zone"),
        (said(1, uri="\ud800"), "not text that UTF-8 can hold"),
        (said(1, undoes="../x"), "`undoes` is 1 to 128"),
    ],
)
def test_a_decision_that_cannot_be_kept_is_refused_by_its_field(
    tmp_path: Path, decision: Decision, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        append_decisions(str(tmp_path), [said(0), decision])
    assert read_decisions(str(tmp_path)) == []


def test_a_changed_part_is_found(tmp_path: Path) -> None:
    out = filled(tmp_path)
    path = part_files(out)[1]
    data = bytearray(path.read_bytes())
    data[data.index(b"d2")] = ord("e")
    path.write_bytes(data)
    faults = verify_decisions(out)
    assert any(path.name in fault and "was changed" in fault for fault in faults)
    with pytest.raises(DamagedDecisionsError, match="moderation review verify"):
        read_decisions(out)


def test_a_part_with_another_answer_and_a_name_that_fits_breaks_the_chain(tmp_path: Path) -> None:
    out = filled(tmp_path)
    path = part_files(out)[1]
    previous = decode_part_of(path).previous
    part, data = encode_part(1, [said(2, Answer.PASS), said(3)], previous)
    path.unlink()
    (path.parent / part.name.file).write_bytes(data)
    assert any("names another part before it" in fault for fault in verify_decisions(out))


def test_the_last_part_changed_with_a_name_that_fits_is_known_by_the_head(tmp_path: Path) -> None:
    out = filled(tmp_path)
    path = part_files(out)[-1]
    part, data = encode_part(2, [said(4, Answer.PASS)], decode_part_of(path).previous)
    path.unlink()
    (path.parent / part.name.file).write_bytes(data)
    assert verify_decisions(out) == (f"{part.name.file}: was changed: the head names another sha256",)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_part_is_found_also_the_last(tmp_path: Path, number: int) -> None:
    out = filled(tmp_path)
    part_files(out)[number].unlink()
    assert any(f"part {number:08d}" in fault and "missing" in fault for fault in verify_decisions(out))
    assert len(read_decisions(out, verify=False)) == 4


def test_a_file_with_a_far_number_is_one_fault_and_not_a_hundred_million(tmp_path: Path) -> None:
    out = filled(tmp_path)
    last = part_files(out)[-1]
    last.rename(last.with_name(last.name.replace("00000002", "99999999")))
    assert "parts 00000002 to 99999998 are missing" in verify_decisions(out)


@pytest.mark.parametrize("number", ["1e999", "-5", "1e300", "true"])
def test_a_head_with_no_number_of_a_part_is_a_fault(tmp_path: Path, number: str) -> None:
    out = filled(tmp_path)
    (Path(out) / "decisions" / "head.json").write_text(f'{{"number": {number}, "sha256": "x"}}')
    assert any("head.json: is not readable" in fault or "sha256" in fault for fault in verify_decisions(out))


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("decided_at", pa.array([2**62], pa.timestamp("us", "UTC"))),
        ("decided_at", pa.array([{"a": 1}])),
        ("comment", pa.array([[1]])),
    ],
)
def test_a_part_whose_cells_are_no_decisions_is_a_fault(column: str, cells: pa.Array) -> None:
    part, data = encode_part(0, [said(1)], "")
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    table = table.set_column(table.column_names.index(column), column, cells)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DamagedDecisionsError, match="not readable as decisions"):
        decode_part(part.name, sink.getvalue().to_pybytes(), part.name.file)


def test_all_parts_missing_are_found(tmp_path: Path) -> None:
    out = filled(tmp_path)
    for path in part_files(out):
        path.unlink()
    assert verify_decisions(out) == (
        "parts 00000000 to 00000002 missing: the head says that 3 parts were acknowledged",
    )


def test_reordered_parts_are_found(tmp_path: Path) -> None:
    out = filled(tmp_path)
    first, second, _ = part_files(out)
    numbers = {first: "00000001", second: "00000000"}
    for path, number in numbers.items():
        path.rename(path.with_name(f"{path.name[:5]}{number}{path.name[13:]}.new"))
    for path in (Path(out) / "decisions").glob("*.new"):
        path.rename(path.with_suffix(""))
    assert any("names another part before it" in fault for fault in verify_decisions(out))


def test_a_part_that_is_cut_is_named_and_the_others_are_readable(tmp_path: Path) -> None:
    out = filled(tmp_path)
    path = part_files(out)[0]
    path.write_bytes(path.read_bytes()[:300])
    assert any(f"{path.name}: is not readable" in fault for fault in verify_decisions(out))
    assert [decision.item_id for decision in read_decisions(out, verify=False)] == ["i2", "i3", "i4", "i5"]


def test_two_parts_of_one_number_and_a_repeated_id_are_found(tmp_path: Path) -> None:
    out = filled(tmp_path, parts=1)
    part, data = encode_part(0, [said(0)], "")
    (Path(out) / "decisions" / part.name.file).write_bytes(data)
    faults = " ".join(verify_decisions(out))
    assert "part 00000000 is there 2 times" in faults and "'d0' is there 2 times" in faults


def test_a_head_that_is_not_readable_is_a_fault(tmp_path: Path) -> None:
    out = filled(tmp_path)
    (Path(out) / "decisions" / "head.json").write_bytes(b"[" * 9000)
    assert any("head.json: is not readable" in fault for fault in verify_decisions(out))


def test_a_missing_head_is_found_but_not_after_a_kill_at_the_first_part(tmp_path: Path) -> None:
    out = filled(tmp_path, parts=1)
    head = Path(out) / "decisions" / "head.json"
    head.unlink()
    assert verify_decisions(out) == ()
    append_decisions(out, [said(9)])
    head.unlink()
    assert verify_decisions(out) == (f"{head}: is missing",)


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with open_decisions(out) as log:
        with pytest.raises(LeaseHeldError, match=f"another writer of decisions holds the lease: process {os.getpid()}"):
            append_decisions(out, [said(1)])
        log.append([said(2)])
    append_decisions(out, [said(1)])
    assert [decision.decision_id for decision in read_decisions(out)] == ["d2", "d1"]


def test_a_part_that_nobody_was_told_of_is_taken_over(tmp_path: Path) -> None:
    out = filled(tmp_path, parts=2)
    head = Path(out) / "decisions" / "head.json"
    before = head.read_bytes()
    append_decisions(out, [said(8)])
    head.write_bytes(before)  # as a kill between the part and the head leaves it
    assert verify_decisions(out) == ()
    assert append_decisions(out, [said(8)]).repeated == ("d8",)
    part_files(out)[-1].unlink()
    assert verify_decisions(out)  # the head was mended before the repeat was acknowledged


@pytest.mark.parametrize("file", ["part-", "head"])
def test_a_write_that_failed_after_all_came_through_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    out = str(tmp_path / "out")
    publish, lost = storage.publish, [file]

    def lose_the_answer(uri: str, data: bytes) -> None:
        publish(uri, data)
        if lost and lost[0] in uri:
            lost.pop()
            raise FatalError("no answer")

    monkeypatch.setattr(decision_store.storage, "publish", lose_the_answer)
    with open_decisions(out) as log:
        with pytest.raises(FatalError):
            log.append([said(1)])
        appended = log.append([said(1), said(2)])
        assert appended.repeated == ("d1",)
        assert [[d.decision_id for d in some] for some in (appended.found, appended.written)] == [["d1"], ["d2"]]
        assert log.append([said(3)]).found == ()
    assert [decision.decision_id for decision in read_decisions(out)] == ["d1", "d2", "d3"]


def decide_until_killed(out: str, acknowledged: str) -> None:
    with open_decisions(out) as log, Path(acknowledged).open("a", encoding="utf-8") as file:
        for number in range(100_000):
            log.append([said(number)])
            file.write(f"d{number}\n")
            file.flush()


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    out, acknowledged = str(tmp_path / "out"), tmp_path / "acknowledged"
    writer = multiprocessing.get_context("fork").Process(target=decide_until_killed, args=(out, str(acknowledged)))
    writer.start()
    while not acknowledged.exists() or acknowledged.read_text().count("\n") < 20:
        writer.join(0.01)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert verify_decisions(out) == ()
    kept = [decision.decision_id for decision in read_decisions(out)]
    told = acknowledged.read_text().split()
    assert kept[: len(told)] == told and len(kept) - len(told) <= 1
    # The lease of the dead ends with it.
    assert append_decisions(out, [said(200_000)]).written


def test_large_batches_become_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_store, "MAX_PART_ROWS", 4)
    append_decisions(str(tmp_path), [said(number) for number in range(10)])
    assert len(part_files(str(tmp_path))) == 3 and len(read_decisions(str(tmp_path))) == 10


def test_a_decision_that_was_undone_does_not_stand(tmp_path: Path) -> None:
    first, undo = said(1), said(2, Answer.SKIP, undoes="d1")
    changed = said(3, Answer.PASS, undoes="d4")
    rows = [first, said(4), undo, changed]
    assert standing_decisions(rows) == [changed]
    assert standing_decisions([*rows, said(5, Answer.SKIP, undoes="d2")]) == [first, changed]


def test_only_its_own_reviewer_takes_a_decision_back() -> None:
    first = said(1)
    assert standing_decisions([first, said(2, Answer.SKIP, undoes="d1", reviewer="bob")]) == [first]


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 7))
def test_every_split_into_batches_keeps_each_decision_once(numbers: Sequence[int], size: int) -> None:
    parts, previous = [], ""
    for start in range(0, len(numbers), size):
        part, data = encode_part(start, [said(number) for number in numbers[start : start + size]], previous)
        assert decode_part(part.name, data, "part") == part
        parts.append(part)
        previous = part.sha256
    assert [decision for part in parts for decision in part.decisions] == [said(number) for number in numbers]


def decode_part_of(path: Path):  # type: ignore[no-untyped-def] # a helper of these tests
    from moderation.labels.decision_chain import parse_part_name

    name = parse_part_name(path.name)
    assert name is not None
    return decode_part(name, path.read_bytes(), path.name)
