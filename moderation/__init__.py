"""Batch moderation of images and videos: detectors vote on frames, a policy turns votes into verdicts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from moderation.version import __version__

if TYPE_CHECKING:
    from moderation.config.load import load_config
    from moderation.config.model import Config
    from moderation.errors import FatalError, ItemError, ModerationError, ShardError, UsageError
    from moderation.moderator import Moderator, VerdictRow
    from moderation.types import ErrorCode, Evidence, Kind, Status, Verdict

__all__ = [
    "Config",
    "ErrorCode",
    "Evidence",
    "FatalError",
    "ItemError",
    "Kind",
    "ModerationError",
    "Moderator",
    "ShardError",
    "Status",
    "UsageError",
    "Verdict",
    "VerdictRow",
    "__version__",
    "load_config",
]

# Where each name lives. Imported when first asked for (PEP 562): `import moderation` must not take the seconds and the
# memory of torch, which a process that only reads tables or a configuration never needs.
_HOMES = {
    "moderation.config.load": ("load_config",),
    "moderation.config.model": ("Config",),
    "moderation.errors": ("FatalError", "ItemError", "ModerationError", "ShardError", "UsageError"),
    "moderation.moderator": ("Moderator", "VerdictRow"),
    "moderation.types": ("ErrorCode", "Evidence", "Kind", "Status", "Verdict"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
