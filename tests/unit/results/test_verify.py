"""`verify`: every part against its receipt, the receipts against the plan; what is amiss is said and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation import storage
from moderation.analysis.rejudge import rejudge
from moderation.errors import UsageError
from moderation.planning.slices import Slice
from moderation.results.occupancy import occupy
from moderation.results.receipts import committed_ids, readable_ids
from moderation.results.verify import verify_output
from moderation.storage.lease import LeaseHeldError
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(write_run(tmp_path, ("a.mask",), [Made(name=f"i{n}", votes=[(0.1,)]) for n in range(9)], POLICY))


def damage_part(out: Path) -> None:
    path = sorted((out / "verdicts").iterdir())[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def lose_part(out: Path) -> None:
    sorted((out / "votes").iterdir())[1].unlink()


def cut_receipt(out: Path) -> None:
    path = sorted((out / "receipts").iterdir())[1]
    path.write_bytes(path.read_bytes()[:40])


def lie_in_receipt(out: Path) -> None:
    path = sorted((out / "receipts").iterdir())[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows_in": 3}))


def foreign_receipt(out: Path) -> None:
    first = sorted((out / "receipts").iterdir())[0]
    record = json.loads(first.read_text()) | {"shard_id": "f" * 32}
    for table in ("verdicts", "votes"):
        part = next((out / table).glob(f"*{first.stem}*"))
        part.with_name(f"part-{'f' * 32}.parquet").write_bytes(part.read_bytes())
    first.with_name(f"{'f' * 32}.json").write_text(json.dumps(record))


def stray_part(out: Path) -> None:
    part = next((out / "verdicts").iterdir())
    part.with_name(f"part-{'e' * 32}.parquet").write_bytes(part.read_bytes())


def test_what_is_as_it_was_committed_is_well(out: Path) -> None:
    found = verify_output(str(out))
    assert found.well
    assert (found.shards_planned, found.shards_committed, found.parts) == (3, 3, 6)


@pytest.mark.parametrize(
    ("harm", "words", "left"),
    [
        (damage_part, "is not the one that was committed", 2),
        (lose_part, "is gone", 2),
        (cut_receipt, "is not readable as a receipt", 2),
        (lie_in_receipt, "tells of 3 items, the plan of 4", 2),
        (foreign_receipt, "of a shard that no plan holds", 3),
        (stray_part, "have no receipt and no plan", 3),
    ],
)
def test_what_is_amiss_is_told_and_taken_back(out: Path, harm: Callable[[Path], None], words: str, left: int) -> None:
    harm(out)
    (out / "_SUCCESS").touch()
    found = verify_output(str(out))
    assert [words in finding.sentence for finding in found.findings].count(True) == 1
    assert (out / "_SUCCESS").exists()
    taken = verify_output(str(out), repair=True).repaired
    assert len(taken) == 1
    assert len(committed_ids(str(out))) == left
    assert not (out / "_SUCCESS").exists()
    again = verify_output(str(out))
    assert again.well == (left == 3)
    assert left == 3 or "1 of 3 planned shards are not judged" in again.findings[0].sentence


def test_a_plan_that_is_damaged_is_told_and_listed_anew(out: Path) -> None:
    (out / "plan.parquet").write_bytes(b"PAR1 cut")
    assert "is not readable as a plan" in verify_output(str(out)).findings[0].sentence
    assert verify_output(str(out), repair=True).repaired == ()
    assert not (out / "plan.parquet").exists()


@pytest.mark.parametrize("harm", [damage_part, lose_part])
def test_a_rejudge_refuses_a_part_that_is_not_the_one_that_was_committed(
    out: Path, harm: Callable[[Path], None]
) -> None:
    harm(out)
    with pytest.raises(UsageError, match="moderation verify OUT --repair"):
        rejudge(str(out), str(out.parent / "policy.yaml"), str(out.parent / "to"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"shard_id": "x"}', "[" * 100_000, '{"shard_id": 1, "rows_in": "many"}']
)
def test_a_receipt_that_is_none_means_not_committed(out: Path, text: str) -> None:
    path = sorted((out / "receipts").iterdir())[1]
    before = readable_ids(str(out))
    path.write_text(text)
    assert readable_ids(str(out)) == before - {path.stem}


def test_the_job_says_it_in_sentences_and_its_exit_code(out: Path) -> None:
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0
    damage_part(out)
    told = CliRunner().invoke(app, ["verify", str(out)])
    assert told.exit_code == 1
    assert "is not the one that was committed" in told.output
    repaired = CliRunner().invoke(app, ["verify", str(out), "--repair"])
    assert repaired.exit_code == 1
    assert "1 shards taken back" in repaired.output
    assert not (out / "lease").exists()


def test_a_job_on_all_of_out_and_slices_exclude_each_other_and_slices_do_not(out: Path) -> None:
    one, two = Slice(index=1, count=2), Slice(index=2, count=2)
    with occupy(str(out), one), occupy(str(out), two):
        with pytest.raises(LeaseHeldError, match="another job holds the lease: process"), occupy(str(out)):
            pass
        with pytest.raises(LeaseHeldError), occupy(str(out), one):
            pass
    with occupy(str(out)), pytest.raises(LeaseHeldError), occupy(str(out), one):
        pass
    assert not (out / "lease").exists()


def test_a_folder_without_a_run_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run there"):
        verify_output(storage.join(str(tmp_path), "nothing"))
