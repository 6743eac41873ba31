"""The bounded loop: hands shards to workers, takes receipts, and loses nothing when workers die.

A shard whose worker died (or hung, or raised) is tried again; after `shard_attempts` it is a suspect: one worker, that
does nothing else meanwhile, searches it for the items that do it (`suspects.py`). Shards of a node that went away are
tried again without blame; as Ray sees late that a node is gone, a worker that is out of reach is waited for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from moderation.config.model import RuntimeConfig
from moderation.errors import FatalError, ItemError
from moderation.runtime.bisection import Ending, Suspicion, first_codes
from moderation.runtime.shard_queue import Feed
from moderation.runtime.state import Doubt, Progress, Stop, Tally, Task, shard_timeout_s
from moderation.runtime.worker import AUTOPSY_LOAD_S
from moderation.runtime.worker_pool import MOST_FAILED_STARTS, Crew, Member, live_nodes, node_gone
from moderation.storage import StorageError
from moderation.types import Shard

POLL_S = 0.5
# Shards of lost nodes come back without blame, but not for ever: a shard whose every node goes away is to blame.
MOST_LOSSES = 10
# Suspects among the first shards, or as a share of all, that are the fault of the set-up rather than of items.
SUSPECTS_AT_LEAST = 8
SUSPECTS_SHARE = 0.25
RETRY_WAIT_S = 1.0
# By Ray's defaults a node is given up after five checks, three seconds apart; one that hangs, ten seconds later.
DOUBT_S = 30.0
# A worker that has a place but no stack by then hangs: the largest weights from a slow bucket take minutes.
LOAD_TIMEOUT_S = 1800.0
# Starts that a lost node took along are no fault of the stack; this many in a row are one of the cluster.
MOST_LOST_STARTS = 100


def drive(
    crew: Crew,
    feed: Feed,
    config: RuntimeConfig,
    progress: Progress,
    stop: Stop,
    enough: Callable[[Tally], bool] = lambda _: False,
) -> Tally:
    """Judge every shard of the feed, or as many as there is time for (`Tally.partial`).

    enough: asked after each receipt; true ends the run as a stop does, by plan.
    Raises FatalError (resumable): output not writable, stack not loadable, storage failing beyond retries.
    """
    loop = _Loop(crew=crew, feed=feed, config=config, progress=progress, stop=stop)
    try:
        while not loop.finished():
            loop.assign()
            loop.collect()
            loop.watch()
            if not stop.requested and enough(loop.tally):
                stop.request("enough", config.grace_s)
    finally:
        feed.close()
        crew.dismiss()
    return loop.tally


@dataclass(slots=True, kw_only=True)
class _Loop:
    crew: Crew
    feed: Feed
    config: RuntimeConfig
    progress: Progress
    stop: Stop
    tally: Tally = field(default_factory=Tally)
    again: deque[tuple[float, Shard]] = field(default_factory=deque)  # (not before, shard)
    suspects: deque[Suspicion] = field(default_factory=deque)
    searched: int = 0
    blame: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    doubts: list[Doubt] = field(default_factory=list)
    lost_starts: int = 0
    said_no_room_s: float = field(default_factory=time.monotonic)

    def finished(self) -> bool:
        """Nothing left to hand out or to wait for; or told to stop, and nothing in flight (or no time for it)."""
        busy = any(m.tasks for m in self.crew.members)
        left = bool(busy or self.again or self.suspects or self.doubts)
        if self.stop.requested:
            self.tally.partial = left or not self.feed.exhausted
            return not busy or self.stop.overdue
        return self.feed.exhausted and not left

    def assign(self) -> None:
        """Give every free place of a worker something to do."""
        if self.stop.requested:
            return
        planned = self.feed.planned
        # No more workers than shards are known to be left; more join as the listing goes on.
        self.crew.fill(planned.shards - planned.committed_shards - self.tally.receipts)
        # Breadth first: a worker's second shard waits until every worker has one.
        for depth in range(self.config.shards_in_flight):
            for member in self.crew.members:
                if member.loading is None and len(member.tasks) == depth:
                    self._give(member)

    def _give(self, member: Member) -> None:
        if any(t.suspicion is not None for t in member.tasks.values()):
            return
        shard = self._next_shard()
        if shard is not None:
            ref = member.actor.moderate.remote(shard, {})
            member.tasks[ref] = Task(shard=shard, deadline_s=self._deadline(shard))
        elif self.suspects and not member.tasks:
            self._search(member, self.suspects.popleft())

    def _next_shard(self) -> Shard | None:
        if self.again and self.again[0][0] <= time.monotonic():
            return self.again.popleft()[1]
        return self.feed.take()

    def _search(self, member: Member, suspicion: Suspicion) -> None:
        step = suspicion.step()
        part = Shard(shard_id=suspicion.shard.shard_id, items=step.items)
        if step.action == "moderate":
            ref = member.actor.moderate.remote(part, suspicion.poison, step.care)
        elif step.action == "probe":
            ref = member.actor.probe.remote(part, suspicion.poison, step.care)
        else:
            ref = member.actor.autopsy.remote(part, shard_timeout_s(part, self.config.shard_timeout_s))
        extra_s = AUTOPSY_LOAD_S if step.action == "autopsy" else 0.0
        deadline_s = self._deadline(part) + extra_s
        member.tasks[ref] = Task(shard=part, suspicion=suspicion, step=step, deadline_s=deadline_s)

    def _deadline(self, shard: Shard) -> float:
        allowed = shard_timeout_s(shard, self.config.shard_timeout_s)
        # Shards in flight share the device, and in the worst case wait for each other.
        return time.monotonic() + allowed * self.config.shards_in_flight

    def collect(self) -> None:
        """Take what has become ready."""
        refs = self.crew.refs
        if not refs:
            time.sleep(POLL_S / 5)
            return
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=POLL_S)
        for ref in ready:
            member = self.crew.owner(ref)
            if member is not None:
                self._settle(member, ref)

    def _settle(self, member: Member, ref: Any) -> None:  # noqa: ANN401 - Ray is untyped
        if member.placing is ref:
            self._settle_placing(member, ref)
            return
        if member.loading is ref:
            self._settle_loading(member, ref)
            return
        task: Task = member.tasks[ref]
        try:
            value = ray.get(ref)
        except RayTaskError as error:
            del member.tasks[ref]
            self._raised(task, error)
            if not isinstance(error.cause, StorageError):
                # A device that failed once fails again; a fresh process costs seconds. Its other shards are innocent.
                self._retire(member)
            return
        except RayError as error:
            # Mostly the process is gone; whatever else keeps an answer from us, a fresh worker is the remedy.
            self._lost(member, error)
            return
        del member.tasks[ref]
        self._done(member, task, value)

    def _done(self, member: Member, task: Task, value: Any) -> None:  # noqa: ANN401 - a receipt, or a step's answer
        if task.suspicion is not None:
            self._searched(task.suspicion, Ending.DONE, value if isinstance(value, str) else "")
        if task.step is None or task.step.action == "moderate":
            self._committed(member, value)

    def _take_done(self, member: Member) -> None:
        """Answers that came together with bad news of their worker: what is committed is not done again."""
        refs = list(member.tasks)
        ready = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        for ref in ready:
            try:
                value = ray.get(ref)
            except RayError:
                continue  # goes the way of its worker's other tasks
            self._done(member, member.tasks.pop(ref), value)

    def _settle_placing(self, member: Member, ref: Any) -> None:  # noqa: ANN401 - Ray is untyped
        member.placing = None
        try:
            member.facts = dict(ray.get(ref))
        except RayError:
            return  # `loading` fails for the same reason, and is asked why
        member.placed_s = time.monotonic()

    def _settle_loading(self, member: Member, ref: Any) -> None:  # noqa: ANN401 - Ray is untyped
        try:
            member.facts = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, FatalError):
                raise error.cause from None
            self._failed_start(member, _cause(error))
            return
        except RayError as error:
            # Out of reach is what a lost node looks like at first; a stack that kills its process is told as a death.
            innocent = isinstance(error, ActorUnavailableError) or node_gone(member)
            self._failed_start(member, f"{type(error).__name__}: {error}", innocent=innocent)
            return
        member.loading = None
        self.crew.failed_starts = self.lost_starts = 0
        self.tally.workers.append(dict(member.facts))
        self.progress.note("worker", "worker ready", **member.facts)

    def _failed_start(self, member: Member, reason: str, *, innocent: bool = False) -> None:
        self.crew.remove(member)
        self.crew.failed_starts += not innocent
        self.lost_starts += innocent
        self.progress.note("worker_failed", f"a worker did not start: {reason}")
        if self.crew.failed_starts >= MOST_FAILED_STARTS or self.lost_starts >= MOST_LOST_STARTS:
            failed = self.crew.failed_starts + self.lost_starts
            raise FatalError(f"{failed} workers in a row did not start; the last: {reason}")

    def _committed(self, member: Member, receipt: Mapping[str, Any]) -> None:
        self.tally.receipts += 1
        self.tally.items += int(receipt["rows_in"])
        self.tally.frames += int(receipt["counts"].get("frames", 0))
        beyond = int(receipt["peak_memory_bytes"]) - int(member.facts.get("loaded_memory_bytes", 0))
        self.tally.max_worker_memory_bytes = max(self.tally.max_worker_memory_bytes, beyond)
        self.progress.shard_done(receipt, self.feed)

    def _raised(self, task: Task, error: RayTaskError) -> None:
        if isinstance(error.cause, FatalError):
            raise error.cause from None
        if task.suspicion is not None:
            self._searched(task.suspicion, Ending.RAISED, _cause(error))
            return
        self._blame(task.shard, "raised", _cause(error))

    def _retire(self, member: Member) -> None:
        self._take_done(member)
        tasks, member.tasks = list(member.tasks.values()), {}
        self.crew.remove(member)
        for task in tasks:
            if task.suspicion is not None:
                self.suspects.appendleft(task.suspicion)
            else:
                self.tally.retries["neighbour"] += 1
                self.again.appendleft((0.0, task.shard))

    def _lost(self, member: Member, error: RayError | None = None) -> None:
        """A worker is gone: what it had is tried again; at once when it is known why, else when it is."""
        self._take_done(member)
        tasks, member.tasks = tuple(member.tasks.values()), {}
        self.crew.remove(member)
        doubt = Doubt(member=member, tasks=tasks, until_s=time.monotonic() + DOUBT_S)
        if isinstance(error, ActorUnavailableError) and not node_gone(member):
            self.progress.note("worker_doubt", "worker out of reach", pid=member.facts.get("pid"))
            self.doubts.append(doubt)
        else:
            self._mourn(doubt, "" if error is None else type(error).__name__)

    def _mourn(self, lost: Doubt, detail: str) -> None:
        """Give back what a lost worker had: with blame, unless its node is gone too."""
        gone = node_gone(lost.member)
        late = any(t.late for t in lost.tasks)
        self.progress.note(
            "worker_lost",
            "node lost" if gone else "worker hung and was killed" if late else "worker died",
            pid=lost.member.facts.get("pid"),
            shards=[t.shard.shard_id for t in lost.tasks],
        )
        for task in lost.tasks:
            innocent = gone or (late and not task.late)
            if task.suspicion is not None:
                if innocent:
                    self.suspects.appendleft(task.suspicion)
                else:
                    self._searched(task.suspicion, Ending.TIMEOUT if task.late else Ending.DIED)
            elif innocent and self.losses[task.shard.shard_id] < MOST_LOSSES:
                self.losses[task.shard.shard_id] += 1
                self.tally.retries["node" if gone else "neighbour"] += 1
                self.again.appendleft((0.0, task.shard))
            else:
                self._blame(task.shard, "timeout" if task.late else "died", detail)

    def _blame(self, shard: Shard, reason: str, detail: str) -> None:
        self.blame[shard.shard_id] += 1
        self.tally.retries[reason] += 1
        attempt = self.blame[shard.shard_id]
        self.progress.note("shard_retry", f"shard {reason} {detail}".strip(), shard=shard.shard_id, attempt=attempt)
        if attempt < self.config.shard_attempts:
            self.again.append((time.monotonic() + RETRY_WAIT_S * attempt, shard))
            return
        self.suspects.append(Suspicion(shard=shard))
        self.searched += 1
        if self.searched >= SUSPECTS_AT_LEAST and self.searched > SUSPECTS_SHARE * (
            self.tally.receipts + self.searched
        ):
            raise FatalError(
                f"{self.searched} of {self.tally.receipts + self.searched} shards failed {attempt} times each;"
                f" the last {reason} {detail}".rstrip()
                + ": more likely the set-up than the items"
            )

    def _searched(self, suspicion: Suspicion, ending: Ending, detail: str = "") -> None:
        step = suspicion.step()
        known: dict[str, ItemError] = dict(suspicion.poison)
        suspicion.tell(ending, detail)
        if ending is not Ending.DONE:
            self.tally.retries[f"search:{ending}"] += 1
        found = {i: e for i, e in suspicion.poison.items() if i not in known}
        if found:
            codes = first_codes(found)
            self.progress.note("poison", "item set aside", shard=suspicion.shard.shard_id, items=codes)
        else:
            self.progress.note(
                "search",
                f"{step.action} of {len(step.items)} items ({step.care}): {ending}",
                shard=suspicion.shard.shard_id,
            )
        if not suspicion.done:
            self.suspects.appendleft(suspicion)

    def watch(self) -> None:
        """Kill workers whose shard is overdue, or their loading; settle doubts; say so when there is no room."""
        now = time.monotonic()
        for member in list(self.crew.members):
            if any(now > t.deadline_s for t in member.tasks.values()):
                self._take_done(member)
            late = [t for t in member.tasks.values() if now > t.deadline_s]
            for task in late:
                task.late = True
            if late:
                self._lost(member)
            elif member.loading is not None and now - (member.placed_s or now) > LOAD_TIMEOUT_S:
                self._failed_start(member, f"not loaded after {LOAD_TIMEOUT_S:.0f} s")
        for doubt in list(self.doubts):
            if now > doubt.until_s or node_gone(doubt.member):
                self.doubts.remove(doubt)
                self._mourn(doubt, "out of reach")
        if not self.crew.members or any(m.placed_s is not None for m in self.crew.members):
            self.said_no_room_s = now
        elif now - self.said_no_room_s > self.config.no_room_every_s:
            self.said_no_room_s = now
            assert self.crew.share is not None
            self.progress.note(
                "no_room",
                f"waiting for room in the cluster: a worker needs {self.crew.share.num_cpus:g} CPU"
                f" and {self.crew.share.num_gpus:g} GPU",
                nodes=[n["Resources"] for n in live_nodes()],
            )


def _cause(error: RayTaskError) -> str:
    cause = error.cause
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
