"""The colours of pages: text stands out from its ground, and verdicts are told apart without red and green."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

CSS = files("moderation.pages").joinpath("templates/offline.html").read_text(encoding="utf-8")
THEMES = dict(zip(("light", "dark", "print"), re.findall(r":root \{(.*?)\}", CSS, re.DOTALL), strict=True))
# Severity 1.0 of Machado, Oliveira, Fernandes 2009, for linear RGB.
SIGHTS = {
    "all": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
Colour = npt.NDArray[np.float64]


def linear(theme: str, name: str) -> Colour:
    match = re.search(rf"--{name}: #([0-9a-f]+);", THEMES[theme])
    assert match is not None, name
    digits = "".join(2 * d for d in match[1]) if len(match[1]) == 3 else match[1]
    rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(colour: Colour) -> Colour:
    xyz = TO_XYZ @ np.clip(colour, 0, 1) / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["ink", "soft", "block", "review", "pass", "accent"])
def test_text_stands_out_from_its_card(theme: str, name: str) -> None:
    high, low = sorted((float(TO_XYZ[1] @ linear(theme, n)) for n in (name, "card")), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, AA


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("sight", SIGHTS)
def test_verdicts_are_told_apart_by_any_eye(theme: str, sight: str) -> None:
    seen = {name: lab(SIGHTS[sight] @ linear(theme, f"{name}-fill")) for name in ("block", "review", "pass")}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 20, (one, other)
