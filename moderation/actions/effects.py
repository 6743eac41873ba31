"""What an action does to an object, and what it finds there before: each call is one object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

from moderation import storage
from moderation.actions.journal import ActionReceipt, ActionState
from moderation.actions.model import MAX_TAGS
from moderation.actions.steps import ActionStep
from moderation.errors import UsageError, one_line

_DETAIL: Final = 300
_PIECE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What came of a step. tags_before: of the names that it sets."""

    state: ActionState
    code: str | None = None
    detail: str | None = None
    etag: str | None = None
    target_etag: str | None = None
    tags_before: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 1


def refused(code: str, detail: str) -> StepOutcome:
    """Nothing was changed."""
    return StepOutcome(state=ActionState.REFUSED, code=code, detail=detail[:_DETAIL])


def guarded(call: Callable[[], StepOutcome]) -> StepOutcome:
    """The outcome of a call; what storage says of this one object becomes a code. Raises FatalError for all of it."""
    try:
        return call()
    except FileNotFoundError:
        return refused("not_found", "there is no such object any more")
    except storage.ChangedError as error:
        return refused("changed", one_line(error))
    except (storage.CredentialsError, storage.StoreDownError, storage.BucketError):
        raise
    except UsageError as error:
        return refused("not_possible", one_line(error))
    except PermissionError as error:
        return StepOutcome(state=ActionState.FAILED, code="forbidden", detail=one_line(error, _DETAIL))
    except (storage.StorageError, OSError) as error:
        return StepOutcome(state=ActionState.FAILED, code="storage", detail=one_line(error, _DETAIL))


def prepare(step: ActionStep, before: ActionReceipt | None) -> StepOutcome:
    """Look at an object: is it the judged one, and which tags does it have? Changes nothing.

    before: what an earlier call noted of the step, whose tags count: its own are among those that are there now.
    """
    return keep_begun(guarded(partial(_prepare, step, before)), before)


def perform(step: ActionStep, prepared: StepOutcome) -> StepOutcome:
    """Do it. prepared: as `prepare` found it."""
    effect = {"tag": _tag, "copy": _copy, "move": _move}[step.rule.do]
    outcome = guarded(partial(effect, step, prepared))
    # A request that failed may have had its effect: what was there before stays known.
    return replace(outcome, etag=prepared.etag, tags_before=prepared.tags_before)


def keep_begun(outcome: StepOutcome, before: ActionReceipt | None) -> StepOutcome:
    """The outcome of a look. Where an earlier call may have had its effect, "nothing was changed" would not be true."""
    if before is None or not before.may_be_there or outcome.state in (ActionState.INTENDED, ActionState.DONE):
        return outcome
    return replace(
        outcome,
        state=ActionState.FAILED,
        etag=before.etag,
        target_etag=before.target_etag,
        tags_before=before.tags_before,
    )


def _prepare(step: ActionStep, before: ActionReceipt | None) -> StepOutcome:
    assert step.media is not None
    intended = StepOutcome(state=ActionState.INTENDED, etag=step.media.etag)
    if before is not None and step.rule.do == "move" and before.state is not ActionState.UNDONE:
        finished = _moved_before(step)
        if finished is not None:
            return finished
    etag = _judged_version(step)
    if isinstance(etag, StepOutcome):
        return etag
    intended = replace(intended, etag=etag)
    if step.rule.do != "tag":
        return intended
    if before is not None and before.may_be_there:
        return replace(intended, tags_before=before.tags_before)
    there = storage.read_tags(step.media.uri)
    if len({*there, *step.tags}) > MAX_TAGS:
        return refused("too_many_tags", f"it has {len(there)} tags already; an object has at most {MAX_TAGS}")
    return replace(intended, tags_before={name: there[name] for name in step.tags if name in there})


def _moved_before(step: ActionStep) -> StepOutcome | None:
    """DONE where a killed call has moved the object: it is gone from its place, and its copy is there."""
    assert step.media is not None and step.target is not None
    try:
        storage.info(step.media.uri)
    except FileNotFoundError:
        return StepOutcome(state=ActionState.DONE, etag=step.media.etag, target_etag=storage.info(step.target).etag)
    return None


def _judged_version(step: ActionStep) -> str | StepOutcome | None:
    """The etag of the object, which is the judged one; a refusal where it is not."""
    media = step.media
    assert media is not None
    current = storage.info(media.uri)
    if media.etag is not None:
        if current.etag == media.etag:
            return current.etag
        return refused("changed", f"judged as version {media.etag}, is {current.etag} now")
    if step.row.size_bytes is not None and current.size_bytes != step.row.size_bytes:
        return refused("changed", f"judged with {step.row.size_bytes:,} bytes, has {current.size_bytes:,} now")
    if _hash_of(media.uri, current.etag) != step.row.content_hash:
        return refused("changed", "its content is not the one that was judged")
    return current.etag


def _hash_of(uri: str, etag: str | None) -> str:
    """As `sources.content.content_hash` of one object, in pieces: a video may be larger than the memory."""
    digest = hashlib.sha256()
    with storage.open_input(uri, etag=etag) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _tag(step: ActionStep, prepared: StepOutcome) -> StepOutcome:
    assert step.media is not None
    there = storage.read_tags(step.media.uri)
    wanted = {**there, **step.tags}
    if wanted != there:
        storage.write_tags(step.media.uri, wanted)
    return replace(prepared, state=ActionState.DONE)


def tag_where_moved(step: ActionStep, before: ActionReceipt, target: str) -> StepOutcome:
    """Tag the copy of an object that a killed call had moved after it tagged it, or meant to. before: its intention."""

    def tag() -> StepOutcome:
        there = storage.read_tags(target)
        wanted = {**there, **step.tags}
        if wanted != there:
            storage.write_tags(target, wanted)
        return StepOutcome(state=ActionState.DONE, etag=before.etag, tags_before=before.tags_before)

    return keep_begun(guarded(tag), before)


def _copy(step: ActionStep, prepared: StepOutcome) -> StepOutcome:
    assert step.media is not None and step.target is not None
    target_etag = storage.copy_object(step.media.uri, step.target, etag=prepared.etag)
    return replace(prepared, state=ActionState.DONE, target_etag=target_etag)


def _move(step: ActionStep, prepared: StepOutcome) -> StepOutcome:
    assert step.target is not None
    was_there = _is_there(step.target)  # perhaps by a `copy` to the same place: not ours to remove
    copied = _copy(step, prepared)
    removed = guarded(partial(_remove, step, prepared))
    if removed.state is ActionState.REFUSED:
        if not was_there:
            storage.delete_object(step.target)
        return removed
    return replace(removed, target_etag=copied.target_etag)


def _is_there(uri: str) -> bool:
    try:
        storage.info(uri)
    except FileNotFoundError:
        return False
    return True


def _remove(step: ActionStep, prepared: StepOutcome) -> StepOutcome:
    assert step.media is not None
    try:
        # Stores do not delete on a condition: looked at once more, right before.
        current = storage.info(step.media.uri).etag
        if current != prepared.etag:
            return refused("changed", f"was judged as version {prepared.etag}, became {current} while it was copied")
        storage.delete_object(step.media.uri)
    except FileNotFoundError:
        pass  # gone by itself: the copy is all that is left of it
    return replace(prepared, state=ActionState.DONE)


def receipt_of(step: ActionStep, outcome: StepOutcome, at: datetime) -> ActionReceipt:
    """The receipt of a step."""
    return ActionReceipt(
        run_id=step.row.run_id,
        item_id=step.row.item_id,
        action=step.action,
        uri=step.uri,
        do=step.rule.do,
        state=outcome.state,
        at=at,
        code=outcome.code,
        detail=None if outcome.detail is None else one_line(ValueError(outcome.detail), 300),
        target=step.target,
        etag=outcome.etag,
        target_etag=outcome.target_etag,
        tags_before=dict(outcome.tags_before),
        tags_set=dict(step.tags),
        attempts=outcome.attempts,
    )
