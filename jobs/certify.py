"""`moderation certify`: from an audit's labels to certified thresholds in a policy file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from moderation.errors import UsageError
from moderation.pages.text import escaped, percent

from .options import BadOption, MeansOption, label_words, resolve_policy_path
from .printing import plain_console, print_json

if TYPE_CHECKING:
    from moderation.evaluation.calibrate import CalibrationKind
    from moderation.evaluation.certified_side import SideOutcome
    from moderation.evaluation.issue import Issued, LabelPlan


def certify(
    outs: Annotated[list[str], typer.Argument(metavar="OUT...", help="Outputs of runs by one policy, such as nights.")],
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labels, as for evaluate; without them, --dry-run says how many.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Policy file that is written, its certificates beside it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be certified; write nothing.")] = False,
    calibrate: Annotated[
        str | None, typer.Option(help="isotonic or temperature: scores as probabilities, by labels of no audit.")
    ] = None,
    bad: BadOption = None,
    means: MeansOption = None,
    policy: Annotated[str | None, typer.Option(help="The policy of the runs, where their own is not there.")] = None,
    block_errors: Annotated[float, typer.Option(help="Share of what is blocked that may be wrong.")] = 0.01,
    leak: Annotated[float, typer.Option(help="Share of what is passed that may be bad.")] = 0.005,
    risk: Annotated[float, typer.Option(help="Probability of a wrong certificate, both sides together.")] = 0.05,
    days: Annotated[int, typer.Option(min=1, max=3660, help="For how long certificates hold.")] = 90,
    whole_groups: Annotated[
        bool, typer.Option("--whole-groups", help="All items of drawn groups are labelled and count, not one of each.")
    ] = False,
    answers: Annotated[int, typer.Option(min=1, max=2, help="That an item needs: 2 that agree, or 1.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Certify what a policy may block and pass by itself, from labels of its audit; the rest is reviewed."""
    kind = _kind_of(calibrate)
    _check_call(labels, to, dry_run, {"--block-errors": block_errors, "--leak": leak, "--risk": risk})

    from moderation.evaluation.claim import Claim  # heavy imports only once the call is right
    from moderation.evaluation.issue import issue, plan_labels
    from moderation.evaluation.issued_files import check_target, write_issued

    path = None if policy is None else str(resolve_policy_path(policy))
    claim = Claim(
        block_errors=block_errors, leak=leak, risk=risk, days=days, answers=answers, whole_groups=whole_groups
    )
    if labels is None:
        _print_plan(plan_labels(outs, claim, path))
        return
    today, words = datetime.now(UTC).date(), label_words(bad, means)
    issued = issue(outs, labels, today, claim=claim, words=words, policy=path, calibrate=kind)
    written = ""
    if to is not None and not dry_run:
        check_target(to, issued.policy, issued.policy_path)
        written = f"written: {to}, {write_issued(issued, to)}"
    if as_json:
        print_json([_as_json(side) for side in issued.sides])
    else:
        _print(issued, written)


def _check_call(labels: str | None, to: str | None, dry_run: bool, shares: Mapping[str, float]) -> None:
    if labels is None and not dry_run:
        raise UsageError("say --labels FILE, or --dry-run to be told how many labels are needed")
    if to is None and not dry_run:
        raise UsageError("say --to POLICY, the file that gets the certified thresholds, or --dry-run")
    for name, share in shares.items():
        if not 0 < share < 0.5:
            raise UsageError(f"{name} {share}: a share over 0 and under 0.5")


def _kind_of(calibrate: str | None) -> CalibrationKind | None:
    if calibrate is None:
        return None
    if calibrate == "isotonic":
        return "isotonic"
    if calibrate == "temperature":
        return "temperature"
    raise UsageError(f"--calibrate {calibrate!r}: isotonic or temperature")


def _print_plan(plans: Sequence[LabelPlan]) -> None:
    for plan in plans:
        plain_console(soft_wrap=True).print(
            f"{escaped(plan.region.name)}: {plan.needed:,} labels without an error certify a rate of"
            f" {plan.allowed:.2%}; {plan.drawn:,} groups of its region are drawn so far"
        )


def _print(issued: Issued, written: str) -> None:
    console = plain_console(soft_wrap=True)
    for side in issued.sides:
        console.print(escaped(_describe(side)))
    for line in _shared_risks(issued):
        console.print(escaped(line))
    for calibration in issued.calibrations:
        console.print(escaped(calibration.sentence))
    if issued.withdrawn:
        console.print(f"go to review, because they are not certified: {escaped(', '.join(issued.withdrawn))}")
    for note in issued.notes:
        console.print(f"note: {escaped(note)}", style="yellow")
    if written:
        console.print(escaped(written))


def _shared_risks(issued: Issued) -> list[str]:
    """How the certificates of a side share its risk, where there are several."""
    counts = Counter(side.region.side for side in issued.sides)
    risks = {side.region.side: side.risk for side in issued.sides}
    return [
        f"{n} thresholds of {side} share its risk: each is wrong with a probability of at most {risks[side]:.2%}, so"
        " all hold together. Each claim is of what its check decides, not of all checks taken together"
        for side, n in counts.items()
        if n > 1
    ]


def _describe(side: SideOutcome) -> str:
    result, region = side.result, side.region
    kind = "errors" if region.side == "block" else "bad"
    seen = f"{result.errors:,} {kind} of {result.labels:,} audit labels"
    if side.threshold is not None:
        return (
            f"certified: {region.name} at {side.threshold:g}: {seen}, at most {result.bound:.2%} of all;"
            f" {percent(side.decided)} of the {side.drawn:,} drawn groups of the region"
        )
    if side.held_back is not None:
        return (
            f"not certified: {region.name}: {seen} would allow {side.held_back:g}, but another threshold of"
            f" {region.action} is not certified"
        )
    missing = side.unlabelled + side.unsettled
    if missing:
        return (
            f"not certified: {region.name}: {missing:,} of {side.drawn:,} drawn items have no settled label, and"
            f" count as errors: label these first ({seen})"
        )
    if result.more is None:
        return (
            f"not certified: {region.name}: {seen}, more than the {side.allowed:.2%} that are allowed: no number of"
            " labels helps, only better scores or another region"
        )
    return f"not certified: {region.name} needs {result.more:,} more labels of its region at the rate seen ({seen})"


def _as_json(side: SideOutcome) -> dict[str, object]:
    return {"action": side.region.action, "certified": side.threshold is not None, **asdict(side)}
