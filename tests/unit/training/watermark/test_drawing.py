"""Processes that draw: what they hand over, and that they end with the process that they draw for."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from moderation.errors import FatalError
from moderation.training.watermark.drawing import draw_ahead
from moderation.types import U8

GROUNDS = [np.full((4, 5, 3), number, np.uint8) for number in range(3)]
# Prints the ids of its drawing processes, then waits for ever.
DRAWS = """
import os, time
import numpy as np
from tests.unit.training.watermark.test_drawing import GROUNDS, name_process
from moderation.training.watermark.drawing import draw_ahead

if __name__ == "__main__":
    for made in draw_ahead(GROUNDS, 2, name_process, ((n,) for n in range(10**6))):
        print(made, flush=True)
"""


def sum_ground(grounds: Sequence[U8], number: int) -> torch.Tensor:
    return torch.tensor([int(grounds[number].sum())])


def name_process(_grounds: Sequence[U8], _number: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def end_itself(_grounds: Sequence[U8], _number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def divide(_grounds: Sequence[U8], number: int) -> float:
    return 1 / number


def test_what_is_made_comes_in_order_and_holds_no_shared_memory() -> None:
    made = list(draw_ahead(GROUNDS, 1, sum_ground, ((n,) for n in (2, 0, 1))))
    assert [int(tensor) for tensor in made] == [120, 0, 60]
    assert not any(tensor.is_shared() for tensor in made)  # type: ignore[no-untyped-call]  # torch's, without types


def test_a_killed_process_is_a_sentence_that_says_what_to_do() -> None:
    with pytest.raises(FatalError, match="fewer than 1 --workers"):
        list(draw_ahead(GROUNDS, 1, end_itself, [(0,)]))


def test_a_fault_in_a_process_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        list(draw_ahead(GROUNDS, 1, divide, [(1,), (0,)]))


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(FatalError, match=r"moderation-marks-.*No space left on device.*TMPDIR"):
        list(draw_ahead(GROUNDS, 1, divide, [(1,)]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_and_folder_go_with_a_parent_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "draws.py"
    script.write_text(DRAWS)
    facts = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=facts) as parent:
        assert parent.stdout is not None
        processes = {int(parent.stdout.readline()) for _ in range(8)}
        parent.send_signal(number)
    wait_until(lambda: not any(is_running(process) for process in processes))
    assert not list(tmp_path.glob("moderation-marks-*"))


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may have waited for it yet


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("still running after a minute")
