"""Bytes -> frames. The only importer of Pillow, decord, torchcodec, PyAV and torchvision.io."""

from moderation.file_types import MediaType, names_media, sniff
from moderation.media.decode import decode_item
from moderation.media.encode import encode_jpeg
from moderation.media.image import decode_image
from moderation.media.limits import DECODE_VERSION, abandoned_decodes, decode_with_deadline

__all__ = [
    "DECODE_VERSION",
    "MediaType",
    "abandoned_decodes",
    "decode_image",
    "decode_item",
    "decode_with_deadline",
    "encode_jpeg",
    "names_media",
    "sniff",
]
