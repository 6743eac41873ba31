"""`python -m benchmarks.device pack OUT_DIR`, and what `run.sh` in that folder calls: `run` and, of it, `section`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.device.weights import ROUNDED_BITS


def main() -> int:
    """Parse and call one of three."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="write the folder that runs without a network")
    pack.add_argument("out", type=Path)
    pack.add_argument("--no-wheels", action="store_true", help="for a machine that has all packages")
    pack.add_argument("--bits", type=int, default=ROUNDED_BITS, help="of mantissa that weights keep; 23: all, 90 MB")
    run = commands.add_parser("run", help="all sections, one JSON")
    run.add_argument("--scratch", type=Path)
    run.add_argument("--out", type=Path, default=Path("device-results"))
    run.add_argument(
        "--shares", default="", help="tests=0.4,stream=0.6: only these sections, with these shares of the time"
    )
    section = commands.add_parser("section", help="one section; called by run")
    section.add_argument("name")
    section.add_argument("--scratch", type=Path, required=True)
    section.add_argument("--lines", type=Path, required=True)
    for command in (run, section):
        command.add_argument("--cpu", action="store_true", help="tiny, to see that it works")
        command.add_argument("--seconds", type=float, default=420.0)
    worker = commands.add_parser("worker", help="one of several processes on a GPU; called by section workers")
    worker.add_argument("--scratch", type=Path, required=True)
    worker.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    # Imported late: packing needs no torch on a device, and a section no other's imports.
    if given.command == "pack":
        return _pack(given)
    if given.command == "worker":
        return _serve(given)
    return _run(given) if given.command == "run" else _section(given)


def _pack(given: argparse.Namespace) -> int:
    from benchmarks.device.pack import MOST_BYTES, make_pack

    sizes = make_pack(given.out, with_wheels=not given.no_wheels, bits=given.bits)
    total = sum(sizes.values())
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1]):
        print(f"{size:>12,}  {name}")
    print(f"{total:>12,}  bytes in all, {total / 2**20:.1f} MiB")
    if total > MOST_BYTES:
        print(f"more than {MOST_BYTES // 2**20} MiB: it can't travel in one call", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> int:
    from benchmarks.device.run import failures, read_shares, run_all

    scratch = given.scratch or Path(tempfile.mkdtemp(prefix="device-"))
    wrong = failures(
        run_all(
            scratch.absolute(), given.out.absolute(), given.seconds, cpu=given.cpu, shares=read_shares(given.shares)
        )
    )
    for line in wrong:
        print(f"\nwrong: {line}")
    return 1 if wrong else 0


def _serve(given: argparse.Namespace) -> int:
    from benchmarks.device.models import make_place
    from benchmarks.device.weights import accept_packed
    from benchmarks.device.workers import serve

    accept_packed()
    serve(make_place(given.scratch, cpu=given.cpu))
    return 0


def _section(given: argparse.Namespace) -> int:
    from benchmarks.device import compiled, decoding, networks, prepare, profiles, stream, tests_section, workers
    from benchmarks.device.models import config_of, decode_frames, make_place
    from benchmarks.device.pictures import read_variants
    from benchmarks.device.record import DeviceLostError, Record
    from benchmarks.device.weights import accept_packed

    accept_packed()
    record = Record(given.lines, given.name, given.seconds, tiny=given.cpu)
    place = make_place(given.scratch, cpu=given.cpu)
    try:
        if given.name == "compiled":
            frames = decode_frames(read_variants(given.scratch / "pictures", "small"), config_of("default", place))
            compiled.run(record, place, frames)
        else:
            sections = (prepare, networks, stream, profiles, decoding, tests_section, workers)
            by_name = {module.__name__.rpartition(".")[2].removesuffix("_section"): module for module in sections}
            by_name[given.name].run(record, place)
    except DeviceLostError:
        return 1  # recorded; the rest of the section goes on in a fresh process
    return 0


if __name__ == "__main__":
    sys.exit(main())
