"""Thirty families of marks, as a site, an agency or a person puts them over pictures; five are never trained on.

A family has its words, its script, a font and perhaps a sign; within it styles vary: filled, outlined or raised, single
or tiled, turned, coloured, more or less opaque. All names are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from moderation.media.lettering import draw_sign, draw_words, scale_mask, turn_mask
from moderation.training.watermark.fonts import chinese_fonts, latin_fonts
from moderation.types import U8

STYLES: Final = ("filled", "outline", "raised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """words: texts of its marks, one per picture. sign: drawn beside or above the text; "": none. font: a path."""

    name: str
    words: tuple[str, ...]
    font: str
    sign: str = ""
    above: bool = False  # the sign stands above the words, not beside
    tiled: bool = False  # it is repeated over the picture more often than not


# (name, words, sign, sign above the words, tiled)
_LATIN: Final = (
    ("lumapix", ("lumapix", "LUMAPIX", "lumapix.example"), "disc", False, True),
    ("northfold", ("Northfold Images", "NORTHFOLD"), "", False, False),
    ("sample", ("SAMPLE", "Sample only", "SAMPLE COPY"), "", False, True),
    ("preview", ("PREVIEW", "preview", "Preview - do not copy"), "", False, True),
    ("copyright", ("© 2024 A. Moreno", "© Jonas Weidt", "© K. Adeyemi Photo"), "", False, False),
    ("handle", ("@riva.tales", "@oak_and_sea", "@thejunipers"), "camera", False, False),
    ("studio", ("Hale Studio", "Studio Brandt", "Osei Studio"), "camera", True, False),
    ("stockly", ("stockly", "Stockly.example", "STOCKLY"), "bars", False, True),
    ("vistaframe", ("VistaFrame", "vistaframe"), "frame", False, False),
    ("proof", ("PROOF", "proof print", "NOT FOR SALE"), "", False, True),
    ("clipzo", ("clipzo", "ClipZo"), "star", True, False),
    ("url", ("www.fern-market.example", "www.topdeals.example", "shop.kettle.example"), "", False, False),
    ("agency", ("EPR / M. Santos", "ANP / L. Novak", "EPR PHOTOS"), "", False, False),
    ("bluegate", ("Bluegate", "BLUEGATE PRESS"), "shield", False, False),
    ("dreamlot", ("dreamlot", "Dreamlot", "dreamlot\nstock"), "ring", True, True),
    ("draft", ("DRAFT", "CONFIDENTIAL", "Draft v2"), "", False, True),
    ("script", ("with love, Mira", "Elin Photography", "Captured by Theo"), "", False, False),
    ("homely", ("homely.example", "Homely Realty"), "diamond", False, False),
    ("picvault", ("PicVault", "picvault.example"), "shield", True, True),
    ("redloop", ("RedLoop", "REDLOOP TV"), "ring", False, False),
)
_CHINESE: Final = (
    ("tuku", ("图库样张", "青藤图库", "样张请勿转载"), "", False, True),
    ("weibo", ("@小鹿的日常", "@北城摄影", "@山海之间"), "camera", False, False),
    ("shangpin", ("正品保证", "旗舰店专供", "官方旗舰店"), "", False, False),
    ("sheying", ("流光摄影", "林间摄影工作室", "版权所有"), "frame", True, False),
    ("daotu", ("盗图必究", "原创请勿盗图", "版权所有 翻版必究"), "", False, True),
)
_UNSEEN_LATIN: Final = (
    ("glintstock", ("glintstock", "GlintStock", "glintstock.example"), "diamond", False, True),
    ("quillmark", ("Quill & Mark", "quillmark photo"), "", False, False),
    ("comp", ("COMP IMAGE", "comp only"), "bars", True, True),
    ("tagline", ("shot by @ferrow", "edit: @ferrow", "ferrow.example"), "", False, False),
)
_UNSEEN_CHINESE: Final = (("yunying", ("云影图片", "云影图片社", "仅供预览"), "ring", False, True),)


def known_families() -> tuple[Family, ...]:
    """The 25 that are trained on."""
    latin, chinese = latin_fonts(), chinese_fonts()
    # Every fifth font is kept for the families that are never trained on.
    return (*_make(_LATIN, [f for i, f in enumerate(latin) if i % 5]), *_make(_CHINESE, chinese))


def unseen_families() -> tuple[Family, ...]:
    """The five that are never trained on, with other words, signs and Latin fonts."""
    return (*_make(_UNSEEN_LATIN, latin_fonts()[::5]), *_make(_UNSEEN_CHINESE, chinese_fonts()))


def _make(rows: Sequence[tuple[str, tuple[str, ...], str, bool, bool]], fonts: Sequence[str]) -> list[Family]:
    step = max(1, len(fonts) // max(1, len(rows)))
    return [
        Family(name=name, words=words, font=fonts[(i * step) % len(fonts)], sign=sign, above=above, tiled=tiled)
        for i, (name, words, sign, above, tiled) in enumerate(rows)
    ]


def draw_mark(family: Family, height_px: int, rng: np.random.Generator, *, outline: bool) -> U8:
    """A mark of the family as a mask, uint8 [h,w]. height_px: approximate height of its letters."""
    size = max(7, height_px)
    words = draw_words(
        str(rng.choice(family.words)), family.font, size, outline_px=max(1, size // 16) if outline else 0
    )
    if not family.sign or rng.random() < 0.2:
        return words
    sign = draw_sign(family.sign, int(size * (2.0 if family.above else 1.3)))
    return _stack(sign, words) if family.above else _stack(sign.T, words.T).T


def place_turned(mask: U8, rng: np.random.Generator, *, steep: bool) -> U8:
    """The mask turned: seldom and slightly, or steeply, as tiles and big marks are."""
    degrees = float(rng.choice([0, 30, 45, -30, 20])) + rng.uniform(-5, 5) if steep else 0.0
    if not steep and rng.random() < 0.25:
        degrees = rng.uniform(-20, 20)
    return turn_mask(mask, degrees)


def fit_mask(mask: U8, most: tuple[int, int]) -> U8:
    """The mask, made smaller where it is wider or higher than (width, height)."""
    height, width = mask.shape
    scale = min(1.0, most[0] / width, most[1] / height)
    return mask if scale == 1 else scale_mask(mask, (max(1, int(width * scale)), max(1, int(height * scale))))


def _stack(upper: U8, lower: U8) -> U8:
    """Two masks, one above the other, centred."""
    gap = max(2, min(upper.shape[0], lower.shape[0]) // 6)
    width = max(upper.shape[1], lower.shape[1])
    whole = np.zeros((upper.shape[0] + gap + lower.shape[0], width), dtype=np.uint8)
    for top, part in ((0, upper), (upper.shape[0] + gap, lower)):
        left = (width - part.shape[1]) // 2
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole
