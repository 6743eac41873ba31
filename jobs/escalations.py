"""`moderation escalations`: matches with an illegal list, counted and handed on; nothing of them is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConfigOption, SetOption, load_settings
from .printing import print_error, print_json, print_line

if TYPE_CHECKING:
    from moderation.config.escalations import EscalationConfig


def escalations(
    out: Annotated[str, typer.Argument(help="Output of a run.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Count the rows of OUT/escalations/, and hand on those that the hook of the configuration has not taken yet."""
    settings = load_settings(config, set_)

    from moderation.actions.escalate import check_hook, hand_on
    from moderation.results.reader import open_run

    check_hook(settings.escalations)
    open_run(out)
    handed = hand_on(out, settings.escalations)
    if as_json:
        print_json(asdict(handed))
    else:
        print_line(f"{handed.rows:,} matches with an illegal list, {handed.told:,} of them handed on")
    for problem in handed.failed:
        print_error(f"escalations: {problem}")
    if handed.failed:
        raise typer.Exit(3)


def check_escalations(hook: EscalationConfig) -> None:
    """Raises UsageError where the hook cannot be called: before a run starts."""
    if hook.command or hook.url or hook.secret_env:
        from moderation.actions.escalate import check_hook

        check_hook(hook)


def tell_escalations(summary: Mapping[str, Any], hook: EscalationConfig) -> None:
    """Hand on what a run escalated, and say so on standard error; a hook that fails does not end the run."""
    if not summary.get("escalated"):
        return
    from moderation.actions.escalate import hand_on

    out = str(summary["out"])
    handed = hand_on(out, hook)
    print_error(
        f"{summary['escalated']:,} items match an illegal list: blocked, not shown, {handed.told:,} of"
        f" {handed.rows:,} handed on. {out}/escalations/ has what a report needs; see docs/illegal.md"
    )
    for problem in handed.failed:
        print_error(f"escalations: {problem}; `moderation escalations {out}` tries again")
