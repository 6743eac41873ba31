"""Which frames of an animation are scored: those that look new; if too many, those shown longest.

Frames arrive one by one, and only as many as may be scored are held. A stretch is the time in which one picture is
shown, in one frame or in several that look alike. The shortest stretch is dropped first; of equal ones the one that
leaves the shortest time unseen, then by a hash of the content, so that nobody can predict from the rule alone which
frames of a film are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moderation.media.likeness import I16, coarse, differs_visibly, is_unlike_all
from moderation.media.pixels import Picture

# Share of an animation's time that may show pictures unlike any scored one.
MAX_UNSEEN_SHARE = 0.05
_MAX_COMPARED = 20_000  # dropped pictures whose colours are kept: 10 MB; later ones count as unlike
_MIN_LIMIT_WITH_ENDS = 3  # from this limit on the first and last frame, which a viewer may leave on screen, are kept


@dataclass(slots=True, kw_only=True)
class Stretch:
    """A picture and the time that it is shown. unseen_s: dropped time between it and the next one held."""

    index: int
    picture: Picture
    grid: I16
    shown_s: float
    unseen_s: float = 0.0


@dataclass(slots=True)
class FrameChoice:
    """The frames held so far. salt: called once, when a frame must be dropped."""

    limit: int
    salt: Callable[[], bytes]
    held: list[Stretch] = field(default_factory=list)
    _given_up: list[tuple[I16, float]] = field(default_factory=list)  # coarse grids and times of dropped pictures
    _uncompared_s: float = 0.0
    _leading_s: float = 0.0  # dropped before the first one held
    _key: bytes | None = None
    _last_grid: I16 | None = None

    def add(self, index: int, shown_s: float, grid: I16, draw: Callable[[], Picture], *, is_new: bool = False) -> None:
        """Add the next frame. draw: makes its picture, called only where it looks new. is_new: counts as new anyway."""
        if not is_new and self._last_grid is not None and not differs_visibly(grid, self._last_grid):
            self.held[-1].shown_s += shown_s
            return
        self._shrink_to(self.limit)
        self.held.append(Stretch(index=index, picture=draw(), grid=grid, shown_s=shown_s))
        self._last_grid = grid

    def finish(self) -> list[Stretch]:
        """The frames held, at most `limit`, in order."""
        self._shrink_to(self.limit)
        return self.held

    @property
    def widest_gap_s(self) -> float:
        """The longest time in which nothing scored is shown."""
        return max([self._leading_s, *(s.unseen_s for s in self.held)])

    def hides(self, skipped_s: float = 0.0) -> bool:
        """Whether more than MAX_UNSEEN_SHARE of the time shows pictures unlike all held ones.

        skipped_s: the time of frames that were never decoded.
        """
        unseen_s = skipped_s + self._uncompared_s
        total_s = unseen_s + sum(s.shown_s for s in self.held) + sum(shown_s for _, shown_s in self._given_up)
        if self._given_up:
            held = np.stack([coarse(s.grid) for s in self.held])
            unseen_s += sum(shown_s for grid, shown_s in self._given_up if is_unlike_all(grid, held))
        return unseen_s > MAX_UNSEEN_SHARE * total_s

    def _shrink_to(self, limit: int) -> None:
        while len(self.held) > limit:
            with_ends = limit >= _MIN_LIMIT_WITH_ENDS
            places = range(1, len(self.held) - 1) if with_ends else range(len(self.held))
            self._give_up(min(places, key=self._worth))

    def _worth(self, place: int) -> tuple[int, int, bytes]:
        stretch = self.held[place]
        before_s = self.held[place - 1].unseen_s if place else self._leading_s
        left_s = before_s + stretch.shown_s + stretch.unseen_s
        if self._key is None:
            self._key = self.salt()
        tie = hashlib.blake2b(stretch.index.to_bytes(8, "big"), key=self._key, digest_size=8).digest()
        return round(100 * stretch.shown_s), round(100 * left_s), tie

    def _give_up(self, place: int) -> None:
        stretch = self.held.pop(place)
        if len(self._given_up) < _MAX_COMPARED:
            self._given_up.append((coarse(stretch.grid), stretch.shown_s))
        else:
            self._uncompared_s += stretch.shown_s
        gone_s = stretch.shown_s + stretch.unseen_s
        if place:
            self.held[place - 1].unseen_s += gone_s
        else:
            self._leading_s += gone_s
