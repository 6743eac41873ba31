"""Videos that tests draw and alter: scenes in motion, and copies that were cut, toned, scaled or marked."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

U8 = npt.NDArray[np.uint8]

ALTERATIONS = (
    "same", "trimmed", "grey", "sepia", "smaller", "logo", "slower",
    "sides", "framed", "sepia bar", "large logo", "large logo bar", "watermark", "blurred sides",
)  # fmt: skip
_LUMA = np.array([0.299, 0.587, 0.114])  # what filters for grey take
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


def draw_film(seed: int, *, seconds: int = 10, fps: int = 8, width: int = 320, height: int = 240) -> list[U8]:
    """Frames of a made-up video: a cut every few seconds, and slow pans over blurred shapes. uint8 [H,W,3] each."""
    chance = np.random.default_rng(seed)
    frames: list[U8] = []
    while len(frames) < seconds * fps:
        shot = int(chance.integers(2, 4)) * fps
        field = chance.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        wide = np.array(Image.fromarray(field).resize((width + shot, height), Image.Resampling.BICUBIC))
        for _ in range(6):
            x, y = int(chance.integers(0, width - 60)), int(chance.integers(0, height - 60))
            wide[y : y + 50, x : x + 60] = chance.integers(0, 256, 3)
        frames += [wide[:, at : at + width].copy() for at in range(shot)]
    return frames[: seconds * fps]


def alter_film(frames: list[U8], how: str) -> tuple[list[U8], int]:
    """An altered copy, and its frames per second. how: one of ALTERATIONS."""
    altered = {
        "same": lambda: frames,
        "trimmed": lambda: frames[19:-13],
        "grey": lambda: [np.repeat((f @ _LUMA)[..., None], 3, axis=2).astype(np.uint8) for f in frames],
        "sepia": lambda: [(f @ _SEPIA.T).clip(0, 255).astype(np.uint8) for f in frames],
        "smaller": lambda: [np.array(Image.fromarray(f).resize((192, 144))) for f in frames],
        "logo": lambda: list(_marked(frames)),
        "slower": lambda: frames[::2],
        "sides": lambda: [_padded(f, 0, 60, 16) for f in frames],
        "framed": lambda: [_padded(f, 40, 50, (40, 90, 200)) for f in frames[::2]],
        "sepia bar": lambda: [_padded((f @ _SEPIA.T).clip(0, 255).astype(np.uint8), 45, 0, 0) for f in frames],
        "large logo": lambda: list(_marked(frames, side=0.54)),
        "large logo bar": lambda: [_padded(f, 0, 60, 16) for f in _marked(frames[::2], side=0.5)],
        "watermark": lambda: [_lettered(f) for f in frames],
        "blurred sides": lambda: [_on_itself(f) for f in frames],
    }[how]()
    return altered, 4 if how in ("slower", "framed", "large logo bar") else 8


def _padded(frame: U8, upright: int, across: int, colour: int | tuple[int, int, int]) -> U8:
    height, width, _ = frame.shape
    wide = np.full((height + 2 * upright, width + 2 * across, 3), colour, np.uint8)
    wide[upright : upright + height, across : across + width] = frame
    return wide


def _lettered(frame: U8) -> U8:
    """Half-transparent letters across the middle."""
    letters = np.zeros(frame.shape[:2], np.uint8)
    for at in range(20, frame.shape[1] - 30, 36):
        letters[100:140, at : at + 8] = letters[100:108, at : at + 26] = letters[132:140, at : at + 26] = 1
    return np.where(letters[..., None], (frame * 0.5 + 127).astype(np.uint8), frame)


def _on_itself(frame: U8) -> U8:
    """Over a blurred copy that is wider."""
    height, width, _ = frame.shape
    back = Image.fromarray(frame).resize((width * 3 // 2, height * 3 // 2))
    back = back.crop((0, height // 4, width * 3 // 2, height // 4 + height)).filter(ImageFilter.GaussianBlur(18))
    wide = np.array(back)
    wide[:, width // 4 : width // 4 + width] = frame
    return wide


def _marked(frames: list[U8], *, side: float = 0) -> Iterator[U8]:
    """With a small logo, or with one of so much of either side, in a corner."""
    for frame in frames:
        marked = frame.copy()
        bottom, right = (int(side * n) or least for n, least in zip(frame.shape, (32, 48), strict=False))
        marked[8 if not side else 0 : bottom, 8 if not side else 0 : right] = (250, 250, 250)
        marked[14 : bottom - 6, 14 : right - 6] = (200, 30, 30)
        yield marked


def encode_film(frames: list[U8], fps: int, *, crf: int = 26) -> bytes:
    """H.264 in MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()
