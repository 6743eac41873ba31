"""PyAV's reader: which frame is which, while other readers are at work in the same process."""

from __future__ import annotations

import io
from itertools import islice, zip_longest

import av
import numpy as np
import pytest

from moderation.config.model import MediaConfig
from moderation.file_types import sniff
from moderation.media.demux import read_tracks
from moderation.media.limits import start_deadline
from moderation.media.video_reader import FrameReader, open_reader

FRAMES = 24
LEVELS = (20, 50)  # brightness of the first picture of each film
STEP = 8


def film(codec: str, level: int) -> bytes:
    """A Matroska file of gray pictures, each brighter than the one before; H.264 with B-frames where it can."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size, stream.bit_rate = 12, 4_000_000
        stream.max_b_frames = 0 if codec == "mjpeg" else 2
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "x264-params": "bframes=3:b-adapt=0:scenecut=0"}
        for n in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level + STEP * n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()


def reader_of(data: bytes) -> FrameReader:
    media_type = sniff(data)
    assert media_type is not None
    deadline = start_deadline(30)
    (track,) = read_tracks(data, media_type, deadline).tracks
    config = MediaConfig(video_decoder="pyav")
    return open_reader(data, media_type, track, alone=True, config=config, deadline=deadline)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("ahead", [0, 2, 5])
def test_videos_read_by_turns_keep_their_frames(codec: str, ahead: int) -> None:
    """Where a decoder held packets back, it lost those whose numbers another decoder had let go meanwhile."""
    one, other = (reader_of(film(codec, level)).read(range(FRAMES)) for level in LEVELS)
    seen: list[list[int]] = [[index for index, _ in islice(one, ahead)], []]
    for pair in zip_longest(one, other):
        for indices, level, found in zip(seen, LEVELS, pair, strict=True):
            if found is not None:
                index, pixels = found
                assert pixels is not None and abs(float(pixels.mean()) - (level + STEP * index)) < STEP / 2
                indices.append(index)
    assert seen == [list(range(FRAMES))] * 2
