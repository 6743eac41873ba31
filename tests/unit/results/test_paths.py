"""SOURCE and OUT are looked at before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.results.paths import check_paths, holds_more
from tests.job_runs import make_pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "in", 3)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing there"):
        check_paths(str(tmp_path / "in"), str(tmp_path / "out"), SourceConfig())


@pytest.mark.parametrize("out", ["in/out", "in", "."])
def test_out_and_source_lie_beside_each_other(pictures: Path, tmp_path: Path, out: str) -> None:
    with pytest.raises(UsageError, match=" lies in "):
        check_paths(str(pictures), str(tmp_path / out), SourceConfig())


def test_a_run_that_has_begun_may_go_on_without_its_source(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    check_paths(str(tmp_path / "in"), str(tmp_path / "out"), SourceConfig())


@pytest.mark.parametrize(("limit", "more"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_limit_leaves_work_where_the_source_has_more(pictures: Path, limit: int, more: bool) -> None:
    assert holds_more(str(pictures), SourceConfig(), limit) is more


def test_a_source_that_is_gone_has_no_more(tmp_path: Path) -> None:
    assert not holds_more(str(tmp_path / "gone"), SourceConfig(), 1)


def test_a_wrong_path_is_told_without_torch_and_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as ended: print(ended.code, sorted({'torch', 'ray', 'botocore'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "backfill", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.stdout.strip() == "2 []", ended.stderr
    first = ended.stderr.splitlines()[0]
    assert '"event": "run"' in first
    assert str(tmp_path / "in") in first
    assert "Traceback" not in ended.stderr
