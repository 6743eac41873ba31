"""Pictures that ship inside packages of the lock: tests on real pictures that need no ../shared/data.

The files are read where they lie, and neither package is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from examples.demo_set import package_file

SUFFIXES = frozenset({".gif", ".jpg", ".png", ".tif"})
# package -> a file in its folder of pictures
_FOLDERS: Mapping[str, str] = {
    "skimage": "data/astronaut.png",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
}
# Of colour and of something: what the networks were trained on. The rest are drawings, textures and grey values.
PHOTOGRAPHS = (
    "matplotlib/grace_hopper.jpg",
    "skimage/astronaut.png",
    "skimage/chelsea.png",
    "skimage/coffee.png",
    "skimage/color.png",
    "skimage/hubble_deep_field.jpg",
    "skimage/ihc.png",
    "skimage/motorcycle_left.png",
    "skimage/motorcycle_right.png",
    "skimage/retina.jpg",
    "skimage/rocket.jpg",
)


def packaged_pictures() -> dict[str, Path]:
    """`package/file` -> path, sorted by name.

    Raises UsageError with the command that installs a missing package.
    """
    return {
        f"{package}/{path.name}": path
        for package, example in sorted(_FOLDERS.items())
        for path in sorted(package_file(package, example).parent.iterdir())
        if path.suffix in SUFFIXES
    }


def packaged_photographs() -> dict[str, Path]:
    """Those of `packaged_pictures` that are photographs in colour."""
    pictures = packaged_pictures()
    return {name: pictures[name] for name in PHOTOGRAPHS}
