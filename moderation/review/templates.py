"""The templates of the reviewers' page."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment

from moderation.pages.render import make_environment


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = make_environment("moderation.review", "page")
    environment.filters["tail"] = tail
    return environment


def fill_template(name: str, /, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """A page, or a part of one, from `moderation/review/page`; all text is escaped."""
    return _environment().get_template(name).render(**values)


def tail(uri: str) -> str:
    """The last name of a URI, or all of it where it ends with a slash."""
    return uri.rstrip("/").rpartition("/")[2] or uri
