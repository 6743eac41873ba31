"""Self-contained HTML pages, one file each: no script, all text escaped, pictures embedded."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from moderation.pages.text import count, number, percent, plain, printable, sentence, size, span


def render(template: str, /, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """Render a page from `moderation/pages/templates`.

    Filters: plain, count, number, percent, size, span (see `text`), prose; png, jpeg, svg (bytes to a data URI).
    """
    return make_environment("moderation.pages").get_template(template).render(**values)


def make_environment(package: str, folder: str = "templates") -> Environment:
    """The templates in a folder of a package: all text escaped, unknown names refused, the filters of `render`."""
    environment = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_steering,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, prose=prose, count=count, number=number, percent=percent)
    environment.filters.update(size=size, span=span, png=png, jpeg=jpeg, svg=svg)
    return environment


def prose(text: str) -> Markup:
    """A sentence of ours, its `words in backticks` as code; strangers' names in it are made safe."""
    pieces = sentence(text).split("`")
    if len(pieces) % 2 == 0:
        return escape("`".join(pieces))
    code = (Markup("<code>{}</code>").format(piece) if odd % 2 else escape(piece) for odd, piece in enumerate(pieces))
    return Markup("").join(code)


def _without_steering(value: object) -> object:
    """Whatever a template forgets to pass to `plain`: no character that turns or hides what stands around it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line, instead="\N{REPLACEMENT CHARACTER}") for line in value.split("\n"))


def png(data: bytes) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def jpeg(data: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def svg(data: bytes) -> str:
    """As a data URI, shown by an `img`: nothing in it can run."""
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
