"""Which items of a shard kill the worker: bisection as a state machine. Pure; the driver carries out its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from moderation.errors import FatalError, ItemError
from moderation.types import ErrorCode, Item, Shard

# A death that does not come again when the item is alone was perhaps not its doing; the shard is tried this often
# before the item that bisection ended at is given up.
UNCONFIRMED_ROUNDS = 3


Care = Literal["usual", "careful", "smallest"]


class Ending(StrEnum):
    """How a step ended."""

    DONE = "done"
    DIED = "died"  # the process was gone
    TIMEOUT = "timeout"  # the watchdog killed it
    RAISED = "raised"  # an exception that no item was blamed for


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do next with a worker that does nothing else meanwhile.

    moderate: the whole shard, and commit; probe: these items, no commit; autopsy: one item, in a process of its own.
    care: `careful` keeps less in memory, so that a shard that only was too much at once is judged whole; `smallest`
    scores in smaller batches as well, which may move a score's last bits.
    """

    action: Literal["moderate", "probe", "autopsy"]
    items: tuple[Item, ...]
    care: Care = "careful"


@dataclass(slots=True, kw_only=True)
class Suspicion:
    """The search in one shard: ask `step()`, carry it out, `tell()` how it ended; until `done`.

    Costs at most ceil(log2(items)) + 1 deaths for each guilty item.
    """

    shard: Shard
    poison: dict[str, ItemError] = field(default_factory=dict)
    done: bool = False
    _suspects: tuple[Item, ...] = ()
    _last: Ending = Ending.DIED
    _detail: str = ""
    _unconfirmed: int = 0
    _care: Care = "careful"

    def step(self) -> Step:
        """The next thing to try."""
        if not self._suspects:
            return Step(action="moderate", items=self.shard.items, care=self._care)
        if len(self._suspects) == 1:
            # Only a death leaves a question open: by which signal.
            action: Literal["autopsy", "probe"] = "autopsy" if self._last is Ending.DIED else "probe"
            return Step(action=action, items=self._suspects, care=self._care)
        return Step(action="probe", items=self._suspects[: _half(self._suspects)], care=self._care)

    def tell(self, ending: Ending, detail: str = "") -> None:
        """How the step went. detail: of an autopsy, the signal's name, `timeout`, `survived` or an exit code.

        Raises FatalError when the shard fails although every item of it is set aside.
        """
        step = self.step()
        if step.action == "moderate":
            self._tell_moderate(ending, detail)
        elif len(self._suspects) > 1:
            self._tell_probe(ending, detail)
        elif step.action == "autopsy":
            self._tell_alone(survived=ending is Ending.DONE and detail == "survived", detail=detail)
        else:
            self._last, self._detail = (self._last, self._detail) if ending is Ending.DONE else (ending, detail)
            self._tell_alone(survived=ending is Ending.DONE, detail="")

    def _tell_moderate(self, ending: Ending, detail: str) -> None:
        if ending is Ending.DONE:
            self.done = True
            return
        self._last, self._detail, self._care = ending, detail, "smallest"
        self._suspects = tuple(i for i in self.shard.items if i.item_id not in self.poison)
        if not self._suspects:
            raise FatalError(f"shard {self.shard.shard_id} fails with no item in work: {ending} {detail}".strip())

    def _tell_probe(self, ending: Ending, detail: str) -> None:
        half = _half(self._suspects)
        if ending is Ending.DONE:
            # The other half has it; whether it really does is what its own probes, or the autopsy, will say.
            self._suspects = self._suspects[half:]
            return
        self._last, self._detail = ending, detail
        self._suspects = self._suspects[:half]

    def _tell_alone(self, *, survived: bool, detail: str) -> None:
        (item,), self._suspects = self._suspects, ()
        if survived:
            self._unconfirmed += 1
            if self._unconfirmed < UNCONFIRMED_ROUNDS:
                return
        self.poison[item.item_id] = ItemError(*_diagnose(self._last, self._detail, "" if survived else detail))


def _diagnose(last: Ending, said: str, autopsy: str) -> tuple[ErrorCode, str]:
    """Code and words for an item. autopsy: how a process of its own ended on it; empty: that says nothing."""
    if last is Ending.RAISED:
        return ErrorCode.SCORE_FAILED, said
    if last is Ending.TIMEOUT or autopsy == "timeout":
        return ErrorCode.TIMEOUT, "the worker hung on it and was killed"
    if autopsy == "SIGKILL":
        # Nobody kills an autopsy but the kernel, when memory runs out.
        return ErrorCode.OUT_OF_MEMORY, "the process was killed on it, as the kernel does when memory runs out"
    return ErrorCode.DECODER_CRASHED, f"the process died on it: {autopsy or 'not again when it was alone'}"


def most_deaths(items: int) -> int:
    """Upper bound of the restarts that one guilty item among `items` costs, the first death included."""
    return 1 + math.ceil(math.log2(max(items, 1)))


def first_codes(poison: Mapping[str, ItemError]) -> dict[str, str]:
    """Item id -> error code, for a log line."""
    return {item_id: str(error.code) for item_id, error in poison.items()}


def _half(items: tuple[Item, ...]) -> int:
    return (len(items) + 1) // 2
