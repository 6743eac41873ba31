"""What `make cover` prints: the covered share of lines and branches, and the files with the least.

`python tools/least_covered.py coverage.json`: the report of coverage.py, measured with branches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

FILES = 10


def share(summary: Mapping[str, int], covered: str, total: str) -> str:
    """A share in percent, or a dash where there is nothing to cover."""
    return f"{summary[covered] / summary[total]:6.1%}" if summary[total] else "     -"


def line(name: str, summary: Mapping[str, int]) -> str:
    """One line of the table."""
    lines = share(summary, "covered_lines", "num_statements")
    branches = share(summary, "covered_branches", "num_branches")
    return f"  lines {lines}  branches {branches}  {name}"


def main() -> None:
    """Read the report and print the table."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    summaries = {name: file["summary"] for name, file in report["files"].items()}
    least = sorted(summaries, key=lambda name: summaries[name]["percent_covered"])[:FILES]
    table = [line("in all", report["totals"]), *(line(name, summaries[name]) for name in least)]
    sys.stdout.write("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
