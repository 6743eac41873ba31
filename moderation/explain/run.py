"""Explain items of a finished run: which part of the picture the deciding vote rests on.

run = open_run(OUT)
explanation = explain_item(run, "a1b2c3")          # one item, written to OUT/explanations
explainer = Explainer(run)                          # many: detectors stay loaded
for explained in explainer.explain(read_targets(run, choose_by_verdict(run, Verdict.REVIEW, 50))): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import torch

from moderation.config.hints import did_you_mean
from moderation.config.load import override_config
from moderation.config.model import Config
from moderation.errors import UsageError, one_line
from moderation.explain.deciding import DecidingVote, ExplainTarget, choose_items, read_targets
from moderation.explain.explained import ExplainedFrame, explain_frames
from moderation.explain.gradients import METHODS as GRADIENT_METHODS
from moderation.explain.gradients import require_captum
from moderation.explain.overlay import crop_box, draw_overlay, draw_preview, draw_strip, require_matplotlib
from moderation.explain.pictures import FetchedTarget, fetch_targets
from moderation.explain.vote_stack import VoteStack, load_vote_stack
from moderation.explain.windows import Place
from moderation.results.explanations import (
    Explanation,
    encode_map,
    map_name,
    overlay_name,
    read_explanations,
    strip_name,
    write_explanation,
)
from moderation.results.layout import explanations_folder
from moderation.results.reader import StoredRun
from moderation.types import U8, ErrorCode, Frame
from moderation.version import __version__

__all__ = ["METHODS", "Explained", "Explainer", "explain_item", "read_explanations"]

METHODS: Final = ("occlusion", "gradient", "both", *GRADIENT_METHODS)
# What `--set` may change of a run's configuration: nothing that changes what its detectors see.
ALLOWED: Final = ("explain", "stack.device", "stack.batch_size", "runtime.decoder", "runtime.decoder_memory_bytes")
CROP_PX: Final = 224
_TOGETHER: Final = 8  # pictures whose windows share batches
_KEPT_STACKS: Final = 3
# A detector is a plug-in: it may fail on a frame.
_FAILURES: Final = (
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    OSError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """An explanation, and uint8 [224,224,3], what its box holds; None where there is none."""

    explanation: Explanation
    crop: U8 | None = None


class Explainer:
    """Explains items of one run; detectors stay loaded between calls. Not thread-safe.

    overrides: `["explain.stride_px=32"]`, of the keys in `ALLOWED`. to: the folder of explanations, by default in OUT;
    write: whether rows and files are written there. Raises UsageError for wrong words, before anything is loaded.
    """

    def __init__(
        self,
        run: StoredRun,
        *,
        method: str = "occlusion",
        overrides: Sequence[str] = (),
        to: str | None = None,
        write: bool = True,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"--method {method!r}: unknown{did_you_mean(method, METHODS)}")
        require_matplotlib()
        if method != "occlusion":
            require_captum()
        self.run = run
        self.config: Config = override_config(run.load_config(), overrides, allowed=ALLOWED)
        self.to = to or explanations_folder(run.out)
        self._methods = ("occlusion", "gradient") if method == "both" else (method,)
        self._write = write
        self._stacks: dict[tuple[str, bool], VoteStack] = {}
        self._metadata = {
            "moderation.run_id": run.run_id,
            "moderation.stack_fingerprint": run.stack_fingerprint,
            "moderation.code_version": __version__,
        }

    def explain(self, targets: Sequence[ExplainTarget]) -> Iterator[Explained]:
        """Explain each target by each method, detector by detector; rows are written as they are made.

        Every target has a row for every method, one with an error code where it cannot be explained.
        """
        for target in targets:
            if target.vote is None:
                yield from self._fail(target, "no_vote", target.problem)
        voted = sorted((t for t in targets if t.vote is not None), key=_title)
        for title, group in groupby(voted, key=_title):
            yield from self._explain_group(title, list(group))

    def _explain_group(self, title: str, targets: Sequence[ExplainTarget]) -> Iterator[Explained]:
        try:
            votes = self.load(title)
        except UsageError as error:
            for target in targets:
                yield from self._fail(target, "no_detector", str(error))
            return
        ready: list[FetchedTarget] = []
        for fetched in fetch_targets(self.run, self.config, targets):
            if fetched.frame is None:
                yield from self._fail(fetched.target, fetched.error_code, fetched.error_detail)
                continue
            ready.append(fetched)
            if len(ready) == _TOGETHER:
                yield from self._explain_chunk(votes, ready)
                ready = []
        yield from self._explain_chunk(votes, ready)

    def _explain_chunk(self, votes: VoteStack, chunk: Sequence[FetchedTarget]) -> Iterator[Explained]:
        """Pictures with the same vote share batches."""
        ordered = sorted(chunk, key=lambda one: (_vote(one).label, _vote(one).sign))
        for (label, sign), group in groupby(ordered, key=lambda one: (_vote(one).label, _vote(one).sign)):
            own = list(group)
            try:
                votes.column(label)
            except UsageError as error:
                for one in own:
                    yield from self._fail(one.target, "no_detector", str(error))
                continue
            frames = [one.frame for one in own if one.frame is not None]
            for method in self._methods:
                for one, found in zip(own, self._explain_frames(votes, label, frames, method, sign), strict=True):
                    yield self._record(one, method, found)

    def _explain_frames(
        self, votes: VoteStack, label: str, frames: Sequence[Frame], method: str, sign: float
    ) -> list[ExplainedFrame]:
        """As `explain_frames`; a frame on which a detector fails has an error code, its neighbours have none."""
        try:
            return explain_frames(self.load, votes, label, frames, method, self.config.explain, sign=sign)
        except _FAILURES as error:
            if len(frames) > 1:
                return [found for one in frames for found in self._explain_frames(votes, label, [one], method, sign)]
            no_room = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
            code = ErrorCode.OUT_OF_MEMORY if no_room else ErrorCode.SCORE_FAILED
            return [ExplainedFrame(error_code=str(code), error_detail=f"{type(error).__name__}: {one_line(error)}")]

    def load(self, title: str, exact: bool = False) -> VoteStack:
        """The loaded detector; at most three are kept."""
        if (title, exact) not in self._stacks:
            while len(self._stacks) >= _KEPT_STACKS:
                del self._stacks[next(iter(self._stacks))]
            self._stacks[title, exact] = load_vote_stack(self.config, title, exact=exact)
        return self._stacks[title, exact]

    def _fail(self, target: ExplainTarget, code: str, detail: str) -> Iterator[Explained]:
        for method in self._methods:
            explanation = replace(_begin(target, method), error_code=code, error_detail=detail)
            self._keep(explanation, {})
            yield Explained(explanation=explanation)

    def _record(self, one: FetchedTarget, method: str, found: ExplainedFrame) -> Explained:
        frame, vote = one.frame, _vote(one)
        assert frame is not None
        begun = replace(_begin(one.target, method), score=found.score, settings=found.settings)
        if found.error_code is not None:
            failed = replace(begun, error_code=found.error_code, error_detail=found.error_detail)
            self._keep(failed, {})
            return Explained(explanation=failed)
        key = begun.key
        caption = f"{begun.vote} {found.score:.3f}, {found.settings}" if found.score is not None else begun.vote
        side = self.config.explain.overlay_px
        values = found.panels[0].values
        files = {
            overlay_name(key): draw_overlay(frame.pixels, found.panels, found.box, caption, side),
            map_name(key): encode_map([panel.values for panel in found.panels]),
        }
        strip = _draw_strip(vote, one.target.row.get("threshold"), one.others)
        if strip is not None:
            files[strip_name(key)] = strip
        explanation = replace(
            begun,
            box=None if found.box is None else _in_picture(found.box, frame),
            drop=found.drop,
            covered=found.covered,
            alone=found.alone,
            overlay=overlay_name(key),
            map=map_name(key),
            strip=None if strip is None else strip_name(key),
            preview=draw_preview(frame.pixels, values, found.box),
        )
        self._keep(explanation, files)
        crop = None if found.box is None else crop_box(frame.pixels, found.box, CROP_PX)
        return Explained(explanation=explanation, crop=crop)

    def _keep(self, explanation: Explanation, files: dict[str, bytes]) -> None:
        if self._write:
            write_explanation(self.to, explanation, files, self._metadata)


def explain_item(
    run: StoredRun,
    item_id: str,
    *,
    method: str = "occlusion",
    vote: str | None = None,
    overrides: Sequence[str] = (),
    to: str | None = None,
    write: bool = True,
) -> Explanation:
    """Explain one item of a run: by its id, the start of it, its URI or the end of that.

    method: `occlusion`, or one that uses gradients; of `both` the first. vote: `detector.label` instead of the deciding
    one. Loads the detector anew: keep an `Explainer` for many. Raises UsageError where there is no such item or vote.
    """
    explainer = Explainer(run, method=method, overrides=overrides, to=to, write=write)
    explained = list(explainer.explain(read_targets(run, choose_items(run, [item_id]), vote)))
    return explained[0].explanation


def _title(target: ExplainTarget) -> str:
    return target.vote.detector if target.vote is not None else ""


def _vote(one: FetchedTarget) -> DecidingVote:
    assert one.target.vote is not None  # only such are fetched
    return one.target.vote


def _begin(target: ExplainTarget, method: str) -> Explanation:
    row, vote = target.row, target.vote
    begun = Explanation(
        item_id=target.item_id,
        uri=str(row["uri"]),
        kind=str(row["kind"]),
        verdict=row.get("verdict"),
        reason=row.get("reason"),
        check=row.get("check"),
        threshold=row.get("threshold"),
        method=method,
    )
    if vote is None:
        return begun
    return replace(
        begun,
        frame=vote.frame,
        time_s=vote.time_s,
        detector=vote.detector,
        label=vote.label,
        stored_score=vote.stored_score,
    )


def _in_picture(box: Place, frame: Frame) -> Place:
    """A box of a tile as one of the picture that it is cut from, which is what people see."""
    if frame.box is None or frame.parent is None:
        return box
    x0, y0, x1, y1 = frame.box
    wide, high = x1 - x0, y1 - y0
    return x0 + box[0] * wide, y0 + box[1] * high, x0 + box[2] * wide, y0 + box[3] * high


def _draw_strip(vote: DecidingVote, threshold: float | None, frames: Sequence[Frame]) -> bytes | None:
    """None for an item of one frame, and for a vote of a question that was asked afterwards."""
    scored = [(frame, time_s, score) for frame, time_s, score in vote.curve if score is not None]
    if len(scored) < 2:
        return None
    scores = [score for _, _, score in scored]
    times = [time_s for _, time_s, _ in scored if time_s is not None]
    if vote.time_s is not None and len(times) == len(scored):
        return draw_strip(times, scores, vote.time_s, threshold, frames, "s")
    return draw_strip([float(frame) for frame, _, _ in scored], scores, float(vote.frame), threshold, frames, "frame")
