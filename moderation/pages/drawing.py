"""Figures of matplotlib as SVG that stands in a page itself, and takes the page's colours and font.

matplotlib knows no CSS: it draws in colours that stand for the page's variables, and these are put in afterwards.
Importing this module does not import matplotlib, which takes a second; it comes with the extra `plots`.
"""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, Literal
from xml.etree import ElementTree

from markupsafe import Markup

from moderation.config.installing import install_command
from moderation.errors import UsageError

# No figure draws in these colours themselves. The variables are those of templates/offline.html.
INK: Final = "#0a0a01"
SOFT: Final = "#0a0a02"
LINE: Final = "#0a0a03"
TRACK: Final = "#0a0a04"
CARD: Final = "#0a0a05"
ACCENT: Final = "#0a0a06"
BLOCK: Final = "#0a0a07"
REVIEW: Final = "#0a0a08"
PASS: Final = "#0a0a09"
ERROR: Final = "#0a0a10"
_VARIABLES: Final[Mapping[str, str]] = {
    INK: "--ink", SOFT: "--soft", LINE: "--line", TRACK: "--track", CARD: "--card", ACCENT: "--accent",
    BLOCK: "--block-fill", REVIEW: "--review-fill", PASS: "--pass-fill", ERROR: "--error-fill",
}  # fmt: skip
FILLS: Final[Mapping[str, str]] = {"block": BLOCK, "review": REVIEW, "pass": PASS, "error": ERROR}

_COLOUR: Final = re.compile("|".join(_VARIABLES))
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")
_SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_LEFT_OUT: Final = frozenset({f"{_SVG}metadata", f"{_SVG}style"})
_FONT: Final = re.compile(r"font(-family)?:[^;]*(;|$)")
_FONT_SIZE: Final = re.compile(r"([0-9.]+)px")
_SETTINGS: Final[Mapping[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it is found, read out, and set in the page's font
    "text.parse_math": False,  # a `$` in a name is a `$`
    "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "text.color": INK, "axes.labelcolor": SOFT, "axes.edgecolor": LINE, "xtick.color": LINE, "ytick.color": LINE,
    "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT, "hatch.color": CARD, "hatch.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "patch.linewidth": 0,
}  # fmt: skip


def load_ahead() -> None:
    """Import matplotlib in a thread, while this process waits for others: it takes a second of processor time.

    Not a daemon: an interpreter that ends in the middle of an import may crash. A fault shows where figures are drawn.
    """

    _quieten()

    def load() -> None:
        with suppress(ImportError):
            import_module("matplotlib.figure")
            import_module("matplotlib.backends.backend_svg")

    threading.Thread(target=load, name="figures").start()


def _quieten() -> None:
    # It warns of a home that cannot be written, and that it builds its list of fonts: no news to whoever runs a job.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextmanager
def drawing(width: float, height: float, *, layout: Literal["constrained"] | None = "constrained") -> Iterator[Any]:
    """An empty figure of so many inches, with the settings of a page. Raises UsageError without matplotlib."""
    _quieten()
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(f"figures need the package matplotlib; {install_command('plots')}") from error
    with rc_context(dict(_SETTINGS)):
        # A Figure of its own: pyplot keeps every figure that it makes.
        yield Figure(figsize=(width, height), layout=layout)


def as_svg(figure: Any, name: str, alt: str) -> Markup:  # noqa: ANN401 - matplotlib is an optional package
    """A figure as an `svg` element, within `drawing`. name: a word, unique in the page. alt: what it shows, in words.

    The same figure gives the same text.
    """
    from matplotlib import rc_context

    sink = io.BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(sink.getvalue())
    _remove(root)
    _rewrite(root, name)
    width = float(root.attrib["viewBox"].split()[2])
    # A point of a figure is 1.4 pixels at most: text of 9 points is as large as the page's small text.
    root.attrib.update({"class": "drawn", "role": "img", "aria-label": alt, "style": f"max-width:{1.4 * width:.0f}px"})
    for name_ in ("width", "height", "version"):
        root.attrib.pop(name_, None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _remove(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag in _LEFT_OUT:
            element.remove(child)
        else:
            _remove(child)


def _rewrite(root: ElementTree.Element, name: str) -> None:
    """Plain names, ids that are unique in a page, the page's colours and font."""
    used = set(_references(root))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        id_ = element.attrib.pop("id", None)
        if id_ in used:
            element.attrib["id"] = f"{name}-{id_}"
        link = element.attrib.pop(_XLINK, None)
        if link is not None:
            element.attrib["href"] = f"#{name}-{link.removeprefix('#')}"
        for key in ("style", "clip-path", "fill"):
            if key in element.attrib:
                element.attrib[key] = _rewrite_style(element.attrib[key], name)


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        if _XLINK in element.attrib:
            yield element.attrib[_XLINK].removeprefix("#")
        for key in ("clip-path", "style", "fill"):
            yield from _REFERENCE.findall(element.attrib.get(key, ""))


def _rewrite_style(style: str, name: str) -> str:
    style = _FONT.sub(_font_size, style)
    style = _COLOUR.sub(lambda match: f"var({_VARIABLES[match[0]]})", style)
    return _REFERENCE.sub(lambda match: f"url(#{name}-{match[1]})", style)


def _font_size(match: re.Match[str]) -> str:
    """`font: 700 9px 'DejaVu Sans', ...` -> its size and weight alone."""
    size = _FONT_SIZE.search(match[0])
    weight = "font-weight: 700; " if re.search(r"\b(700|bold)\b", match[0]) else ""
    return weight + (f"font-size: {size[1]}px;" if size else "")
