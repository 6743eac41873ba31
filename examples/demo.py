"""`make demo`: make the demo set, moderate it with the real program, and show what was decided, why, and where it is.

Exits 1 when an item has no row, or another status, error code, kind or verdict than the set says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples.demo_set import DemoItem, write_demo_set
from moderation.types import Kind

CONFIG = "configs/default.yaml"
# The set holds broken files on purpose, more of them than `runtime.max_error_rate` allows: done, with a warning.
EXIT_DONE_WITH_ERRORS = 3
# Meta's advice for PDQ: at most 31 of 256 bits differ, and both pictures have something in them to hash.
COPY_BITS = 31
COPY_QUALITY = 0.5
# 26 s of CPU time; 103 s and 240 s of wall time on two cores that were busy with other work (load 6, load 7.5).
TIMEOUT_S = 600
VERDICT_STYLE = {"pass": "green", "review": "yellow", "block": "red"}
PLAIN_WIDTH = 152  # where there is no terminal to ask

Row = Mapping[str, Any]  # one of the verdicts table, as Arrow reads it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Moderate a small set made here.")
    parser.add_argument("--data", type=Path, default=Path("demo-data"), help="folder of the set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="the run is written here (%(default)s)")
    given = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)

    demo = write_demo_set(given.data)
    command = [sys.executable, "-m", "jobs", "backfill", str(demo.manifest), "--out", str(given.out)]
    command += ["--config", CONFIG, "--fresh"]
    console.print(f"[bold]$ python {escape(' '.join(command[1:]))}[/]", soft_wrap=True)
    began = time.monotonic()
    code = subprocess.run(command, check=False, timeout=TIMEOUT_S).returncode
    took_s = time.monotonic() - began
    if code != EXIT_DONE_WITH_ERRORS:
        console.print(f"[red]exit code {code}, expected {EXIT_DONE_WITH_ERRORS}[/]")
        return 1
    console.print(
        f"Done in {took_s:.0f} s, exit code {code}: broken files are more of this set than max_error_rate allows.\n"
    )

    rows = read_verdicts(given.out)
    console.print(verdict_table(demo.items, rows))
    console.print(
        f"\nTables, receipts and report: [bold]{escape(str(given.out))}/[/]; the set: {escape(str(given.data))}/"
    )
    show_query(
        console, f"SELECT verdict, kind, count(*) FROM '{given.out}/verdicts/*.parquet' GROUP BY ALL ORDER BY ALL"
    )
    wrong = find_surprises(demo.items, rows)
    for line in wrong:
        console.print(f"[red]{escape(line)}[/]", soft_wrap=True)
    return 1 if wrong else 0


def read_verdicts(out: Path) -> dict[str, Row]:
    """Verdict rows by item id."""
    return {row["item_id"]: row for row in pq.read_table(out / "verdicts").to_pylist()}


def find_surprises(items: Sequence[DemoItem], rows: Mapping[str, Row]) -> list[str]:
    """A sentence for each item that is missing, of a row that nobody asked for, or that is not as the set says."""
    found = [f"{name}: a row for no item of the set" for name in sorted(set(rows) - {item.item_id for item in items})]
    for item in items:
        row = rows.get(item.item_id)
        if row is None:
            found.append(f"{item.item_id}: no row")
            continue
        expected: dict[str, str | None] = {"kind": item.kind, "status": item.status, "error_code": item.error_code}
        if item.verdict is not None:
            expected["verdict"] = item.verdict
        found += [
            f"{item.item_id}: {name} is {row[name]}, expected {value}"
            for name, value in expected.items()
            if row[name] != value
        ]
    return found


def find_copies(items: Sequence[DemoItem], rows: Mapping[str, Row]) -> dict[str, str]:
    """What a picture is a copy of: the first earlier one with the same bytes, or with nearly the same PDQ hash.

    Single pictures only: an item of several frames has the hash of the one in its middle.
    """
    notes: dict[str, str] = {}
    earlier: list[tuple[str, Row]] = []
    for name in (item.item_id for item in items):
        row = rows.get(name)
        if row is None or row["kind"] != Kind.IMAGE:
            continue
        for other, seen in earlier:
            if row["content_hash"] is not None and row["content_hash"] == seen["content_hash"]:
                notes[name] = f"{other}, same bytes"
                break
            bits = pdq_distance(row, seen)
            if bits is not None and bits <= COPY_BITS:
                notes[name] = f"{other}, {bits} bits"
                break
        earlier.append((name, row))
    return notes


def pdq_distance(first: Row, second: Row) -> int | None:
    """Bits that differ between two items' hashes; None where one has no hash, or too little in it to hash."""
    if not first["pdq"] or not second["pdq"]:
        return None
    if min(first["score_subject"] or 0.0, second["score_subject"] or 0.0) < COPY_QUALITY:
        return None
    return (int(first["pdq"], 16) ^ int(second["pdq"], 16)).bit_count()


def verdict_table(items: Sequence[DemoItem], rows: Mapping[str, Row]) -> Table:
    """What was decided of each item, and why. Files are named within the set's folder."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("item", "file", "kind", "status", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for column in ("score", "sharp", "bright", "frames"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("copy of", overflow="fold")
    copies = find_copies(items, rows)
    for item in items:
        first, *more = item.files
        file = f"{first} +{len(more)}" if more else first
        row = rows.get(item.item_id)
        if row is None:
            table.add_row(item.item_id, file, "", "[red]no row[/]")
            continue
        verdict = row["verdict"] or ""
        table.add_row(
            item.item_id,
            file,
            row["kind"],
            row["status"],
            f"[{VERDICT_STYLE.get(verdict, 'dim')}]{verdict or '-'}[/]",
            row["reason"] or row["error_code"] or "",
            _number(row["score"], 2),
            _number(row["score_sharpness"], 0),
            _number(row["score_brightness"], 2),
            str(row["frames_scored"] or 0),
            copies.get(item.item_id, ""),
        )
    return table


def show_query(console: Console, query: str) -> None:
    """A DuckDB query over the output, and its answer."""
    console.print(f"\n[bold]duckdb>[/] {escape(query)}", soft_wrap=True)
    answer = duckdb.execute(query)
    columns = [str(column[0]) for column in answer.description or ()]
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for values in answer.fetchall():
        table.add_row(*("-" if value is None else str(value) for value in values))
    console.print(table)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
