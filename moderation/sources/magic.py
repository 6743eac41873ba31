"""Whether the first bytes of a file are those of a picture or a video: for files whose names do not say it.

Only signs of what is decoded here; what a file really is, is decided by its whole content later.
"""

from __future__ import annotations

import re

# How many bytes are looked at: two packets of a transport stream.
HEAD_BYTES = 192
_SIGN = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....(?:WEBP|AVI )|....ftyp|BM.{4}\x00{4}|II[*+]\x00|MM\x00[*+]"
    rb"|\x00\x00\x00\x0c(?:jP  |JXL )|\xff\x0a|\xff\x4f\xff\x51|\x1a\x45\xdf\xa3|FLV\x01|OggS|\x30\x26\xb2\x75\x8e\x66"
    rb"|\x00\x00\x01[\xba\xb3]|G.{187}G",
    re.DOTALL,
)
# Sound, in containers that may hold films, too.
_SOUND = frozenset({"m4a", "m4b", "mka", "ogg", "oga", "opus", "wma"})


def looks_like_media(head: bytes, suffix: str) -> bool:
    """Whether these first bytes begin a picture or a video. suffix: of the name, in lower case, without its dot."""
    return suffix not in _SOUND and _SIGN.match(head) is not None
