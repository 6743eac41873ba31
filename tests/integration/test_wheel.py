"""The wheel as a stranger installs it: its names in site-packages, and its command from another folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="a development dependency, which builds the wheel")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and, behind it, the packages of this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=folder)
    # The .pth files of a folder that is named in one are not read: the clone stays out.
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_one_name_in_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"moderation"}


def test_the_wheel_carries_every_job_and_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, inside in (("jobs", "_jobs"), ("configs", "_configs")):
        files = [p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"]
        assert files
        assert {f"moderation/{inside}/{p.relative_to(ROOT / folder).as_posix()}" for p in files} <= names


def test_the_installed_command_runs_in_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "backfill" in run([str(installed / "bin" / "python"), "-m", "moderation", "--help"], cwd=tmp_path)
    assert "stack:" in run([str(installed / "bin" / "moderation"), "config", "show"], cwd=tmp_path)


def test_the_installed_library_is_the_wheels_and_brings_no_package_called_jobs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, moderation._jobs.__main__; "
        "print(u.find_spec('jobs') is None, u.find_spec('moderation').origin)"
    )
    no_jobs, origin = run([str(installed / "bin" / "python"), "-c", code], cwd=tmp_path).split()
    assert no_jobs == "True"
    assert Path(origin).is_relative_to(installed)


def test_the_clone_runs_its_jobs_by_the_librarys_name() -> None:
    assert "backfill" in run([sys.executable, "-m", "moderation", "--help"], cwd=ROOT)
