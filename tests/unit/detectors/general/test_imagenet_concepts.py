"""Concept groups: class names are checked and resolved to classes."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.general.imagenet_classes import DEFAULT_CONCEPTS, class_indices, class_names, search_classes
from moderation.errors import UsageError


def test_there_are_a_thousand_classes_in_the_order_of_the_network() -> None:
    names = class_names()
    assert len(names) == 1000
    assert (names[0][1], names[444][1], names[999][1]) == ("tench", "bicycle-built-for-two", "toilet tissue")


def test_a_class_is_found_by_any_of_its_names_and_by_its_id() -> None:
    assert class_indices("g", ["revolver"]) == class_indices("g", ["six-gun"]) == class_indices("g", ["n04086273"])
    assert class_indices("g", ["Assault_Rifle"]) == (413,)


def test_names_of_one_class_count_it_once() -> None:
    assert class_indices("g", ["revolver", "six-shooter"]) == (763,)


def test_a_first_name_goes_before_another_word_of_some_other_class() -> None:
    assert [class_names()[i][0] for i in class_indices("g", ["missile"])] == ["n03773504"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["asault rifle"], "did you mean 'assault rifle'"),
        (["crane"], "give the id"),
        ([], "must be a list"),
        ("revolver", "must be a list"),
    ],
)
def test_a_wrong_class_name_is_refused_with_what_to_write(names: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageNet({"concepts": {"weapon": names}})


def test_groups_of_the_configuration_become_labels_in_their_order() -> None:
    assert ImageNet({"concepts": {"b": ["tench"], "a": ["goldfish"]}}).labels == ("b", "a")
    assert ImageNet({}).labels == tuple(DEFAULT_CONCEPTS)


def test_a_detector_without_groups_is_refused() -> None:
    with pytest.raises(UsageError, match="no group"):
        ImageNet({"concepts": {}})


def test_classes_are_searched_by_word_and_by_id() -> None:
    assert [entry[0] for entry in search_classes("Assault_Rifle")] == ["n02749479"]
    assert [entry[1] for entry in search_classes("n04086273")] == ["revolver"]
    assert len(search_classes("")) == 1000
    with pytest.raises(UsageError, match="no class is called 'rifel'; did you mean 'rifle'"):
        search_classes("rifel")


def test_the_job_lists_names_and_the_concepts_that_hold_them() -> None:
    shown = CliRunner().invoke(app, ["concepts", "cleaver"]).stdout
    assert "n03041632" in shown
    assert "blade" in shown
