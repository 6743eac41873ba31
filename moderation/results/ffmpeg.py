"""Which FFmpeg the video decoders bring, and whether it has the fixes that untrusted files need.

The FFmpeg in a package is told by the names of its libraries: nothing native is loaded. torchcodec brings none; the one
of the system is asked (libavutil alone is loaded, and only where torchcodec is chosen).
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from typing import Final

from moderation.config.installing import install_command
from moderation.config.model import Config, MediaConfig
from moderation.errors import UsageError

# FFmpeg 8.1.2 fixes CVE-2026-8461 (a heap write by one container), 8.0.1 CVE-2026-40962.
FLOOR: Final = (62, 28, 102)
FLOOR_NAME: Final = "FFmpeg 8.1.2"
# The patch release of each branch that has the fixes which concern what torchcodec is given. 5.1.9 has that of
# CVE-2026-40962; CVE-2026-8461 is in a decoder that no file reaches (`media.demux.CODECS`).
FLOOR_RELEASES: Final = {(5, 1): 9, (8, 1): 2}
_LIBRARY: Final = re.compile(r"(?:^|/)libavcodec[^/]*?\.(?:so\.)?([0-9]+)\.([0-9]+)\.([0-9]+)(?:\.dylib)?$")
_STILL: Final = ("pillow", "simplejpeg", "pillow-heif")
_PACKAGES: Final = {
    "auto": ("av", "decord2"),
    "decord": ("av", "decord2"),
    "torchcodec": ("av", "torchcodec"),
    "torchcodec_cuda": ("av", "torchcodec"),
    "pyav": ("av",),
}
_ABIS: Final = (61, 60, 59, 58, 57, 56)  # of libavutil in FFmpeg 9 to 4, in the order in which torchcodec tries them


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFfmpeg:
    """The FFmpeg that torchcodec loads. release: `5.1.9-0+deb12u1`; licence: `LGPL version 2.1 or later`."""

    release: str
    licence: str

    @property
    def is_below_floor(self) -> bool:
        """Whether it is not known to have the fixes; a release that has no number is taken for new."""
        match = re.match(r"n?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", self.release)
        if match is None:
            return False
        branch, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
        newest = max(FLOOR_RELEASES)
        return branch <= newest and patch < FLOOR_RELEASES.get(branch, patch + 1)


def find_system_ffmpeg() -> SystemFfmpeg | None:
    """Ask the libavutil that torchcodec would load; None where there is none."""
    for abi in _ABIS:
        for name in (f"libavutil.so.{abi}", f"libavutil.{abi}.dylib"):
            try:
                library = ctypes.CDLL(name)
                return SystemFfmpeg(release=_ask(library.av_version_info), licence=_ask(library.avutil_license))
            except (OSError, AttributeError):
                continue
    return None


def _ask(function: ctypes._NamedFuncPointer) -> str:
    function.restype = ctypes.c_char_p
    answer = function()
    return answer.decode(errors="replace") if isinstance(answer, bytes) else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFfmpeg:
    """A package that decodes videos. libavcodec: of its FFmpeg; None where it brings none, or does not tell.

    system: the FFmpeg of the system, where the package uses that.
    """

    package: str
    version: str
    libavcodec: tuple[int, int, int] | None
    system: SystemFfmpeg | None = None

    @property
    def is_below_floor(self) -> bool:
        """Whether the package is known to lack the fixes of FLOOR."""
        if self.system is not None:
            return self.system.is_below_floor
        return self.libavcodec is not None and self.libavcodec < FLOOR

    @property
    def text(self) -> str:
        """`av 18.1.0 (libavcodec 62.28.102)`, `torchcodec 0.17.0 (FFmpeg 5.1.9 of the system, GPL ...)`."""
        if self.package == "torchcodec":
            system = self.system
            found = "no FFmpeg" if system is None else f"FFmpeg {system.release} of the system, {system.licence}"
            return f"{self.package} {self.version} ({found})"
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
    if name == "torchcodec":
        return BundledFfmpeg(package=name, version=installed, libavcodec=None, system=find_system_ffmpeg())
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
    if not any(found.package == "av" for found in below):
        advice += ", or set media.video_decoder: pyav"
    if any(found.system is not None for found in below):
        return f"{names} is below the floor, {FLOOR_NAME} or 5.1.9 of a distribution: {advice}"
    return f"{names} is older than {FLOOR_NAME}, which fixes CVE-2026-8461: {advice}"


def require_video_decoder(config: Config) -> None:
    """Raises UsageError where the configured video decoder cannot work on this machine."""
    chosen = config.media.video_decoder
    key = f"media.video_decoder: {chosen}"
    if chosen == "decord" and installed_version("decord2") is None and installed_version("decord") is None:
        raise UsageError(f"{key} needs the package decord2; pip install decord2, or set it to auto")
    if not chosen.startswith("torchcodec"):
        return
    package = look_at_package("torchcodec")
    if package is None:
        raise UsageError(f"{key} needs the package torchcodec; {install_command('torchcodec')}")
    if package.system is None:
        raise UsageError(f"{key} needs the shared libraries of FFmpeg (4 to 9): install them, or set it to auto")
    if chosen == "torchcodec_cuda" and config.runtime.decoder == "process":
        # CUDA maps more address space than a decoder process may have.
        raise UsageError(f"{key} needs runtime.decoder: thread")
