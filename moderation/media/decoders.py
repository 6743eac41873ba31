"""Which kinds of file this machine's decoder builds can decode."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, features

from moderation.config.model import MediaConfig

# Imported where they are needed; FFmpeg is in two of them.
_LATE = ("simplejpeg", "pillow_heif", "av")
_TORCHCODEC = "torchcodec.decoders"  # with torch: 2 s and 300 MB, so only where it is chosen


def decoders() -> Mapping[str, bool]:
    """`{"jpeg": True, ..., "heic": False, "video": True}`; asks the builds, decodes nothing.

    fast_jpeg: simplejpeg, which decodes the same pixels as Pillow at twice the speed. video: PyAV, which reads all
    videos; others may read those in which they seek right.
    """
    built = {"jpeg": "jpg", "png": "zlib", "webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000", "tiff": "libtiff"}
    installed = {"heic": "pillow_heif", "fast_jpeg": "simplejpeg", "video": "av"}
    return {
        **{kind: bool(features.check(name)) for kind, name in built.items()},
        **{kind: find_spec(module) is not None for kind, module in installed.items()},
    }


def load_decoders(media: MediaConfig) -> None:
    """Import every decoder that is installed: a process whose memory is bounded afterwards has their code by then."""
    Image.init()
    # One of the two: see `video_torchcodec`.
    for name in (*_LATE, _TORCHCODEC if media.video_decoder.startswith("torchcodec") else "decord"):
        with contextlib.suppress(ImportError, OSError):  # absent, or without its libraries: `doctor` says so
            import_module(name)
