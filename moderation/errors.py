"""The error tree, by blast radius.

ModerationError
|-- ItemError      one item: becomes a verdict row with a code, the neighbours go on
|-- ShardError     one shard: retried by the driver, then bisected
`-- FatalError     the run: stops, resumable                       (exit code 4)
    `-- UsageError the call or its configuration: nothing started  (exit code 2)
"""

from __future__ import annotations

from moderation.types import ErrorCode


class ModerationError(Exception):
    """Root of every error that this package raises on purpose."""


class ItemError(ModerationError):
    """One item could not be fetched, decoded or scored.

    Becomes a row with `status=error`, `verdict=review`, `error_code=code`; never stops a shard.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[ItemError], tuple[ErrorCode, str]]:
        # Exceptions cross process boundaries by pickling their args; ours differ from the message.
        return (type(self), (self.code, self.detail))


class ShardError(ModerationError):
    """One shard could not be finished, for a reason that a second try may not meet."""


class FatalError(ModerationError):
    """The run cannot go on (output not writable, credentials refused); it can be resumed."""


class UsageError(FatalError):
    """The call or its configuration is wrong; raised before any work starts."""


def one_line(error: BaseException, max_chars: int | None = None) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:max_chars]
