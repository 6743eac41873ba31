"""All sections, each in a process of its own with a share of the time; what they wrote, merged into one JSON.

The tests are first and keep their share; what a section leaves over goes to those after it. Beside the tests runs what
prepares the others, which is not measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device.facts import device_facts
from benchmarks.device.record import merge_lines, read_lines
from benchmarks.device.table import print_table
from benchmarks.device.weights import PACK, restore_weights

SECTIONS: Mapping[str, float] = {
    "tests": 0.26,
    "networks": 0.28,
    "workers": 0.20,
    "stream": 0.08,
    "profiles": 0.06,
    "decoding": 0.04,
    "compiled": 0.08,
}
RESULT = "device.json"
_STARTS = 3  # processes of a section: after a device error the rest of it needs a fresh one
_GRACE_S = 4.0  # a section ends by itself; one that does not is killed
_END_S = 3.0  # to merge and print
_TAIL_BYTES = 1500


@dataclass(slots=True, kw_only=True)
class Started:
    """A process and the file of what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """How it ended; killed with all that it started when it takes longer."""
        facts: dict[str, Any] = {}
        try:
            self.process.wait(max(0.1, timeout_s))
        except subprocess.TimeoutExpired:
            facts["killed"] = f"after {timeout_s:.0f} s"
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        facts["exit_code"] = self.process.returncode
        if self.process.returncode:
            facts["tail"] = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        return facts


def read_shares(text: str) -> Mapping[str, float]:
    """`tests=0.4,stream=0.6` -> the share of the time of each section, in order; all of them where nothing is said."""
    pairs = [entry.partition("=") for entry in text.split(",") if entry]
    wrong = [name for name, _, _ in pairs if name not in SECTIONS]
    if wrong:
        raise SystemExit(f"--shares: no section {wrong[0]!r}; there are: {', '.join(SECTIONS)}")
    given = {name: float(share) for name, _, share in pairs} or dict(SECTIONS)
    return {name: share / sum(given.values()) for name, share in given.items()}


def run_all(scratch: Path, out: Path, seconds: float, *, cpu: bool, shares: Mapping[str, float]) -> dict[str, Any]:
    """Run, merge after each section, print a table; returns the whole."""
    ends_s = time.monotonic() + seconds - _END_S
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "device.jsonl"
    lines.unlink(missing_ok=True)
    restored = restore_weights(PACK, scratch / "site")
    whole = {"facts": device_facts(), "budget_s": seconds, "restored_weights": restored}
    ended: dict[str, dict[str, Any]] = {}
    # They share the processor with the tests, of which nothing is timed.
    prepare = _start("prepare", scratch, lines, seconds, cpu=cpu)
    left_over = 1.0
    if "tests" not in shares:
        ended["prepare"] = prepare.wait(60)
    for name, share in shares.items():
        # A tiny run is short by itself: a section may take what is left.
        given_s = (ends_s - time.monotonic()) * (1.0 if cpu else share / max(share, left_over))
        left_over -= share
        ended[name] = _run_section(name, scratch, lines, given_s, cpu=cpu)
        if name == "tests":
            ended["prepare"] = prepare.wait(60)
        _write(out / RESULT, whole, lines, ended)
    merged = _write(out / RESULT, whole, lines, ended)
    print_table(merged)
    return merged


def _run_section(name: str, scratch: Path, lines: Path, seconds: float, *, cpu: bool) -> dict[str, Any]:
    """Once, and again for what is left of it when its process ended early."""
    began_s = time.monotonic()
    ends_s = began_s + seconds
    starts = 0
    while starts < _STARTS:
        starts += 1
        left_s = ends_s - time.monotonic()
        facts = _start(name, scratch, lines, left_s - _GRACE_S, cpu=cpu).wait(left_s)
        if not facts["exit_code"] or "killed" in facts or ends_s - time.monotonic() < 2 * _GRACE_S:
            break
    return {**facts, "starts": starts, "given_s": round(seconds, 1), "took_s": round(time.monotonic() - began_s, 1)}


def _start(name: str, scratch: Path, lines: Path, seconds: float, *, cpu: bool) -> Started:
    command = [sys.executable, "-m", "benchmarks.device", "section", name, "--scratch", str(scratch)]
    command += ["--lines", str(lines), "--seconds", f"{seconds:.1f}", *(["--cpu"] if cpu else [])]
    log = scratch / f"{name}.log"
    with log.open("ab") as sink:
        # A group of its own, so that a compiler's or a test's own processes end with it.
        process = subprocess.Popen(command, cwd=PACK, stdout=sink, stderr=sink, start_new_session=True)
    return Started(process=process, log=log)


def _write(path: Path, whole: Mapping[str, Any], lines: Path, ended: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    merged = {**whole, "sections": merge_lines(read_lines(lines), ended)}
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return merged


def failures(merged: Mapping[str, Any]) -> Sequence[str]:
    """What went wrong: pieces with an error, tests that failed, sections that ended badly."""
    wrong = []
    for name, section in merged["sections"].items():
        if section.get("exit_code"):
            wrong.append(f"{name}: exit code {section['exit_code']}: {section.get('tail', '')[-300:]}")
        failed = {piece: facts["error"] for piece, facts in section["pieces"].items() if "error" in facts}
        wrong += [f"{name}: {piece}: {error}" for piece, error in failed.items()]
    return wrong
