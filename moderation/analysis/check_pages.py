"""Figures of checks as files, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence

from moderation import storage
from moderation.analysis.checks import CheckFound
from moderation.analysis.plots import plot_check, plot_disagreement
from moderation.errors import UsageError
from moderation.pages.render import render

_MOST_CHECKS = 400  # figures on one page; 20 KB each


def write_check_pages(found: Sequence[CheckFound], out: str, to: str, format_: str = "png") -> str:
    """`<to>/<check>.png` for each, `disagreement-of-variants.png` where there are several, and `index.html`; its URI.

    The page has its figures inside (as PNG, whatever the files are). Raises UsageError without matplotlib, or where
    there is nothing to draw.
    """
    if not found:
        raise UsageError(f"{out}: no check has scores in 0..1 to draw")
    if len(found) > _MOST_CHECKS:
        raise UsageError(f"{out}: {len(found)} checks; name at most {_MOST_CHECKS} by --check")
    figures = [plot_check(check) for check in found]
    apart = plot_disagreement(found)
    for check, figure in zip(found, figures, strict=True):
        data = figure if format_ == "png" else plot_check(check, format_=format_)
        storage.publish(storage.join(to, f"{check.name}.{format_}"), data)
    if apart is not None:
        data = apart if format_ == "png" else plot_disagreement(found, format_=format_) or b""
        storage.publish(storage.join(to, f"disagreement-of-variants.{format_}"), data)
    pairs = list(zip(found, figures, strict=True))
    page = storage.join(to, "index.html")
    html = render("checks.html", out=out, checks=found, pairs=pairs, disagreement=apart)
    storage.publish(page, html.encode())
    return page
