"""Codes drawn here: small, rotated, pale, several at once; and what their payloads are labelled as."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from moderation.detectors.views import TensorFrames
from moderation.errors import UsageError
from moderation.types import U8

zxingcpp = pytest.importorskip("zxingcpp")

from moderation.detectors.text.codes import Codes  # noqa: E402 - needs the package

CPU = torch.device("cpu")
_LINEAR = (
    ("EAN13", "4006381333931"),
    ("Code128", "SHIP-{0:04d}"),
    ("Code39", "PART{0:03d}"),
    ("EAN13", "9780201379624"),
)


def _code(kind: str, payload: str) -> Image.Image:
    """One pixel per module, with its quiet zone."""
    drawn = zxingcpp.create_barcode(payload, getattr(zxingcpp.BarcodeFormat, kind)).to_image(
        scale=1, add_quiet_zones=True
    )
    return Image.fromarray(np.array(drawn))


def _sized(code: Image.Image, side: int) -> Image.Image:
    factor = side / max(code.size)
    big = code.resize([max(1, n * 8) for n in code.size], Image.Resampling.NEAREST)
    return big.resize([max(1, round(n * factor)) for n in code.size], Image.Resampling.BOX)


def _background(seed: int, width: int = 480, height: int = 360) -> Image.Image:
    small = np.random.default_rng(seed).integers(90, 200, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _place(frame: Image.Image, code: Image.Image, at: tuple[int, int], angle: float, contrast: float) -> None:
    """A code pasted into a picture, rotated; contrast: of black and white, around middle grey."""
    pale = code.point(lambda level: round(128 + (level - 128) * contrast))
    turned = pale.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("L", pale.size, 255).rotate(angle, Image.Resampling.NEAREST, expand=True)
    frame.paste(turned.convert("RGB"), at, mask.filter(ImageFilter.MinFilter(3)))


def drawn_codes() -> Iterator[tuple[str, U8, list[str]]]:
    """60 codes: the kind, the picture, the payloads of each picture."""
    for i, side in enumerate(range(60, 120, 5)):  # 12 small
        payload = f"https://example.com/{i}"
        frame = _background(i)
        _place(frame, _sized(_code("QRCode", payload), side), (40 + 20 * i, 30 + 15 * i), 0, 1)
        yield f"small, {side} px", np.array(frame), [payload]
    for i, angle in enumerate(range(10, 350, 30)):  # 12 turned
        payload = f"tel:+4930{i:06d}"
        frame = _background(20 + i)
        _place(frame, _sized(_code("QRCode", payload), 120), (100, 60), angle, 1)
        yield f"turned by {angle}", np.array(frame), [payload]
    for i in range(12):  # 12 pale
        payload = f"WIFI:S:net{i};;"
        frame = _background(40 + i)
        _place(frame, _sized(_code("QRCode", payload), 110), (150, 90), 0, 0.15 + 0.05 * i)
        yield f"contrast {0.15 + 0.05 * i:.2f}", np.array(frame), [payload]
    for i in range(6):  # 12, two in a picture
        payloads = [f"https://wa.me/49151000{i}", f"item {i}"]
        frame = _background(60 + i)
        for place, payload in enumerate(payloads):
            _place(frame, _sized(_code("QRCode", payload), 90), (40 + 220 * place, 60 + 30 * i), 15.0 * i, 1)
        yield f"two, turned by {15 * i}", np.array(frame), payloads
    for i in range(12):  # 12 bar codes, some turned
        kind, text = _LINEAR[i % 4]
        payload = text.format(i)
        frame = _background(80 + i)
        code = _code(kind, payload)
        bars = code.resize((code.width * 2, max(code.height, 60)), Image.Resampling.NEAREST)
        _place(frame, bars, (60, 60), (0, 90, 8)[i // 4], 1)
        yield f"{kind}, turned by {(0, 90, 8)[i // 4]}", np.array(frame), [payload]


def read(detector: Codes, *frames: U8) -> list[list[str]]:
    batch = TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)
    return [[code.payload for code in codes] for codes in detector.read(batch)]


def score(frame: U8) -> dict[str, float]:
    scored = Codes({}).score(TensorFrames([frame], [(frame.shape[1], frame.shape[0])], CPU), {})
    return dict(zip(Codes.labels, scored.scores[0].tolist(), strict=True))


def with_code(kind: str, payload: str, side: int = 160) -> U8:
    frame = _background(1)
    _place(frame, _sized(_code(kind, payload), side), (100, 80), 0, 1)
    return np.array(frame)


def test_95_percent_of_small_turned_pale_and_neighbouring_codes_are_read() -> None:
    detector = Codes({})
    drawn = list(drawn_codes())
    found = read(detector, *(frame for _, frame, _ in drawn))
    missed = [(name, p) for (name, _, wanted), got in zip(drawn, found, strict=True) for p in wanted if p not in got]
    total = sum(len(wanted) for _, _, wanted in drawn)
    assert total == 60
    assert len(missed) <= total * 0.05, missed


def test_a_payload_says_where_to_go_or_whom_to_ask() -> None:
    assert score(with_code("QRCode", "https://example.com/a"))["url"] == 1
    link = score(with_code("QRCode", "https://u.wechat.com/kQ"))
    assert link["contact"] == link["url"] == link["qr"] == link["count"] == 1
    plain = score(with_code("QRCode", "hello there"))
    assert plain["url"] == plain["contact"] == plain["linear"] == 0
    assert score(with_code("EAN13", "4006381333931", 330))["linear"] == 1


def test_a_region_is_where_the_code_is_and_shows_nothing_that_a_terminal_obeys() -> None:
    frame = with_code("QRCode", "a\x1b[31m\nb" + "c" * 400)
    scored = Codes({}).score(TensorFrames([frame], [(480, 360)], CPU), {})
    assert scored.regions is not None
    (region,) = scored.regions[0]
    assert region.label.isprintable()
    assert len(region.label) <= 200
    assert region.x0 == pytest.approx(100 / 480, abs=0.1)
    assert region.x1 <= (100 + 160) / 480 + 0.02


def test_a_frame_without_a_code_has_none() -> None:
    assert score(np.array(_background(5))) == dict.fromkeys(Codes.labels, 0.0)


def test_a_wrong_format_is_refused_naming_the_nearest() -> None:
    with pytest.raises(UsageError, match="qrcode"):
        Codes({"formats": ["qrcod"]})
