"""A configuration -> its stack, not yet loaded."""

from __future__ import annotations

from moderation.config.model import Config
from moderation.scoring.declared import make_slots
from moderation.scoring.stack import Stack


def build_stack(config: Config) -> Stack:
    """Build the stack of a configuration; nothing is loaded yet.

    Raises UsageError that names the wrong detector, option or condition.
    """
    slots, disabled = make_slots(config)
    return Stack(slots, config, disabled)
