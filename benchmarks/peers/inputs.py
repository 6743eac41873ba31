"""What all pipelines read: folders of photographs of three sizes, and the stacks that score them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.process import REPOSITORY

PHOTOGRAPHS = REPOSITORY.parent / "shared" / "data" / "images"
SMALL = 0.2  # megapixels of the photographs as they are
# Different files of a size; they repeat in a folder. Large ones take a second each to make.
DISTINCT: Mapping[float, int] = {2.0: 64, 12.0: 24}
CANVAS_PX = 448  # `media.canvas_px`: the pipelines without a canvas of their own shrink to it, too
STACKS = ("cnn", "default", "clip_b32")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackChoice:
    """A stack as a user would name it: a configuration file (empty: the packaged one) and settings.

    weights: of the CLIP alone, for programs that load it by themselves.
    """

    name: str
    config: str = ""
    settings: tuple[str, ...] = ()
    weights: str = ""

    def arguments(self) -> list[str]:
        """For `moderation backfill`, and for the programs in this folder."""
        named = ["--config", self.config] if self.config else []
        return [*named, *(part for setting in self.settings for part in ("--set", setting))]


def choose_stack(name: str, scratch: Path) -> StackChoice:
    """`cnn` (image_safety alone), `default`, or `clip_b32`, whose random weights are written to `scratch` once."""
    if name == "cnn":
        return StackChoice(name=name, settings=("stack.only=[image_safety]",))
    if name == "default":
        return StackChoice(name=name)
    weights = scratch / f"{name}.safetensors"
    config = scratch / f"{name}.yaml"
    if not config.is_file():
        _write_clip(name, scratch, config)
    return StackChoice(name=name, config=str(config), weights=str(weights))


def _write_clip(name: str, scratch: Path, config: Path) -> None:
    import torch

    from benchmarks.device.models import QUESTIONS, Place, write_checkpoint

    scratch.mkdir(parents=True, exist_ok=True)
    place = Place(device=torch.device("cpu"), scratch=scratch, tiny=False)
    # With its whole text tower: openmoderate encodes its own words.
    write_checkpoint(name, place, whole_text=True)
    made = json.loads((scratch / f"{name}.json").read_text(encoding="utf-8"))
    entry = {"name": "clip", "alias": name, "weights": f"file://{scratch / name}.safetensors", "sha256": made["sha256"]}
    entry["options"] = {"architecture": made["architecture"], "questions": QUESTIONS}
    check = {"side": "negative", "votes": [f"{name}.person"], "review": 0.5}
    # JSON is YAML.
    (scratch / "policy.yaml").write_text(json.dumps({"checks": {"person": check}}))
    config.write_text(json.dumps({"stack": {"detectors": [entry]}, "policy": str(scratch / "policy.yaml")}))


def make_folder(scratch: Path, megapixels: float, items: int) -> Path:
    """A folder of `items` photographs of about this size; files that repeat are one file with several names."""
    folder = scratch / f"in_{megapixels:g}_{items}"
    if folder.is_dir():
        return folder
    sources = sorted(PHOTOGRAPHS.iterdir()) if megapixels == SMALL else _enlarge_all(scratch, megapixels, items)
    return link_files(folder, sources, items)


def link_files(folder: Path, sources: list[Path], items: int) -> Path:
    """So many names for these files, each as often as it takes (hard links where the disk is the same)."""
    folder.mkdir(parents=True)
    for index in range(items):
        source = sources[index % len(sources)]
        target = folder / f"{index:05d}_{source.stem}.jpg"
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
    return folder


def _enlarge_all(scratch: Path, megapixels: float, items: int) -> list[Path]:
    folder = scratch / f"made_{megapixels:g}"
    folder.mkdir(parents=True, exist_ok=True)
    count = min(items, DISTINCT.get(megapixels, 24))
    sources = sorted(PHOTOGRAPHS.iterdir())
    jobs = [(str(sources[i % len(sources)]), str(folder / f"{i:03d}.jpg"), megapixels, i) for i in range(count)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(enlarge, [job for job in jobs if not Path(job[1]).is_file()]))
    return [Path(job[1]) for job in jobs]


def enlarge(job: tuple[str, str, float, int]) -> None:
    """(source, target, megapixels, seed): the photograph enlarged as a camera would have written it, quality 92.

    An enlarged photograph lacks the noise of a camera, which is most of the bytes of its files: noise is added.
    """
    from PIL import Image

    from benchmarks.device.pictures import add_noise

    source, target, megapixels, seed = job
    with Image.open(source) as picture:
        scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * scale), round(picture.height * scale))
        large = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pixels = add_noise(np.asarray(large, np.int16), np.random.default_rng(seed))
    Image.fromarray(pixels).save(target, "JPEG", quality=92)
