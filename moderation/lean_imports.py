"""Packages that others import although nobody here needs them: told, for a moment, that they are not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Let imports of one module fail meanwhile, as if it were not installed. What is imported already stays."""
    finder = _Absent(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Absent(MetaPathFinder):
    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == self._name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def leave_pandas_out() -> None:
    """Have pyarrow look for pandas now, and find none; `to_pandas` looks again, so it goes on to work.

    `pa.array` of a list imports pandas, to ask whether the list is a Series: a second of processor time and 60 MB in
    every process, where other packages have brought pandas along. Nothing here makes or takes a frame of pandas, and
    there is no setting: https://github.com/apache/arrow/blob/main/python/pyarrow/pandas-shim.pxi

    Does nothing where pandas is imported already: in a notebook a Series stays a Series. For jobs and workers, not for
    the library at its import: whose process it is decides.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    with without_module("pandas"):
        pa.array([0])
