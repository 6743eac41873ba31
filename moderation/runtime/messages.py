"""What a driver and the worker processes that it has started say to each other, as bytes.

These are pickles, the only ones here: both ends are processes of one program, and nobody else has the pipe between
them. It is the trust that Ray's own messages have.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moderation.errors import ShardError, one_line
from moderation.runtime.worker import WorkerPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """The first message. task: `module:class` and its JSON. calls: how many run at once."""

    task: tuple[str, str]
    threads: int
    calls: int
    place: WorkerPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCall:
    """A call of a method of the worker."""

    number: int
    method: str
    arguments: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodAnswer:
    """How a call ended. told: the value or the error, packed; apart, as it may not be readable where it arrives."""

    number: int
    ending: Literal["done", "raised"]
    told: bytes

    def value(self) -> Any:  # noqa: ANN401 - whatever the method returns
        """What was returned, or raised; a ShardError where that cannot be read here."""
        try:
            return unpack(self.told)
        except Exception as error:  # noqa: BLE001 - of a module that is not here, or that raises when it is imported
            return ShardError(f"the answer of a worker is not readable: {type(error).__name__}: {one_line(error, 200)}")


def pack(value: object) -> bytes:
    """As bytes. Raises whatever the value's own `__reduce__` raises."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpack(message: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    """The value of `pack`, from a process of this program."""
    return pickle.loads(message)  # noqa: S301 - see above


def pack_error(error: BaseException) -> bytes:
    """An error as the other end can read it: itself, or where it does not come through whole, its text."""
    try:
        told = pack(error)
        unpack(told)  # an error whose `__init__` has arguments of its own fails only here
    except Exception:  # noqa: BLE001 - see `pack`
        return pack(ShardError(f"{type(error).__name__}: {one_line(error, 300)}"))
    return told
