"""Pictures sorted by a detector's classes: by album, the unsure apart, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from moderation.analysis.sorting import UNSURE, sort_run, write_sorted
from moderation.errors import UsageError
from moderation.types import Kind
from tests.finished_run import Made, write_run

LABELS = ("scenes.beach", "scenes.street", "other.x")
POLICY = """
default: review
checks:
  street: {side: attribute, votes: [scenes.street]}
"""


def run(folder: Path, *items: Made) -> str:
    return write_run(folder, LABELS, items, POLICY)


def test_each_picture_of_an_album_goes_to_its_own_class(tmp_path: Path) -> None:
    album = Made(name="trip", votes=[(0.9, 0.1, 0), (0.2, 0.8, 0), (0.45, 0.4, 0)], kind=Kind.ALBUM)
    found = sort_run(run(tmp_path, album), "scenes")
    assert [(p.frame, p.class_name) for p in found.pictures] == [(0, "beach"), (1, "street"), (2, UNSURE)]
    assert found.counts() == {"beach": 1, "street": 1, UNSURE: 1}
    assert len(found.albums()) == 1


def test_video_counts_as_the_mean_of_its_frames_and_files_by_their_folder(tmp_path: Path) -> None:
    video = Made(name="a/film.mp4", votes=[(0.9, 0.1, 0), (0.3, 0.7, 0)], kind=Kind.VIDEO)
    picture = Made(name="b/1.jpg", votes=[(0.1, 0.9, 0)])
    found = sort_run(run(tmp_path, video, picture), "scenes")
    assert [(p.album.rpartition("/")[2], p.frame, p.class_name) for p in found.pictures] == [
        ("a", None, "beach"),
        ("b", None, "street"),
    ]
    assert found.pictures[0].score == pytest.approx(0.6)


def test_item_without_votes_is_unsure_and_not_lost(tmp_path: Path) -> None:
    found = sort_run(
        run(tmp_path, Made(name="1.jpg", votes=None), Made(name="2.jpg", votes=[(None, None, 0)])), "scenes"
    )
    assert [(p.class_name, p.score) for p in found.pictures] == [(UNSURE, None)] * 2


def test_an_escalated_item_is_neither_sorted_nor_shown(tmp_path: Path) -> None:
    for name in ("fine.png", "known.png"):
        (tmp_path / "in").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (200, 60, 10)).save(tmp_path / "in" / name)
    known = Made(name="known.png", votes=[(None, None, None)], escalated=True)
    out = run(tmp_path, known, Made(name="fine.png", votes=[(0.9, 0.1, 0)]))
    found = sort_run(out, "scenes")
    assert [p.item_id for p in found.pictures] == ["fine.png"]
    page = Path(write_sorted(found, out, str(tmp_path / "to"))).read_text()
    assert page.count("data:image/") == 1 and "known.png" not in page


def test_attribute_names_the_album(tmp_path: Path) -> None:
    items = [Made(name=f"{n}.jpg", votes=[(0.9, 0.1, 0)], attributes={"post": post}) for n, post in enumerate("abab")]
    found = sort_run(run(tmp_path, *items), "scenes", by="post")
    assert [(album, len(classes[0][1])) for album, classes in found.albums()] == [("a", 2), ("b", 2)]


@pytest.mark.parametrize(("detector", "words"), [("scene", "did you mean 'scenes'"), ("other", "one label")])
def test_detector_that_can_not_sort_is_refused(detector: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        sort_run(run(tmp_path, Made(name="1.jpg", votes=[(0.9, 0.1, 0)])), detector)


def test_page_escapes_names_and_blurs_pictures_and_the_table_has_all(tmp_path: Path) -> None:
    name = "<b>x.png"
    (tmp_path / "in").mkdir(parents=True)
    Image.new("RGB", (40, 30), (200, 60, 10)).save(tmp_path / "in" / name)
    out = run(tmp_path, Made(name=name, votes=[(0.9, 0.1, 0)]), Made(name="gone.png", votes=[(0.1, 0.9, 0)]))
    page = Path(write_sorted(sort_run(out, "scenes"), out, str(tmp_path / "to")))
    text = page.read_text()
    assert "<b>x" not in text and "&lt;b&gt;x.png" in text
    assert text.count("data:image/jpeg") == 1
    assert "blurred until chosen" in text
    table = pq.read_table(tmp_path / "to" / "sorted.parquet")
    assert table["class"].to_pylist() == ["beach", "street"]
