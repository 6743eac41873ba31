"""The part of a run's stack that casts one vote: its detector and those that it reads, loaded here."""

from __future__ import annotations

from dataclasses import dataclass

from moderation.config.hints import did_you_mean
from moderation.config.model import Config
from moderation.detectors.base import Detector, View
from moderation.detectors.registry import build
from moderation.errors import UsageError
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteStack:
    """A loaded stack that casts the votes of `title`, and of what that detector reads. view: what it looks at."""

    title: str
    stack: Stack
    view: View

    def column(self, label: str) -> int:
        """The place of a label of the detector among the stack's labels. Raises UsageError naming the nearest."""
        name = f"{self.title}.{label}"
        if name not in self.stack.labels:
            own = [other for other in self.stack.labels if other.startswith(f"{self.title}.")]
            raise UsageError(f"no vote {name!r}{did_you_mean(name, own)}")
        return self.stack.labels.index(name)

    @property
    def detector(self) -> Detector:
        """The detector itself, after those that it reads."""
        return self.stack.slots[-1].detector


def load_vote_stack(config: Config, title: str, *, exact: bool = False) -> VoteStack:
    """Load what casts the votes of a detector, without conditions: a vote that is explained was asked for.

    exact: in float32 with plain operators, which carry gradients. Raises UsageError where the configuration has no such
    detector or it cannot be built here, FatalError where its weights cannot be read.
    """
    names = _needed(config, title)
    entries = tuple(entry.model_copy(update={"when": None}) for entry in config.stack.detectors if entry.title in names)
    changes = {"detectors": entries, "only": (), "compile": False, "keep_embeddings": False}
    if exact:
        changes["dtype"] = "fp32"
    stack = build_stack(config.model_copy(update={"stack": config.stack.model_copy(update=changes)}))
    stack.load()
    if exact:
        for slot in stack.slots:
            slot.detector.unpack()
    return VoteStack(title=title, stack=stack, view=_view_of(stack))


def _needed(config: Config, title: str) -> set[str]:
    """The detector and all that it reads, by title: only what the stack has before each."""
    titles = [entry.title for entry in config.stack.detectors]
    if title not in titles:
        raise UsageError(f"the run has no detector {title!r}{did_you_mean(title, titles)}")
    names: set[str] = set()
    asked = [title]
    while asked:
        name = asked.pop()
        if name not in names:
            names.add(name)
            asked += _read_by(config, titles.index(name))
    return names


def _read_by(config: Config, place: int) -> list[str]:
    """What the detector at this place of the stack reads, of those that ran before it."""
    detector = build(config.stack.detectors[place])
    ran = [entry.title for entry in config.stack.detectors[:place]]
    if config.stack.only:
        ran = [title for title in ran if title in config.stack.only]
    return [title for title in (*detector.requires, *detector.optional) if title in ran]


def _view_of(stack: Stack) -> View:
    """What the last detector looks at: its own view, or, where it reads others' results, that of the first of these."""
    own: View = stack.slots[-1].detector.view
    if own.mode != "canvas" or len(stack.slots) == 1:
        return own
    return next((slot.detector.view for slot in stack.slots if slot.detector.view.mode != "canvas"), own)
