"""`moderation enroll`: pictures of people, one folder each, become the gallery that the detector `gallery` reads."""

from __future__ import annotations

from typing import Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import escaped

from .options import ConfigOption, SetOption, load_settings
from .printing import plain_console


def enroll(
    people: Annotated[str, typer.Argument(help="Folder or prefix with one folder of pictures per person.")],
    out: Annotated[str, typer.Option(help="The gallery: numbers and names, no pictures (.safetensors).")],
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="Part of the face; may be repeated. Default: whole=1."),
    ] = None,
    largest: Annotated[bool, typer.Option(help="Of several faces in a picture take the largest.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make a gallery of known people; the detector `gallery` then looks for them (option `gallery`)."""
    settings = load_settings(config, set_)
    parts = _parts(part or [])

    from moderation.analysis.enroll import EnrolmentOutcome
    from moderation.analysis.enroll import enroll as enroll_people  # torch only once the call is right

    made = enroll_people(people, out, settings, parts=parts, largest=largest)
    console = plain_console(soft_wrap=True)  # names come from strangers
    for picture in made.pictures:
        if picture.outcome is not EnrolmentOutcome.ENROLLED:
            counted = f" ({picture.faces})" if picture.faces > 1 else ""
            detail = f": {escaped(picture.detail)}" if picture.detail else ""
            console.print(f"left out, {picture.outcome}{counted}{detail}: {escaped(picture.uri)}")
    faces, people_ = len(made.gallery.person), len(made.gallery.names)
    console.print(f"people: {people_:,}, faces: {faces:,}; {made.size_bytes:,} bytes in {escaped(out)}")
    console.print(f"sha256: {made.sha256}")


def _parts(given: list[str]) -> dict[str, float] | None:
    parts: dict[str, float] = {}
    for entry in given:
        name, equals, weight = entry.partition("=")
        try:
            parts[name] = float(weight) if equals else 1.0
        except ValueError as error:
            raise UsageError(f"--part {entry!r}: expected NAME=WEIGHT, for example --part upper=0.5") from error
    return parts or None
