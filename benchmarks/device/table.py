"""A short table of a run, for whoever watches it; the JSON has everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

_FIGURES = ("per_s", "ms", "peak_mib", "launches", "device_ms", "gain", "compile_s", "busy_share", "nvml_percent",
            "upload_ms", "whole_ms", "max_difference")  # fmt: skip

_ENDED = ("took_s", "given_s", "starts", "killed")


def print_table(merged: Mapping[str, Any]) -> None:
    """One line a piece."""
    facts = merged["facts"]
    print(f"{facts['gpu']}  torch {facts['packages']['torch']}  {facts['cores']} cores  {facts['cpu']}")
    for name, section in merged["sections"].items():
        ended = "".join(f"  {key} {section[key]}" for key in _ENDED if key in section)
        print(f"\n{name}:{ended}")
        if name == "tests":
            outcomes = Counter(piece.get("outcome") for piece in section["pieces"].values())
            print("  ", {key: value for key, value in outcomes.items() if key})
        for piece, found in section["pieces"].items():
            line = _line(found)
            if line:
                print(f"  {piece:56} {line}")


def _line(found: Mapping[str, Any]) -> str:
    if "error" in found:
        lines = [line for line in str(found["error"]).splitlines() if line.strip()]
        return f"ERROR {lines[-1][:200] if lines else ''}"
    if "skipped" in found:
        return f"skipped: {str(found['skipped'])[:120]}"
    if "eager" in found and "compiled" in found:
        return f"eager {found['eager']['per_s']}  compiled {found['compiled']['per_s']}  gain {found['gain']}"
    return "  ".join(f"{key} {found[key]}" for key in _FIGURES if found.get(key) is not None)
