"""An actions file is checked before any work: each mistake names its key and the nearest right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.actions.read import is_within, read_actions
from moderation.errors import UsageError

SECRET = {"HOOK": "0123456789abcdef0123"}
GOOD: dict[str, Any] = {
    "objects": ["s3://bucket/in/"],
    "destinations": ["s3://quarantine/x"],
    "actions": [
        {"name": "tag", "do": "tag", "when": {"verdict": ["block"]}, "tags": {"moderation": "{verdict}"}},
        {"name": "copy", "do": "copy", "when": {"verdict": ["block"]}, "to": "s3://quarantine/x/y"},
        {"name": "hook", "do": "webhook", "when": {"verdict": ["block"]}, "url": "https://h/x", "secret_env": "HOOK"},
    ],
}


def read(tmp_path: Path, tree: object) -> object:
    path = tmp_path / "actions.yaml"
    path.write_text(json.dumps(tree))
    return read_actions(path, SECRET)


def changed(place: int, **keys: object) -> dict[str, object]:
    actions = [dict(action) for action in GOOD["actions"]]
    actions[place] = {**actions[place], **keys}
    return {**GOOD, "actions": actions}


def manifest(name: str) -> dict[str, object]:
    return {"name": name, "do": "manifest", "when": {"verdict": ["block"]}, "to": "s3://quarantine/x/m.jsonl"}


def test_a_right_file_is_read(tmp_path: Path) -> None:
    read(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({**GOOD, "object": []}, "did you mean 'objects'?"),
        (changed(0, tag={}), "did you mean 'tags'?"),
        (changed(0, do="tags"), "'tag', 'copy'"),
        (changed(0, when={"verdict": []}), "actions.0.when.verdict"),
        (changed(0, when={"verdicts": ["block"]}), "did you mean 'actions.0.when.verdict'?"),
        (changed(0, tags={"a": "{verdikt}"}), "did you mean 'verdict'?"),
        (changed(0, tags={"aws:x": "1"}), "cannot be a tag"),
        (changed(0, tags={"a": "{"}), "tags.a"),
        (changed(0, to="s3://quarantine/x/"), "does not belong to `do: tag`"),
        (changed(1, to="s3://quarantine/xy/z"), "not within `destinations`"),
        (changed(1, to="s3://quarantine/x/../z"), "not within `destinations`"),
        (changed(1, name="tag"), "two actions are called 'tag'"),
        ({**GOOD, "actions": [manifest("one"), manifest("two")]}, "is the manifest of 'one' already"),
        (changed(2, url="http://host/x"), "others need https"),
        (changed(2, url="https://u:p@host/x"), "has a user or a password"),
        (changed(2, url="ftp://host/x"), "expected https://"),
        (changed(2, secret_env="HOOKS"), "no variable 'HOOKS'"),
        (changed(2, per_second=0), "per_second"),
        ({**GOOD, "objects": []}, "`objects` is needed"),
        ({**GOOD, "objects": ["s3://"]}, "is everything"),
        ({"actions": []}, "actions"),
        ([], "expected a mapping"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, tree: object, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, tree)
    text = str(error.value)
    assert said in text or said.replace("actions.0.when.", "") in text
    assert "u:p@" not in text


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "actions.yaml"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(UsageError, match="can be guessed"):
        read_actions(path, {"HOOK": "short"})


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:9"])
def test_http_to_this_machine_is_taken(tmp_path: Path, host: str) -> None:
    read(tmp_path, changed(2, url=f"http://{host}/x"))


@given(st.text("ab./", max_size=12))
def test_what_is_within_a_prefix_begins_with_it_and_never_climbs(rest: str) -> None:
    uri = f"s3://bucket/in{rest}"
    if is_within(uri, ["s3://bucket/in"]):
        assert uri.startswith("s3://bucket/in/")
        assert ".." not in uri.split("/")
