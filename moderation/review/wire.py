"""What the page's script sends, checked at the boundary: bounded, no unknown keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from moderation.errors import UsageError
from moderation.labels.decisions import MAX_CHARS, MAX_LABELS, MAX_NAME_CHARS, MAX_SHOWN, Answer

MAX_ITEMS: Final = 100  # of one request for items: two grids of 36, and what is in sight
MAX_HELD: Final = (
    4000  # that a page names as there: such a request for the grid, and one for the other view, with 35 copies each
)
MAX_DECISIONS: Final = 200
MAX_AGE_S: Final = 30 * 86_400.0  # a decision that a browser kept for longer has this age

_Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
_Text = Annotated[str, Field(max_length=MAX_CHARS)]


class WireMessage(BaseModel):
    """A part of a message: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NextItems(WireMessage):
    """A wish for items. have: those that the page holds already. grid: for a grid."""

    n: int = Field(ge=0, le=MAX_ITEMS)
    grid: bool = False
    filters: Mapping[_Name, _Name] = Field(default={}, max_length=32)
    have: tuple[_Text, ...] = Field(default=(), max_length=MAX_HELD)


class ItemsAgain(WireMessage):
    """Items that an undo brings back."""

    items: tuple[_Text, ...] = Field(max_length=MAX_ITEMS)


class SentDecision(WireMessage):
    """A decision as the browser kept it. age_s: how long ago it was taken; at_ms: by the browser's clock, not used."""

    decision_id: str = Field(pattern=r"^[0-9a-zA-Z_-]{1,128}$")
    item_id: _Text
    decision: Answer
    claim: _Text | None = None
    labels: tuple[_Name, ...] = Field(default=(), max_length=MAX_LABELS)
    reason: _Name = ""
    comment: _Text = ""
    exposure_s: float = Field(ge=0, le=86_400, allow_inf_nan=False)
    age_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    at_ms: float = 0.0
    shown: Mapping[_Name, _Text] = Field(default={}, max_length=MAX_SHOWN)
    undoes: str | None = Field(default=None, pattern=r"^[0-9a-zA-Z_-]{1,128}$")


class SentDecisions(WireMessage):
    """A batch; each is checked by itself, so that one that is wrong does not hold up the others."""

    decisions: tuple[Mapping[str, JsonValue], ...] = Field(max_length=MAX_DECISIONS)


_Message = TypeVar("_Message", bound=WireMessage)


def parse(message: type[_Message], data: bytes | Mapping[str, JsonValue]) -> _Message:
    """A message from its JSON, or of what that holds. Raises UsageError naming the field that is wrong."""
    try:
        return message.model_validate_json(data if isinstance(data, bytes) else json.dumps(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where or 'message'}: {first['msg']}") from error
