"""The verdicts of the sample data and of packaged pictures, by the default configuration, are those on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moderation import Moderator
from moderation.errors import UsageError
from tests.golden.regenerate import (
    EXACT,
    PACKAGED_FILE,
    SAMPLES_FILE,
    Rows,
    agree,
    judge_files,
    packaged_paths,
    sample_paths,
)

pytestmark = [pytest.mark.weights, pytest.mark.slow]

PACKAGED = pytest.param(PACKAGED_FILE, id="packaged")
SAMPLED = pytest.param(SAMPLES_FILE, id="samples", marks=pytest.mark.shared)
both_files = pytest.mark.parametrize("file", [PACKAGED, SAMPLED])


@pytest.fixture(scope="module")
def moderator() -> Iterator[Moderator]:
    with Moderator.from_config(overrides=EXACT) as opened:
        yield opened


@pytest.fixture(scope="module")
def judged_samples(moderator: Moderator) -> Rows:
    samples = sample_paths()
    if not samples:
        pytest.skip("no ../shared/data beside the repository")
    return judge_files(moderator, samples)


@pytest.fixture(scope="module")
def judged_packaged(moderator: Moderator) -> Rows:
    try:
        with packaged_paths() as packaged:
            return judge_files(moderator, packaged)
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture
def judged(request: pytest.FixtureRequest, file: Path) -> Rows:
    rows: Rows = request.getfixturevalue("judged_packaged" if file == PACKAGED_FILE else "judged_samples")
    return rows


@pytest.fixture
def golden(file: Path) -> Rows:
    rows: Rows = json.loads(file.read_text())
    return rows


@both_files
def test_every_verdict_and_reason_is_as_recorded(judged: Rows, golden: Rows) -> None:
    def decisions(rows: Rows) -> dict[str, tuple[Any, ...]]:
        return {name: (row["verdict"], row["reason"], row["frames"]) for name, row in rows.items()}

    assert decisions(judged) == decisions(golden)


@both_files
def test_every_score_is_as_recorded(judged: Rows, golden: Rows) -> None:
    differing = {name: judged[name]["scores"] for name, row in golden.items() if not agree(judged[name], row)}
    assert differing == {}


@pytest.mark.shared
def test_the_default_policy_passes_96_in_a_hundred_photographs_and_blocks_none(judged_samples: Rows) -> None:
    verdicts = [row["verdict"] for name, row in judged_samples.items() if name.startswith("images/")]
    assert len(verdicts) == 200
    assert verdicts.count("block") == 0
    assert verdicts.count("pass") >= 192
