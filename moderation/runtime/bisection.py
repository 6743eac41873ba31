"""Which items of a shard kill the worker: bisection as a state machine. Pure; the driver carries out its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from moderation.errors import FatalError, ItemError
from moderation.runtime.task import MemoryMode
from moderation.types import ErrorCode, Item, Shard

# If an item that bisection ended at does not kill the process when alone, it was perhaps not at fault: the shard is
# tried this often before the item is given up.
MAX_UNCONFIRMED_ROUNDS = 3

# run: the whole shard, and commit; probe: some items, no commit; isolated: one item, in a process of its own.
Action = Literal["run", "probe", "isolated"]

# How an isolated run can end, besides a signal's name and an exit code.
SURVIVED = "survived"
TIMED_OUT = "timeout"


class StepEnding(StrEnum):
    """How a step ended."""

    DONE = "done"
    DIED = "died"  # the process was gone
    TIMEOUT = "timeout"  # the watchdog killed it
    RAISED = "raised"  # an exception that no item was blamed for


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do next with a worker that does nothing else meanwhile."""

    action: Action
    items: tuple[Item, ...]
    memory: MemoryMode = "small"


@dataclass(slots=True, kw_only=True)
class Bisection:
    """The search in one suspect shard. Until `done`: ask `step()`, carry it out, `record()` how it ended.

    Costs at most ceil(log2(items)) + 1 deaths for each guilty item.
    """

    shard: Shard
    poison: dict[str, ItemError] = field(default_factory=dict)
    done: bool = False
    _suspects: tuple[Item, ...] = ()
    _last_failure: StepEnding = StepEnding.DIED
    _last_detail: str = ""
    _unconfirmed_rounds: int = 0
    _memory: MemoryMode = "small"

    @property
    def judges_nothing(self) -> bool:
        """Whether the next step only writes rows of items that are set aside: its success proves nothing."""
        return not self._suspects and all(item.item_id in self.poison for item in self.shard.items)

    def step(self) -> Step:
        """The next thing to try."""
        if not self._suspects:
            return Step(action="run", items=self.shard.items, memory=self._memory)
        if len(self._suspects) > 1:
            return Step(action="probe", items=self._suspects[: _half(self._suspects)], memory=self._memory)
        # Only after a death is an isolated run needed: it tells the signal.
        action: Action = "isolated" if self._last_failure is StepEnding.DIED else "probe"
        return Step(action=action, items=self._suspects, memory=self._memory)

    def record(self, ending: StepEnding, detail: str = "") -> None:
        """Record how the step ended. detail: of an isolated run: a signal's name, `timeout`, `survived`, an exit code.

        Raises FatalError when the shard fails although every item of it is set aside.
        """
        step = self.step()
        if step.action == "run":
            self._record_run(ending, detail)
        elif len(self._suspects) > 1:
            self._record_probe(ending, detail)
        elif step.action == "isolated":
            survived = ending is StepEnding.DONE and detail == SURVIVED
            self._record_single(survived=survived, isolated_ending=detail)
        else:
            if ending is not StepEnding.DONE:
                self._last_failure, self._last_detail = ending, detail
            self._record_single(survived=ending is StepEnding.DONE, isolated_ending="")

    def _record_run(self, ending: StepEnding, detail: str) -> None:
        if ending is StepEnding.DONE:
            self.done = True
            return
        self._last_failure, self._last_detail, self._memory = ending, detail, "smallest"
        self._suspects = tuple(i for i in self.shard.items if i.item_id not in self.poison)
        if not self._suspects:
            raise FatalError(f"shard {self.shard.shard_id} fails with no item in work: {ending} {detail}".strip())

    def _record_probe(self, ending: StepEnding, detail: str) -> None:
        half = _half(self._suspects)
        if ending is StepEnding.DONE:
            # So it should be in the other half; the probes of that half or the isolated run will confirm it.
            self._suspects = self._suspects[half:]
            return
        self._last_failure, self._last_detail = ending, detail
        self._suspects = self._suspects[:half]

    def _record_single(self, *, survived: bool, isolated_ending: str) -> None:
        (item,), self._suspects = self._suspects, ()
        if survived:
            self._unconfirmed_rounds += 1
            if self._unconfirmed_rounds < MAX_UNCONFIRMED_ROUNDS:
                return
        confirmed_ending = "" if survived else isolated_ending
        self.poison[item.item_id] = ItemError(*_diagnose(self._last_failure, self._last_detail, confirmed_ending))


def _diagnose(failure: StepEnding, detail: str, isolated_ending: str) -> tuple[ErrorCode, str]:
    """Code and words for an item. isolated_ending: how its isolated run ended; empty: none, or it survived."""
    if failure is StepEnding.RAISED:
        return ErrorCode.SCORE_FAILED, detail
    if failure is StepEnding.TIMEOUT or isolated_ending == TIMED_OUT:
        return ErrorCode.TIMEOUT, "the worker hung on it and was killed"
    if isolated_ending == "SIGKILL":
        # Only the kernel kills an isolated run, when memory runs out.
        return ErrorCode.OUT_OF_MEMORY, "the process was killed on it, as the kernel does when memory runs out"
    return ErrorCode.DECODER_CRASHED, f"the process died on it: {isolated_ending or 'not again when it was alone'}"


def max_deaths(items: int) -> int:
    """Upper bound of the restarts that one guilty item among `items` costs, the first death included."""
    return 1 + math.ceil(math.log2(max(items, 1)))


def codes_by_item(poison: Mapping[str, ItemError]) -> dict[str, str]:
    """Item id -> error code, for a log line."""
    return {item_id: str(error.code) for item_id, error in poison.items()}


def _half(items: tuple[Item, ...]) -> int:
    return (len(items) + 1) // 2
