"""Reads a network from a dlib file, with bounds: only numbers and names, none of it is ever run.

dlib's own format (`serialize.h`, `dnn/layers.h`, Boost licence, https://github.com/davisking/dlib) has no lengths and
no offsets: the reader must know what comes next. A network's file holds the name and numbers of its loss, the version
of every layer (the last comes first), its input, and then its layers from first to last. Each layer is a name, its
numbers, its parameters, three flags and three training tensors, which are empty in a released file. This order is
checked layer by layer, and every size before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from moderation.errors import FatalError
from moderation.types import F32

_MAX_BYTES: Final = 256 << 20  # dlib's largest released network takes 23 MB
_MAX_LAYERS: Final = 1000
_MAX_NAME: Final = 64
# The fields between a layer's name and its flags: i integer, f float, t tensor, a view of the parameters (five
# integers). Names carry the layout's version.
_FIELDS: Final[Mapping[str, str]] = {
    "con_4": "tiiiiiiiaaffff",  # filters, height, width, strides, paddings; learning rates and decays
    "affine_": "taai",  # gamma, beta, whether one pair per channel
    "relu_": "",
    "add_prev_": "",
    "max_pool_2": "iiiiii",  # height, width (0: everything), strides, paddings
    "avg_pool_2": "iiiiii",
    "fc_2": "iitaaiffff",  # outputs, inputs; bias mode
}
_VERSION_LAST: Final = 3  # of the layer that reads the input; all others have 1 (a tag) or 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DlibLayer:
    """One layer: its name in dlib, its integers in order, and its parameters, flat float32 (empty: none)."""

    name: str
    numbers: tuple[int, ...]
    parameters: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class DlibNetwork:
    """A network as in its file: loss, means of red, green and blue, sides of the input, layers."""

    loss: str
    means: tuple[float, float, float]
    height: int
    width: int
    layers: tuple[DlibLayer, ...]


def read_dlib(path: Path | str) -> DlibNetwork:
    """The layers of a dlib file, first to last. Raises FatalError when it is no such file, or truncated."""
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise FatalError(f"{path}: larger than {_MAX_BYTES >> 20} MB; not read")
        cursor = _DlibCursor(file.read_bytes())
        return _read_network(cursor)
    except (OSError, ValueError, OverflowError) as error:
        raise FatalError(f"{path}: not readable as a network of dlib: {error}") from error


class _DlibCursor:
    """A position in bytes; raises ValueError beyond the end or where something unexpected is read."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError(f"it ends at byte {len(self._data)}, {count} more were due at {self._at}")
        self._at += count
        return self._data[self._at - count : self._at]

    def integer(self) -> int:
        """An integer: a byte with the sign and the number of bytes, then these bytes, lowest first."""
        (head,) = self.take(1)
        count = head & 0x0F
        if count > 8 or head & 0x70:
            raise ValueError(f"no number at byte {self._at - 1}")
        value = int.from_bytes(self.take(count), "little")
        return -value if head & 0x80 else value

    def expect(self, value: int) -> None:
        stored = self.integer()
        if stored != value:
            raise ValueError(f"{stored} instead of {value} before byte {self._at}")

    def number(self) -> float:
        """A float: mantissa and exponent of 2."""
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1100:
            raise ValueError(f"exponent {exponent} before byte {self._at}")
        return math.ldexp(mantissa, exponent)

    def name(self) -> str:
        length = self.integer()
        if not 0 < length <= _MAX_NAME:
            raise ValueError(f"a name of {length} bytes before byte {self._at}")
        return bytes(self.take(length)).decode("ascii", errors="replace")

    def tensor(self) -> F32:
        """A tensor: version, four sides, numbers of 4 bytes."""
        self.expect(2)
        sides = [self.integer() for _ in range(4)]
        if min(sides) < 0:
            raise ValueError(f"a tensor of {sides} before byte {self._at}")
        return np.frombuffer(self.take(4 * math.prod(sides)), dtype="<f4").astype(np.float32)

    def place(self) -> None:
        """A view of the parameters: version and four sides; its meaning follows from the layer's integers."""
        self.expect(1)
        for _ in range(4):
            self.integer()

    def flag(self) -> None:
        if bytes(self.take(1)) not in (b"0", b"1"):
            raise ValueError(f"no flag at byte {self._at - 1}")


def _read_network(cursor: _DlibCursor) -> DlibNetwork:
    cursor.expect(1)
    loss = cursor.name()
    if loss != "loss_metric_2":
        raise ValueError(f"its loss is {loss!r}, only loss_metric_2 is known")
    for _ in range(2):
        cursor.number()  # margin and distance of training
    _skip_versions(cursor)
    kind = cursor.name()
    if kind != "input_rgb_image_sized":
        raise ValueError(f"its input is {kind!r}, only input_rgb_image_sized is known")
    means = (cursor.number(), cursor.number(), cursor.number())
    height, width = cursor.integer(), cursor.integer()
    return DlibNetwork(loss=loss, means=means, height=height, width=width, layers=_read_layers(cursor))


def _skip_versions(cursor: _DlibCursor) -> None:
    """Skip the version of every layer, up to that of the layer that reads the input."""
    for _ in range(_MAX_LAYERS):
        version = cursor.integer()
        if version == _VERSION_LAST:
            return
        if version not in (1, 2):
            raise ValueError(f"a layer of version {version}")
    raise ValueError(f"more than {_MAX_LAYERS} layers")


def _read_layers(cursor: _DlibCursor) -> tuple[DlibLayer, ...]:
    layers: list[DlibLayer] = []
    while not cursor.done:
        if len(layers) > _MAX_LAYERS:
            raise ValueError(f"more than {_MAX_LAYERS} layers")
        layers.append(_read_layer(cursor))
        if len(layers) == 1:
            cursor.integer()  # how many pictures one sample became in training
    if not layers:
        raise ValueError("it has no layers")
    return tuple(layers)


def _read_layer(cursor: _DlibCursor) -> DlibLayer:
    name = cursor.name()
    if name not in _FIELDS:
        raise ValueError(f"a layer {name!r}; known are {', '.join(_FIELDS)}")
    numbers: list[int] = []
    parameters: F32 = np.zeros(0, dtype=np.float32)
    for field in _FIELDS[name]:
        match field:
            case "i":
                numbers.append(cursor.integer())
            case "f":
                cursor.number()
            case "t":
                parameters = cursor.tensor()
            case "a":
                cursor.place()
    for _ in range(3):
        cursor.flag()
    for _ in range(3):
        if cursor.tensor().size:
            raise ValueError(f"{name}: the file still holds training data")
    return DlibLayer(name=name, numbers=tuple(numbers), parameters=parameters)
