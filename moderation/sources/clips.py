"""`source.keyframes`: the pictures of one folder of a tar are the pre-cut keyframes of one item."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from moderation.errors import ItemError
from moderation.sources.items import error_item, make_id, shorten
from moderation.sources.keys import PICTURES, SIDECARS, VIDEOS, Parts, attributes_of, key_items, media_item
from moderation.sources.tar import TarMember
from moderation.storage import ObjectInfo
from moderation.types import ErrorCode, Item, Kind

Picture = tuple[str, TarMember]  # with its key


def clip_items(info: ObjectInfo, keys: dict[str, Parts]) -> Iterator[Item]:
    """Items in the order of their first members: a folder's pictures as one, all else as without `source.keyframes`."""
    folders = _select_folders(keys)
    pictured = {key for pictures in folders.values() for key, _ in pictures}
    described = _select_sidecars(keys, folders, pictured)
    attributes: dict[str, dict[str, str]] = {}
    for key, folder in described.items():
        told = attributes.setdefault(folder, {})
        told.update(attributes_of(keys[key]))
        # What is known of the video comes first: of attributes that are too many for a row, the last are left out.
        attributes[folder] = {name: told[name] for name in sorted(told, key=lambda n: not n.startswith("cut_from."))}
    for key, parts in keys.items():
        folder = _folder(key)
        if key not in pictured and key not in described:
            yield from _other_items(info, key, parts)
        elif folder in folders:
            yield _folder_item(info, folder, folders.pop(folder), keys, attributes.get(folder, {}))


def _select_folders(keys: dict[str, Parts]) -> dict[str, list[Picture]]:
    """The pictures of each folder, without keys that hold a video."""
    folders: dict[str, list[Picture]] = {}
    for key, parts in keys.items():
        pictures = [(key, member) for suffix, member in parts if suffix in PICTURES]
        if _folder(key) and pictures and not any(suffix in VIDEOS for suffix, _ in parts):
            folders.setdefault(_folder(key), []).extend(pictures)
    return folders


def _select_sidecars(keys: dict[str, Parts], folders: dict[str, list[Picture]], pictured: set[str]) -> dict[str, str]:
    """Keys with sidecars only -> the folder of pictures that they lie in or share a name with."""
    described: dict[str, str] = {}
    for key, parts in keys.items():
        folder = key if key in folders else _folder(key)
        if key not in pictured and folder in folders and all(suffix in SIDECARS for suffix, _ in parts):
            described[key] = folder
    return described


def _other_items(info: ObjectInfo, key: str, parts: Parts) -> Iterator[Item]:
    failed = _failed_item(info, key, parts) if all(suffix == "json" for suffix, _ in parts) else None
    yield from key_items(info, key, parts) if failed is None else (failed,)


def _folder_item(
    info: ObjectInfo, folder: str, pictures: list[Picture], keys: dict[str, Parts], attributes: dict[str, str]
) -> Item:
    numbered = _number_pictures(pictures)
    item = media_item(
        info, make_id(info.uri, "folder", folder), [m for _, (_, m) in numbered], Kind.KEYFRAMES, attributes
    )
    item = replace(item, uri=f"{info.uri}#{folder}/")
    if item.error is not None:
        return item
    objects = tuple(
        replace(picture, frame=frame, time_s=_time_s(keys[key]))
        for picture, (frame, (key, _)) in zip(item.objects, numbered, strict=True)
    )
    return replace(item, objects=objects)


def _failed_item(info: ObjectInfo, key: str, parts: Parts) -> Item | None:
    """The item of a folder without pictures whose `.json` says why: a video that could not be cut gets a row, too."""
    attributes = attributes_of(parts)
    reason = _reason(attributes)
    if not _folder(key) or reason is None:
        return None
    item_id, where = make_id(info.uri, "folder", _folder(key)), f"{info.uri}#{_folder(key)}/"
    return error_item(item_id, where, reason.code, reason.detail, attributes)


def _reason(attributes: dict[str, str]) -> ItemError | None:
    """Why a video has no keyframes; None where nothing is said of a video."""
    code, frames = attributes.get("cut_from.error_code"), attributes.get("cut_from.frames", "0")
    if code in frozenset(ErrorCode):
        return ItemError(ErrorCode(code), attributes.get("cut_from.error_detail", ""))
    return None if frames == "0" else ItemError(ErrorCode.NO_FRAMES, f"{shorten(frames)} were cut, and none came")


def _number_pictures(pictures: list[Picture]) -> list[tuple[int, Picture]]:
    """Each picture with its frame, by frame: the last number of its name (123 of `clip7/frame_000123`).

    Where a name has no number, or two have the same, all are numbered in the order of their names.
    """
    numbers = [_last_number(key) for key, _ in pictures]
    distinct = {n for n in numbers if n is not None}
    if len(distinct) < len(pictures):
        return list(enumerate(sorted(pictures, key=lambda picture: _natural_order(picture[1].name))))
    by_number = {number: picture for number, picture in zip(numbers, pictures, strict=True) if number is not None}
    return sorted(by_number.items())


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _last_number(key: str) -> int | None:
    numbers = re.findall(r"[0-9]+", key.rpartition("/")[2])
    # The tables hold frames as int32.
    return int(numbers[-1]) if numbers and len(numbers[-1].lstrip("0")) <= 9 else None


def _natural_order(name: str) -> list[tuple[int, int | str]]:
    """A sort key that puts `2` before `10`."""
    parts = re.split(r"([0-9]{1,15})", name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]


def _time_s(parts: Parts) -> float | None:
    try:
        time_s = float(attributes_of(parts).get("time_s", "nan"))
    except ValueError:
        return None
    return time_s if 0 <= time_s < float("inf") else None
