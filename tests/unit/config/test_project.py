"""A project to start from: it loads, and nothing that is there is touched."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.config.load import load_config
from moderation.config.project import write_project
from moderation.errors import UsageError
from moderation.policy.model import load_policy


def test_what_is_written_loads(tmp_path: Path) -> None:
    written = write_project(tmp_path / "mine")
    assert sorted(path.name for path in written) == ["README.md", "cases.yaml", "config.yaml", "policy.yaml"]
    config = load_config(str(tmp_path / "mine" / "config.yaml"))
    assert config.policy == str(tmp_path / "mine" / "policy.yaml")
    assert load_policy(Path(config.policy)).checks
    assert "knife" in next(d for d in config.stack.detectors if d.name == "imagenet").options["concepts"]


def test_the_policy_is_that_of_the_base(tmp_path: Path) -> None:
    write_project(tmp_path / "mine", "full")
    packaged = Path(load_config("full").policy).read_text()
    assert (tmp_path / "mine" / "policy.yaml").read_text() == packaged


def test_its_cases_are_decided_as_they_say(tmp_path: Path) -> None:
    write_project(tmp_path)
    tested = CliRunner().invoke(app, ["policy", "test", str(tmp_path / "policy.yaml"), str(tmp_path / "cases.yaml")])
    assert tested.exit_code == 0, tested.stdout


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mine")
    assert "policy.yaml" not in {path.name for path in write_project(tmp_path)}
    assert (tmp_path / "policy.yaml").read_text() == "mine"
    assert "all of it is there already" in CliRunner().invoke(app, ["init", str(tmp_path)]).stdout


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't be written to"):
        write_project(tmp_path / "file")


def test_the_program_tells_its_version_and_completes() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("moderation ")
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout


@pytest.mark.parametrize("folder", ["", " ", "s3://bucket/mine"])
def test_a_folder_that_is_none_gets_nothing(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="DIR"):
        CliRunner().invoke(app, ["init", folder], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_comes_next_can_be_copied_into_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my $(touch x) files"
    last = CliRunner().invoke(app, ["init", str(folder)]).stdout.splitlines()[-1]
    assert shlex.split(last)[-1] == str(folder / "config.yaml")
