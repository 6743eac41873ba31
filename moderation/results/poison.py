"""Items that kill or stall a worker, kept in OUT so that a resumed call does not have to find them again.

    OUT/poison.json   {item id: {"code": ..., "detail": ...}}; a slice has it in its own folder

Each has a row once its shard is committed, so losing this file costs only time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from moderation import storage
from moderation.config.canonical import parse_json
from moderation.errors import ItemError
from moderation.results.layout import poison_uri
from moderation.types import ErrorCode

_LOG = logging.getLogger(__name__)


def read_poison(home: str) -> dict[str, ItemError]:
    """Item id -> why it is not judged; empty where there is no file, or it cannot be read."""
    uri = poison_uri(home)
    data = storage.read_optional(uri)
    if data is None:
        return {}
    try:
        return {str(i): ItemError(ErrorCode(e["code"]), str(e["detail"])) for i, e in parse_json(data).items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        _LOG.warning("%s: not readable, so what it held is searched again", uri)
        return {}


def write_poison(home: str, poison: Mapping[str, ItemError]) -> None:
    """Replace the kept items by these. Raises FatalError, StorageError."""
    record = {item_id: {"code": str(error.code), "detail": error.detail} for item_id, error in poison.items()}
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(poison_uri(home), text.encode("utf-8", "surrogatepass"))
