"""QR and bar codes on a picture and their payloads, by zxing-cpp.

Source: https://github.com/zxing-cpp/zxing-cpp (Apache-2.0), package zxing-cpp (extra `codes`). No weights. It runs on
the host, in a few threads: the library releases the GIL while it reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zxingcpp

from moderation.config.hints import did_you_mean
from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View
from moderation.detectors.registry import check_options
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.types import U8, Region

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    from moderation.detectors.deferred import functional as F
    from moderation.detectors.deferred import torch

_SQUARE: Final = ("qrcode", "microqrcode", "rmqrcode", "datamatrix", "aztec", "pdf417")
_LINEAR: Final = ("ean13", "ean8", "upca", "upce", "code128", "code93", "code39", "codabar", "itf")
_FORMATS: Final = (*_SQUARE, *_LINEAR)
# Without short and weakly checked kinds; none of these is found on the 200 sample photographs.
_DEFAULT: Final = (
    "qrcode",
    "microqrcode",
    "datamatrix",
    "aztec",
    "pdf417",
    "ean13",
    "upca",
    "code128",
    "code93",
    "code39",
)
# The reader's time grows with the pixels: larger frames are scaled down first.
_MAX_PIXELS: Final = 4_000_000
_MAX_CODES: Final = 64
_LONGEST_LABEL: Final = 200
# Larger frames have no codes so small that enlarging would help.
_ENLARGED: Final = 2
_ENLARGE_BELOW_PIXELS: Final = 1_000_000

_URL = re.compile(r"^(?:https?|ftp)://|^www\.|^[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}(?:/|$)", re.IGNORECASE)
_CONTACT = re.compile(
    r"^(?:begin:vcard|mecard:|bizcard:|tel:|sms(?:to)?:|mailto:|weixin:|wechat:|whatsapp:|tg:|line:)"
    r"|(?:u\.wechat\.com|wa\.me|t\.me|line\.me|qm\.qq\.com|m\.me)/",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One code: its kind (`qrcode`), its payload, and its box, x0, y0, x1, y1 in 0..1 of the frame."""

    kind: str
    payload: str
    box: tuple[float, float, float, float]


class Codes(DetectorDefaults):
    """Labels: `count`; and 0 or 1: `qr`, `linear` (bar codes), `url` (a payload is a link), `contact` (a payload is a
    phone number, an address or a messenger account).

    Regions: one per code, its payload (printable, bounded) as the label. Option `formats`: the kinds to look for, of
    `qrcode microqrcode rmqrcode datamatrix aztec pdf417 ean13 ean8 upca upce code128 code93 code39 codabar itf`; the
    default leaves out the shortest, which have weak checks. Option `enlarge` (default false): frames without a code
    are searched again at twice the size, for codes whose modules are about a pixel wide, at four times the time. The 60
    codes that the tests draw (60 to 120 pixels, rotated, pale) are all read without it.
    """

    name = "codes"
    labels: Sequence[str] = ("count", "qr", "linear", "url", "contact")
    ranges: Mapping[str, tuple[float, float]] = {"count": (0.0, _MAX_CODES)}
    view = View(mode="canvas")
    cost_ms = 8.0

    def __init__(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, {"formats": (list, tuple), "enlarge": bool})
        names = tuple(str(name).lower().replace("_", "").replace("-", "") for name in options.get("formats", _DEFAULT))
        for name in names:
            if name not in _FORMATS:
                raise UsageError(f"detector 'codes': formats: unknown {name!r}{did_you_mean(name, _FORMATS)}")
        if not names:
            raise UsageError("detector 'codes': `formats` is empty")
        self.formats = names
        self.enlarge: bool = options.get("enlarge", False)
        self.version = f"1+zxing{zxingcpp.__version__}" if hasattr(zxingcpp, "__version__") else "1"

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Nothing to load."""

    def read(self, batch: FrameBatch) -> list[list[Code]]:
        """The codes of each frame."""
        frames = [frame.cpu() for frame in batch.frames_HWC]
        threads = min(torch.get_num_threads(), len(frames))
        if threads < 2:
            return [self._read(frame) for frame in frames]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._read, frames))

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,5]; one region per code."""
        codes_of_frames = self.read(batch)
        rows = [
            [
                float(len(codes)),
                float(any(code.kind.endswith("qrcode") for code in codes)),
                float(any(code.kind in _LINEAR for code in codes)),
                float(any(_URL.search(code.payload) is not None for code in codes)),
                float(any(_CONTACT.search(code.payload) is not None for code in codes)),
            ]
            for codes in codes_of_frames
        ]
        return Scored(
            scores=torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(self.labels)),
            regions=[[self._region(code) for code in codes] for codes in codes_of_frames],
        )

    def _read(self, frame: torch.Tensor) -> list[Code]:
        height, width = frame.shape[:2]
        if height * width > _MAX_PIXELS:
            frame = _scaled(frame, (_MAX_PIXELS / (height * width)) ** 0.5)
        grey = _to_grey(frame)
        codes = self._find(grey)
        if not codes and self.enlarge and grey.size <= _ENLARGE_BELOW_PIXELS:
            codes = self._find(_to_grey(_scaled(frame, _ENLARGED)))
        return codes

    def _find(self, grey: U8) -> list[Code]:
        height, width = grey.shape
        formats = zxingcpp.BarcodeFormats([_format(name) for name in self.formats])
        barcodes = zxingcpp.read_barcodes(grey, formats=formats, text_mode=zxingcpp.TextMode.Plain)
        codes = []
        for code in barcodes[:_MAX_CODES]:
            place = code.position
            corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
            xs, ys = (
                [min(max(p.x / width, 0.0), 1.0) for p in corners],
                [min(max(p.y / height, 0.0), 1.0) for p in corners],
            )
            kind = str(code.format.name).lower()
            codes.append(Code(kind=kind, payload=code.text, box=(min(xs), min(ys), max(xs), max(ys))))
        return codes

    def _region(self, code: Code) -> Region:
        x0, y0, x1, y1 = code.box
        label = short_line(code.payload, _LONGEST_LABEL) or code.kind
        return Region(detector=self.name, label=label, score=1.0, x0=x0, y0=y0, x1=x1, y1=y1)


def _format(name: str) -> Any:  # noqa: ANN401 - an enumeration of a library without types here
    return next(f for f in zxingcpp.BarcodeFormat if f.name.lower() == name)


def _to_grey(frame: torch.Tensor) -> U8:
    """uint8 [H,W,3] -> uint8 [H,W]: luma, in integers."""
    wide = frame.to(torch.int32)
    grey = (wide[..., 0] * 77 + wide[..., 1] * 150 + wide[..., 2] * 29) >> 8
    return np.ascontiguousarray(grey.to(torch.uint8).numpy())


def _scaled(frame: torch.Tensor, factor: float) -> torch.Tensor:
    height, width = (max(1, round(side * factor)) for side in frame.shape[:2])
    pixels = F.interpolate(frame[None].permute(0, 3, 1, 2), (height, width), mode="bilinear", antialias=factor < 1)
    return pixels[0].permute(1, 2, 0)
