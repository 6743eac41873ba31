"""Findings about installed packages: versions, extras, decoders."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from moderation.config.installing import install_command, requirements_of
from moderation.config.model import MediaConfig
from moderation.doctor.findings import Finding, FindingStatus
from moderation.media.decoders import decoders
from moderation.results.ffmpeg import describe_below_floor, look_at_package

_EXTRAS = {
    "heic": "HEIC pictures",
    "faces": "faces",
    "text": "text in pictures",
    "codes": "codes in pictures",
    "nudenet": "body parts (AGPL-3.0)",
    "provenance": "Content Credentials",
    "torchcodec": "videos by the system's FFmpeg",
    "explain": "explanations by gradients",
    "train": "training on several workers",
    "review": "the reviewers' page",
    "plots": "figures of checks",
}


_OPTIONAL_DECODERS = frozenset({"heic", "fast_jpeg", "video"})


def find_versions() -> Iterator[Finding]:
    """Python, this package, and each required package, compared with its metadata."""
    group = "versions"
    python = platform.python_version()
    fine = sys.version_info >= (3, 11)
    yield Finding(
        group=group,
        name="python",
        status="ok" if fine else "wrong",
        detail=f"{python} on {platform.system()} {platform.machine()}",
        advice="" if fine else "install Python 3.11 or newer",
    )
    try:
        needed = [r for r in map(Requirement, requires("moderation") or ()) if r.marker is None]
        yield Finding(group=group, name="moderation", status="ok", detail=version("moderation"))
    except PackageNotFoundError:
        advice = "in its checkout: pip install -e ."
        yield Finding(group=group, name="moderation", status="missing", detail="not installed", advice=advice)
        return
    for requirement in needed:
        yield _package(group, requirement, optional=False)


def find_extras() -> Iterator[Finding]:
    """The extras, and the command that installs each."""
    for name in _EXTRAS:
        requirements = requirements_of(name)
        if not requirements:
            continue
        packages = [_package("extras", r, optional=True) for r in requirements]
        fine = all(package.status == "ok" for package in packages)
        versions = ", ".join(f"{package.name} {package.detail}" for package in packages)
        yield Finding(
            group="extras",
            name=name,
            status="ok" if fine else "note",
            detail=f"{_EXTRAS[name]}: {versions}",
            advice="" if fine else f"if you want it: {install_command(name)}",
        )


def _package(group: str, requirement: Requirement, *, optional: bool) -> Finding:
    name = requirement.name
    advice = f"pip install '{name}{requirement.specifier}'"
    try:
        installed = version(name)
    except PackageNotFoundError:
        status: FindingStatus = "note" if optional else "missing"
        return Finding(group=group, name=name, status=status, detail="not installed", advice=advice)
    if not requirement.specifier.contains(installed, prereleases=True):
        detail = f"{installed}, needs {requirement.specifier}"
        return Finding(group=group, name=name, status="wrong", detail=detail, advice=advice)
    return Finding(group=group, name=name, status="ok", detail=installed)


def find_decoders(media: MediaConfig | None = None) -> Iterator[Finding]:
    """What kinds of picture and video can be decoded, and by which FFmpeg."""
    available = decoders()
    yield _pictures_finding({kind: there for kind, there in available.items() if kind not in _OPTIONAL_DECODERS})
    yield _heic_finding(there=available["heic"])
    yield _pyav_finding(there=available["video"])
    yield _video_finding("decoders")
    media = media or MediaConfig()
    if media.video_decoder.startswith("torchcodec"):
        yield _torchcodec_finding()
    warning = describe_below_floor(media)
    if warning:
        detail, _, advice = warning.partition(": ")
        yield Finding(group="decoders", name="FFmpeg", status="note", detail=detail, advice=advice)
    if not available["fast_jpeg"]:
        detail, advice = "Pillow only, at half the speed", "pip install simplejpeg"
        yield Finding(group="decoders", name="fast JPEG", status="note", detail=detail, advice=advice)


def _pictures_finding(available: Mapping[str, bool]) -> Finding:
    present = ", ".join(kind for kind, there in available.items() if there)
    absent = ", ".join(kind for kind, there in available.items() if not there)
    if not absent:
        return Finding(group="decoders", name="pictures", status="ok", detail=present)
    return Finding(
        group="decoders",
        name="pictures",
        status="wrong",
        detail=f"{present}; not in this build of Pillow: {absent}",
        advice="pip install --force-reinstall --no-deps pillow",
    )


def _heic_finding(*, there: bool) -> Finding:
    if there:
        return Finding(group="decoders", name="heic", status="ok", detail="decoded by pillow-heif")
    detail, advice = "HEIC pictures become error rows (unsupported_type)", install_command("heic")
    return Finding(group="decoders", name="heic", status="note", detail=detail, advice=advice)


def _pyav_finding(*, there: bool) -> Finding:
    """PyAV reads every video that decord is not known to read right."""
    package = look_at_package("av")
    if there and package is not None:
        return Finding(group="decoders", name="video", status="ok", detail=package.text)
    detail, advice = "PyAV is not installed: most videos cannot be decoded", "pip install 'av>=18.1,<19'"
    return Finding(group="decoders", name="video", status="missing", detail=detail, advice=advice)


def _video_finding(group: str) -> Finding:
    # Both packages install the module `decord`; the older one does not read AV1, and whichever came last is imported.
    older, newer = _version_or_none("decord"), _version_or_none("decord2")
    if newer and older:
        detail = f"decord2 {newer} and decord {older} overwrite each other; AV1 may not decode"
        advice = "pip uninstall -y decord; pip install --force-reinstall --no-deps decord2"
        return Finding(group=group, name="video, av1", status="wrong", detail=detail, advice=advice)
    package = look_at_package("decord2") if newer else None
    if newer:
        detail = f"decord2 {newer}" if package is None else package.text
        return Finding(group=group, name="video, av1", status="ok", detail=detail)
    detail = f"decord {older} does not decode AV1" if older else "decord2, which reads most videos, is not installed"
    advice = "pip uninstall -y decord; pip install decord2" if older else "pip install decord2"
    return Finding(group=group, name="video, av1", status="wrong" if older else "missing", detail=detail, advice=advice)


def _torchcodec_finding() -> Finding:
    name, package = "video, torchcodec", look_at_package("torchcodec")
    if package is None:
        detail, advice = "torchcodec, which media.video_decoder names, is not installed", install_command("torchcodec")
        return Finding(group="decoders", name=name, status="missing", detail=detail, advice=advice)
    if package.system is None:
        advice = "install FFmpeg's shared libraries (4 to 9), or set media.video_decoder: auto"
        return Finding(group="decoders", name=name, status="missing", detail=package.text, advice=advice)
    return Finding(group="decoders", name=name, status="ok", detail=package.text)


def _version_or_none(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
