"""Two runs side by side: every common item is the same or has moved, and what is passed now comes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moderation.errors import UsageError
from moderation.pages.compare import render_comparison
from moderation.results.comparison import compare_outputs
from moderation.results.summary import summarise
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""
SCORES = st.lists(st.sampled_from([0.1, 0.6, 0.95, None]), min_size=1, max_size=9)


def made_run(folder: Path, scores: dict[str, float | None]) -> str:
    items = [Made(name=name, votes=None if score is None else [(score,)]) for name, score in scores.items()]
    out = write_run(folder, ("a.mask",), items, POLICY)
    summary = summarise([], {"policy_hash": str(folder.name)}) | {"items": len(scores)}
    (Path(out) / "summary.json").write_text(json.dumps(summary))
    return out


def test_what_is_passed_now_comes_first(tmp_path: Path) -> None:
    first = made_run(tmp_path / "a", {"i1": 0.95, "i2": 0.1, "i3": 0.6, "i4": 0.1, "gone": 0.1})
    second = made_run(tmp_path / "b", {"i1": 0.1, "i2": 0.6, "i3": 0.95, "i4": 0.1, "new": 0.1})
    compared = compare_outputs(first, second)
    moves = [(m.before, m.after, m.items) for m in compared.moves]
    assert moves == [("block", "pass", 1), ("review", "block", 1), ("pass", "review", 1)]
    assert (compared.shared, compared.same, compared.first_only, compared.second_only) == (4, 1, 1, 1)
    assert compared.moves[0].examples[0]["uri"].endswith("/in/i1")
    assert compared.moves[0].examples[0]["reason_before"] == "negative:mask:block"
    assert ("policy", "a", "b") in compared.different


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCORES, SCORES)
def test_every_common_item_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, before: list[float | None], after: list[float | None]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    first = made_run(folder / "a", {f"i{n}": score for n, score in enumerate(before)})
    second = made_run(folder / "b", {f"i{n}": score for n, score in enumerate(after)})
    compared = compare_outputs(first, second)
    assert compared.shared == min(len(before), len(after))
    assert compared.same + sum(m.items for m in compared.moves) == compared.shared
    assert compared.shared + compared.first_only == len(before)


def test_the_page_tells_moves_and_escapes_names(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>.jpg"
    compared = compare_outputs(made_run(tmp_path / "a", {name: 0.95}), made_run(tmp_path / "b", {name: 0.1}))
    page = render_comparison(compared, [], "Too few items to compare scores.")
    assert "1 item of 1 moved" in page and "&lt;script&gt;" in page and "<script>" not in page


def test_one_run_twice_is_refused(tmp_path: Path) -> None:
    out = made_run(tmp_path / "a", {"i1": 0.1})
    with pytest.raises(UsageError, match="one run twice"):
        compare_outputs(out, out + "/")
