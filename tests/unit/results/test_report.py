"""The report of a run in OUT: rows and scores, previews, an earlier run; nothing keeps the run from its end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation.errors import UsageError
from moderation.results.report import ReportExtras
from moderation.results.report_again import write_report_again
from moderation.results.report_before import EarlierRun, is_summary, read_earlier
from moderation.results.report_rows import read_report_rows, sample_evenly
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""


def made_run(folder: Path, count: int = 40) -> str:
    items = [Made(name=f"i{n:02}.png", votes=[(n / count,)]) for n in range(count)]
    return write_run(folder, ("a.mask",), [*items, Made(name="broken.png", votes=None)], POLICY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that no test changes."""
    return with_counts(made_run(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def out(whole: str, tmp_path: Path) -> str:
    """A run that a test may change; its items lie where those of `whole` do."""
    return str(shutil.copytree(whole, tmp_path / "out"))


def rows_of(out: str, **changes: Any) -> Any:
    shards = sorted(p.stem for p in (Path(out) / "receipts").iterdir())
    return read_report_rows(out, "parquet", shards, ["mask"], **changes)


def test_the_queue_comes_in_the_order_of_review_rank_whatever_part_it_is_in(whole: str) -> None:
    rows = rows_of(whole)
    ranks = [row["review_rank"] for row in rows.queue]
    assert len(ranks) == 16 and ranks == sorted(ranks, reverse=True)
    assert [row["uri"].rsplit("/", 1)[-1] for row in rows.blocked[:2]] == ["i39.png", "i38.png"]
    assert rows.counted == {"queue": 16, "blocked": 4}
    assert [row["error_code"] for row in rows.errors["corrupt"]] == ["corrupt"]
    assert len(rows.scores["mask"]) == 41 and rows.items == 41


def test_items_of_the_audit_are_not_shown_before_they_are_labelled(out: str) -> None:
    for path in (Path(out) / "verdicts").iterdir():
        table = pq.read_table(path)
        table = table.set_column(table.column_names.index("audit"), "audit", pa.array([True] * len(table)))
        pq.write_table(table, path)
        receipt = Path(out) / "receipts" / f"{path.stem.removeprefix('part-')}.json"
        record = json.loads(receipt.read_text())
        record["sha256"]["verdicts"] = hashlib.sha256(path.read_bytes()).hexdigest()
        receipt.write_text(json.dumps(record))
    rows = rows_of(out)
    assert rows.queue == [] and rows.blocked == []
    assert rows.counted == {"audit": 20}


def test_a_part_that_the_store_does_not_give_is_left_out(out: str) -> None:
    first = sorted((Path(out) / "verdicts").iterdir())[0]
    first.unlink()
    first.mkdir()
    rows = rows_of(out)
    assert (rows.parts, rows.parts_total, rows.items) == (10, 11, 37)


def test_a_sample_has_both_ends_and_is_in_order() -> None:
    names = [f"{n:04}" for n in range(1000)]
    sample = sample_evenly(names, 7)
    assert len(sample) == 7 and sample == sorted(sample)
    assert (sample[0], sample[-1]) == ("0000", "0999")
    assert sample_evenly(names[:3], 7) == names[:3]


def test_the_uri_of_a_slow_item_is_found_in_its_part(whole: str) -> None:
    assert rows_of(whole, slow={"i05.png": f"{4:032x}"}).uris == {"i05.png": f"{Path(whole).parent}/in/i05.png"}


def test_what_reviewers_overturned_is_counted_by_reason(whole: str) -> None:
    answers = {"i39.png": "pass", "i38.png": "block", "i00.png": "block", "i30.png": "pass", "other.png": "pass"}
    told = rows_of(whole, decided=answers).answers
    block, default = told["negative:mask:block"], told["default:pass"]
    assert (block.decided, block.block, block.passed, block.overturned) == (2, 1, 1, 1)
    assert (default.decided, default.overturned) == (1, 1)
    assert told["negative:mask:review"].overturned == 0


def test_a_report_is_written_again_from_what_lies_in_out(tmp_path: Path) -> None:
    out = with_counts(made_run(tmp_path, 4))
    page = Path(write_report_again(out)).read_text()
    assert "5 items: 0 blocked, 3 to review, 2 passed" in page
    assert "(state: not known)" in page


@dataclass(frozen=True)
class Change:
    name: str = "mask"
    state: str = "drifted"
    reason: str = "mask: mean 0.1, now 0.5"
    stability: float | None = 0.7
    reference_mean: float | None = 0.1
    mean: float | None = 0.5


def test_an_earlier_run_stands_beside_this_one(out: str) -> None:
    summary = {"items": 4, "verdicts": {"pass": 4}, "error_rate": 0.0}
    before = EarlierRun(out="s3://nights/first", summary=summary, scores=read_scores(out))
    extras = ReportExtras(compare=lambda then, now: [Change()], before=before)
    page = Path(write_report_again(out, extras)).read_text()
    assert "s3://nights/first" in page and "Scores of mask: mean 0.1, now 0.5." in page
    assert "Against the last run" in page


def test_scores_that_cannot_be_compared_are_a_sentence(out: str) -> None:
    def compare(_: object, __: object) -> Sequence[Any]:
        raise UsageError("it needs the package scipy")

    before = EarlierRun(out="x", summary={}, scores=read_scores(out))
    page = Path(write_report_again(out, ReportExtras(compare=compare, before=before))).read_text()
    assert "Scores are not compared: it needs the package scipy." in page


def read_scores(out: str) -> Mapping[str, Any]:
    scores: Mapping[str, Any] = rows_of(out).scores
    return scores


def with_counts(out: str) -> str:
    """Receipts as a worker writes them: with the verdicts of their rows."""
    for path in (Path(out) / "verdicts").iterdir():
        receipt = Path(out) / "receipts" / f"{path.stem.removeprefix('part-')}.json"
        record = json.loads(receipt.read_text())
        for row in pq.read_table(path).to_pylist():
            for key in (f"verdict:{row['verdict']}", f"status:{row['status']}"):
                record["counts"][key] = record["counts"].get(key, 0) + 1
        receipt.write_text(json.dumps(record))
    return out


def test_pictures_are_asked_for_of_the_queue_alone_and_one_that_fails_costs_nothing(out: str) -> None:
    asked: list[str] = []

    def previews(_: str, item_ids: Sequence[str]) -> Mapping[str, bytes]:
        asked.extend(item_ids)
        raise RuntimeError("a decoder died")

    page = Path(write_report_again(out, ReportExtras(previews=previews), settings={"thumbnails": 3})).read_text()
    assert len(asked) == 3 and "<img" not in page and "The head of the review queue" in page
    write_report_again(out, ReportExtras(previews=previews), settings={"thumbnails": 0})
    assert len(asked) == 3


def test_what_is_severe_is_in_no_page(tmp_path: Path) -> None:
    policy = POLICY.replace("review: 0.5", "severity: critical, review: 0.5")
    made = [Made(name=f"i{n}.png", votes=[(0.6,)]) for n in range(4)]
    out = with_counts(write_run(tmp_path, ("a.mask",), made, policy))
    asked: list[str] = []

    def previews(_: str, item_ids: Sequence[str]) -> Mapping[str, bytes]:
        asked.extend(item_ids)
        return {}

    write_report_again(out, ReportExtras(previews=previews), settings={"thumbnails": 9})
    assert asked == []


def test_figures_are_drawn_where_there_is_enough_to_draw(out: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = Path(write_report_again(out)).read_text()
    assert "From items to verdicts" in page and page.count("<svg") >= 1
    few = with_counts(made_run(tmp_path / "few", 4))
    assert "<svg" not in Path(write_report_again(few)).read_text()


def test_an_earlier_run_has_its_summary_and_its_scores(out: str) -> None:
    with pytest.raises(UsageError, match=r"no summary\.json"):
        read_earlier(out)


@pytest.mark.parametrize("summary", [None, [], {}, {"items": "9"}, {"items": 1, "error_rate": 0.0, "verdicts": []}])
def test_what_is_no_summary_is_told_apart(summary: object) -> None:
    assert not is_summary(summary)
