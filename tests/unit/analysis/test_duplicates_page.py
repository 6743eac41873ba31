"""The page of duplicates: groups with their members, escaped, pictures only where asked for and blurred."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from moderation.analysis.duplicates_page import MAX_MEMBERS, read_largest
from tests.finished_run import Made, write_run
from tests.job_runs import run_job

POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.6}
"""
LABELS = ("a.weapon", "pdq.quality")
HASHES = ("0f" * 32, "35" * 32)
NASTY = "<b>a\u202e.png"


def page_of(folder: Path, names: Sequence[str], *options: str, pictures: bool = False) -> str:
    contents = [f"{n // 3:064x}" for n in range(len(names))]
    if pictures:
        (folder / "in").mkdir()
        for n, name in enumerate(names):
            Image.new("RGB", (40, 30), (20 * (n // 3), 90, 90)).save(folder / "in" / name)
            contents[n] = sha256((folder / "in" / name).read_bytes()).hexdigest()
    made = [
        Made(name=name, votes=[(0.9 if n == 1 else 0.1, 1.0)], content_hash=contents[n], hashes=[HASHES[n // 3]])
        for n, name in enumerate(names)
    ]
    out = write_run(folder, LABELS, made, POLICY)
    ended = run_job("duplicates", out, *options)
    assert ended.returncode == 0, ended.stderr
    page = Path(out) / "duplicates" / "index.html"
    assert str(page) in ended.stdout
    return page.read_text(encoding="utf-8")


def test_the_page_shows_the_members_of_each_group_and_no_picture(tmp_path: Path) -> None:
    page = page_of(tmp_path, [NASTY, *(f"{n}.png" for n in range(1, 6))])
    assert "2 groups of copies among 6 items" in page
    assert page.count("3 copies") == 2 and "verdicts differ: pass, review" in page
    assert "&lt;b&gt;a" in page and "<b>" not in page and "\u202e" not in page
    assert "<img" not in page and "<script" not in page and "5.png" in page


@pytest.mark.parametrize("as_json", [False, True])
def test_pictures_are_opt_in_and_blurred(tmp_path: Path, as_json: bool) -> None:
    page = page_of(tmp_path, [f"{n}.png" for n in range(3)], "--previews", pictures=True)
    assert page.count("<img") == 3 and "blur(" in page
    if as_json:
        told = json.loads(run_job("duplicates", tmp_path / "out", "--json").stdout)
        assert told["page"].endswith("duplicates/index.html")


def test_a_run_without_copies_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, ["one.png"])
    assert "0 groups" in page and "No item is a copy" in page


def test_the_largest_groups_come_first_and_long_ones_are_cut(tmp_path: Path) -> None:
    made = [
        Made(name=f"{n}.png", votes=[(0.1, 1.0)], content_hash=f"{int(n > 1):064x}", hashes=[HASHES[int(n > 1)]])
        for n in range(20)
    ]
    out = write_run(tmp_path, LABELS, made, POLICY)
    assert run_job("duplicates", out).returncode == 0
    groups = read_largest(f"{out}/duplicates.parquet")
    assert [len(group) for group in groups] == [18, 2]
    assert len(read_largest(f"{out}/duplicates.parquet", 1)) == 1
    page = (Path(out) / "duplicates" / "index.html").read_text()
    assert f"and {18 - MAX_MEMBERS} more" in page
