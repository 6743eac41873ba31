"""The inventory of a run, as numbers, JSON and a page."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moderation.analysis.document import write_document
from moderation.analysis.inventory import take_inventory
from moderation.analysis.previews import make_previews
from moderation.media.preview import encode_preview
from tests.finished_run import Made, write_run

LABELS = ("a.weapon", "quality.sharpness")
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.6}
  portrait: {side: attribute, votes: [a.weapon], invert: true}
  sharp: {side: attribute, votes: [quality.sharpness]}
"""
EVIL = "<script>alert(1)</script>"


def items() -> list[Made]:
    armed = [
        Made(name=f"gun{i}.png", votes=[(0.7 + i / 100, 50)], attributes={"class": "rifle", "note": EVIL})
        for i in range(8)
    ]
    calm = [Made(name=f"cup{i}.png", votes=[(0.1, 50)], attributes={"class": "teapot"}) for i in range(20)]
    return [*armed, *calm, Made(name="broken.png", votes=None)]


def test_concepts_are_counted_and_what_stands_out_is_named(tmp_path: Path) -> None:
    found = take_inventory(write_run(tmp_path, LABELS, items(), POLICY), examples=3)
    by_name = {c.name: c for c in found.concepts}
    assert found.items == 29
    assert found.verdicts == {"review": 9, "pass": 20}
    assert set(by_name) == {"weapon", "portrait"}  # sharpness is no concept
    weapon = by_name["weapon"]
    assert (weapon.found, weapon.asked, weapon.threshold) == (8, 28, 0.6)
    assert weapon.share == pytest.approx(8 / 28)
    assert {t.term for t in weapon.terms} >= {"rifle"}
    assert [e.item_id for e in weapon.examples] == ["gun7.png", "gun6.png", "gun5.png"]
    assert by_name["portrait"].found == 20
    assert found.flagged_items == 8  # the broken one was flagged by nothing that it shows
    assert found.flagged[0].chosen == 8
    assert ("Violence", "Weapons") in {c.path for c in found.categories}
    assert next(c.items for c in found.categories if c.path == ("Violence",)) == 8


def test_the_page_escapes_strangers_and_blurs_what_it_shows(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, items(), POLICY)
    (tmp_path / "in").mkdir()
    for i in range(8):
        Image.new("RGB", (400, 300), (i * 20, 50, 60)).save(tmp_path / "in" / f"gun{i}.png")
    page = write_document(take_inventory(out, examples=3), out, str(tmp_path / "doc"))
    html = Path(page).read_text()
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert html.count("data:image/jpeg;base64,") == 3
    assert "filter: blur" in html
    record = json.loads((tmp_path / "doc" / "inventory.json").read_text())
    assert record["concepts"][0]["name"] in ("portrait", "weapon")
    assert {c["name"]: c["found"] for c in record["concepts"]} == {"weapon": 8, "portrait": 20}


def test_examples_that_are_gone_have_no_preview(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, items(), POLICY)
    assert make_previews(out, ["gun1.png", "never.png"]) == {}
    page = write_document(take_inventory(out), out, str(tmp_path / "doc"), previews=False)
    assert "data:image" not in Path(page).read_text()


def test_a_picture_that_was_replaced_has_no_preview(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, colour in (("kept.png", 10), ("other.png", 20)):
        Image.new("RGB", (40, 30), (colour, 50, 60)).save(tmp_path / "in" / name)
    judged = sha256((tmp_path / "in" / "kept.png").read_bytes()).hexdigest()
    made = [Made(name=name, votes=[(0.7, 50)], content_hash=judged) for name in ("kept.png", "other.png")]
    out = write_run(tmp_path, LABELS, made, POLICY)
    assert make_previews(out, ["kept.png", "other.png"]).keys() == {"kept.png"}


def test_another_policy_says_what_is_found(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, items(), POLICY, keep_policy=False)
    other = tmp_path / "strict.yaml"
    other.write_text(POLICY.replace("0.6", "0.75") + "  hat: {side: negative, votes: [a.weapon], review: 0.5}\n")
    found = take_inventory(out, policy=str(other))
    assert next(c.found for c in found.concepts if c.name == "weapon") == 3
    assert "not among the run's checks, so not counted: hat" in found.notes[0]


def test_previews_keep_the_shape_of_a_picture() -> None:
    for shape, size in (((300, 400, 3), (160, 120)), ((3, 4000, 3), (160, 1)), ((10, 20, 3), (20, 10))):
        assert Image.open(io.BytesIO(encode_preview(np.zeros(shape, np.uint8), 160))).size == size


def test_what_only_measures_is_no_concept(tmp_path: Path) -> None:
    policy = POLICY + "  bright: {side: attribute, votes: [quality.sharpness], pool: mean}\n"
    made = [Made(name=f"{n}.png", votes=[(0.1, n / 4)]) for n in range(4)]
    found = take_inventory(write_run(tmp_path, LABELS, made, policy))
    assert {c.name for c in found.concepts} == {"weapon", "portrait"}


def test_the_page_of_one_item_says_item_and_has_no_empty_subtitle(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, [Made(name="gun.png", votes=[(0.7, 50)])], POLICY)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    record["identity"] = {"source": record.pop("source")}  # as a run writes it
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    html = Path(write_document(take_inventory(out), out, str(tmp_path / "doc"), previews=False)).read_text()
    assert "What 1 item holds" in html and "1 items" not in html
    assert f'<bdi class="uri">{tmp_path}/in</bdi>, moderated in run' in html
    assert "Examples are blurred" not in html
