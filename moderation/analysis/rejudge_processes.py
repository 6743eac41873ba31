"""Processes of this machine that rejudge parts: `python -m moderation.analysis.rejudge_processes`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

from moderation.analysis.part_processes import serve, work_by_processes
from moderation.analysis.rejudge_parts import rejudge_shards

_MODULE = "moderation.analysis.rejudge_processes"


def judge_by_processes(told: str, chunks: Sequence[Sequence[str]], processes: int) -> None:
    """Have all portions judged and committed. Raises the error of a process: UsageError, FatalError."""
    work_by_processes(_MODULE, told, [list(chunk) for chunk in chunks], processes, what="rejudges parts")


def _begin(told: str) -> Callable[[Sequence[str]], int]:
    return partial(rejudge_shards, told)


if __name__ == "__main__":
    serve(_begin, sys.stdin, sys.stdout)
