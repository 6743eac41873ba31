"""Distributions of checks, disagreement between variants, and their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.analysis.check_pages import write_check_pages
from moderation.analysis.checks import describe_checks
from moderation.analysis.plots import plot_check
from moderation.errors import UsageError
from moderation.pages.drawing import drawing
from moderation.pages.figures import label_thresholds
from tests.finished_run import Made, write_run

LABELS = ("a.mask", "b.mask", "a.face", "quality.sharpness")
POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask, b.mask], fuse: mean, review: 0.5, block: 0.9}
  no_face: {side: negative, votes: [a.face], invert: true, review: 0.5}
  sharp: {side: attribute, votes: [quality.sharpness]}
"""
ITEMS = [
    Made(name="1", votes=[(0.1, 0.2, 0.9, 300)]),
    Made(name="2", votes=[(0.6, 0.3, 0.9, 200)]),
    Made(name="3", votes=[(0.95, 0.95, 0.1, 100)]),
    Made(name="4", votes=[(0.2, None, 0.3, 10), (0.7, 0.8, 0.3, 10)]),
    Made(name="5", votes=None),
    Made(name="6", votes=[(1.0, 0.0, 0.5, 5)]),
]


def test_votes_fused_scores_and_thresholds_are_counted(tmp_path: Path) -> None:
    found = {c.name: c for c in describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY))}
    assert set(found) == {"mask", "no_face"}  # a measurement has no place in 0..1
    mask = found["mask"]
    assert [v.name for v in mask.votes] == ["a.mask", "b.mask"]
    assert [sum(v.counts) for v in mask.votes] == [6, 5]
    assert mask.votes[1].nulls == 1
    assert mask.fused.total == 6
    assert mask.fused.nulls == 1  # a null vote makes the fused one null
    # fused: 0.15, 0.45, 0.95, null, 0.75, 0.5
    assert mask.at_least == {"block": pytest.approx(1 / 5), "review": pytest.approx(3 / 5)}
    assert mask.fused.mean == pytest.approx((0.15 + 0.45 + 0.95 + 0.75 + 0.5) / 5, abs=1e-6)
    assert mask.fused.quantile(0.5) == pytest.approx(0.5, abs=0.011)


def test_variants_disagree_where_the_threshold_parts_them(tmp_path: Path) -> None:
    (mask,) = describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY), only=["mask"])
    (pair,) = mask.pairs
    assert (pair.first, pair.second, pair.frames) == ("a.mask", "b.mask", 5)
    assert pair.apart == pytest.approx(2 / 5)  # items 2 and 6
    assert pair.difference == pytest.approx((0.1 + 0.3 + 0.0 + 0.1 + 1.0) / 5, abs=1e-6)


def test_an_inverted_check_is_shown_as_the_policy_reads_it(tmp_path: Path) -> None:
    (check,) = describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY), only=["no_face"])
    assert check.votes[0].counts == check.fused.counts
    assert check.at_least["review"] == pytest.approx(4 / 6)
    assert check.pairs == ()


def test_figures_and_a_page_stand_beside_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = write_run(tmp_path, LABELS, ITEMS, POLICY)
    to = tmp_path / "figures"
    page = write_check_pages(describe_checks(out), out + "/<b>", str(to), "png")
    assert {p.name for p in to.iterdir()} == {
        "mask.png", "no_face.png", "disagreement-of-variants.png", "index.html",
    }  # fmt: skip
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in to.glob("*.png"))
    html = Path(page).read_text()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count("data:image/png;base64,") == 3
    assert "<script" not in html


def test_figures_are_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY))
    for name in ("first", "second"):
        write_check_pages(found, "out", str(tmp_path / name), "png")
    assert (tmp_path / "first/mask.png").read_bytes() == (tmp_path / "second/mask.png").read_bytes()


def test_svg_is_written_on_request(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY), only=["mask"])
    write_check_pages(found, "out", str(tmp_path / "svg"), "svg")
    assert b"<svg" in (tmp_path / "svg/mask.svg").read_bytes()


def test_a_missing_package_says_which_command_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type] # as it was called

    found = describe_checks(write_run(tmp_path, LABELS, ITEMS, POLICY))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'matplotlib>=3.10'"):
        write_check_pages(found, "out", str(tmp_path / "f"), "png")


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    out = write_run(tmp_path, LABELS, ITEMS, POLICY, keep_policy=False)
    with pytest.raises(UsageError, match="not there any more; name one by --policy"):
        describe_checks(out)
    other = tmp_path / "again.yaml"
    other.write_text(POLICY)
    with pytest.raises(UsageError, match="no check 'hat'"):
        describe_checks(out, str(other), only=["hat"])


def test_checks_that_decide_come_first(tmp_path: Path) -> None:
    policy = "default: pass\nchecks:\n  seen: {side: attribute, votes: [b.mask]}\n" + POLICY.partition("checks:\n")[2]
    described = describe_checks(write_run(tmp_path, LABELS, ITEMS, policy))
    assert [c.name for c in described] == ["mask", "no_face", "seen"]


def test_labels_of_thresholds_stay_inside_the_figure(tmp_path: Path) -> None:
    policy = POLICY.replace("review: 0.5, block: 0.9", "review: 0.97, block: 0.98")
    (check,) = describe_checks(write_run(tmp_path, LABELS, ITEMS, policy), only=["mask"])
    assert plot_check(check).startswith(b"\x89PNG")
    # The label of a threshold at the right end stands left of its line.
    with drawing(7.2, 3.6) as figure:
        axes = figure.add_subplot()
        label_thresholds(axes, {"block": 0.98, "review": 0.1}, {"block": "k", "review": "k"}, {"block": ": 12.3%"})
        figure.canvas.draw()
        ends = [text.get_window_extent() for text in axes.texts]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in ends)
