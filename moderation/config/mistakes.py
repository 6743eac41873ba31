"""What is wrong with plain data, in words: each mistake with its key, what should stand there, and the nearest key."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from moderation.config.hints import closest, did_you_mean

KeyPath = tuple[str, ...]

# What pydantic calls a value, in front of what is asked of it.
_SUBJECT: Final = re.compile(r"^(Input|String|Dictionary|Tuple|List|Value) should\b")
_OF_A_CHOICE: Final = ("constrained-", "lax-or-", "json-or-")
_SECTION: Final = "a section, with keys of its own"
# Types of mistakes, as pydantic calls them -> what should stand there.
_WANTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "dict_type": _SECTION,
    "mapping_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "missing": "there: it is missing",
}


def describe_mistakes(model: type[BaseModel], errors: Sequence[Mapping[str, Any]]) -> list[tuple[KeyPath, str]]:
    """(key, sentence) of each mistake that `ValidationError.errors()` lists; what one key may be is one sentence."""
    grouped: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for error in errors:
        grouped.setdefault(_key_of(model, error["loc"]), []).append(error)
    return [(key, _describe(model, key, of_key)) for key, of_key in grouped.items()]


def _describe(model: type[BaseModel], key: KeyPath, errors: Sequence[Mapping[str, Any]]) -> str:
    error = errors[0]
    name = ".".join(key)
    if error["type"] == "extra_forbidden":
        return f"unknown key {name!r}{_nearest_key(key, model)}"
    given = error.get("input")
    # What a validator of ours says shows what was given, where that helps.
    untold = isinstance(given, Mapping | list) or error["type"] in ("missing", "value_error")
    shown = "" if untold else f" (given: {given!r})"
    wanted = ", or ".join(dict.fromkeys(map(_wanted, errors)))
    return f"{name}: {wanted}{shown}" if name else f"{wanted}{shown}"


def _wanted(error: Mapping[str, Any]) -> str:
    words = _WANTED.get(error["type"])
    if words is not None:
        return f"should be {words}"
    message = _SUBJECT.sub("should", error["msg"].removeprefix("Value error, "))
    return message.replace(" after validation", "")


def _key_of(model: type[BaseModel], location: Sequence[int | str]) -> KeyPath:
    """A location without the steps by which pydantic names what a value might have been (`constrained-int`)."""
    key: list[str] = []
    annotation: object = model
    for step in location:
        choices = _choices(annotation)
        if len(choices) > 1:
            annotation = None  # which of them it was is not followed any further
            if _names_choice(str(step), choices):
                continue
        key.append(str(step))
        annotation = _inner(choices[0] if len(choices) == 1 else None, str(step))
    return tuple(key)


def _names_choice(step: str, choices: Sequence[object]) -> bool:
    """Whether a step is pydantic's name of one of these, such as `constrained-int`; a validator may leave it out."""
    named = {choice.__name__ for choice in choices if isinstance(choice, type)}
    return step in named or "[" in step or step.startswith(_OF_A_CHOICE)


def _choices(annotation: object) -> list[object]:
    """What a value may be, besides None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for choice in get_args(annotation) if choice is not type(None)]
    return [annotation]


def _inner(annotation: object, step: str) -> object:
    """What stands below one step of a location; None where that is not known."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # A key may be spelt otherwise than its field: `pass`.
        fields = annotation.model_fields.items()
        return next((info.annotation for name, info in fields if step in (name, info.alias)), None)
    inner = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return inner[-1] if inner and get_origin(annotation) is not Literal else None


def _nearest_key(key: KeyPath, model: type[BaseModel]) -> str:
    wrong, siblings = key[-1], sorted(_keys_at(model, key[:-1]))
    # A key that is right in another section is named with that section.
    if closest(wrong, siblings, cutoff=0.5) is None:
        elsewhere = next((known for known in _all_keys(model) if known.rpartition(".")[2] == wrong), None)
        if elsewhere is not None:
            return f"; did you mean {elsewhere!r}?"
    return did_you_mean(wrong, siblings, otherwise="known here", cutoff=0.5)


def _keys_at(model: type[BaseModel], steps: Sequence[str]) -> list[str]:
    for step in steps:
        info = next((i for name, i in model.model_fields.items() if step in (name, i.alias)), None)
        if step.isdigit() or info is None:
            continue
        inner = _model_in(info.annotation)
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in get_args(annotation))
    return next((m for m in inner if m is not None), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for field_name, info in model.model_fields.items():
        name = info.alias or field_name
        yield prefix + name
        inner = _model_in(info.annotation)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{name}.")
