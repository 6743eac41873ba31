"""Check names onto a three-level taxonomy, from a table that is data."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.config.load import load_config
from moderation.errors import UsageError
from moderation.policy.model import load_policy
from moderation.policy.taxonomy import label_scores, load_taxonomy

TABLE = {"blood": ("Violence", "Graphic Violence", "Blood & Gore"), "weapon": ("Violence", "Weapons"), "hat": ()}


def test_the_packaged_table_knows_every_deciding_check_of_the_packaged_clip_policy() -> None:
    policy = load_policy(Path(load_config("clip.yaml").policy))
    deciding = {name for name, check in policy.checks.items() if check.side != "attribute"}
    assert len(deciding) >= 24
    assert deciding <= set(load_taxonomy())
    assert load_taxonomy()["blood"] == ("Violence", "Graphic Violence", "Blood & Gore")


def test_a_label_brings_its_parents_and_a_parent_is_as_sure_as_its_surest_child() -> None:
    labels = label_scores({"blood": 0.75, "weapon": 0.9, "hat": 1.0, "unknown": 1.0}, TABLE)
    assert [label.as_api() for label in labels] == [
        {"Name": "Violence", "ParentName": "", "TaxonomyLevel": 1, "Confidence": 90.0},
        {"Name": "Weapons", "ParentName": "Violence", "TaxonomyLevel": 2, "Confidence": 90.0},
        {"Name": "Graphic Violence", "ParentName": "Violence", "TaxonomyLevel": 2, "Confidence": 75.0},
        {"Name": "Blood & Gore", "ParentName": "Graphic Violence", "TaxonomyLevel": 3, "Confidence": 75.0},
    ]


def test_null_and_low_scores_give_no_label() -> None:
    assert label_scores({"blood": None, "weapon": 0.49}, TABLE) == ()
    assert len(label_scores({"weapon": 0.49}, TABLE, least=0.4)) == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("check,level_1\nblood,Violence\n", "first line must be"),
        ("check,level_1,level_2,level_3\nblood,,Graphic Violence,\n", "line 2: a level is empty"),
        ("check,level_1,level_2,level_3\nblood,V,,\nblood,V,,\n", "line 3: check 'blood'"),
        ("check,level_1,level_2,level_3\nblood,V,G,\ngore,W,G,\n", "'G' stands at two places"),
        ("check,level_1,level_2,level_3\nblood,V\n", "line 2: not 4 cells"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(table: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text(table, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_taxonomy(str(path))
