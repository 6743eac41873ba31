"""The tables of reasons and of class definitions: whole in every language, and readable."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from moderation.config.load import packaged_configs
from moderation.errors import UsageError
from moderation.policy.definitions import definition_path, load_definition
from moderation.policy.model import load_policy
from moderation.policy.texts import REASONS, load_reason_texts
from moderation.types import ErrorCode

LANGUAGES = sorted(path.stem for path in (packaged_configs() / "texts").glob("*.yaml"))
DEFINITIONS = sorted(path.stem for path in (packaged_configs() / "definitions").glob("*.yaml"))
POLICIES = sorted((packaged_configs() / "policies").glob("*.yaml"))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_there_is_english_and_chinese() -> None:
    assert {"en", "zh"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_sentence_with_the_same_numbers_in_it(language: str) -> None:
    own, english = load_reason_texts(language), load_reason_texts("en")
    assert set(own.reasons) == set(REASONS)
    assert {name: placeholders(text) for name, text in own.reasons.items()} == {
        name: placeholders(text) for name, text in english.reasons.items()
    }
    assert (placeholders(own.where), placeholders(own.note)) == ({"start", "end"}, {"note"})
    assert set(own.errors) == {str(code) for code in ErrorCode}
    assert set(own.checks) == set(english.checks)
    assert set(own.unseen) == set(english.unseen)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_deciding_check_of_a_packaged_policy_has_words(path: Path) -> None:
    deciding = {name for name, check in load_policy(path).checks.items() if check.side != "attribute"}
    assert deciding <= set(load_reason_texts("en").checks)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_says_what_belongs_and_tells_it_from_its_neighbours(name: str) -> None:
    definition = load_definition(name)
    assert len(definition.belongs) >= 2
    assert len(definition.does_not_belong) >= 2
    assert len(definition.neighbours) >= 5
    assert definition.example


def test_the_packaged_policies_have_about_eight_definitions_among_them() -> None:
    named = {check.definition for path in POLICIES for check in load_policy(path).checks.values()} - {None}
    assert named == set(DEFINITIONS)
    assert len(DEFINITIONS) == 8


def test_a_definition_of_ones_own_stands_beside_the_policy_and_over_the_packaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    text = (packaged_configs() / "definitions" / "gore.yaml").read_text(encoding="utf-8")
    (folder / "gore.yaml").write_text(text.replace("title: Gore", "title: Ours"), encoding="utf-8")
    assert load_definition("gore", beside=tmp_path).title == "Ours"


@pytest.mark.parametrize("name", ["gores", "../policies/default", "/etc/passwd"])
def test_a_name_is_no_path_and_a_wrong_one_is_told_the_nearest(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no definition"):
        definition_path(name, beside=tmp_path)
    with pytest.raises(UsageError, match="did you mean 'gore'"):
        definition_path("gores")
