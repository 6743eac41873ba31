"""The packages of the extra `evaluation`, or the command that installs them."""

from __future__ import annotations

from typing import Any

from moderation.errors import UsageError

_INSTALL = "pip install 'moderation[evaluation]'"


def scipy_stats() -> Any:  # noqa: ANN401 - scipy is untyped
    """`scipy.stats`. Raises UsageError with the command that installs it."""
    try:
        from scipy import stats
    except ModuleNotFoundError as error:
        raise UsageError(f"statistics need the package scipy; {_INSTALL}") from error
    return stats


def scipy_optimize() -> Any:  # noqa: ANN401 - scipy is untyped
    """`scipy.optimize`. Raises UsageError with the command that installs it."""
    try:
        from scipy import optimize
    except ModuleNotFoundError as error:
        raise UsageError(f"calibration needs the package scipy; {_INSTALL}") from error
    return optimize


def matplotlib_figure() -> Any:  # noqa: ANN401 - matplotlib is an optional package
    """`matplotlib.figure.Figure`, which keeps no global state. Raises UsageError with the command that installs it."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(f"figures need the package matplotlib; {_INSTALL}") from error
    return Figure
