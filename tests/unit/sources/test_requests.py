"""Lines of an OpenAI Batch as a source: data: URIs are read within bounds, others only where allowed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from moderation.config.model import MediaConfig, SourceConfig
from moderation.errors import ItemError, UsageError
from moderation.sources import open_source, source_type
from moderation.sources import requests as requests_module
from moderation.sources.fetch import Fetcher
from moderation.types import ErrorCode, Item, Kind

PICTURE = b"\xff\xd8\xff\xe0 a picture"


def inline(data: bytes = PICTURE) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}}


def request(custom_id: str, *inputs: Any, url: str = "/v1/moderations") -> dict[str, Any]:
    body = {"model": "omni-moderation-latest", "input": list(inputs)}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def write(tmp_path: Path, *lines: Any) -> str:
    path = tmp_path / "batch.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def read(path: str, **options: Any) -> list[Item]:
    return list(open_source(path, SourceConfig(**options)))


def fetch(item: Item, **limits: Any) -> list[bytes | ItemError]:
    return Fetcher([item], MediaConfig(**limits))(item)


def test_a_file_of_requests_is_known_by_its_first_line(tmp_path: Path) -> None:
    assert source_type(write(tmp_path, request("a", inline())), SourceConfig()) == "requests"
    assert source_type(write(tmp_path, {"uri": "a.jpg", "custom_id": "x"}), SourceConfig()) == "manifest"


def test_the_bytes_of_a_data_uri_come_from_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, request("a", inline(b"first")), "", request("b", inline(b"second")))
    first, second = read(path)
    assert (first.item_id, first.uri, fetch(first)) == ("a", f"{path}#line=1", [b"first"])
    assert (second.item_id, second.uri, fetch(second)) == ("b", f"{path}#line=3", [b"second"])


def test_several_images_are_an_album_and_texts_an_attribute(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path, request("a", {"type": "text", "text": "hello"}, inline(b"1"), inline(b"2"))))
    assert item.kind is Kind.ALBUM
    assert fetch(item) == [b"1", b"2"]
    assert item.attributes == {"custom_id": "a", "text": "hello"}


def test_an_https_image_is_forbidden_unless_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, request("a", {"type": "image_url", "image_url": {"url": "https://example.org/i.jpg"}}))
    (item,) = read(path)
    assert (item.item_id, item.error) == ("a", ErrorCode.FORBIDDEN)
    (allowed,) = read(path, allow=("https://example.org/",))
    assert (allowed.error, allowed.objects[0].uri) == (None, "https://example.org/i.jpg")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("not json", ErrorCode.CORRUPT),
        ("[1]", ErrorCode.CORRUPT),
        (request("a", "only text"), ErrorCode.UNSUPPORTED_TYPE),
        (request("a", 7), ErrorCode.CORRUPT),
        (request("a", inline(), url="/v1/embeddings"), ErrorCode.UNSUPPORTED_TYPE),
        (request("a", {"type": "image_url", "image_url": {}}), ErrorCode.NOT_FOUND),
        (request("a", *[inline()] * 33), ErrorCode.TOO_LARGE),
    ],
)
def test_a_line_that_cannot_be_used_is_an_error_row_and_its_neighbours_go_on(
    tmp_path: Path, line: Any, code: ErrorCode
) -> None:
    before, item, after = read(write(tmp_path, request("x", inline()), line, request("y", inline())))
    assert item.error is code
    assert (before.error, after.error, after.item_id) == (None, None, "y")


@pytest.mark.parametrize("url", ["data:image/png;base64,!!!", "data:image/png,plain", "data:image/png;base64"])
def test_a_data_uri_that_is_none_is_corrupt(tmp_path: Path, url: str) -> None:
    (item,) = read(write(tmp_path, request("a", {"type": "image_url", "image_url": {"url": url}})))
    (payload,) = fetch(item)
    assert isinstance(payload, ItemError)
    assert payload.code is ErrorCode.CORRUPT


def test_a_data_uri_over_the_limit_is_too_large(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path, request("a", inline(bytes(2000)))))
    (payload,) = fetch(item, max_bytes=1000)
    assert isinstance(payload, ItemError)
    assert payload.code is ErrorCode.TOO_LARGE


def test_a_line_over_the_limit_is_a_row_and_the_next_line_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "MAX_LINE", 400)
    monkeypatch.setattr(requests_module, "_CHUNK", 64)
    path = write(tmp_path, request("a", inline()), request("b", inline(bytes(1000))), request("c", inline()))
    first, large, last = read(path)
    assert (first.item_id, large.error, last.item_id) == ("a", ErrorCode.TOO_LARGE, "c")
    assert fetch(last) == [PICTURE]


def test_ids_that_come_again_keep_their_rows(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, request("a", inline()), request("a", inline())))
    assert first.item_id == "a"
    assert second.item_id.startswith("a~")
    assert second.attributes["custom_id"] == "a"


def test_a_file_that_changed_meanwhile_is_an_error_of_its_items(tmp_path: Path) -> None:
    path = write(tmp_path, request("a", inline()))
    (item,) = read(path)
    Path(path).write_text(json.dumps(request("a", inline(b"another one"))))
    (payload,) = fetch(item)
    assert isinstance(payload, ItemError)
    assert payload.code is ErrorCode.CHANGED


def test_more_lines_than_a_source_may_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_manifest_rows"):
        read(write(tmp_path, request("a", inline()), request("b", inline())), max_manifest_rows=1)


def test_source_ref_lines_are_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "input.manifest"
    path.write_text('{"source-ref": "a.jpg"}\n{"source-ref": "b.jpg", "team": "x"}\n{"team": "y"}\n')
    first, second, third = read(str(path))
    assert (first.uri, first.attributes) == (str(tmp_path / "a.jpg"), {})
    assert (second.uri, second.attributes) == (str(tmp_path / "b.jpg"), {"team": "x"})
    assert third.error is ErrorCode.NOT_FOUND
