"""Which FFmpeg the video decoders bring, and whether it has the fixes that untrusted files need.

Read from the names of the libraries in the packages: nothing native is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from typing import Final

from moderation.config.model import MediaConfig

# FFmpeg 8.1.2 fixes CVE-2026-8461 (a heap write by one container), 8.0.1 CVE-2026-40962.
FLOOR: Final = (62, 28, 102)
FLOOR_NAME: Final = "FFmpeg 8.1.2"
_LIBRARY: Final = re.compile(r"(?:^|/)libavcodec[^/]*?\.(?:so\.)?([0-9]+)\.([0-9]+)\.([0-9]+)(?:\.dylib)?$")
_STILL: Final = ("pillow", "simplejpeg", "pillow-heif")
_PACKAGES: Final = {"auto": ("av", "decord2"), "decord": ("av", "decord2"), "pyav": ("av",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFfmpeg:
    """A package that decodes videos. libavcodec: of its FFmpeg; None where it brings none, or does not tell."""

    package: str
    version: str
    libavcodec: tuple[int, int, int] | None

    @property
    def is_below_floor(self) -> bool:
        """Whether the package is known to lack the fixes of FLOOR."""
        return self.libavcodec is not None and self.libavcodec < FLOOR

    @property
    def text(self) -> str:
        """`av 18.1.0 (libavcodec 62.28.102)`."""
        library = "of an unknown version" if self.libavcodec is None else ".".join(map(str, self.libavcodec))
        return f"{self.package} {self.version} (libavcodec {library})"


def find_ffmpegs(media: MediaConfig) -> list[BundledFfmpeg]:
    """The packages that decode videos with these settings, of those that are installed."""
    return [found for name in _PACKAGES[media.video_decoder] if (found := look_at_package(name)) is not None]


def look_at_package(name: str) -> BundledFfmpeg | None:
    """A package, from its list of installed files; None where it is not installed."""
    installed = installed_version(name)
    if installed is None:
        return None
    matches = [match for file in files(name) or [] if (match := _LIBRARY.search(str(file))) is not None]
    numbers = (int(matches[0][1]), int(matches[0][2]), int(matches[0][3])) if matches else None
    return BundledFfmpeg(package=name, version=installed, libavcodec=numbers)


def decoder_versions(media: MediaConfig) -> list[str]:
    """What decodes pictures and videos here, each with its version."""
    still = [f"{name} {installed}" for name in _STILL if (installed := installed_version(name)) is not None]
    return [*still, *(found.text for found in find_ffmpegs(media))]


def installed_version(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_below_floor(media: MediaConfig) -> str | None:
    """Which decoders are too old and what to do, in a sentence; None where none is known to be."""
    below = [found for found in find_ffmpegs(media) if found.is_below_floor]
    if not below:
        return None
    names = ", ".join(found.text for found in below)
    advice = "upgrade it"
    if all(found.package == "decord2" for found in below):
        advice += ", or set media.video_decoder: pyav"
    return f"{names} is older than {FLOOR_NAME}, which fixes CVE-2026-8461: {advice}"
