"""Play the five roles that use the product, by its commands alone: `make roles`, or `python -m tools.roles newcomer`.

Writes build/roles/<role>.txt: each command as it was typed, what it printed, its exit code and its seconds; and
build/roles/*.png, the pages. It fails at the first command that ends otherwise than it should. About ten minutes.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import termios
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image

from examples.demo_set import write_demo_set
from tests.s3_server import serve_moto, serve_s3

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "roles"
CHROMIUM: Final = "/usr/bin/chromium"
_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07")
_SHOWN_LINES: Final = 60
_MAX_S: Final = 900.0


@dataclass(slots=True, kw_only=True)
class RoleStage:
    """Where a role acts: a folder of its own, the installed command, and what has been said so far."""

    role: str
    folder: Path
    command: Path
    env: dict[str, str] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a line to the transcript and show it."""
        with (BUILD / f"{self.role}.txt").open("a", encoding="utf-8") as transcript:
            transcript.write(text + "\n")
        sys.stdout.write(text + "\n")

    def run(self, line: str, *, code: int | tuple[int, ...] = 0, columns: int = 0, kill_after_s: float = 0.0) -> str:
        """Type `moderation LINE`; returns what it printed. columns: in a terminal so wide. Raises SystemExit."""
        began_s = time.monotonic()
        self.note(f"\n$ moderation {line}")
        words = [str(self.command), *shlex.split(line)]
        env = {**os.environ, "COLUMNS": "100", **self.env}
        if columns:
            env.pop("COLUMNS")
            ended, text = _in_terminal(words, self.folder, env, columns)
        else:
            ended, text = _plainly(words, self.folder, env, kill_after_s)
        lines = text.rstrip().split("\n")
        cut = [*lines[:_SHOWN_LINES], f"... {len(lines) - _SHOWN_LINES} more lines"]
        self.note("\n".join(cut if len(lines) > _SHOWN_LINES else lines))
        self.note(f"[exit {ended}, {time.monotonic() - began_s:.1f} s]")
        expected = (code,) if isinstance(code, int) else code
        if ended not in expected or "Traceback" in text:
            raise SystemExit(f"{self.role}: exit {ended} instead of {expected}: moderation {line}")
        return text


def _plainly(words: list[str], folder: Path, env: Mapping[str, str], kill_after_s: float) -> tuple[int, str]:
    with subprocess.Popen(
        words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            text, _ = process.communicate(timeout=kill_after_s or _MAX_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the session that was started here, with its workers
            text, _ = process.communicate()
            text += "\n(killed)\n"
        return process.returncode, text


def _in_terminal(words: list[str], folder: Path, env: Mapping[str, str], columns: int) -> tuple[int, str]:
    """The exit code, and the lines that a terminal of this width was left with, drawn over by carriage returns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(words, cwd=folder, env={**env, "TERM": "xterm-256color"}, stdout=theirs, stderr=theirs)
    os.close(theirs)
    began_s, first_s, seen = time.monotonic(), 0.0, b""
    while True:
        ready, _, _ = select.select([ours], [], [], 1.0)
        if not ready:
            # A child that outlives the command would keep the terminal open.
            if process.poll() is not None or time.monotonic() - began_s > _MAX_S:
                break
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        first_s = first_s or time.monotonic() - began_s
        seen += piece
    os.close(ours)
    text = _STEERING.sub("", seen.decode(errors="replace")).replace("\r\n", "\n")
    drawn = [part for line in text.split("\n") for part in line.split("\r") if part.strip()]
    steady = [line for k, line in enumerate(drawn) if k < 8 or k % max(1, len(drawn) // 30) == 0 or k > len(drawn) - 12]
    widest = max(map(len, drawn), default=0)
    steady.append(f"(first line after {first_s:.2f} s; widest line {widest} of {columns} columns)")
    return process.wait(), "\n".join(steady)


def _photos(stage: RoleStage, count: int = 12) -> Path:
    """A folder of the newcomer's own: pictures that ship in packages, a broken one, a text."""
    demo = stage.folder / "demo"
    if not demo.exists():
        write_demo_set(demo)
    own = stage.folder / "photos"
    own.mkdir(exist_ok=True)
    pictures = sorted(p for p in demo.rglob("*.jpg") if "broken" not in p.parts)[: count - 1]
    for k, picture in enumerate(pictures):
        (own / f"{k:02d}.jpg").write_bytes(picture.read_bytes())
    (own / "copy of 00.jpg").write_bytes((own / "00.jpg").read_bytes())
    (own / "cut.jpg").write_bytes((own / "01.jpg").read_bytes()[:2000])
    (own / "notes.txt").write_text("my holiday")
    return own


def newcomer(stage: RoleStage) -> None:
    """Installed the wheel a minute ago; wants to see what it says of some pictures."""
    _photos(stage)
    stage.run("--version")
    stage.run("init project")
    stage.run("doctor --config project/config.yaml", code=(0, 1))
    # One of so few is cut: more errors than runtime.max_error_rate, which is exit code 3.
    stage.run("backfill photos --out out --config project/config.yaml", columns=100, code=3)
    stage.run("backfill photos --out narrow --config project/config.yaml", columns=60, code=3)
    stage.run("status out")
    stage.run("backfill photo --out out2", code=2)
    stage.run("backfil photos --out out2", code=2)


def _finished(stage: RoleStage) -> None:
    if not (stage.folder / "out").exists():
        _photos(stage)
        stage.run("init project")
        stage.run("backfill photos --out out --config project/config.yaml --set stack.keep_embeddings=true", code=3)


def engineer(stage: RoleStage) -> None:
    """Trust and safety: wants to know why, and what another threshold would change."""
    _finished(stage)
    stage.run("why out photos/03.jpg")
    stage.run("why out cut.jpg")
    stage.run("why out 99.jpg", code=2)
    stage.run("checks out --plot --to figures")
    stage.run("policy show project/policy.yaml")
    stage.run("policy test project/policy.yaml project/cases.yaml")
    text = (stage.folder / "project" / "policy.yaml").read_text()
    (stage.folder / "stricter.yaml").write_text(re.sub(r"review: 0\.\d+", "review: 0.05", text))
    stage.run("policy diff project/policy.yaml stricter.yaml --on out")
    stage.run("rejudge out --policy stricter.yaml --to stricter")
    stage.run("status stricter")
    stage.run("export stricter --format csv --verdict review --to reviews.csv")


def curator(stage: RoleStage) -> None:
    """Wants the clean part of a set, without copies, and the packed form judged the same."""
    _finished(stage)
    stage.run("duplicates out --previews")
    stage.run("export out --format manifest --verdict pass --minus-duplicates --to clean.jsonl")
    stage.run("export out --format webdataset --verdict pass --minus-duplicates --to packed")
    packed = stage.folder / "set.tar"
    with tarfile.open(packed, "w") as tar:
        for photo in sorted((stage.folder / "photos").glob("0*.jpg")):
            tar.add(photo, photo.name)
    names = [f"{packed}#{name}" for name in ("00.jpg", "03.jpg")]
    (stage.folder / "some.csv").write_text("\n".join(["uri", *names]) + "\n")
    # The reviewed part again, by a smaller stack, from URIs of members of a tar.
    stage.run("backfill some.csv --out some --set stack.only=[open_nsfw,image_safety] --policy project/policy.yaml")
    stage.run("backfill some.csv --out some --config project/config.yaml", code=2)  # another stack: another OUT
    stage.run("export some --format jsonl")


def operator(stage: RoleStage) -> None:
    """Runs it every night on two stores; one night is killed."""
    photos = _photos(stage, count=8)
    with serve_s3(stage.folder / "rclone") as rclone:
        inside = rclone.path("s3://bucket/in")
        inside.mkdir(parents=True, exist_ok=True)
        for photo in sorted(photos.iterdir())[:6]:
            (inside / photo.name).write_bytes(photo.read_bytes())
        stage.env = rclone.env()
        _nights(stage)
    with serve_moto() as moto:
        stage.env = moto.env()
        stage.run("backfill photos --out s3://bucket/before --dry-run")
        stage.run("nightly photos --ledger s3://bucket/ledger --out s3://bucket/nights")
        stage.run("nightly photos --ledger s3://bucket/ledger --out s3://bucket/nights")
        stage.run("status s3://bucket/nights")
    stage.env = {}
    stage.run("backfill photos --out killed --set shards.max_items=2", code=(0, -9), kill_after_s=25)
    stage.run("status killed", code=(0, 1, 2, 3))
    stage.run("backfill photos --out killed --set shards.max_items=2", code=(0, 3))
    stage.run("verify killed")


def _nights(stage: RoleStage) -> None:
    night = "nightly s3://bucket/in --ledger s3://bucket/ledger --out s3://bucket/nights"
    stage.run(night)
    stage.run(night)  # nothing is new
    stage.run("status s3://bucket/nights")


def manager(stage: RoleStage) -> None:
    """Reads pages: the report, the inventory, how good it is."""
    _finished(stage)
    photos = sorted((stage.folder / "photos").glob("0*.jpg"))
    rows = [f"{photo},{'fine' if k % 4 else 'explicit'}" for k, photo in enumerate(photos)]
    (stage.folder / "labels.csv").write_text("\n".join(["uri,label", *rows]) + "\n")
    stage.run("document out")
    stage.run("evaluate out --labels labels.csv --bad explicit")
    stage.run("duplicates out")
    pages = ["report.html", "document/index.html", "evaluation/index.html", "duplicates/index.html"]
    for page in pages:
        _photograph(stage, stage.folder / "out" / page)


def _photograph(stage: RoleStage, page: Path) -> None:
    target = BUILD / f"{page.relative_to(stage.folder / 'out').as_posix().replace('/', '-')}.png"
    if not Path(CHROMIUM).exists():
        stage.note(f"no {CHROMIUM}: no picture of {page}")
        return
    from playwright.sync_api import sync_playwright  # a development package

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        shown.goto(page.as_uri())
        shown.screenshot(path=str(target), full_page=True)
        wide = shown.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        browser.close()
    with Image.open(target) as picture:
        stage.note(f"{target.name}: {picture.width} x {picture.height}{', wider than the window' if wide else ''}")


ROLES: Final[Mapping[str, Callable[[RoleStage], None]]] = {
    "newcomer": newcomer,
    "engineer": engineer,
    "curator": curator,
    "operator": operator,
    "manager": manager,
}


def install(folder: Path) -> Path:
    """The wheel in a fresh environment, with the packages of this one behind it; returns its command."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "venv" / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (folder / "venv").glob("lib/python3*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "moderation"


def main() -> None:
    """Play the roles named, or all."""
    parser = argparse.ArgumentParser(description="Plays the five roles; transcripts in build/roles/.")
    parser.add_argument("roles", nargs="*", choices=[*ROLES, []], help="default: all")
    chosen = parser.parse_args().roles or list(ROLES)

    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="roles") as name:
        folder = Path(name)
        command = install(folder)
        stage_folder = folder / "work"
        stage_folder.mkdir()
        for role in chosen:
            (BUILD / f"{role}.txt").unlink(missing_ok=True)
            ROLES[role](RoleStage(role=role, folder=stage_folder, command=command))


if __name__ == "__main__":
    main()
