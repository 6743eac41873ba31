"""Figures of checks as files, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence

from moderation import storage
from moderation.analysis.checks import CheckDescription
from moderation.analysis.plots import plot_check, plot_disagreement
from moderation.errors import UsageError
from moderation.pages.render import render
from moderation.results.layout import PAGE_FILE

_MAX_CHECKS = 400  # figures on one page; 20 KB each


def write_check_pages(checks: Sequence[CheckDescription], out: str, to: str, format_: str = "png") -> str:
    """Write `<to>/<check>.png` for each check, `disagreement-of-variants.png` where it applies, and `index.html`.

    Returns the page's URI. The page embeds its figures as PNG, whatever the format of the files. Raises UsageError
    without matplotlib, or where there is nothing to draw.
    """
    if not checks:
        raise UsageError(f"{out}: no check has scores in 0..1 to draw")
    if len(checks) > _MAX_CHECKS:
        raise UsageError(f"{out}: {len(checks)} checks; name at most {_MAX_CHECKS} by --check")
    figures = [plot_check(check) for check in checks]
    disagreement = plot_disagreement(checks)
    for check, figure in zip(checks, figures, strict=True):
        data = figure if format_ == "png" else plot_check(check, format_=format_)
        storage.publish(storage.join(to, f"{check.name}.{format_}"), data)
    if disagreement is not None:
        data = disagreement if format_ == "png" else plot_disagreement(checks, format_=format_) or b""
        storage.publish(storage.join(to, f"disagreement-of-variants.{format_}"), data)
    page = storage.join(to, PAGE_FILE)
    pairs = list(zip(checks, figures, strict=True))
    html = render("checks.html", out=out, checks=checks, pairs=pairs, disagreement=disagreement)
    storage.publish(page, html.encode())
    return page
