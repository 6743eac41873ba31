"""Overlays that `moderation explain` has written for items of a run: which part of a picture a score rests on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from moderation import storage
from moderation.config.model import MediaConfig
from moderation.errors import ModerationError, one_line
from moderation.media import decode_image
from moderation.media.preview import encode_preview
from moderation.results.explanations import read_explanations, read_overlay
from moderation.review.pictures import LARGE_PX

_LOG = logging.getLogger(__name__)


def find_overlays(out: str) -> Overlays:
    """Those of OUT/explanations/; of several for one item the last. Raises UsageError where a row is unreadable."""
    explained = [one for one in read_explanations(out) if one.overlay is not None]
    return Overlays({one.item_id: partial(read_overlay, one, out) for one in explained})


class Overlays:
    """The overlays of a run. readers: item id -> what reads its picture, or finds none."""

    def __init__(self, readers: Mapping[str, Callable[[], bytes | None]]) -> None:
        self._readers = readers

    def has(self, item_id: str) -> bool:
        """Whether an item has an overlay."""
        return item_id in self._readers

    def read(self, item_id: str) -> bytes | None:
        """Its overlay as JPEG; None where it has none, or it cannot be read."""
        reader = self._readers.get(item_id)
        try:
            data = None if reader is None else reader()
            if data is None:
                return None
            return encode_preview(decode_image(data, MediaConfig(canvas_px=2048)).frames[0].pixels, LARGE_PX)
        except (ModerationError, OSError) as error:
            _LOG.warning("an overlay is not readable: %s", storage.mask_signatures(one_line(error)))
            return None
