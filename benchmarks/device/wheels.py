"""The packages that the machine lacks, as wheels for its Python: named in requirements.lock, checked by its hashes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PYTHON = "3.12"
# What a scoring process imports and the image of the device machine does not hold, or not surely as new as it must be.
NAMES = (
    "annotated-types",
    "ftfy",
    "open-clip-torch",
    "pyclipper",
    "pydantic",
    "pydantic-core",
    "simplejpeg",
    "typing-extensions",
    "typing-inspection",
    "wcwidth",
    "zxing-cpp",
)
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17, 5)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
_FITS = re.compile(
    r"-(?:py3|py2\.py3)-none-any\.whl$|-(?:cp312-cp312|cp3\d+-abi3)-(?:[\w.]*manylinux[\w.]*x86_64)\.whl$"
)


def download_wheels(lock: Path, target: Path) -> list[Path]:
    """Fetch the wheels into `target`. Raises RuntimeError with pip's last words when it can't."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(_stanzas(lock.read_text(encoding="utf-8"), NAMES)) + "\n")
        wanted.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", PYTHON, "--implementation", "cp", "--require-hashes"]
        command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
        done = subprocess.run(
            [*command, "--dest", str(target), "--requirement", wanted.name], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"the wheels could not be downloaded: {done.stderr.strip()[-800:]}")
    wheels = sorted(target.glob("*.whl"))
    wrong = [wheel.name for wheel in wheels if not _FITS.search(wheel.name)]
    if wrong or len(wheels) != len(NAMES):
        raise RuntimeError(f"{len(wheels)} wheels for {len(NAMES)} packages; not for Python {PYTHON}: {wrong}")
    return wheels


def _stanzas(lock: str, names: Sequence[str]) -> list[str]:
    """The entries of these packages, with their hashes."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock)
    by_name = {entry.partition("==")[0]: entry for entry in entries}
    return [by_name[name] for name in names]
