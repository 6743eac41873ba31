"""Figures as SVG in a page: the page's colours and font, nothing that could run, names that stay names."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

import numpy as np

from moderation.pages.drawing import BLOCK, as_svg, drawing
from moderation.pages.figures import CourseBin, draw_checks, draw_course, draw_scores, draw_steps

ATTACK = "</svg><script>alert(1)</script>$x^2$"


def draw(label: str = "a") -> str:
    with drawing(3, 2) as figure:
        axes = figure.add_subplot()
        axes.bar([0], [1], color=BLOCK)
        axes.set_xlabel(label)
        return str(as_svg(figure, "one", label))


def test_a_figure_takes_the_colours_of_the_page() -> None:
    svg = draw()
    assert "var(--block-fill)" in svg and "var(--soft)" in svg
    assert "#0a0a" not in svg


def test_a_figure_has_no_font_no_style_and_no_name_of_its_own() -> None:
    svg = draw()
    assert "DejaVu" not in svg and "<style" not in svg and "metadata" not in svg and "xlink" not in svg
    root = ElementTree.fromstring(svg)
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert ids and all(i.startswith("one-") for i in ids) and len(ids) == len(set(ids))


def test_text_of_a_figure_is_text_whatever_it_says() -> None:
    root = ElementTree.fromstring(draw(ATTACK))
    assert ATTACK in [e.text for e in root.iter() if e.tag.endswith("text")]
    assert root.attrib["aria-label"] == ATTACK
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_the_same_figure_gives_the_same_text() -> None:
    assert draw() == draw()


def test_every_reference_within_a_figure_is_kept() -> None:
    svg = draw_checks({ATTACK: {"block": 3, "review": 1, "pass": 0}, "b": {"block": 0, "review": 0, "pass": 70}})
    assert svg is not None
    root = ElementTree.fromstring(str(svg))
    ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
    named = [e.attrib["href"].removeprefix("#") for e in root.iter() if "href" in e.attrib]
    assert named and set(named) <= ids
    assert "3 block" in svg and "70 pass" in svg


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw_checks({}) is None
    assert draw_course([]) is None
    assert draw_scores("a", np.array([np.nan, 7.0]), {"review": 0.5}, 0) is None
    assert draw_steps({"fetch": 0.0}, {}) is None


def test_scores_say_what_is_over_each_threshold() -> None:
    svg = draw_scores("mask", np.array([0.1, 0.7, 0.95, np.nan]), {"block": 0.9, "review": 0.6}, 0)
    assert svg is not None
    assert "3 items, 1 at or over 0.9 (block), 2 at or over 0.6 (review)" in svg
    assert "block ≥ 0.9" in svg


def test_the_course_names_the_lines_that_it_has() -> None:
    bins = [CourseBin(end_s=10.0 * n, seconds=10.0, items=20, counts={"review": n, "pass": 9}) for n in range(1, 5)]
    svg = draw_course(bins)
    assert svg is not None
    assert ">review<" in svg and ">block<" not in svg and "seconds of judging" in svg
