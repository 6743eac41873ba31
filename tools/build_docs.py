"""The pages of the documentation's site, from docs/, the texts at the root, and the code: `python tools/build_docs.py`.

Writes build/pages, which `mkdocs build` reads; `make docs` does both. Pages of docs/ that the navigation does not name
are put behind it by mkdocs itself.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from tools.reference import REFERENCE_PAGES

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = ROOT / "build" / "pages"
# Files outside of docs/ that are pages, and what they are called there.
MOVED: Final = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changes.md",
    "cluster/README.md": "kubernetes.md",
}
# A diagram that a forge draws from its text; the site, which runs nothing from elsewhere, shows it drawn.
_DIAGRAM = re.compile(r"```mermaid\n.*?\n```", re.DOTALL)
DRAWN: Final = {"ARCHITECTURE.md": "![The path of an item](path-of-an-item.svg)"}
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?!https?://|#|mailto:)(?P<file>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def main() -> None:
    """Write all pages anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for source, page in MOVED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (PAGES / page).write_text(with_pictures(text, DRAWN.get(source, "")), encoding="utf-8")
    origins = {PAGES / page: (ROOT / source).parent for source, page in MOVED.items()}
    for path in sorted(PAGES.rglob("*.md")):
        origin = origins.get(path, ROOT / "docs" / path.relative_to(PAGES).parent)
        path.write_text(with_links(path.read_text(encoding="utf-8"), origin, path.parent), encoding="utf-8")
    for name, make in REFERENCE_PAGES.items():
        target = PAGES / "reference" / f"{name}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(make(), encoding="utf-8")
    sys.stdout.write(f"{len(list(PAGES.rglob('*.md')))} pages in {PAGES.relative_to(ROOT)}\n")


def with_pictures(text: str, drawn: str) -> str:
    """A page with `drawn` in place of its diagram. Raises ValueError where it has a diagram and there is no picture."""
    if _DIAGRAM.search(text) and not drawn:
        raise ValueError("a diagram without a picture for the site: draw it, and name it in DRAWN")
    return _DIAGRAM.sub(drawn, text)


def with_links(text: str, origin: Path, folder: Path) -> str:
    """A page's links, meant from `origin` in the repository, for the page in `folder`; to no page: the text alone."""

    def relink(match: re.Match[str]) -> str:
        page = page_of((origin / match["file"]).resolve())
        if page is None:
            return match["text"]  # a file of the repository, which the site does not have
        return f"[{match['text']}]({relative(page, folder)}{match['anchor'] or ''})"

    return _LINK.sub(relink, text)


def page_of(target: Path) -> Path | None:
    """The page that a file of the repository is."""
    if not target.is_relative_to(ROOT):
        return None
    inside = target.relative_to(ROOT)
    if str(inside) in MOVED:
        return PAGES / MOVED[str(inside)]
    if inside.parts[:1] == ("docs",) and target.is_file():
        return PAGES / Path(*inside.parts[1:])
    return None


def relative(page: Path, folder: Path) -> str:
    """The way from one folder of the pages to a page."""
    up = [".."] * len(folder.relative_to(PAGES).parts)
    return "/".join([*up, page.relative_to(PAGES).as_posix()])


if __name__ == "__main__":
    main()
