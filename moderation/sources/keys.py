"""Keys of a tar: members that share the path up to the first dot of the name are one item."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from moderation.file_types import hides_media
from moderation.sources.items import MAX_OBJECTS, bound_attributes, error_item, flatten, make_id
from moderation.sources.tar import TarMember, suffix_of
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind, MediaObject

# Which member of a key is the picture. What a file really is, is decided by content later.
PICTURES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "webp", "avif", "bmp", "dib", "tif", "tiff", "jp2", "j2k"}
    | {"jpx", "jpf", "jpm", "heic", "heif", "hif", "jxl", "ppm", "pgm", "pbm", "pnm"}
)
VIDEOS = frozenset(
    {"mp4", "m4v", "mov", "qt", "mkv", "webm", "avi", "mpg", "mpeg", "mpe", "m2v", "ts", "m2ts", "mts", "vob"}
    | {"wmv", "asf", "flv", "f4v", "ogv", "ogm", "3gp", "3g2"}
)
NAMED = PICTURES | VIDEOS
# Sidecars whose content becomes attributes; and all suffixes that are never the item itself.
READ_SIDECARS = frozenset({"json", "txt", "cls"})
SIDECARS = READ_SIDECARS | frozenset(
    {"md", "csv", "tsv", "npy", "npz", "pt", "pth", "pkl", "yaml", "yml", "xml", "srt", "vtt", "id"}
)

APPLE_DOUBLE = b"\x00\x05\x16\x07"

Parts = list[tuple[str, TarMember]]  # the last suffix of each member of a key, and the member


def _split_key(name: str) -> tuple[str, str]:
    """The key and the last suffix of a member: `a/b.seg.png` is (`a/b`, `png`); hidden files are keys of their own."""
    folder, slash, base = name.rpartition("/")
    stem, dot, _ = base.partition(".")
    # A member with a suffix here has the same one when its tar is read: else its content would not be looked at.
    return (f"{folder}{slash}{stem}" if dot and stem else name), suffix_of(name)


def key_of(name: str) -> str:
    """The key that a member of this name belongs to."""
    return _split_key(name)[0]


def by_key(members: list[TarMember]) -> dict[str, Parts]:
    """Keys in the order of their first members."""
    keys: dict[str, Parts] = {}
    for member in members:
        key, suffix = _split_key(member.name)
        keys.setdefault(key, []).append((suffix, member))
    return keys


def key_items(info: ObjectInfo, key: str, parts: Parts) -> Iterator[Item]:
    """The item of a key; one per member where a video is among several, because an album holds pictures only."""
    media = _select_media(parts)
    attributes = attributes_of(parts)
    key_id = make_id(info.uri, "key", key)
    if not media:
        where = f"{info.uri}#{parts[0][1].name}"
        yield error_item(key_id, where, ErrorCode.NOT_MEDIA, _no_media(parts), attributes)
    elif len(media) == 1:
        yield media_item(info, key_id, media, None, attributes)
    elif any(suffix in VIDEOS for suffix, _ in parts):
        for nth, member in enumerate(media):
            yield media_item(info, make_id(info.uri, "member", member.name, nth), [member], None, attributes)
    else:
        yield media_item(info, key_id, media, Kind.ALBUM, attributes)


def hidden_items(info: ObjectInfo, members: Iterable[TarMember], items: Iterable[Item]) -> Iterator[Item]:
    """An item for each member that begins like a picture or a video, but by its name is none, and is in no item.

    A viewer goes by content: `a.bin` beside `a.png` may be the one that is shown. items: of the same tar.
    """
    used = {source.offset for item in items for source in item.objects}
    for member in members:
        hidden = member.offset not in used and hides_media(member.content or member.head, suffix_of(member.name))
        if hidden and not is_apple_double(member):
            yield media_item(info, make_id(info.uri, "hidden", member.name, member.offset), [member], None, {})


def _select_media(parts: Parts) -> list[TarMember]:
    """The members that are named as pictures or videos; where there are none, the first that is no sidecar.

    Where all are named as sidecars, the first that is not text: it may be a picture, which its content decides later.
    """
    named = [member for suffix, member in parts if suffix in PICTURES | VIDEOS]
    if named or _is_of_macos(parts):
        return named
    others = [member for suffix, member in parts if suffix not in SIDECARS]
    return (others or [member for _, member in parts if not _is_text(member)])[:1]


def _is_of_macos(parts: Parts) -> bool:
    return any(is_apple_double(member) for _, member in parts)


def _no_media(parts: Parts) -> str:
    if _is_of_macos(parts):
        return "what macOS keeps of a file beside it (AppleDouble)"
    return "a key without a picture or a video"


def is_apple_double(member: TarMember) -> bool:
    """Whether a member is an AppleDouble file, macOS' data about another: `._photo.jpg`, by name and content."""
    named = member.name.rpartition("/")[2].startswith("._")
    return named and member.content is not None and member.content.startswith(APPLE_DOUBLE)


def _is_text(member: TarMember) -> bool:
    if member.content is None or b"\0" in member.content:
        return False
    try:
        member.content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def media_item(
    info: ObjectInfo, item_id: str, media: list[TarMember], kind: Kind | None, attributes: dict[str, str]
) -> Item:
    """An item of these members; an error row when one can't be read, because unseen content is never passed."""
    broken = next((m for m in media if m.error is not None), None)
    where = f"{info.uri}#{media[0].name}"
    if broken is not None and broken.error is not None:
        return error_item(item_id, where, broken.error, f"{broken.name}: {broken.detail}", attributes)
    if len(media) > MAX_OBJECTS:
        return error_item(item_id, where, ErrorCode.TOO_LARGE, f"more than {MAX_OBJECTS} pictures", attributes)
    objects = tuple(
        MediaObject(uri=info.uri, name=m.name, size_bytes=m.size_bytes, etag=info.etag, offset=m.offset) for m in media
    )
    return Item(item_id=item_id, uri=where, objects=objects, kind=kind, attributes=bound_attributes(attributes))


def attributes_of(parts: Parts) -> dict[str, str]:
    """Attributes from the sidecars of a key. A sidecar that can't be read is named in `json_error`; the item stays."""
    attributes: dict[str, str] = {}
    for suffix, member in parts:
        if suffix in READ_SIDECARS:
            attributes.update(_read_sidecar(suffix, member))
    return attributes


def _read_sidecar(suffix: str, member: TarMember) -> dict[str, str]:
    if member.content is None:
        return {f"{suffix}_error": "not read: too large, or cut off"}
    text = member.content.decode("utf-8", "backslashreplace")
    if suffix != "json":
        return {suffix: text.strip()}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"json_error": "not valid JSON"}
    return flatten(value if isinstance(value, dict) else {"json": value})
