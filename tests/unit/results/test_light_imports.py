"""Reading what a run left takes a second: neither torch nor Ray is loaded for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
top = importlib.import_module(sys.argv[1])
inside = [m.name for m in pkgutil.walk_packages(getattr(top, "__path__", []), top.__name__ + ".")]
for name in inside:
    importlib.import_module(name)
    for heavy in ("torch", "ray"):
        if heavy in sys.modules:
            sys.exit(f"{name} loads {heavy}")
for heavy in ("torch", "ray"):
    assert heavy not in sys.modules, heavy
print(len(inside))
"""


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "policy",
        "lists",
        "planning",
        "pages",
        "results",
        "analysis.rejudge",
        "analysis.policy_diff",
        "analysis.inventory",
    ],
)
def test_a_fresh_interpreter_imports_it_without_torch_and_ray(name: str) -> None:
    command = [sys.executable, "-c", IMPORT_ALL, f"moderation.{name}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0 or "." in name
