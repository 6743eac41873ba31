"""Evaluation of a finished run by a labels file: numbers, page, baseline, and what is refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from moderation.errors import UsageError
from moderation.evaluation.evaluate import LabelWords, evaluate
from moderation.evaluation.evaluation_page import write_evaluation
from moderation.evaluation.figures import draw_score
from tests.finished_run import Made, write_run

LABELS = ("a.hat", "skin.share")
POLICY = """
default: review
checks:
  hat: {side: negative, votes: [a.hat], block: 0.9, review: 0.5}
  plain: {side: positive, votes: [a.hat], invert: true, pass: 0.8}
"""


def make_run(folder: Path, count: int = 120, seed: int = 0) -> tuple[str, str]:
    """A run of `count` items, a third of them hats, and the path of their labels."""
    rng = np.random.default_rng(seed)
    hats = np.arange(count) % 3 == 0
    scores = np.clip(np.where(hats, 0.8, 0.15) + 0.15 * rng.normal(size=count), 0, 1)
    items = [
        Made(name=f"i{n}", votes=[(float(s), float(rng.random()))], attributes={"shop": "x" if n % 4 else "<b>y"})
        for n, s in enumerate(scores)
    ]
    labels = folder / "labels.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"i{n},{'hat' if hat else 'ok'},{'audit' if n % 2 else ''}" for n, hat in enumerate(hats)]
    labels.write_text("\n".join(["item_id,label,source", *rows]), encoding="utf-8")
    return write_run(folder, LABELS, items, POLICY, shard_items=50), str(labels)


def test_checks_verdicts_and_the_baseline_stand_in_one_table(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    found = evaluate([out], labels)[0]
    assert (found.rows, found.labelled, found.disputed) == (120, 120, 0)
    scores = {measures.name: measures for measures in found.scores}
    assert list(scores) == ["hat", "plain", "skin.share (baseline)"]
    assert (scores["hat"].true, scores["plain"].true) == (40, 80)
    hat, skin = scores["hat"].roc_auc, scores["skin.share (baseline)"].roc_auc
    assert hat is not None
    assert skin is not None
    assert hat > 0.95 > 0.7 > skin
    assert [operating.name for operating in scores["hat"].operating] == ["block", "review"]
    assert [v.name for v in found.verdicts] == ["all labels", "the audit"]
    assert found.verdicts[1].items == 60
    by_all = found.verdicts[0]
    assert sum(map(sum, by_all.confusion.values())) == 120
    assert found.automation.k == sum(map(sum, (by_all.confusion["block"], by_all.confusion["pass"])))


def test_slices_have_enough_items_and_the_worst_is_first(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    slices = evaluate([out], labels)[0].slices
    assert {(s.attribute, s.value) for s in slices} == {("shop", "x"), ("shop", "<b>y")}
    assert slices[0].measures.wrong.low >= slices[1].measures.wrong.low
    assert [s.value for s in evaluate([out], labels, least=60)[0].slices] == ["x"]


def test_runs_stand_beside_each_other_or_together(tmp_path: Path) -> None:
    first, labels = make_run(tmp_path / "1")
    second, _ = make_run(tmp_path / "2", seed=1)
    assert [found.rows for found in evaluate([first, second], labels)] == [120, 120]
    assert [found.rows for found in evaluate([first, second], labels, together=True)] == [240]


def test_the_page_escapes_what_strangers_wrote_and_the_json_holds_the_curves(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    page = Path(write_evaluation(evaluate([out], labels), labels, str(tmp_path / "to")))
    html = page.read_text()
    assert "&lt;b&gt;y" in html
    assert "<b>y" not in html
    assert html.count("data:image/svg+xml;base64,") == 3
    record = json.loads((page.parent / "evaluation.json").read_text())
    curves = record["evaluations"][0]["scores"][0]["curves"]
    assert curves["roc"][-1] == [1.0, 1.0]
    assert sum(curves["histogram_true"]) == 40


def test_a_figure_is_svg_and_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    measures = evaluate([out], labels)[0].scores[0]
    figure = draw_score(measures)
    assert figure is not None
    assert ElementTree.fromstring(figure).tag.endswith("svg")
    assert figure == draw_score(measures)


def test_disputed_labels_are_counted_and_left_out(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    with Path(labels).open("a", encoding="utf-8") as file:
        file.write("\ni0,ok,\n")
    found = evaluate([out], labels)[0]
    assert (found.labelled, found.disputed) == (119, 1)


def test_labels_of_other_items_are_refused_with_an_example_of_each(tmp_path: Path) -> None:
    out, _ = make_run(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("item_id,label\nx9,hat\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"none of the 1 labels .* 'x9', a row 'i0'"):
        evaluate([out], str(other))


def test_an_unknown_word_is_named_and_options_tell_what_it_means(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    Path(labels).write_text(Path(labels).read_text().replace("hat", "cap"), encoding="utf-8")
    with pytest.raises(UsageError, match="label 'cap': neither a check"):
        evaluate([out], labels)
    found = evaluate([out], labels, words=LabelWords(bad=("cap",), means=("hat=cap",)))[0]
    assert found.scores[0].true == 40
    found = evaluate([out], labels, words=LabelWords(means=("hat=cap",)))[0]
    assert found.verdicts[0].bad == 40


def test_the_line_of_the_audit_is_of_items_that_one_rate_has_drawn(tmp_path: Path) -> None:
    """Of what is bad the machine blocks half; what it blocks is drawn ten times as often as what it passes."""
    policy = """
default: pass
checks:
  hat: {side: negative, votes: [a.hat], block: 0.9}
audit:
  salt: pepper
  block: {check: hat, rate: 1.0, from: 0.9}
  pass: {check: hat, rate: 0.1, to: 0.5}
"""
    items = [Made(name=f"i{n}", votes=[(0.95 if n % 2 else 0.1, 0.0)]) for n in range(2000)]
    out = write_run(tmp_path, LABELS, items, policy, shard_items=1000)
    rows = [f"i{n},hat,audit" for n in range(2000)]
    (tmp_path / "labels.csv").write_text("\n".join(["item_id,label,source", *rows]))
    audit = evaluate([out], str(tmp_path / "labels.csv"))[0].verdicts[1]
    assert 0.4 < (audit.block_recall.share or 0) < 0.6
    assert 140 < audit.items < 260


def test_an_attribute_that_no_item_has_and_a_run_that_is_named_twice_are_refused(tmp_path: Path) -> None:
    out, labels = make_run(tmp_path)
    with pytest.raises(UsageError, match="no labelled item has that attribute; did you mean 'shop'"):
        evaluate([out], labels, slice_by=["shp"])
    with pytest.raises(UsageError, match="named twice"):
        evaluate([out, out + "/"], labels, together=True)
    assert len(evaluate([out, out], labels, slice_by=["shop", "kind"])) == 2
