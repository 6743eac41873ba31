"""The files of `benchmarks.decode`, made where it runs, and the paths by which each kind of them is decoded."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.device.pictures import MEGAPIXELS, read_variants, write_variants
from moderation.config.model import Config, MediaConfig
from moderation.media import decode_item
from moderation.media.limits import canvas_size
from moderation.types import U8, Item, MediaObject

Decode = Callable[[bytes], int]
# Of each size, a quarter progressive.
COUNTS = {"small": 16, "medium": 8, "large": 8}
CODECS: Mapping[str, tuple[str, ...]] = {
    "h264": ("-c:v", "libx264", "-preset", "fast", "-crf", "24"),
    "hevc": ("-c:v", "libx265", "-preset", "fast", "-crf", "26", "-x265-params", "log-level=none:open-gop=0"),
    "vp9": ("-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "34", "-deadline", "realtime", "-cpu-used", "6"),
    "av1": ("-c:v", "libsvtav1", "-preset", "10", "-crf", "36"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "5"),
}
FPS, SECONDS, SIZE, KEY_EVERY = 25, 12, (1280, 720), 50
ANIMATION_FRAMES = 24


def media_config() -> MediaConfig:
    """As the default stack asks for frames."""
    return Config().media


def still_files() -> dict[str, list[bytes]]:
    """JPEGs by `12 megapixels baseline`: photographs and drawings with a camera's noise."""
    with tempfile.TemporaryDirectory() as scratch:
        write_variants(Path(scratch), COUNTS, 1)
        return {
            f"{MEGAPIXELS[size]:g} megapixels {kind}": read_variants(Path(scratch), size, kind)
            for size in MEGAPIXELS
            for kind in ("baseline", "progressive")
        }


def still_paths() -> dict[str, Decode]:
    """The bare Pillow pipeline first."""
    return {
        "pillow": _pillow_scaled,
        "pillow, full size": _pillow_full,
        "pillow, DCT-scaled": _pillow_draft,
        **_fast_jpeg(),
        "moderation": _moderation,
        **_codec_jpeg(),
    }


def _canvas(image: Image.Image) -> tuple[int, int]:
    return canvas_size(*image.size, media_config().canvas_px)


def _pillow_scaled(data: bytes) -> int:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return _made(np.asarray(image.resize(_canvas(image), Image.Resampling.BILINEAR)))


def _pillow_full(data: bytes) -> int:
    return _made(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def _pillow_draft(data: bytes) -> int:
    image = Image.open(io.BytesIO(data))
    target = _canvas(image)
    image.draft("RGB", target)
    return _made(np.asarray(image.convert("RGB").resize(target, Image.Resampling.BILINEAR)))


def _fast_jpeg() -> dict[str, Decode]:
    try:
        import simplejpeg
    except ImportError:
        return {}
    edge = media_config().canvas_px

    def scaled(data: bytes) -> int:
        return _made(simplejpeg.decode_jpeg(data, "RGB", min_height=edge, min_width=edge))

    return {
        "simplejpeg, full size": lambda data: _made(simplejpeg.decode_jpeg(data, "RGB")),
        "simplejpeg, DCT-scaled": scaled,
    }


def _codec_jpeg() -> dict[str, Decode]:
    try:
        import torch
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError):
        return {}
    torch.set_num_threads(1)
    return {"torchcodec, full size": lambda data: len(decode_jpeg(data)[:1])}


def _made(pixels: U8) -> int:
    return 1 if pixels.size else 0


def _moderation(data: bytes) -> int:
    """All that a worker does to a file, checks and deadline included; frames of the item."""
    item = Item(item_id="1", uri="f", objects=(MediaObject(uri="f", name=""),))
    media = decode_item(item, [data], media_config())
    assert media.frames, media
    return len(media.frames)


def _moderation_all(data: bytes) -> int:
    """The same of an animation; frames of the file, because all are looked at to find those that differ."""
    item = Item(item_id="1", uri="f", objects=(MediaObject(uri="f", name=""),))
    return decode_item(item, [data], media_config()).frames_total or 0


def draw_frames(count: int, size: tuple[int, int]) -> Iterator[U8]:
    """A slow pan over a photograph (a drawing, where there is none), with noise and a cut halfway. uint8 [H,W,3]."""
    from benchmarks.device.pictures import base_pictures

    bases = base_pictures()
    noise = np.random.default_rng(0).normal(0, 3, (size[1], size[0], 3)).astype(np.int16)
    for number in range(count):
        base = bases[(2 * number // count) % len(bases)]
        wide = base.resize((size[0] + 2 * count, size[1]), Image.Resampling.BICUBIC)
        frame = np.asarray(wide.crop((2 * number, 0, 2 * number + size[0], size[1])), np.int16)
        yield (frame + np.roll(noise, number * 7, axis=0)).clip(0, 255).astype(np.uint8)


def animated_files() -> dict[str, bytes]:
    """Animations of 24 frames of 480 x 360."""
    frames = [Image.fromarray(frame) for frame in draw_frames(ANIMATION_FRAMES, (480, 360))]
    files = {}
    for title, format_, options in (("gif", "GIF", {}), ("webp", "WEBP", {"quality": 80}), ("apng", "PNG", {})):
        sink = io.BytesIO()
        frames[0].save(sink, format_, save_all=True, append_images=frames[1:], duration=100, loop=0, **options)
        files[title] = sink.getvalue()
    return files


def animated_paths() -> dict[str, Decode]:
    """The bare Pillow loop first."""
    return {"pillow": _pillow_frames, "moderation": _moderation_all}


def _pillow_frames(data: bytes) -> int:
    image: Any = Image.open(io.BytesIO(data))
    count: int = image.n_frames
    for number in range(count):
        image.seek(number)
        _made(np.asarray(image.convert("RGB")))
    return count


def video_files(scratch: Path) -> dict[str, bytes]:
    """MP4s of 12 s of 1280 x 720, a keyframe every two seconds, by codec; none without a system's ffmpeg."""
    if shutil.which("ffmpeg") is None:
        return {}
    raw = b"".join(frame.tobytes() for frame in draw_frames(FPS * SECONDS, SIZE))
    files = {}
    for codec, options in CODECS.items():
        target = scratch / f"{codec}.mp4"
        size = "x".join(map(str, SIZE))
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(FPS)]
        command += ["-i", "-", *options, "-g", str(KEY_EVERY), "-pix_fmt", "yuv420p", "-threads", "1", str(target)]
        if subprocess.run(command, input=raw, check=False, capture_output=True).returncode == 0:
            files[codec] = target.read_bytes()
    return files


def video_paths() -> dict[str, Decode]:
    """PyAV's keyframes first; then the other decoders' keyframes, then what `moderation` does to a video."""
    paths: dict[str, Decode] = {"pyav, keyframes": _pyav_keys, "decord, keyframes": _decord_keys}
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401 - whether it loads
    except (ImportError, OSError, RuntimeError):
        pass
    else:
        paths["torchcodec, keyframes"] = _codec_keys
    paths["moderation"] = _moderation
    paths["pyav, every frame"] = _pyav_all
    return paths


def _pyav_keys(data: bytes) -> int:
    return _pyav(data, "NONKEY")


def _pyav_all(data: bytes) -> int:
    return _pyav(data, "DEFAULT")


def _pyav(data: bytes, skip: str) -> int:
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = skip
        stream.codec_context.thread_count = 1
        return sum(_made(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream))


def _decord_keys(data: bytes) -> int:
    import decord

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    keys = reader.get_key_indices()
    return len(reader.get_batch(keys).asnumpy())


def _codec_keys(data: bytes) -> int:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(data, num_ffmpeg_threads=1)
    count = decoder.metadata.num_frames or 0
    return len(decoder.get_frames_at(list(range(0, count, KEY_EVERY))))
