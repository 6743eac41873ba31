"""Starting over in OUT: what a run left and what was derived from it goes, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.analysis.rejudge import rejudge
from moderation.errors import UsageError
from moderation.results.output import read_identity, start_over
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "b.mask")
POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask, b.mask], fuse: mean, review: 0.5, block: 0.9}
"""
DERIVED = (
    "duplicates.parquet",
    "known.parquet",
    "verdicts_grouped/part-00.parquet",
    "verdicts_grouped/grouped.json",
    "asks/hat/ask.json",
    "slices/1-of-2/run.json",
    "night/listing.json",
    "plan/chunk-000000.parquet",
    "tars/part-00.tar",
    "summary.json",
    "report.html",
    "_SUCCESS",
    "checks/index.html",
    "checks/mask.png",
    "checks/disagreement-of-variants.svg",
    "document/index.html",
    "document/inventory.json",
)
STRANGERS = ("mine.txt", "checks/notes.txt", "checks/old/mask.png", "document/mine.html", "verdicts.csv")


def write(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_starting_over_also_removes_what_was_derived_from_the_old_run(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, [Made(name="a", votes=[(0.1, 0.2)])], POLICY)
    write(Path(out), DERIVED + STRANGERS)
    start_over(out)
    assert files(Path(out)) == set(STRANGERS)


def test_starting_over_keeps_a_folder_of_pictures_that_only_has_the_name_of_ours(tmp_path: Path) -> None:
    write(tmp_path, ("checks/of_mine.png", "run.json"))
    start_over(str(tmp_path))
    assert files(tmp_path) == {"checks/of_mine.png"}


def test_starting_over_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    start_over(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"identity": 3}'])
def test_a_record_that_is_not_ours_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json: not readable; choose another OUT, or --fresh"):
        read_identity(str(tmp_path))


def test_a_run_without_receipts_is_not_rejudged(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, [], POLICY)
    with pytest.raises(UsageError, match="no shard is committed there"):
        rejudge(out, str(tmp_path / "policy.yaml"), str(tmp_path / "again"))
