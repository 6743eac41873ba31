"""Findings about what is installed: versions, optional parts, decoders."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from moderation.doctor.findings import Finding, FindingStatus
from moderation.media.decoders import decoders

_EXTRAS = {
    "heic": "HEIC pictures",
    "faces": "faces",
    "text": "text in pictures",
    "nudenet": "body parts (AGPL-3.0)",
    "review": "the reviewers' page",
}


def find_versions() -> Iterator[Finding]:
    """Python, this package, and each package that it needs, against what its metadata asks for."""
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
    """The optional parts, and the command that installs each."""
    extras: dict[str, list[Requirement]] = {}
    try:
        listed = [Requirement(text) for text in requires("moderation") or ()]
    except PackageNotFoundError:
        return
    for requirement in listed:
        names = [n for n in _EXTRAS if requirement.marker and requirement.marker.evaluate({"extra": n})]
        for name in names:
            extras.setdefault(name, []).append(requirement)
    for name, requirements in extras.items():
        parts = [_package("extras", r, optional=True) for r in requirements]
        fine = all(p.status == "ok" for p in parts)
        detail = ", ".join(f"{p.name} {p.detail}" for p in parts)
        yield Finding(
            group="extras",
            name=name,
            status="ok" if fine else "note",
            detail=f"{_EXTRAS[name]}: {detail}",
            advice="" if fine else f"if you want it: pip install 'moderation[{name}]'",
        )


def _package(group: str, requirement: Requirement, *, optional: bool) -> Finding:
    name = requirement.name
    advice = f"pip install '{name}{requirement.specifier}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        status: FindingStatus = "note" if optional else "missing"
        return Finding(group=group, name=name, status=status, detail="not installed", advice=advice)
    if not requirement.specifier.contains(found, prereleases=True):
        detail = f"{found}, needs {requirement.specifier}"
        return Finding(group=group, name=name, status="wrong", detail=detail, advice=advice)
    return Finding(group=group, name=name, status="ok", detail=found)


def find_decoders() -> Iterator[Finding]:
    """What kinds of picture and video can be decoded."""
    group = "decoders"
    found = decoders()
    pictures = [kind for kind, there in found.items() if there and kind not in ("heic", "fast_jpeg", "video")]
    absent = [kind for kind, there in found.items() if not there and kind not in ("heic", "fast_jpeg", "video")]
    yield Finding(
        group=group,
        name="pictures",
        status="wrong" if absent else "ok",
        detail=", ".join(pictures) + (f"; not in this build of Pillow: {', '.join(absent)}" if absent else ""),
        advice="pip install --force-reinstall --no-deps pillow" if absent else "",
    )
    yield Finding(
        group=group,
        name="heic",
        status="ok" if found["heic"] else "note",
        detail="decoded by pillow-heif" if found["heic"] else "HEIC pictures become error rows (unsupported_type)",
        advice="" if found["heic"] else "pip install 'moderation[heic]'",
    )
    yield _video_finding(group, there=found["video"])
    if not found["fast_jpeg"]:
        advice = "pip install simplejpeg"
        yield Finding(
            group=group, name="fast JPEG", status="note", detail="Pillow alone, half the speed", advice=advice
        )


def _video_finding(group: str, *, there: bool) -> Finding:
    # Both packages install the module `decord`; the older one does not read AV1, and whichever came last is imported.
    older, newer = _version_or_none("decord"), _version_or_none("decord2")
    if newer and older:
        detail = f"decord2 {newer} and decord {older} overwrite each other; AV1 may not decode"
        advice = "pip uninstall -y decord; pip install --force-reinstall --no-deps decord2"
        return Finding(group=group, name="video, av1", status="wrong", detail=detail, advice=advice)
    if newer and there:
        return Finding(group=group, name="video, av1", status="ok", detail=f"decord2 {newer}")
    detail = f"decord {older} does not decode AV1" if older else "no video can be decoded"
    advice = "pip uninstall -y decord; pip install decord2" if older else "pip install decord2"
    return Finding(group=group, name="video, av1", status="wrong" if older else "missing", detail=detail, advice=advice)


def _version_or_none(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
