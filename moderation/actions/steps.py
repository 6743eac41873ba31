"""Steps of a run: one action on one object, with what stands against it that needs no request. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from moderation import storage
from moderation.actions.journal import ReceiptKey
from moderation.actions.model import ActionRule, ActionsFile
from moderation.actions.read import is_within
from moderation.actions.rows import JudgedRow, action_id, rules_for, tags_of
from moderation.results.export.objects import sample_key
from moderation.sources.keys import PICTURES, VIDEOS
from moderation.types import MediaObject

ON_OBJECTS: Final = ("tag", "copy", "move")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedToday:
    """What a run's certificates say today. refused: action of the policy (`block:weapon`) -> why it does not hold.

    by_out: the same for each OUT of a sweep.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    by_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def why_not(self, row: JudgedRow) -> str | None:
        """Why a row's verdict is not certified any more; None where nothing is against it."""
        # What a list says, people have decided.
        reason = row.reason or ""
        refused = self.by_out.get(row.out or "", self.refused)
        if reason.startswith("vouch:"):
            return refused.get(f"pass:{reason.removesuffix(':pass')}")
        return refused.get(f"{row.verdict}:{row.check or reason.partition(':')[0]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionStep:
    """One action on one object. media: None where it is about the row alone. refusal: code, and what it means."""

    row: JudgedRow
    rule: ActionRule
    action: str
    uri: str
    media: MediaObject | None = None
    target: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    refusal: tuple[str, str] | None = None

    @property
    def key(self) -> ReceiptKey:
        """By which its receipt is known."""
        return self.row.run_id, self.row.item_id, self.action, self.uri


def certified_today(certification: Mapping[str, Any] | None, today: date) -> CertifiedToday:
    """What holds today. certification: of `summary.json`; None: nothing was said.

    A run without any certificate says that nothing was promised, and its actions are the operator's own; one whose
    certificates have ended says that a promise is over.
    """
    if not certification or not certification.get("expires"):
        return CertifiedToday()
    refused = dict(certification.get("uncertified") or {})
    expires = date.fromisoformat(str(certification["expires"]))
    if today > expires:
        refused = dict.fromkeys(certification.get("actions") or (), f"the certificates expired on {expires}") | refused
    return CertifiedToday(refused=refused)


def plan_steps(row: JudgedRow, actions: ActionsFile, certified: CertifiedToday) -> Iterator[ActionStep]:
    """The steps of a row, in the order of the file."""
    for rule in rules_for(actions.actions, row):
        action, why_not = action_id(rule), certified.why_not(row)
        against = None if why_not is None else ("certificate", why_not)
        if rule.do not in ON_OBJECTS:
            yield ActionStep(
                row=row, rule=rule, action=action, uri=row.uri, target=rule.to or rule.url, refusal=against
            )
            continue
        if not row.objects:
            why = "the source names no object of it"
            yield ActionStep(row=row, rule=rule, action=action, uri=row.uri, refusal=against or ("no_object", why))
        for place, media in enumerate(row.objects):
            yield ActionStep(
                row=row,
                rule=rule,
                action=action,
                uri=storage.mask_signatures(media.uri),
                media=media,
                target=None if rule.to is None else _copy_uri(rule.to, row, place, media),
                tags=tags_of(rule, row),
                refusal=against or _refusal(row, rule, media, actions),
            )


def _copy_uri(to: str, row: JudgedRow, place: int, media: MediaObject) -> str:
    """Where the copy of an object goes: a stranger's name never becomes a path."""
    suffix = media.name.rpartition(".")[2].lower()
    ending = suffix if suffix in PICTURES | VIDEOS else "bin"
    return storage.join(to, row.run_id, f"{sample_key(row.item_id)}-{place:06d}.{ending}")


def _refusal(row: JudgedRow, rule: ActionRule, media: MediaObject, actions: ActionsFile) -> tuple[str, str] | None:
    if row.is_packed:
        return "in_archive", "it lies within a tar or a table, which holds other items, too"
    if not is_within(media.uri, actions.objects):
        return "not_allowed", "it is not within `objects` of the actions file"
    if rule.do == "tag" and not storage.has_tags(media.uri):
        return "no_tags", "only objects in S3 have tags"
    if media.etag is None and (row.content_hash is None or len(row.objects) > 1):
        return "unknown_version", "neither an etag nor a hash says which version was judged"
    return None
