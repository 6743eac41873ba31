"""Pages of offline work: one HTML file each that needs nothing else. No script; all text escaped; pictures inside."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_SHOWN_CHARS = 240


def render(template: str, /, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """A page of `moderation/pages/templates`. Filters: plain, percent, count, png, jpeg (bytes to a data URI)."""
    environment = Environment(
        loader=PackageLoader("moderation.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, percent=percent, count=lambda n: f"{n:,}", png=png, jpeg=jpeg)
    return environment.get_template(template).render(**values)


def plain(value: object) -> str:
    """A stranger's text: bounded, one line, without characters that turn or hide what stands around them."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    half = _SHOWN_CHARS // 2
    return text if len(text) <= _SHOWN_CHARS else f"{text[:half]} … {text[-half:]}"


def percent(share: float | None) -> str:
    """A share that is not 0 never reads as 0%."""
    if share is None:
        return "–"
    return "< 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def png(data: bytes) -> str:
    """As a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def jpeg(data: bytes) -> str:
    """As a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
