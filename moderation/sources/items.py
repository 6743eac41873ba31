"""What every source needs to make an item: ids, text that tables can hold, error rows."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping

from moderation.storage import mask_signatures
from moderation.types import ErrorCode, Item

# An item with more pictures is an error row: it can't be split, so it would take its worker down.
MAX_OBJECTS = 100_000
_MAX_SHOWN = 1000  # characters of a stranger's text that an error row repeats
# A longer attribute is cut and marked as cut; where an item's are longer in all, the last long ones are left out, then
# the last short ones, and `attributes_cut` counts them: a caption must not push out what thresholds go by.
# A cell of a table costs its writer nothing: 7 kB of Parquet may hold 6 GB.
MAX_ATTRIBUTE = 8 * 1024
_SHORT = 256
_MAX_MARK = 64  # room for the mark, so that a cut text is not cut again
MAX_ATTRIBUTES = 32 * 1024
# Ids are keys of tables and parts of names; a longer one is replaced by its beginning and a hash.
MAX_ID = 1024


def make_id(*parts: object) -> str:
    """An item id by content: 32 hex digits of the sha256 over the parts (a canonical URI, a member's name, a row)."""
    joined = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:32]


def clean_text(text: str) -> str:
    """A stranger's text fit for a table or a key: what UTF-8 can't hold (lone surrogates) is written `\\udcff`.

    For file names, URIs and attributes that go into items. Does not make text safe to show: pages escape it.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(text: str) -> str:
    """A stranger's text, valid, bounded and without signatures, for an error row."""
    return clean_text(mask_signatures(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."))


def cut_text(text: str, length: int | None = None) -> str:
    """The beginning of a long text, marked as cut. length: of the whole, where `text` is already its beginning."""
    length = len(text) if length is None else length
    return text if length <= MAX_ATTRIBUTE + _MAX_MARK else f"{text[:MAX_ATTRIBUTE]}... [cut: {length:,} in all]"


def bound_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes that a table can carry: bounded in size, one by one and in all, and without signatures."""
    if sum(map(len, attributes.values())) + sum(map(len, attributes)) <= MAX_ATTRIBUTE:
        # Nearly always; then only signatures need masking.
        return {name: mask_signatures(value) for name, value in attributes.items()}
    kept: dict[str, str] = {}
    left = MAX_ATTRIBUTES
    for name in sorted(attributes, key=lambda n: len(attributes[n]) > _SHORT):
        value = mask_signatures(cut_text(attributes[name]))
        left -= len(name) + len(value)
        if left < 0:
            break
        kept[name] = value
    bounded = {name: kept[name] for name in attributes if name in kept}
    if len(kept) < len(attributes):
        bounded["attributes_cut"] = f"{len(attributes) - len(kept)} left out: over {MAX_ATTRIBUTES} characters"
    return bounded


def bound_id(text: str) -> str:
    """An id as given, or its beginning and a hash where it is longer than any key should be."""
    return text if len(text) <= MAX_ID else f"{text[:100]}~{make_id(text)}"


def attribute_text(value: object) -> str | None:
    """A JSON value as an attribute: text as it is, anything else as compact JSON; None for null."""
    if value is None:
        return None
    if isinstance(value, str):
        return clean_text(value)
    try:
        return clean_text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
    except RecursionError:
        return "[nested too deeply]"


def flatten(value: Mapping[str, object]) -> dict[str, str]:
    """Attributes of a JSON object, flattened one level: `{"a": {"b": 1}}` gives `{"a.b": "1"}`; nulls are left out."""
    flat: dict[str, str] = {}
    for name, child in value.items():
        inner = {f"{name}.{k}": v for k, v in child.items()} if isinstance(child, dict) else {name: child}
        for key, leaf in inner.items():
            text = attribute_text(leaf)
            if text is not None:
                flat[clean_text(key)] = text
    return flat


def error_item(
    item_id: str, uri: str, code: ErrorCode, detail: str, attributes: Mapping[str, str] | None = None
) -> Item:
    """An item that is not read and becomes a row with this code."""
    return Item(
        item_id=item_id,
        uri=shorten(uri),
        objects=(),
        attributes=bound_attributes(attributes or {}),
        error=code,
        error_detail=shorten(detail),
    )


def base_name(uri: str) -> str:
    """The last part of a URI, which hints at the type, without the query of a web address."""
    if uri[:8].lower().startswith(("http://", "https://")):
        uri = uri.partition("?")[0]
    return clean_text(uri.rstrip("/").rsplit("/", 1)[-1])


def one_sentence(error: BaseException) -> str:
    """An exception as one line."""
    return " ".join(str(error).split()) or type(error).__name__


class UniqueIds:
    """Keeps the ids of one source unique in bounded memory: about 16 bytes per id, where a set of strings takes 150.

    An open-addressing table of 64-bit hashes. Two ids that share a hash (1e-6 likely among 10 million) only cost the
    second one a suffix.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._used = 0

    def claim(self, item_id: str, *salts: object) -> str:
        """The id itself the first time; after that `<id>~<hash of salts>`, of as few salts as keep it unique."""
        claimed, count = item_id, 0
        while not self._add(claimed):
            count += 1
            claimed = f"{item_id}~{make_id(*salts[:count], *range(len(salts), count))[:12]}"
        return claimed

    def _add(self, item_id: str) -> bool:
        digest = hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if not _insert(self._table, int.from_bytes(digest, "little") or 1):
            return False
        self._used += 1
        if self._used * 4 > len(self._table) * 3:
            larger = array("Q", bytes(8 * 2 * len(self._table)))
            for stored in self._table:
                if stored:
                    _insert(larger, stored)
            self._table = larger
        return True


def _insert(table: array[int], value: int) -> bool:
    mask = len(table) - 1
    slot = value & mask
    while table[slot]:
        if table[slot] == value:
            return False
        slot = (slot + 1) & mask
    table[slot] = value
    return True
