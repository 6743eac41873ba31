"""Videos that tests draw and alter: scenes in motion, and copies that were cut, toned, scaled or marked."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

U8 = npt.NDArray[np.uint8]

ALTERATIONS = ("same", "trimmed", "grey", "sepia", "smaller", "logo", "slower")
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
    }[how]()
    return altered, 4 if how == "slower" else 8


def _marked(frames: list[U8]) -> Iterator[U8]:
    for frame in frames:
        marked = frame.copy()
        marked[8:32, 8:48] = (250, 250, 250)
        marked[14:26, 14:42] = (200, 30, 30)
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
