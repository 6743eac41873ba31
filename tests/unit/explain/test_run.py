"""`moderation explain` over a finished run: rows, files, pages; and what it says where there is nothing to explain."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from PIL import Image

from jobs.explain import _print as print_explanation
from moderation.errors import UsageError
from moderation.explain.deciding import choose_by_verdict, choose_items, read_targets
from moderation.explain.maps import overlap
from moderation.explain.page import write_page
from moderation.explain.run import explain_item
from moderation.results.explanations import (
    Explanation,
    read_explanations,
    read_map,
    read_overlay,
    read_strip,
    write_explanation,
)
from moderation.results.layout import explanations_folder
from moderation.results.reader import open_run
from moderation.types import Verdict
from tests.finished_run import Made, write_run
from tests.job_runs import PLUGINS, run_job

LABELS = ("tiny.red", "tiny.green")
POLICY = """
default: pass
checks:
  red: {side: negative, votes: [tiny.red], review: 0.55}
"""
PLACE = (0.5, 0.25, 0.875, 0.75)
EVIL = "<script>alert(1)</script>.png"
NAMES = ("left.png", EVIL, "changed.png", "gone.png", "moving.gif", "broken.png", "calm.png", "yellow.png")


def draw(path: Path, place: tuple[float, float, float, float] = PLACE, side: int = 96) -> str:
    """Dark grey with a red patch and a comment of the uploader's; its sha256."""
    pixels = np.full((side, side, 3), 40, np.uint8)
    x0, y0, x1, y1 = (round(p * side) for p in place)
    pixels[y0:y1, x0:x1] = (255, 40, 40)
    Image.fromarray(pixels).save(path, comment="the uploader was here")
    return sha256(path.read_bytes()).hexdigest()


def animate(path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), (40 + 60 * i, 40, 40)) for i in range(4)]
    frames[2].paste((255, 0, 0), (32, 32, 64, 64))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explain")
    pictures = folder / "in"
    pictures.mkdir()
    hashes = {name: draw(pictures / name.replace("/", "_")) for name in NAMES if name.endswith("png")}
    (pictures / "gone.png").unlink()
    draw(pictures / "changed.png", (0, 0, 0.1, 0.1))
    animate(pictures / "moving.gif")
    Image.new("RGB", (96, 96), (255, 255, 0)).save(pictures / "yellow.png")
    hashes["yellow.png"] = sha256((pictures / "yellow.png").read_bytes()).hexdigest()
    out = write_run(folder, LABELS, list(_items(hashes)), POLICY)
    record = json.loads((folder / "out" / "run.json").read_text())
    record["config"]["stack"] = {"detectors": [{"name": "tiny", "options": {"deadly": True}}], "device": "cpu"}
    record["config"]["explain"] = {"window_px": 56, "stride_px": 28, "cover": "black"}
    (folder / "out" / "run.json").write_text(json.dumps(record))
    return out


def _items(hashes: Mapping[str, str]) -> Sequence[Made]:
    return [
        Made(name="left.png", votes=[(0.7, 0.1)], content_hash=hashes["left.png"]),
        Made(name=EVIL.replace("/", "_"), votes=[(0.9, 0.1)], content_hash=hashes[EVIL]),
        Made(name="changed.png", votes=[(0.6, 0.1)], content_hash=hashes["changed.png"]),
        Made(name="gone.png", votes=[(0.6, 0.1)], content_hash=hashes["gone.png"]),
        Made(
            name="moving.gif",
            votes=[(0.2, 0.1), (0.3, 0.1), (0.8, 0.1), (0.4, 0.1)],
            times_s=[0.0, 0.5, 1.0, 1.5],
        ),
        Made(name="broken.png", votes=None),
        Made(name="yellow.png", votes=[(0.95, 0.1)], content_hash=hashes["yellow.png"]),
        Made(name="calm.png", votes=[(0.1, 0.1)], content_hash=hashes["calm.png"]),
    ]


@pytest.fixture
def out(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(PLUGINS))
    shutil.copytree(made, tmp_path / "out")
    return str(tmp_path / "out")


def by_item(out: str) -> dict[str, Explanation]:
    return {e.item_id: e for e in read_explanations(out)}


def test_every_chosen_item_has_a_row_and_a_code_where_it_cannot_be_explained(out: str) -> None:
    ended = run_job("explain", out, "--verdict", "review", "--top", "50")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    rows = by_item(out)
    assert {name: row.error_code for name, row in rows.items()} == {
        "left.png": None,
        EVIL.replace("/", "_"): None,
        "changed.png": "changed",
        "gone.png": "not_found",
        "moving.gif": None,
        "broken.png": "no_vote",
        # The detector raises on plain yellow.
        "yellow.png": "score_failed",
    }
    assert "changed: its content is not the one that was judged" in ended.stdout
    assert "explanations/index.html" in ended.stdout


def test_the_box_holds_what_the_score_rests_on_and_the_score_falls_without_it(out: str) -> None:
    assert run_job("explain", out, "--item", "left.png").returncode == 0
    row = by_item(out)["left.png"]
    assert row.box is not None and overlap(row.box, PLACE) >= 0.3
    assert row.score is not None and row.drop is not None and row.alone is not None
    assert row.drop > 0.05
    assert (row.vote, row.frame, row.stored_score) == ("tiny.red", 0, pytest.approx(0.7))
    values = read_map(row, out)
    assert values is not None and values.shape == (2, 128, 128)


def test_an_overlay_is_drawn_anew_and_carries_nothing_of_the_file(out: str, tmp_path: Path) -> None:
    explanation = explain_item(open_run(out), "left.png")
    data = read_overlay(explanation, out)
    assert data is not None and data.startswith(b"\x89PNG")
    assert b"uploader" not in data and b"uploader" not in (explanation.preview or b"")
    (tmp_path / "overlay.png").write_bytes(data)
    with Image.open(tmp_path / "overlay.png") as image:
        assert image.width > 300 and not image.getexif() and not image.info.get("comment")


def test_of_an_item_of_several_frames_the_deciding_one_is_explained_with_a_strip(out: str) -> None:
    explanation = explain_item(open_run(out), "moving.gif")
    assert (explanation.frame, explanation.time_s, explanation.error_code) == (2, 1.0, None)
    assert explanation.box is not None and overlap(explanation.box, (0.5, 0.5, 1, 1)) >= 0.3
    strip = read_strip(explanation, out)
    assert strip is not None and strip.startswith(b"\x89PNG")


def test_another_vote_is_explained_where_it_is_named(out: str) -> None:
    explanation = explain_item(open_run(out), "calm.png", vote="tiny.green", write=False)
    assert (explanation.vote, explanation.stored_score) == ("tiny.green", pytest.approx(0.1))
    assert read_explanations(out) == []


def test_a_method_that_does_not_fit_is_a_row_that_says_so(out: str) -> None:
    ended = run_job("explain", out, "--item", "left.png", "--method", "both")
    assert ended.returncode == 0, ended.stderr
    assert {row.method: row.error_code for row in read_explanations(out)} == {
        "occlusion": None,
        "gradient": "no_gradient",
    }
    ended = run_job("explain", out, "--item", "left.png", "--method", "guided")
    assert ended.returncode == 3 and "nothing could be explained" in ended.stderr


def test_the_page_escapes_strangers_and_blurs_what_it_shows(out: str) -> None:
    run_job("explain", out, "--verdict", "review", "--summary")
    html = (Path(out) / "explanations" / "index.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("data:image/jpeg;base64") == 3 and html.count("data:image/png;base64") == 1
    assert "filter: blur" in html
    assert "what its manifest" not in html
    summary = json.loads((Path(out) / "explanations" / "summary.json").read_text())
    assert summary["explained"] == 7 and summary["regions"] == 3
    assert sum(group["regions"] for group in summary["groups"]) == 3


@pytest.mark.parametrize(("package", "method"), [("captum", "gradient"), ("matplotlib", "occlusion")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    out: str, monkeypatch: pytest.MonkeyPatch, package: str, method: str
) -> None:
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    ended = run_job("explain", out, "--item", "left.png", "--method", method)
    assert ended.returncode == 2 and f"need the package {package}; pip install" in ended.stderr
    assert not (Path(out) / "explanations").exists()


def test_an_item_in_no_plan_is_read_by_its_uri_only_within_the_source(out: str) -> None:
    (Path(out) / "plan.parquet").unlink()
    assert explain_item(open_run(out), "left.png", write=False).error_code is None
    record = json.loads((Path(out) / "run.json").read_text())
    record["source"] = "/elsewhere/in"
    (Path(out) / "run.json").write_text(json.dumps(record))
    assert explain_item(open_run(out), "left.png", write=False).error_code == "forbidden"


def test_items_are_taken_in_the_order_of_review(out: str) -> None:
    run = open_run(out)
    chosen = [item_id for _, item_id in choose_by_verdict(run, Verdict.REVIEW, 3)]
    assert len(chosen) == 3
    every = [item_id for _, item_id in choose_by_verdict(run, Verdict.REVIEW, 50)]
    assert every[:3] == chosen and len(every) == 7
    with pytest.raises(UsageError, match="no item has the verdict block"):
        choose_by_verdict(run, Verdict.BLOCK, 3)


def test_an_inverted_check_is_explained_by_what_lowers_its_vote(tmp_path: Path) -> None:
    policy = "default: pass\nchecks:\n  pale: {side: negative, votes: [tiny.red], invert: true, review: 0.6}\n"
    out = write_run(tmp_path, LABELS, [Made(name="a.png", votes=[(0.9, 0), (0.1, 0), (0.5, 0)])], policy)
    run = open_run(out)
    (target,) = read_targets(run, choose_items(run, ["a.png"]))
    assert target.vote is not None
    assert (target.vote.sign, target.vote.frame, target.vote.stored_score) == (-1.0, 1, pytest.approx(0.1))
    assert [score for _, _, score in target.vote.curve] == pytest.approx([0.9, 0.1, 0.5])


def test_a_score_that_rises_when_its_box_is_covered_is_told_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of a check that inverts its vote: 0.1 decided, and is 0.6 with the box covered.
    one = Explanation(
        item_id="a.png", uri="a.png", kind="image", verdict="review", reason=None, check="pale", threshold=None,
        method="occlusion", detector="tiny", label="red", frame=0, score=0.1, drop=0.5, covered=0.6, alone=0.2,
        box=(0, 0, 1, 1),
    )  # fmt: skip
    print_explanation(one)
    assert "the score is 0.600 with it covered, 0.200 of it alone" in capsys.readouterr().out
    run = open_run(write_run(tmp_path, LABELS, [Made(name="a.png", votes=[(0.1, 0)])], POLICY))
    write_explanation(explanations_folder(run.out), one, {}, {})
    page = Path(write_page(run, explanations_folder(run.out))).read_text()
    assert "0.600 (rises by 0.500)" in page
    assert read_explanations(run.out) == [replace(one, score=ANY, drop=ANY, covered=ANY, alone=ANY)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which items"),
        (("--item", "left.png", "--verdict", "review"), "say which items"),
        (("--verdict", "reviw"), "did you mean 'review'"),
        (("--item", "left.png", "--top", "3"), "--top goes with --verdict"),
        (("--item", "left.png", "--method", "oclusion"), "did you mean 'occlusion'"),
        (("--item", "left.png", "--vote", "tiny.rde"), "did you mean 'tiny.red'"),
        (("--item", "left.png", "--set", "explain.window=3"), "did you mean"),
        (("--item", "left.png", "--set", "explain.stride_px=64"), "over window_px"),
        (("--item", "left.png", "--set", "media.max_frames=3"), "not for a run that is done"),
        (("--item", "nobody.png"), "no item"),
    ],
)
def test_a_wrong_call_names_what_is_wrong_and_writes_nothing(out: str, arguments: Sequence[str], said: str) -> None:
    ended = run_job("explain", out, *arguments)
    assert ended.returncode == 2 and said in ended.stderr, ended.stderr
    assert not (Path(out) / "explanations").exists()
