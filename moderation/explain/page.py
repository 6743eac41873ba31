"""`explanations/index.html`: what was explained, item by item; pictures are blurred until a reader chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moderation import storage
from moderation.pages.render import render
from moderation.results.advice import ADVICE
from moderation.results.explanations import Explanation, overlay_name, read_explanations, read_strip
from moderation.results.layout import PAGE_FILE
from moderation.results.reader import StoredRun
from moderation.types import ErrorCode

_MAX_SHOWN: Final = 200  # on one page; 20 KB each
_MAX_STRIPS: Final = 50  # 60 KB each
_ORDER: Final = {"block": 0, "review": 1, "pass": 2}
_OWN_CODES: Final = {
    "no_vote": "No vote on a frame decided this item: a list, an error or a missing score did. `--vote` names one.",
    "no_detector": "What cast this vote is not in the stack of the run, or cannot be loaded here.",
    "no_gradient": "This method does not fit the detector. Occlusion fits every detector.",
    "not_scored": "The detector gives this frame no score.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEntry:
    """One explanation as the page shows it. strip: a PNG."""

    explanation: Explanation
    strip: bytes | None
    meaning: str


def write_page(run: StoredRun, to: str) -> str:
    """Write the page over all explanations in the folder `to`; returns its URI."""
    every = read_explanations(run.out, to=to)
    shown = sorted(every, key=_place)[:_MAX_SHOWN]
    entries, strips = [], 0
    for one in shown:
        strip = read_strip(one, run.out, to=to) if strips < _MAX_STRIPS else None
        strips += strip is not None
        entries.append(ExplainedEntry(explanation=one, strip=strip, meaning=describe_error(one)))
    page = storage.join(to, PAGE_FILE)
    html = render(
        "explanations.html",
        out=run.out,
        run_id=run.run_id,
        entries=entries,
        total=len(every),
        describe_region=describe_region,
        overlay_name=overlay_name,
    )
    storage.publish(page, html.encode())
    return page


def _place(one: Explanation) -> tuple[bool, int, float, str, str]:
    """What can be seen first, then by verdict, then by score."""
    verdict = _ORDER.get(one.verdict or "", len(_ORDER))
    return one.error_code is not None, verdict, -(one.score or 0.0), one.item_id, one.method


def describe_error(one: Explanation) -> str:
    """What an explanation's error code means, in words; empty where it has none."""
    code = one.error_code
    if code is None:
        return ""
    if code in _OWN_CODES:
        return _OWN_CODES[code]
    return ADVICE[ErrorCode(code)].meaning if code in set(ErrorCode) else ""


def describe_region(box: Sequence[float] | None) -> str:
    """Where a box lies, in words: `upper left, 12% of the picture`."""
    if box is None:
        return "no part stands out"
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    where = " ".join(word for word in (down, across) if word) or "middle"
    share = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
    return f"{where}, {share:.0%} of the picture"
