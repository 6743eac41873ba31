"""Fonts that marks are drawn with: files of installed packages. The extra `marks` installs those that are missing."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from moderation.errors import UsageError

# Package -> its folder of fonts. All under the SIL Open Font License or Apache-2.0; training uses only drawn text.
_LATIN: Final = {
    "matplotlib": "mpl-data/fonts/ttf",
    "font_lato": "files",
    "font_roboto": "files",
    "font_amatic_sc": "files",
    "font_fredoka_one": "files",
    "font_source_serif_pro": "files",
    "font_caladea": "files",
    "font_fjallaone": "files",
    "font_intuitive": "files",
}
_CHINESE: Final = {"manimgx_fonts_cjk": ""}
# Fonts without letters for words: mathematical signs, and one that draws the names of Unicode blocks.
_NOT_FOR_WORDS: Final = ("cmex", "cmsy", "cmmi", "STIX", "LastResort", "cmr", "cmtt", "cmss", "cmb", "Display")


@cache
def latin_fonts() -> tuple[str, ...]:
    """Paths of Latin fonts, sorted by name. Raises UsageError where a package is missing."""
    return _fonts(_LATIN)


@cache
def chinese_fonts() -> tuple[str, ...]:
    """Paths of fonts with Chinese characters. Raises UsageError where the package is missing."""
    return _fonts(_CHINESE)


def _fonts(packages: dict[str, str]) -> tuple[str, ...]:
    found: list[Path] = []
    for package, folder in packages.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(f"no fonts of {package.replace('_', '-')!r}; pip install 'moderation[marks]'")
        root = Path(next(iter(spec.submodule_search_locations))) / folder
        found += [path for path in root.iterdir() if path.suffix in (".ttf", ".ttc") and _for_words(path)]
    return tuple(map(str, sorted(found, key=lambda path: path.name)))


def _for_words(path: Path) -> bool:
    return not any(word in path.name for word in _NOT_FOR_WORDS)
