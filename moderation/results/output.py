"""Whether a run may write to OUT, what is still to do there, and starting over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moderation import storage
from moderation.errors import UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import read_shard_sizes
from moderation.planning.slices import find_slices, slice_home
from moderation.results.decided import read_index
from moderation.results.layout import (
    EVALUATION_FILE,
    FIGURE_FORMATS,
    INVENTORY_FILE,
    PAGE_FILE,
    PROMOTION_FILE,
    RUN_FILE,
    RUN_FILES,
    RUN_FOLDERS,
    checks_folder,
    decided_uri,
    document_folder,
    evaluation_folder,
    promotion_folder,
)
from moderation.results.receipts import committed_ids, intact_receipts, read_receipts
from moderation.results.record import Output, describe_difference, read_record


def check_output(run: Output) -> set[str]:
    """Whether this run may write to its OUT; the ids of the shards that are committed there, with all their parts.

    Raises UsageError when another run's tables are there: of the whole, or of any slice.
    """
    owned = check_owner(run)
    # One after another: a million of them take 4 GB.
    receipts = read_receipts(run.out, committed_ids(run.out))
    if not owned and next(receipts, None) is not None:
        raise UsageError(f"{run.out}: holds receipts but no {RUN_FILE}, so not this run's; choose another OUT")
    return {receipt.shard_id for receipt in intact_receipts(run.out, receipts, read_shard_sizes(plan_uri(run.home)))}


def check_owner(run: Output) -> bool:
    """Whether this run has begun in its OUT. Raises UsageError when another run's tables are there."""
    # Slices were merged before the run was extended; their records are of the run that it was then.
    slices = () if _is_extended(run.out) else find_slices(run.out)
    homes = [run.out, *(slice_home(run.out, part) for part in slices)]
    identities = [(home, identity) for home in homes if (identity := read_identity(home)) is not None]
    for home, identity in identities:
        if identity != run.identity:
            raise UsageError(
                f"{home}: belongs to another run: {describe_difference(identity, dict(run.identity))}."
                f" Choose another OUT, or --fresh to delete these tables and start over{_or_go_on(identity, run)}"
            )
    return bool(identities)


def _is_extended(out: str) -> bool:
    """Whether detectors were added to the run in OUT. Raises UsageError where that has not come to its end."""
    record = (read_record(out) or {}) if read_identity(out) is not None else {}
    if record.get("extending"):
        raise UsageError(f"{out}: is being extended, and that has not come to its end: run it with --extend")
    return bool(record.get("extensions"))


# The parts of an identity that --extend may change.
EXTENDABLE: Final = ("stack", "policy", "withdrawn")


def _or_go_on(identity: Mapping[str, Any], run: Output) -> str:
    """What else can be done where only the detectors or the policy are others."""
    others = {key for key in {*identity, *run.identity} if identity.get(key) != run.identity.get(key)}
    if not others or others.difference(EXTENDABLE):
        return ""
    if (read_record(run.out) or {}).get("state") == "done":
        return ", or --extend to score only the detectors that it lacks and judge again"
    named = [_own_detectors(run.out), *([_own_policy(run.out)] if "policy" in others else [])]
    return f". It is not done: to finish it first, name {' and '.join(way for way in named if way)}"


def _own_detectors(out: str) -> str:
    """How a call names the detectors of the run that was begun in OUT, or in its slices."""
    homes = [out, *(slice_home(out, part) for part in find_slices(out))]
    records = (read_record(home) for home in homes)
    described: Mapping[str, Any] = next(
        (record["detectors"] for record in records if record and record.get("detectors")), {}
    )
    names = sorted(described.get("detectors", ()))
    return f"its detectors (--set stack.only=[{','.join(names)}], if they are as they were)" if names else "its stack"


def _own_policy(out: str) -> str:
    """How a call names the policy of the run that was begun in OUT."""
    kept = ((read_index(out) or {}).get("policy") or {}).get("sha256")
    return f"its policy (--policy with a copy of {decided_uri(out, f'{kept}.yaml')})" if kept else "its policy"


def read_identity(home: str) -> dict[str, Any] | None:
    """The identity of the run in a folder; None where none has begun. Raises UsageError when its record is not ours."""
    try:
        record = read_record(home)
        identity = None if record is None else record["identity"]
    except (UsageError, KeyError):
        identity, record = None, {}
    if record is not None and not isinstance(identity, dict):
        raise UsageError(f"{home}/{RUN_FILE}: not readable; choose another OUT, or --fresh to start over")
    return identity


def nothing_left(run: Output, committed: set[str]) -> bool:
    """Whether the plan is complete and all of its shards are committed."""
    if not committed:
        return False
    planned = read_shard_sizes(plan_uri(run.home))
    return planned is not None and committed.issuperset(planned)


def start_over(out: str) -> None:
    """Delete what a run wrote to OUT and what was derived from it there, and nothing else in OUT.

    Results that went to another folder (`--to`) stay.
    """
    for folder in RUN_FOLDERS:
        storage.delete_tree(storage.join(out, folder))
    for file in RUN_FILES:
        storage.delete_tree(storage.join(out, file))
    _delete_pages(out)


def _delete_pages(out: str) -> None:
    """Delete the pages of checks, document and evaluation: only our own files, the folders may hold others."""
    derived = (
        (document_folder(out), INVENTORY_FILE),
        (evaluation_folder(out), EVALUATION_FILE),
        (promotion_folder(out), PROMOTION_FILE),
    )
    for folder, numbers in derived:
        for file in (numbers, PAGE_FILE):
            storage.delete_tree(storage.join(folder, file))
    checks = checks_folder(out)
    page = storage.join(checks, PAGE_FILE)
    if storage.read_optional(page) is None:
        return
    for uri in _files_directly_in(checks):
        if uri.endswith(tuple(f".{format_}" for format_ in FIGURE_FORMATS)):
            storage.delete_tree(uri)
    storage.delete_tree(page)


def _files_directly_in(folder: str) -> list[str]:
    top = storage.canonical(folder).rstrip("/") + "/"
    return [info.uri for info in storage.list_objects(top) if "/" not in info.uri.removeprefix(top)]
