"""Votes as the policy reads them: adjacent rows of an item belong together."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from moderation.results.votes import adjacent_runs


@given(st.lists(st.integers(0, 3)))
def test_adjacent_runs_are_what_groupby_finds_and_cover_everything_once(keys: list[int]) -> None:
    runs = list(adjacent_runs(keys))
    assert [keys[run] for run in runs] == [list(group) for _, group in groupby(keys)]
    assert [index for run in runs for index in range(run.start, run.stop)] == list(range(len(keys)))
