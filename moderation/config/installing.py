"""The command that installs an optional part: by its packages, since the library itself need be in no index."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import InvalidRequirement, Requirement


def requirements_of(extra: str) -> tuple[Requirement, ...]:
    """The packages that an extra adds; none where it is not known."""
    try:
        listed = [Requirement(text) for text in requires("moderation") or ()]
    except (PackageNotFoundError, InvalidRequirement):
        return ()
    return tuple(r for r in listed if r.marker is not None and r.marker.evaluate({"extra": extra}))


def install_command(extra: str) -> str:
    """`pip install 'pillow-heif>=1.0'`: works beside a wheel and in a clone alike."""
    packages = " ".join(f"'{requirement.name}{requirement.specifier}'" for requirement in requirements_of(extra))
    return f"pip install {packages}" if packages else f"pip install 'moderation[{extra}]'"
