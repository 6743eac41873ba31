"""How large the image of cluster/Dockerfile is, without Docker: `python -m tools.image_size`.

Adds up what the packages of cluster/requirements.lock take on disk, as they are installed here. The base image (about
130 MB) and the code come on top; a registry stores it packed, at about half.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from cluster.without_cuda import FROM_CPU_INDEX, ONLY_CUDA

LOCK: Final = Path(__file__).resolve().parent.parent / "cluster" / "requirements.lock"
_NAME = re.compile(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==")
_SHOWN: Final = 8


def locked_names(text: str) -> list[str]:
    """The packages of a lock, in small letters."""
    return [match[1].lower() for match in _NAME.finditer(text)]


def installed_bytes(found: Distribution) -> int:
    """What a package takes on disk, without what Python compiles of it."""
    paths = (Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def measure(names: list[str]) -> Iterator[tuple[str, int | None]]:
    """(package, bytes), None where it is not installed here."""
    for name in names:
        try:
            yield name, installed_bytes(distribution(name))
        except PackageNotFoundError:
            yield name, None


def main() -> None:
    """Print the sizes with and without CUDA."""
    sizes = dict(measure(locked_names(LOCK.read_text(encoding="utf-8"))))
    known = {name: size for name, size in sizes.items() if size is not None}
    cuda = sum(size for name, size in known.items() if name.startswith(ONLY_CUDA))
    torch = sum(known.get(name, 0) for name in FROM_CPU_INDEX)
    total = sum(known.values())
    lines = [
        f"{len(known)} of {len(sizes)} packages are installed here: {total / 1e9:.1f} GB",
        f"of these CUDA's libraries: {cuda / 1e9:.1f} GB, and torch built for it: {torch / 1e9:.1f} GB",
        f"VARIANT=cpu leaves {(total - cuda - torch) / 1e9:.1f} GB, and torch's CPU build (0.6 to 0.9 GB)",
        *(f"{size / 1e6:8.0f} MB  {name}" for name, size in sorted(known.items(), key=lambda kv: -kv[1])[:_SHOWN]),
        *(f"not installed: {name}" for name, size in sizes.items() if size is None),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
