"""What the reviewers' page asks of the server: items to decide, their pictures, and a place for decisions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup
from pydantic import JsonValue

from moderation import storage
from moderation.errors import ModerationError, UsageError, one_line
from moderation.labels.decisions import Answer, Decision
from moderation.pages.text import plain
from moderation.policy.model import Policy
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.review.access import Reviewer
from moderation.review.definitions import list_reasons, read_definitions
from moderation.review.filters import QueueFilter, parse_filter
from moderation.review.items import Offer, QueueItem, Stage
from moderation.review.overlays import Overlays, find_overlays
from moderation.review.page_filters import PageFilter, list_filters
from moderation.review.pictures import PictureDesk
from moderation.review.planned_items import PlannedItem, PlannedItems
from moderation.review.session import ReviewSession, open_session
from moderation.review.settings import ReviewSettings
from moderation.review.shown_item import SEVERAL, choose_definitions, describe_item
from moderation.review.templates import fill_template, tail
from moderation.review.wire import MAX_AGE_S, ItemsAgain, NextItems, SentDecision, SentDecisions, parse

BREAK_MIN: Final = 50  # minutes of looking after which the page proposes a break
_SEEN: Final = "seen"
_SHOWN: Final = (_SEEN, "veil", "revealed", "view", "overlay", "together", "verdict", "check")
_GROUP_NAMES: Final = ("uploader", "user", "group")
_LOG = logging.getLogger(__name__)


class ReviewDesk:
    """One run under review, for all reviewers of a server."""

    def __init__(self, run: StoredRun, policy: Policy, session: ReviewSession, overlays: Overlays) -> None:
        self._run, self._policy, self._session = run, policy, session
        config = run.load_config()
        self._planned = PlannedItems(run)
        self._definitions = read_definitions(run.out, policy)
        self._overlays = overlays
        self._definition_pages = {
            (name, is_open): Markup(fill_template("definition.html", definition=definition, open=is_open))
            for name, definition in self._definitions.items()
            for is_open in (True, False)
        }
        self.run_id = run.run_id
        self.reasons = list_reasons(policy, self._definitions)
        self.filters: tuple[PageFilter, ...] = list_filters(policy)
        self.pictures = PictureDesk(config.media, config.runtime.decoder_memory_bytes, self._find)

    def warm_up(self) -> None:
        """Read what the first picture would wait for; what is wrong shows when a picture is asked for."""
        self.pictures.warm_up()
        try:
            self._planned.read()
        except (ModerationError, OSError) as error:
            _LOG.warning("the plan is not readable: %s", storage.mask_signatures(one_line(error)))

    def waiting(self) -> dict[str, int]:
        """What items wait for -> how many."""
        progress = self._session.progress()
        stages = {**progress.by_stage, Stage.APPEAL: progress.appeals}
        return {str(stage): count for stage, count in stages.items() if count and stage is not Stage.SETTLED}

    def close(self) -> None:
        """End the threads that make pictures."""
        self.pictures.close()

    def next_items(self, reviewer: Reviewer, wish: NextItems) -> dict[str, Any]:
        """Items for a reviewer, claimed, without those that the page has. Raises UsageError naming a wrong filter."""
        filters: dict[str, str] = {name: value for name, value in wish.filters.items() if value}
        if wish.grid:
            # A grid is for what is probably fine.
            filters.setdefault("order", "lowest")
        wanted = parse_filter(filters, self._policy.checks)
        offers = self._session.next_items(reviewer.name, wish.n, wanted, wish.have) if wish.n else ()
        return {"items": self._entries(offers), "progress": self._progress(reviewer, wanted)}

    def again(self, reviewer: Reviewer, wish: ItemsAgain) -> dict[str, Any]:
        """Items whose decisions a reviewer has undone, claimed anew where nobody else has them."""
        offers = self._session.hold_again(reviewer.name, wish.items)
        return {"items": self._entries(offers), "progress": self._progress(reviewer)}

    def decide(self, reviewer: Reviewer, batch: SentDecisions) -> dict[str, Any]:
        """Take a batch: ids in `taken` are on disk; those in `refused` say why they are not, and are not sent again.

        Raises FatalError, StorageError where nothing could be written: then the page keeps them and tries again.
        """
        refused: list[dict[str, str]] = []
        decisions: list[Decision] = []
        now = datetime.now(UTC)
        for sent in batch.decisions:
            try:
                decisions.append(self._decision(reviewer, parse(SentDecision, sent), now))
            except UsageError as error:
                refused.append({"decision_id": _id_of(sent), "why": one_line(error, 300)})
        taken: list[str] = []
        for part in _up_to_undo(decisions):
            held = [replace(one, claim=self._session.claim_of(reviewer.name, one.item_id) or one.claim) for one in part]
            outcome = self._session.decide(held)
            taken += [*outcome.taken, *outcome.repeated]
            refused += [{"decision_id": one.decision_id, "why": one.message} for one in outcome.refused]
            undone = [one.item_id for one in part if one.undoes is not None and one.decision_id in outcome.taken]
            if undone:
                # The page shows it again already: nobody else may get it meanwhile.
                self._session.hold_again(reviewer.name, undone)
        return {"taken": taken, "refused": refused, "progress": self._progress(reviewer)}

    def overlay(self, item_id: str) -> bytes | None:
        """The overlay of an item's explanation as JPEG; None where there is none."""
        return self._overlays.read(item_id)

    def item(self, item_id: str) -> QueueItem | None:
        """An item as somebody sees it who has answered nothing: of the audit, `blind`. None where there is none."""
        try:
            return self._session.item("", item_id)
        except UsageError:
            return None

    def _find(self, item_id: str) -> PlannedItem | None:
        judged = self.item(item_id)
        return None if judged is None else self._planned.find(judged)

    def _decision(self, reviewer: Reviewer, sent: SentDecision, now: datetime) -> Decision:
        if sent.decision is Answer.PASS and sent.shown.get(_SEEN) != "true":
            raise UsageError("not passed: its picture was not shown")
        return Decision(
            decision_id=sent.decision_id,
            item_id=sent.item_id,
            decision=sent.decision,
            reviewer=reviewer.name,
            decided_at=now - timedelta(seconds=min(sent.age_s, MAX_AGE_S)),
            labels=sent.labels,
            reason=sent.reason,
            comment=sent.comment,
            exposure_s=sent.exposure_s,
            # What the server itself notes there, such as an appeal, is not for the browser to say.
            shown={name: sent.shown[name] for name in _SHOWN if name in sent.shown},
            undoes=sent.undoes,
            claim=sent.claim,
        )

    def _entries(self, offers: Sequence[Offer]) -> list[dict[str, Any]]:
        """Offers as the page takes them: near-copies of one picture are one entry."""
        together: dict[tuple[int, bool], list[Offer]] = {}
        for offer in offers:
            # An audit item is answered by itself: its copies would tell of it.
            alone = offer.item.blind or offer.appeal is not None
            key = (len(together), True) if alone else (offer.item.together, False)
            together.setdefault(key, []).append(offer)
        entries = [self._entry(first, copies) for first, *copies in together.values()]
        for offer in offers:
            self.pictures.prepare(offer.item.item_id)
        return entries

    def _entry(self, offer: Offer, copies: Sequence[Offer]) -> dict[str, Any]:
        item = offer.item
        severe = item.severity in self._policy.severe_levels
        shown = describe_item(item, self._policy, severe=severe)
        names = choose_definitions([reason.name for reason in self.reasons], self._definitions, item.check)
        html = fill_template(
            "item.html",
            item=shown,
            appeal=offer.appeal,
            earlier=offer.earlier,
            copies=copies,
            group=_group_of(item),
            definitions=[self._definition_pages[name, len(names) == 1] for name in names],
        )
        return {
            "item_id": item.item_id,
            "claim": offer.claim,
            "name": _name_of(item),
            "kind": item.kind,
            "blind": item.blind,
            "several": shown.several,
            "verdict": item.verdict,
            "check": item.check,
            "group": _group_of(item),
            "html": html,
            "boxes": [asdict(box) for box in shown.boxes],
            "overlay": not item.blind and self._overlays.has(item.item_id),
            "copies": [_copy(copy) for copy in copies],
        }

    def _progress(self, reviewer: Reviewer, wanted: QueueFilter | None = None) -> Mapping[str, int]:
        """What this reviewer has decided, and what is left of the chosen items; that is told with items alone."""
        progress = self._session.progress(wanted or QueueFilter())
        own = [one.decided for one in progress.reviewers if one.reviewer == reviewer.name]
        left = {} if wanted is None else {"left": progress.appeals if wanted.appeals else progress.left}
        return {"decided": sum(own)} | left


def _up_to_undo(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    """The same, in parts that end with an undo: what comes after one may be of the same item."""
    part: list[Decision] = []
    for decision in decisions:
        part.append(decision)
        if decision.undoes is not None:
            yield part
            part = []
    if part:
        yield part


def _group_of(item: QueueItem) -> str | None:
    """The attribute that says who sent an item, as a filter takes it: `uploader=a17`."""
    return next((f"{name}={item.attributes[name]}" for name in _GROUP_NAMES if item.attributes.get(name)), None)


def _name_of(item: QueueItem) -> str:
    """A name for what the page says by its script, which shows text as it is."""
    return plain(tail(item.uri))[:80]


def _copy(offer: Offer) -> dict[str, Any]:
    item = offer.item
    return {
        "item_id": item.item_id, "claim": offer.claim, "name": _name_of(item), "check": item.check,
        "verdict": item.verdict, "several": item.kind in SEVERAL,
    }  # fmt: skip


def _id_of(sent: Mapping[str, JsonValue]) -> str:
    return str(sent.get("decision_id", ""))[:128]


@contextmanager
def open_desk(out: str, settings: ReviewSettings) -> Iterator[ReviewDesk]:
    """Open a finished run for review; no other process may decide there meanwhile.

    Raises UsageError where OUT is no run, LeaseHeldError, DamagedDecisionsError, StorageError.
    """
    run = open_run(out)
    policy = load_policy_of_run(run)
    with (
        open_session(out, settings) as session,
        closing(ReviewDesk(run, policy, session, find_overlays(out))) as desk,
    ):
        yield desk
