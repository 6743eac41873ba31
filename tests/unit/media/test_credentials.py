"""Content Credentials: what each public test file says, and what files without any, or with broken ones, say."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image

from moderation.config.model import Config, MediaConfig
from moderation.media.credentials import GENERATIVE, PRESENT, VALID, read_credentials
from moderation.media.decode import decode_item
from moderation.media.decoder_pool import DecoderProcess
from moderation.types import Item, MediaObject

c2pa = pytest.importorskip("c2pa")
FILES = Path(__file__).parents[4] / "shared" / "c2pa"
needs_files = pytest.mark.skipif(not FILES.is_dir(), reason="needs ../shared/c2pa")
NAN = math.nan


def said(data: bytes) -> tuple[float, float, float]:
    readings = read_credentials(data)
    return readings[PRESENT], readings[VALID], readings[GENERATIVE]


def picture(format_: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(file, format_)
    return file.getvalue()


@needs_files
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("A", (0, NAN, 0)),
        ("I", (0, NAN, 0)),
        ("C", (1, 1, 0)),
        ("CA", (1, 1, 0)),
        ("CIE-sig-CA", (1, 1, 0)),  # the signer recorded the ingredient's fault; the file itself is as signed
        ("E-sig-CA", (1, 0, 0)),
        ("E-dat-CA", (1, 0, 0)),
        ("XCA", (1, 0, 0)),
    ],
)
def test_each_public_test_file_says_what_its_name_says(name: str, expected: tuple[float, float, float]) -> None:
    assert said((FILES / f"{name}.jpg").read_bytes()) == pytest.approx(expected, nan_ok=True)


@needs_files
@pytest.mark.shared
@pytest.mark.parametrize("cut", [30_000, 60_000, 100_000, 139_000])
def test_a_file_that_is_cut_is_never_valid(cut: int) -> None:
    present, valid, _ = said((FILES / "C.jpg").read_bytes()[:cut])
    assert (present, valid) in [(1, 0), (0, pytest.approx(NAN, nan_ok=True))]


@needs_files
@pytest.mark.shared
def test_one_changed_byte_of_the_picture_is_noticed() -> None:
    data = bytearray((FILES / "C.jpg").read_bytes())
    data[-1000] ^= 1
    assert said(bytes(data))[1] == 0


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_without_any_says_so(format_: str) -> None:
    assert said(picture(format_)) == pytest.approx((0, NAN, 0), nan_ok=True)


def test_of_a_type_that_carries_none_nothing_is_said() -> None:
    assert all(math.isnan(value) for value in said(picture("BMP")))


def test_the_word_alone_is_no_manifest() -> None:
    assert said(picture() + b"jumb c2pa")[1] != 1


@pytest.mark.parametrize("source_type", ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"])
def test_a_manifest_that_names_a_model_is_generative(source_type: str) -> None:
    url = f"http://cv.iptc.org/newscodes/digitalsourcetype/{source_type}"
    assert said(signed(picture(), {"action": "c2pa.created", "digitalSourceType": url})) == (1, 1, 1)


def test_a_camera_is_not_generative() -> None:
    url = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    assert said(signed(picture("PNG"), {"action": "c2pa.created", "digitalSourceType": url}, "image/png")) == (1, 1, 0)


def test_the_stack_switches_the_reading_on_and_the_first_frame_has_it() -> None:
    assert not Config.model_validate({}).media.credentials
    media = Config.model_validate({"stack": {"detectors": [{"name": "c2pa", "alias": "origin"}]}}).media
    assert media.credentials
    source = MediaObject(uri="a.jpg", name="a.jpg")
    item = Item(item_id="a", uri="a.jpg", objects=(source,))
    (frame,) = decode_item(item, [picture()], media).frames
    assert frame.readings[PRESENT] == 0
    process = DecoderProcess(media, 1 << 30)
    (frame,) = process.decode(item, [picture()]).frames
    process.close()
    assert frame.readings[PRESENT] == 0
    assert math.isnan(frame.readings[VALID])
    (frame,) = decode_item(item, [picture()], MediaConfig()).frames
    assert not frame.readings


def signed(data: bytes, action: dict[str, str], mime: str = "image/jpeg") -> bytes:
    """The picture with a manifest of its own, signed by a certificate that is made here and that nobody trusts."""
    from tests.signing import sign_picture

    return sign_picture(data, action, mime)
