"""The size of the image is a sum over the lock of the cluster."""

from __future__ import annotations

from importlib.metadata import distribution

from tools.image_size import LOCK, installed_bytes, locked_names, measure


def test_every_package_of_the_lock_is_named_once() -> None:
    names = locked_names(LOCK.read_text(encoding="utf-8"))
    assert len(names) == len(set(names)) and {"torch", "ray", "triton"} <= set(names)


def test_what_is_not_installed_has_no_size() -> None:
    assert dict(measure(["no-such-package"])) == {"no-such-package": None}
    assert installed_bytes(distribution("typer")) > 10_000
