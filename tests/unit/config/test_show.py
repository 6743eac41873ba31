"""`moderation config show`: its output explains itself and can be loaded again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.config.load import load_config, packaged_configs
from moderation.config.model import Config
from moderation.config.show import show_config

OVERRIDES = [
    "source.bytes_column='bytes: #1'",
    "media.fps=0.5",
    "source.allow=['s3://a b/', \"file:///x: y\"]",
    "output.format=arrow",
]
FILES = sorted(p.name for p in packaged_configs().glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_shown_loads_as_the_same_configuration(name: str, tmp_path: Path) -> None:
    config = load_config(name, OVERRIDES)
    shown = tmp_path / "elsewhere" / "shown.yaml"
    shown.parent.mkdir()
    shown.write_text(show_config(config), encoding="utf-8")
    assert load_config(str(shown)) == config


def test_configuration_with_nothing_set_is_shown_whole() -> None:
    assert Config.model_validate(yaml.safe_load(show_config(Config()))) == Config()


def test_every_key_and_every_description_is_shown() -> None:
    shown = " ".join(show_config(load_config()).replace("#", " ").split())
    for section in (Config, *(type(v) for v in dict(Config()).values() if isinstance(v, BaseModel))):
        for name, info in section.model_fields.items():
            assert f"{name}:" in shown, name
            assert " ".join((info.description or "").split()) in shown, name


def test_choices_and_bounds_are_said() -> None:
    shown = show_config(Config())
    assert "# one of: zstd, snappy, none" in shown
    assert "# tries before a shard is bisected; >= 1 and <= 10" in shown


def test_command_prints_what_overrides_changed() -> None:
    done = CliRunner().invoke(app, ["config", "show", "--set", "media.max_frames=3"])
    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout)["media"]["max_frames"] == 3


def test_the_policy_of_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODERATION_POLICY", "full")
    for more, line in (((), "policy: "), (("--origin",), "--set policy")):
        shown = CliRunner().invoke(app, ["config", "show", *more]).stdout
        (policy,) = [said for said in shown.splitlines() if said.startswith(line)]
        assert policy.endswith("policies/full.yaml")
