"""pyarrow without pandas, in processes of ours: `pa.array` of a list imports pandas, to ask whether it is a Series.

That takes a second of processor time and 60 MB in every process, and nothing here ever makes or takes a frame of
pandas. Where pandas is installed (other packages bring it along) there is no setting against it:
https://github.com/apache/arrow/blob/main/python/pyarrow/pandas-shim.pxi
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _NoPandas(MetaPathFinder):
    """Says of pandas alone that it is not there."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")


def leave_pandas_out() -> None:
    """Have pyarrow look for pandas now, and find none; `to_pandas` looks again, so it goes on to work.

    Does nothing where pandas is imported already: in a notebook a Series stays a Series. For jobs and workers, not for
    the library at its import: whose process it is decides.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
