"""A run before it starts: checks of all that can be wrong, and the run's id. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from moderation import storage
from moderation.config.model import Config
from moderation.planning.apart import check_apart
from moderation.planning.slices import Slice, find_slices, slice_home
from moderation.policy.bind import BoundPolicy, bind
from moderation.policy.model import Policy, policy_hash
from moderation.results.certificates import certify_policy
from moderation.results.ffmpeg import require_video_decoder
from moderation.results.record import RunFacts, extensions_of, read_day, read_record, run_id_of
from moderation.runtime.run import Run, load_policy_of
from moderation.scoring.declared import DeclaredStack, declare_stack
from moderation.scoring.slots import describe_detectors


def prepare_run(
    source: str,
    out: str,
    config: Config,
    limit: int | None = None,
    part: Slice | None = None,
    *,
    fresh: bool = False,
    ended: Mapping[str, str] | None = None,
) -> Run:
    """Check everything that can be wrong before any work starts. Reads the policy, loads no weights, writes nothing.

    fresh: OUT will be emptied, so the day in it is not this run's. ended: certificates that a monitor has ended, and
    why.

    The id is a hash of what decides the rows, so that the same call writes the same bytes anywhere; a slice has the
    id of the whole.
    Raises UsageError.
    """
    source, out = storage.canonical(source), storage.canonical(out).rstrip("/")
    check_apart(source, out)
    require_video_decoder(config)
    stack = declare_stack(config)
    policy, certification = certify_policy(load_policy_of(config), config.policy, stack.fingerprint, ended=ended)
    bind_policy(policy, stack)
    identity: dict[str, Any] = {
        "source": storage.mask_signatures(source),
        "limit": limit,
        "source_config": config.source.model_dump(mode="json"),
        "shards": config.shards.model_dump(mode="json"),
        "media": config.media.model_dump(mode="json", exclude={"credentials"}),
        "output": config.output.model_dump(mode="json"),
        "stack": stack.fingerprint,
        "policy": policy_hash(policy),
    }
    if certification.withdrawn:
        identity["withdrawn"] = sorted(certification.uncertified)
    facts = RunFacts(
        run_id=run_id_of(identity),
        stack_fingerprint=stack.fingerprint,
        policy_hash=policy_hash(policy),
        as_of=_day_of_run(out, fresh=fresh) if policy.dated else None,
    )
    return Run(
        source=source,
        out=out,
        home=out if part is None else slice_home(out, part),
        config=config,
        policy=policy,
        limit=limit,
        facts=facts,
        identity=identity,
        part=part,
        certification=certification.as_json(),
        extensions=() if fresh else _extensions_in(out, identity),
        detectors=describe_detectors(stack.slots, config),
    )


def _extensions_in(out: str, identity: Mapping[str, Any]) -> tuple[str, ...]:
    """The extensions of this very run, which a call that goes on with it keeps."""
    record = read_record(out)
    return extensions_of(record, out) if record is not None and record.get("identity") == identity else ()


def _day_of_run(out: str, *, fresh: bool) -> str:
    """The day that decides which lists have ended: that of the call that began the run or a slice of it, else today.

    So a run that goes on the next day judges its other items alike.
    """
    homes = () if fresh else (out, *(slice_home(out, part) for part in find_slices(out)))
    return (read_day(homes) or datetime.now(UTC).date()).isoformat()


def bind_policy(policy: Policy, stack: DeclaredStack, as_of: date | None = None) -> BoundPolicy:
    """A policy with its votes resolved to the stack's columns. Raises UsageError naming what is missing.

    as_of: the day by which lists have ended; None: no day.
    """
    return bind(policy, stack.labels, gated=stack.gated, disabled=stack.disabled, as_of=as_of)
