"""`moderation policy`: show a policy, test it by a table of cases, list items that two policies judge differently."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsOfOption, parse_day, resolve_policy_path
from .printing import counts_text, plain_console, print_json

if TYPE_CHECKING:
    from moderation.analysis.policy_diff import PolicyDifference

_AS_JSON = typer.Option("--json", help="Print the result as JSON.")
_POLICY = typer.Argument(help="Policy file, or the name of a packaged one: default.yaml.")


def policy_show(policy: Annotated[str, _POLICY], as_json: Annotated[bool, _AS_JSON] = False) -> None:
    """Show a policy: its checks with what belongs to each and what does not, its lists, rules and audit."""
    from moderation.lists.policy_file import load_whole_policy
    from moderation.lists.show import describe_policy, policy_as_json

    path = resolve_policy_path(policy)
    whole = load_whole_policy(path)
    if as_json:
        print_json(policy_as_json(whole, path))
        return
    plain_console(soft_wrap=True).print("\n".join(describe_policy(whole, path)))


def policy_test(
    policy: Annotated[str, _POLICY],
    cases: Annotated[str, typer.Argument(help="YAML table of cases: votes in; verdict, and perhaps reason, out.")],
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Hold a policy to a table of cases. Exit code 1 with the cases of which it decides otherwise."""
    from moderation.lists.policy_file import load_whole_policy
    from moderation.policy.cases import load_cases, run_cases

    tested = run_cases(load_whole_policy(resolve_policy_path(policy)), load_cases(Path(cases)))
    wrong = [case for case in tested if not case.agrees]
    if as_json:
        print_json({"cases": len(tested), "differ": [asdict(case) for case in wrong]})
    else:
        console = plain_console(soft_wrap=True)
        for case in wrong:
            console.print(f"{case.name}\n  wanted  {case.wanted}\n  got     {case.got}\n  {case.reason_text}")
        console.print(f"{len(tested) - len(wrong):,} of {len(tested):,} cases are decided as the table says")
    if wrong:
        raise typer.Exit(1)


def policy_diff(
    old: Annotated[str, typer.Argument(help="Policy file, or the name of a packaged one.")],
    new: Annotated[str, typer.Argument(help="The policy that would take its place.")],
    on: Annotated[list[str], typer.Option("--on", help="Output of a run, whose votes are judged; may be repeated.")],
    examples: Annotated[int, typer.Option(min=0, max=1000, help="Examples of every change of rule.")] = 3,
    as_of: AsOfOption = None,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Tell which items change sides between two policies, from stored votes. Nothing is written."""
    day = parse_day(as_of)
    paths = [str(resolve_policy_path(path)) for path in (old, new)]

    from moderation.analysis.policy_diff import diff_policies

    difference = diff_policies(paths[0], paths[1], on, examples=examples, as_of=day)
    if as_json:
        moved = {f"{before} -> {after}": n for (before, after), n in sorted(difference.moved.items())}
        print_json({**asdict(difference), "changed": difference.changed, "moved": moved})
    else:
        _print(difference)


def _print(difference: PolicyDifference) -> None:
    from moderation.pages.text import percent, plain

    console = plain_console(soft_wrap=True)  # names come from strangers
    share = percent(difference.changed / difference.items if difference.items else None)
    console.print(f"{difference.items:,} items, {difference.changed:,} change sides ({share})")
    console.print(f"  before: {counts_text(difference.before)}\n  after:  {counts_text(difference.after)}")
    for (before, after), n in sorted(difference.moved.items()):
        console.print(f"  {before} -> {after}: {n:,}")
    for rule in difference.rules:
        mark = "" if rule.changes_verdict else "  (same verdict)"
        console.print(f"{rule.before} -> {rule.after}: {rule.items:,}{mark}")
        for item in rule.examples:
            console.print(f"    {plain(item.uri)}  {plain(item.reason_text)}")
