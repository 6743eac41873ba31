"""What S3 servers do that files do not: checksums, versions, multipart etags, encryption, payers, addressing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fsspec.config import conf

from moderation import storage
from moderation.storage import retry, s3
from moderation.storage.clients import filesystem
from tests.s3_server import BUCKET, S3Server, environment, make_bucket

DATA = bytes(range(256)) * 64
ALWAYS = {"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported", "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}
MIB = 1024 * 1024


@pytest.fixture(params=["rclone", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    chosen: S3Server = request.getfixturevalue(request.param)
    return chosen


def client_settings() -> Mapping[str, Any]:
    settings: Mapping[str, Any] = filesystem("s3").config_kwargs
    return settings


@pytest.mark.parametrize("said", [{}, ALWAYS], ids=["as it is", "checksums asked for"])
@pytest.mark.parametrize("window", [(0, None), (0, 100), (100, 200), (16_000, None), (16_000, 10_000)])
def test_a_range_is_read_whatever_checksum_comes_with_it(
    server: S3Server, said: dict[str, str], window: tuple[int, int | None]
) -> None:
    uri, (offset, length) = f"s3://{BUCKET}/checksums/a.bin", window
    with environment({**server.env(), **said}):
        storage.publish(uri, DATA)
        end = None if length is None else offset + length
        assert storage.read_bytes(uri, offset=offset, length=length) == DATA[offset:end]


def test_checksums_are_asked_for_only_where_required(rclone: S3Server) -> None:
    with environment(rclone.env()):
        assert client_settings()["response_checksum_validation"] == "when_required"
        assert client_settings()["request_checksum_calculation"] == "when_required"


def test_what_the_environment_says_of_checksums_is_left_to_the_client(rclone: S3Server) -> None:
    with environment({**rclone.env(), **ALWAYS}):
        assert not {"response_checksum_validation", "request_checksum_calculation"} & client_settings().keys()


def test_what_a_profile_says_of_checksums_is_left_to_the_client(rclone: S3Server, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile night]\nresponse_checksum_validation = when_supported\n")
    profile = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "night"}
    with environment({**rclone.env(), **profile}):
        assert "response_checksum_validation" not in client_settings()
        assert client_settings()["request_checksum_calculation"] == "when_required"


def test_an_object_uploaded_in_parts_is_read_by_its_etag(moto: S3Server) -> None:
    uri, data = f"s3://{BUCKET}/parts.bin", os.urandom(11 * MIB)
    with environment(moto.env()):
        with filesystem("s3").open(uri, "wb", block_size=5 * MIB) as file:
            file.write(data[: 6 * MIB])
            file.write(data[6 * MIB :])
        (listed,) = storage.list_objects(uri)
        assert listed.etag is not None
        assert listed.etag.endswith("-2")
        assert storage.info(uri) == listed
        assert storage.read_bytes(uri, offset=5 * MIB - 10, length=20, etag=listed.etag) == data[5 * MIB - 10 :][:20]
        storage.publish(uri, data)
        with pytest.raises(storage.ChangedError):
            storage.read_bytes(uri, etag=listed.etag)


def test_of_a_versioned_bucket_the_newest_is_read_and_the_listed_one_told_apart(moto: S3Server) -> None:
    make_bucket(moto.endpoint, "versioned")
    uri = "s3://versioned/in/a.jpg"
    with environment(moto.env()):
        filesystem("s3").call_s3(
            "put_bucket_versioning", Bucket="versioned", VersioningConfiguration={"Status": "Enabled"}
        )
        storage.publish(uri, b"one")
        (first,) = storage.list_objects("s3://versioned/in")
        storage.publish(uri, b"two")
        (listed,) = storage.list_objects("s3://versioned/in")
        assert (first.uri, listed.uri) == (uri, uri)
        assert storage.read_bytes(uri, etag=listed.etag) == b"two"
        with pytest.raises(storage.ChangedError):
            storage.read_bytes(uri, etag=first.etag)
        storage.delete_tree("s3://versioned/in")
        assert storage.read_optional(uri) is None


def test_encryption_that_the_user_asks_for_is_sent_with_what_is_written(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/encrypted.bin"
    monkeypatch.setitem(conf, "s3", {"s3_additional_kwargs": {"ServerSideEncryption": "AES256"}})
    with environment(moto.env()):
        storage.publish(uri, DATA)
        head = filesystem("s3").call_s3("head_object", Bucket=BUCKET, Key="encrypted.bin")
        assert head["ServerSideEncryption"] == "AES256"
        assert storage.read_bytes(uri, offset=3, length=4) == DATA[3:7]


def test_who_pays_is_said_with_every_request(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setitem(conf, "s3", {"requester_pays": True})
    with environment(moto.env()):
        storage.publish(f"s3://{BUCKET}/paid/a", DATA)

        def note(params: Mapping[str, Any], model: Any, **_: object) -> None:
            asked.append((model.name, params["headers"].get("x-amz-request-payer") == "requester"))

        filesystem("s3").s3.meta.events.register("before-call.s3", note)
        storage.read_bytes(f"s3://{BUCKET}/paid/a", offset=1, length=2)
        storage.info(f"s3://{BUCKET}/paid/a")
        list(storage.list_objects(f"s3://{BUCKET}/paid/"))
    assert asked == [("GetObject", True), ("HeadObject", True), ("ListObjectsV2", True)]


@pytest.mark.parametrize(("style", "host"), [("path", "localhost"), ("virtual", f"{BUCKET}.localhost")])
def test_a_bucket_is_addressed_as_the_users_files_say(
    moto: S3Server, tmp_path: Path, style: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[default]\ns3 =\n    addressing_style = {style}\n")
    env = moto.env(moto.endpoint.replace("127.0.0.1", "localhost"))
    hosts: list[str] = []
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)
    with environment({**env, "AWS_CONFIG_FILE": str(tmp_path / "config")}):
        fs = filesystem("s3")
        fs.connect()

        def note(request: Any, **_: object) -> None:
            hosts.append(request.url.partition("://")[2].partition(":")[0])

        fs.s3.meta.events.register("before-send.s3", note)
        # `bucket.localhost` is resolved by systemd and browsers, not by every resolver: what was asked for counts.
        with contextlib.suppress(storage.StorageError):
            storage.publish(f"s3://{BUCKET}/addressed", b"x")
    assert set(hosts) == {host}


def test_a_part_that_is_cut_short_is_read_again(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{BUCKET}/short.bin"
    cut = iter([True])

    async def read_less(*answer: Any) -> bytes:
        data = await read_part(*answer)
        return data[:-1] if next(cut, False) else data

    read_part = s3._read_part
    monkeypatch.setattr(s3, "_read_part", read_less)
    with environment(moto.env()):
        storage.publish(uri, DATA)
        assert storage.read_bytes(uri, offset=1, length=9) == DATA[1:10]
