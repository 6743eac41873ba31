"""The verdicts of the sample data, by the default configuration, are those on record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.regenerate import FILE, SAMPLES, judge_samples

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.shared]

# Far more than kernels differ by (1e-4 between ours and ONNX Runtime), far less than a threshold's neighbourhood.
TOLERANCE = 0.004


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    if not SAMPLES.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return judge_samples()


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return loaded


def test_every_verdict_and_reason_is_as_recorded(
    found: dict[str, dict[str, Any]], golden: dict[str, dict[str, Any]]
) -> None:
    def decisions(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
        return {name: (row["verdict"], row["reason"], row["frames"]) for name, row in rows.items()}

    assert decisions(found) == decisions(golden)


def test_every_score_is_as_recorded(found: dict[str, dict[str, Any]], golden: dict[str, dict[str, Any]]) -> None:
    for name, row in golden.items():
        assert found[name]["scores"] == pytest.approx(row["scores"], abs=TOLERANCE, rel=1e-3), name


def test_the_default_policy_passes_96_in_a_hundred_photographs_and_blocks_none(
    found: dict[str, dict[str, Any]],
) -> None:
    verdicts = [row["verdict"] for name, row in found.items() if name.startswith("images/")]
    assert len(verdicts) == 200
    assert verdicts.count("block") == 0
    assert verdicts.count("pass") >= 192
