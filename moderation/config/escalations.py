"""Who is told of matches with an illegal list."""

from __future__ import annotations

from pydantic import Field

from moderation.config.section import ConfigSection


class EscalationConfig(ConfigSection):
    """Who is told of matches with an illegal list, at the end of a run; see docs/illegal.md."""

    command: tuple[str, ...] = Field(
        default=(), description="program and arguments; gets the rows of OUT/escalations/ as JSON lines on its input"
    )
    url: str | None = Field(default=None, description="webhook: https, or http to this machine")
    secret_env: str | None = Field(default=None, description="environment variable with the secret of its signature")
