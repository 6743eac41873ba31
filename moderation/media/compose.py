"""Layers laid over each other as browsers do: from a transparent canvas, each layer disposed of before the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from PIL import Image

from moderation.media.layers import Disposal, Layer
from moderation.media.limits import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSurvey:
    """first: the first layer that draws anything. size: (width, height) of the canvas."""

    total: int
    first: Layer | None
    size: tuple[int, int]

    @property
    def is_still(self) -> bool:
        """Whether one layer covers the canvas, or there is none."""
        covers = self.first is not None and (self.first.width, self.first.height) == self.size
        return self.total == 0 or (self.total == 1 and covers)


def survey_layers(layers: Iterable[Layer], screen: tuple[int, int], deadline: Deadline) -> LayerSurvey:
    """Count layers without keeping them. Browsers enlarge a GIF's screen to its first layer, and to no later one."""
    first, total = None, 0
    for layer in layers:
        deadline.check()
        total += 1
        if first is None and layer.width and layer.height:
            first = layer
    if first is None:
        return LayerSurvey(total=total, first=None, size=screen)
    size = max(screen[0], first.left + first.width), max(screen[1], first.top + first.height)
    return LayerSurvey(total=total, first=first, size=size)


@dataclass(slots=True)
class Canvas:
    """The picture after each layer, mode RGBA. load: a layer's file as mode RGBA."""

    size: tuple[int, int]
    load: Callable[[Layer], Image.Image]
    image: Image.Image = field(init=False)
    _last: Layer | None = None
    _before: Image.Image | None = None

    def __post_init__(self) -> None:
        self.image = Image.new("RGBA", self.size)

    def add(self, layer: Layer) -> Image.Image:
        """Lay the next layer; the canvas as it is shown then. It changes with the next call."""
        self._dispose()
        if layer.disposal is Disposal.RESTORE:
            self._before = self.image.copy()
        self._last = layer
        width, height = (
            min(a, b - c)
            for a, b, c in zip((layer.width, layer.height), self.size, (layer.left, layer.top), strict=True)
        )
        if width <= 0 or height <= 0:
            return self.image
        picture = self.load(layer)
        if picture.size != (width, height):
            picture = picture.crop((0, 0, width, height))
        if layer.over:
            self.image.alpha_composite(picture, (layer.left, layer.top))
        else:
            self.image.paste(picture, (layer.left, layer.top))
        return self.image

    def _dispose(self) -> None:
        last, self._last = self._last, None
        if last is None:
            return
        if last.alone:
            self.image = Image.new("RGBA", self.size)
        elif last.disposal is Disposal.CLEAR:
            self.image.paste((0, 0, 0, 0), (last.left, last.top, last.left + last.width, last.top + last.height))
        elif last.disposal is Disposal.RESTORE and self._before is not None:
            self.image, self._before = self._before, None
