"""Class definitions: what belongs to a check and what does not, for reviewers and labellers; `definitions/*.yaml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from moderation.config.hints import did_you_mean
from moderation.config.load import packaged_configs, read_yaml, validate
from moderation.errors import UsageError
from moderation.policy.section import PolicySection

FOLDER = "definitions"


class Neighbour(PolicySection):
    """Something that is easily confused with the class."""

    what: str = Field(min_length=1)
    belongs: bool = Field(description="whether it is of the class")
    because: str = Field(min_length=1)


class ClassDefinition(PolicySection):
    """What a check means, in words."""

    title: str = Field(min_length=1)
    summary: str = Field(min_length=1, description="the question that a reviewer answers, in one sentence")
    belongs: tuple[str, ...] = Field(min_length=1)
    does_not_belong: tuple[str, ...] = Field(min_length=1)
    neighbours: tuple[Neighbour, ...] = Field(min_length=1)
    example: str = Field(min_length=1, description="a harmless picture that tells the line, in words")


def definition_path(name: str, *, beside: Path | None = None, where: str = "definition") -> Path:
    """The file of a definition: in `definitions/` beside the policy, or packaged.

    Raises UsageError naming the nearest.
    """
    folders = [folder / FOLDER for folder in (beside, packaged_configs()) if folder is not None]
    known: set[str] = set()
    for folder in folders:
        names = {file.stem for file in folder.glob("*.yaml")}
        if name in names:  # looked up, never joined to a path: a name may be `../x`
            return folder / f"{name}.yaml"
        known |= names
    raise UsageError(f"{where}: no definition {name!r}{did_you_mean(name, sorted(known))}")


def load_definition(name: str, *, beside: Path | None = None) -> ClassDefinition:
    """A definition by its name. Raises UsageError naming a wrong key and the nearest right one."""
    path = definition_path(name, beside=beside)
    return validate(ClassDefinition, read_yaml(path), where=str(path))
