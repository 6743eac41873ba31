"""Files that extend others: merged deeply, detectors by name, and each key known by where it was said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.config.files import resolve_config_path
from moderation.config.load import load_config, load_layers
from moderation.errors import UsageError

BASE = """
stack:
  batch_size: 4
  detectors:
    - name: imagenet
      options: {concepts: {weapon: [rifle], blade: [cleaver]}}
    - {name: clip, alias: small, weights: hf://o/n/f}
    - name: quality
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write(tmp_path / "base.yaml", BASE)
    return tmp_path


def test_a_detector_is_patched_by_its_name_and_another_added(base: Path) -> None:
    child = write(
        base / "child.yaml",
        """extends: base.yaml
media: {max_frames: 8}
stack:
  detectors:
    - {name: imagenet, options: {concepts: {blade: [hatchet], knife: [letter opener]}}}
    - {alias: small, name: clip, when: "imagenet.weapon >= 0.1"}
    - {name: quality, remove: true}
    - name: pdq
""",
    )
    config = load_config(child)
    assert [d.title for d in config.stack.detectors] == ["imagenet", "small", "pdq"]
    concepts = config.stack.detectors[0].options["concepts"]
    assert concepts == {"weapon": ["rifle"], "blade": ["hatchet"], "knife": ["letter opener"]}
    assert config.stack.detectors[1].weights == "hf://o/n/f"
    assert config.stack.detectors[1].when == "imagenet.weapon >= 0.1"
    assert (config.stack.batch_size, config.media.max_frames) == (4, 8)


def test_the_packaged_one_may_be_extended_by_its_name(tmp_path: Path) -> None:
    child = write(tmp_path / "c.yaml", "extends: default\nstack: {detectors: [{name: pdq, remove: true}]}\n")
    default = [d.title for d in load_config("default").stack.detectors]
    assert [d.title for d in load_config(child).stack.detectors] == [t for t in default if t != "pdq"]


def test_paths_of_the_base_are_meant_from_the_base(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "policy.yaml", "default: pass\nchecks: {}\n")
    write(tmp_path / "shared" / "words.yaml", "a: 1\n")
    write(
        tmp_path / "shared" / "base.yaml",
        "policy: policy.yaml\nstack: {detectors: [{name: clip, options_from: words.yaml}]}\n",
    )
    child = write(tmp_path / "mine" / "c.yaml", "extends: ../shared/base.yaml\n")
    config = load_config(child)
    assert Path(config.policy).resolve() == (tmp_path / "shared" / "policy.yaml").resolve()
    assert config.stack.detectors[0].options == {"a": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: c.yaml\n", "more than 8 files that extend each other: a circle?"),
        ("extends: [a, b]\n", r"extends: one file.*given: \['a', 'b'\]"),
        ("extends: ''\n", "extends: one file"),
        ("extends: nosuch.yaml\n", "no file 'nosuch.yaml'"),
        ("extends: base.yaml\nstack: {detectors: [{alias: 3}]}\n", "every entry needs a `name`"),
        ("extends: base.yaml\nstack: {detectors: [{name: pdq, remove: true}]}\n", "there is no 'pdq' to remove"),
        ("extends: base.yaml\nstack: {detectors: [{name: quality, remove: 1}]}\n", "`remove` is true or false, not 1"),
        ("extends: base.yaml\nstack: {detectors: [{name: quality, remove: 'yes'}]}\n", "`remove` is true or false"),
    ],
)
def test_what_can_not_be_extended_is_told(base: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_config(write(base / "c.yaml", text))


@pytest.mark.parametrize(
    ("first", "second"),
    [("name: head:scenes", "name: head, alias: scenes"), ("name: head, alias: scenes", "name: head:scenes")],
)
def test_the_short_form_of_an_alias_is_patched_like_the_long_one(tmp_path: Path, first: str, second: str) -> None:
    write(tmp_path / "base.yaml", f"stack: {{detectors: [{{{first}, options: {{a: 1}}}}]}}\n")
    child = write(tmp_path / "c.yaml", f"extends: base.yaml\nstack: {{detectors: [{{{second}, options: {{b: 2}}}}]}}\n")
    (entry,) = load_config(child).stack.detectors
    assert (entry.name, entry.alias, entry.options) == ("head", "scenes", {"a": 1, "b": 2})


@pytest.mark.parametrize("override", ["runtim.workers=2", "media.foo.x=1", "media..x=1"])
def test_a_section_that_only_an_override_names_is_blamed_on_it(override: str) -> None:
    with pytest.raises(UsageError, match=rf"^--set {re.escape(override.partition('=')[0])}: unknown key"):
        load_config(None, [override])


def test_a_mistake_is_blamed_on_the_file_and_line_that_says_it(base: Path) -> None:
    write(base / "base.yaml", BASE + "media:\n  max_pixel: 3\n")
    child = write(base / "child.yaml", "extends: base.yaml\noutput:\n  format: csv\n")
    with pytest.raises(UsageError) as wrong:
        load_config(child, ["shards.max_items=0"])
    text = str(wrong.value)
    assert f"{base}/base.yaml:10: unknown key 'media.max_pixel'; did you mean 'max_pixels'?" in text
    assert f"{child}:3: output.format: " in text
    assert "--set shards.max_items: shards.max_items: " in text


def test_origins_name_file_line_and_command_line(base: Path) -> None:
    child = write(
        base / "child.yaml", "extends: base.yaml\nstack:\n  detectors:\n    - {name: quality, when: a.b > 1}\n"
    )
    _, layered = load_layers(child, ["stack.batch_size=2"])
    assert layered.said_in(["stack", "batch_size"]) == "--set stack.batch_size"
    assert layered.said_in(["stack", "detectors", "2", "when"]) == f"{child}:4"
    assert layered.said_in(["stack", "detectors", "0", "options", "concepts", "blade"]) == f"{base}/base.yaml:6"
    assert layered.said_in(["stack", "device"]) is None
    _, layered = load_layers(child, ["stack.detectors=[{name: pdq}]"])
    assert layered.said_in(["stack", "detectors", "0", "name"]) == "--set stack.detectors"


def test_the_job_shows_origins(base: Path) -> None:
    child = write(base / "child.yaml", "extends: default.yaml\nmedia: {max_frames: 8}\n")
    shown = CliRunner().invoke(app, ["config", "show", "--config", child, "--origin"]).stdout
    assert f"{child}:2" in shown
    assert "packaged default.yaml:4" in shown
    assert "runtime.workers" not in shown
    told = CliRunner().invoke(app, ["config", "show", "--config", child, "--origin", "--all", "--json"]).stdout
    assert {"key": "runtime.workers", "value": "auto", "origin": "default"} in json.loads(told)


def test_a_packaged_name_needs_no_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_config_path("full").name == "full.yaml"
    assert resolve_config_path("full", kind="policies").parent.name == "policies"
    assert Path(load_config(None, ["policy=full"]).policy).parent.name == "policies"
    with pytest.raises(UsageError, match=r"no file 'ful'; packaged: policies/.*did you mean"):
        resolve_config_path("ful", kind="policies")


def test_the_environment_names_a_configuration(base: Path) -> None:
    child = write(base / "child.yaml", "extends: default.yaml\nmedia: {max_frames: 8}\n")
    shown = CliRunner().invoke(app, ["config", "show", "--json"], env={"MODERATION_CONFIG": child})
    assert json.loads(shown.stdout)["media"]["max_frames"] == 8
