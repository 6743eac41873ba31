"""The call for notebooks: every input gets its row, whatever it is, and the same verdict as the file it came from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from moderation import ErrorCode, Kind, Moderator, Status, UsageError, Verdict, VerdictRow
from moderation.config.model import MediaConfig
from moderation.detectors import registry
from moderation.detectors.base import DetectorDefaults
from moderation.media import decode_item
from moderation.media.encode import encode_picture
from moderation.results.record import RunFacts
from moderation.results.tables import encode_table
from moderation.types import Item, MediaObject
from tests.drawn_media import draw, encode

POLICY = """
version: 1
default: review
checks:
  red: {side: negative, votes: [tint.red], block: 0.9, review: 0.7, null: review}
  calm: {side: positive, votes: [tint.calm], pass: 0.5, null: review}
"""
CONFIG = """
stack: {device: cpu, batch_size: 3, detectors: [{name: tint}]}
policy: policy.yaml
runtime: {decode_threads: 2, fetch_threads: 2}
"""


class Tint(DetectorDefaults):
    """A tiny detector: how red a frame is, and how little."""

    name = "tint"
    version = "1"
    labels = ("red", "calm")
    cost_ms = 0.1
    weights = ()
    requires = ()
    embedding_dim = 0
    blob_sizes: ClassVar[Mapping[str, int]] = {}

    def __init__(self, options: Mapping[str, Any]) -> None:
        from moderation.detectors.base import View

        self.view = View(mode="canvas")

    def load(self, device: Any, dtype: Any, paths: Any) -> None:
        self.device = device

    def score(self, batch: Any, earlier: Any) -> Any:
        from moderation.detectors.base import Scored

        red = torch.stack([f.float().mean((0, 1))[0] / (f.float().mean((0, 1)).sum() + 1) for f in batch.frames_HWC])
        return Scored(scores=torch.stack([red, 1 - red], dim=1))


@pytest.fixture
def moderator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moderator]:
    """The real call, pipeline and policy over a detector that needs no weights."""
    monkeypatch.setattr(registry, "available", lambda: {"tint": Tint})
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "config.yaml").write_text(CONFIG)
    with Moderator.from_config(tmp_path / "config.yaml") as made:
        yield made


def plain(colour: tuple[int, int, int]) -> Image.Image:
    """One colour with a texture, so that it is a picture."""
    noise = np.random.default_rng(3).integers(-4, 5, (40, 60, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


RED, BLUE = plain((250, 5, 5)), plain((10, 10, 240))


def test_every_way_to_hand_over_a_picture_gives_the_same_verdict(moderator: Moderator, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(encode(RED, "PNG"))
    opened = Image.open(path)
    inputs = [
        str(path),
        path,
        f"file://{path}",
        path.read_bytes(),
        bytearray(path.read_bytes()),
        RED,
        opened,
        np.array(RED),
    ]
    found = moderator.moderate(inputs)
    assert [f.verdict for f in found] == [Verdict.BLOCK] * len(inputs)
    assert len({(f.score, f.reason, f.kind, f.frames_scored, f.width, f.height) for f in found}) == 1
    assert (found[0].check, found[0].reason) == ("red", "negative:red:block")
    assert found[0].evidence[0].detector == "tint"
    assert found[0].scores == {"red": found[0].score, "calm": found[0].scores["calm"]}


def test_rows_come_in_the_order_of_the_inputs_and_keep_apart_what_stands_twice(
    moderator: Moderator, tmp_path: Path
) -> None:
    path = tmp_path / "blue.png"
    path.write_bytes(encode(BLUE, "PNG"))
    found = moderator.moderate([RED, path, path, BLUE, RED])
    assert [f.verdict for f in found] == ["block", "pass", "pass", "pass", "block"]
    assert [f.uri for f in found] == ["input:0", str(path), str(path), "input:3", "input:4"]
    assert len({f.item_id for f in found}) == 5


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("no/such/file.jpg", ErrorCode.NOT_FOUND),
        ("nosuchscheme://a/b.jpg", ErrorCode.FETCH_FAILED),
        ("nul\0inside.jpg", ErrorCode.FETCH_FAILED),
        (b"", ErrorCode.EMPTY),
        (b"not a picture at all", ErrorCode.UNSUPPORTED_TYPE),
        (b"\xff\xd8\xff\xe0 nor this", ErrorCode.CORRUPT),
        (np.zeros((0, 5, 3), np.uint8), ErrorCode.EMPTY),
    ],
)
def test_what_cannot_be_judged_is_a_row_to_review_and_its_neighbours_are_judged(
    moderator: Moderator, value: object, code: ErrorCode
) -> None:
    before, found, after = moderator.moderate([BLUE, value, RED])
    assert (found.status, found.verdict, found.error_code) == (Status.ERROR, Verdict.REVIEW, code)
    assert found.error_detail
    assert (before.verdict, after.verdict) == ("pass", "block")


def test_folder_is_an_error_row(moderator: Moderator, tmp_path: Path) -> None:
    (found,) = moderator.moderate([tmp_path])
    assert (found.status, found.error_code) == (Status.ERROR, ErrorCode.NOT_FOUND)


def test_lazily_opened_picture_that_does_not_load_is_an_error_row(moderator: Moderator, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(encode(RED, "PNG")[:300])
    (found,) = moderator.moderate([Image.open(path)])
    assert (found.verdict, found.error_code) == (Verdict.REVIEW, ErrorCode.CORRUPT)


def test_file_that_is_no_media_is_skipped_without_a_verdict(moderator: Moderator, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("words")
    (found,) = moderator.moderate([path])
    assert (found.status, found.verdict, found.error_code) == (Status.SKIPPED, None, ErrorCode.NOT_MEDIA)


def test_animation_handed_over_by_pillow_is_judged_with_all_its_frames(moderator: Moderator) -> None:
    data = encode(BLUE, "GIF", save_all=True, append_images=[RED, plain((20, 90, 20))], duration=100)
    opened = Image.open(io.BytesIO(data))
    (found,) = moderator.moderate([opened])
    assert (found.verdict, found.kind, found.frames_total) == (Verdict.BLOCK, Kind.ANIMATION, 3)
    assert opened.tell() == 0


def test_no_inputs_give_no_rows_and_an_empty_table(moderator: Moderator) -> None:
    assert moderator.moderate([]) == []
    assert moderator.to_table([]).num_rows == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "input 1: expected a path"),
        (np.zeros((4, 4, 3), np.float32), r"input 1: an array must be uint8 .* this is float32 \[4,4,3\]"),
        (np.zeros((4, 4, 2), np.uint8), r"this is uint8 \[4,4,2\]"),
    ],
)
def test_input_of_another_type_is_refused_by_its_position(moderator: Moderator, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        moderator.moderate([RED, value])


@pytest.mark.parametrize("value", ["a.jpg", Path("a.jpg"), b"bytes", RED, np.zeros((4, 4, 3), np.uint8)])
def test_single_input_without_a_list_is_answered_with_how_to_pass_it(moderator: Moderator, value: Any) -> None:
    with pytest.raises(UsageError, match=r"for a single one|for one"):
        moderator.moderate(value)


def test_batch_of_pictures_in_one_array_gives_a_row_each(moderator: Moderator) -> None:
    found = moderator.moderate(np.stack([np.array(RED), np.array(BLUE)]))
    assert [f.verdict for f in found] == ["block", "pass"]


def test_table_has_the_columns_of_a_run_and_the_rows_that_were_given(moderator: Moderator) -> None:
    found = moderator.moderate([RED, b"", BLUE])
    table = moderator.to_table(found)
    assert table.column("verdict").to_pylist() == ["block", "review", "pass"]
    assert table.column("error_code").to_pylist() == [None, "empty", None]
    assert table.column("score_red").to_pylist()[0] == pytest.approx(found[0].score)
    assert table.column("evidence").to_pylist()[0][0]["label"] == "red"
    assert isinstance(moderator.facts, RunFacts)
    assert table.schema.metadata[b"moderation.policy_hash"].decode() == moderator.facts.policy_hash
    assert len(encode_table(table, moderator.config.output)) > 0


def test_same_inputs_give_the_same_rows(moderator: Moderator) -> None:
    first, second = moderator.moderate([RED, BLUE, b"x"]), moderator.moderate([RED, BLUE, b"x"])
    assert moderator.to_table(first).equals(moderator.to_table(second), check_metadata=True)


def test_rows_cannot_be_changed(moderator: Moderator) -> None:
    (found,) = moderator.moderate([RED])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.verdict = Verdict.PASS  # type: ignore[misc] # that it fails is the point


def test_another_policy_takes_the_place_of_the_configured_one(moderator: Moderator, tmp_path: Path) -> None:
    (tmp_path / "lenient.yaml").write_text(POLICY.replace("block: 0.9, review: 0.7", "review: 0.999"))
    with Moderator.from_config(tmp_path / "config.yaml", tmp_path / "lenient.yaml", ["stack.batch_size=1"]) as other:
        assert other.config.stack.batch_size == 1
        assert other.moderate([RED])[0].verdict is not Verdict.BLOCK
        assert other.facts.policy_hash != moderator.facts.policy_hash


def test_policy_that_is_not_there_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file 'nowhere\.yaml'"):
        Moderator.from_config(None, "nowhere.yaml")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_picture_of_any_mode_is_decoded_to_what_pillow_shows(mode: str) -> None:
    steps = {"PA": ["P", "PA"], "RGBa": ["RGBA", "RGBa"], "I": ["L", "I"], "F": ["L", "F"], "I;16": ["L", "I", "I;16"]}
    picture = draw(80, 60)
    for step in steps.get(mode, [mode]):
        picture = picture.convert(step)
    item = Item(item_id="a", uri="a", objects=(MediaObject(uri="a", name=""),))
    media = decode_item(item, [encode_picture(picture)], MediaConfig())
    assert (media.error, media.width, media.height) == (None, 80, 60)
    wanted = (
        np.array((picture.convert("L") if mode in ("I", "F") else picture).convert("RGB")) if mode != "I;16" else None
    )
    if wanted is not None:
        assert np.abs(media.frames[0].pixels.astype(int) - wanted).max() <= 2


def test_orientation_that_a_camera_wrote_is_kept() -> None:
    picture = draw(80, 60)
    exif = picture.getexif()
    exif[0x0112] = 6
    data = encode(picture, "JPEG", exif=exif)
    item = Item(item_id="a", uri="a", objects=(MediaObject(uri="a", name=""),))
    by_file = decode_item(item, [data], MediaConfig())
    by_pillow = decode_item(item, [encode_picture(Image.open(io.BytesIO(data)))], MediaConfig())
    assert (by_pillow.width, by_pillow.height) == (60, 80)
    assert np.array_equal(by_pillow.frames[0].pixels, by_file.frames[0].pixels)


PHOTOGRAPHS = Path(__file__).parents[2] / ".." / "shared" / "data" / "images"


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="../shared/data is not here")
def test_real_stack_passes_ordinary_photographs_by_path_and_by_pillow() -> None:
    paths = sorted(PHOTOGRAPHS.glob("*.JPEG"))[:4]
    with Moderator.from_config("configs/default.yaml", overrides=["stack.device=cpu"]) as real:
        found: list[VerdictRow] = real.moderate([*paths, *map(Image.open, paths)])
    assert [f.verdict for f in found] == [Verdict.PASS] * 8
    for by_path, by_pillow in zip(found[:4], found[4:], strict=True):
        # Both decode to the canvas; Pillow's own decoder may differ from the fast one by a level or two.
        assert by_pillow.score == pytest.approx(by_path.score, abs=0.02)
        assert set(by_path.scores) == set(real.checks)
