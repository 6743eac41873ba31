"""Whether the first bytes of a file are those of a picture or a video: for files whose names do not say it.

Only signs of what is decoded here; what a file really is, is decided by its whole content later.
"""

from __future__ import annotations

import re

# How many bytes are looked at: two packets of a transport stream, also of 192 bytes each.
HEAD_BYTES = 200
_SIGN = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....(?:WEBP|AVI )|....(?:ftyp|moov|mdat|wide|free|skip|pnot)"
    rb"|BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00|II[*+]\x00|MM\x00[*+]"
    rb"|\x00\x00\x00\x0c(?:jP  |JXL )|\xff\x0a|\xff\x4f\xff\x51|\x1a\x45\xdf\xa3|FLV\x01|OggS|\x30\x26\xb2\x75\x8e\x66"
    rb"|\x00?\x00\x00\x01(?:[\xba\xb3\xb0\xb5\x06-\x09\x26-\x29\x46-\x49\x66-\x69]|[\x40\x42\x44\x46\x4e]\x01|\x00\x00\x01)"
    rb"|G.{187}G|.{4}G.{191}G",
    re.DOTALL,
)
# Names of sound, and the containers that hold it: these may hold films, too.
_SOUND = frozenset({"m4a", "m4b", "mka", "ogg", "oga", "opus", "wma"})
_SOUND_SIGN = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|OggS|\x30\x26\xb2\x75\x8e\x66", re.DOTALL)


def looks_like_media(head: bytes, suffix: str) -> bool:
    """Whether these first bytes begin a picture or a video. suffix: of the name, in lower case, without its dot."""
    return _SIGN.match(head) is not None and not (suffix in _SOUND and _SOUND_SIGN.match(head))
