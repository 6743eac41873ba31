"""A manifest reads what it may, and nothing that the job may beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.errors import ItemError
from moderation.sources.allow import resolver
from moderation.types import ErrorCode


def refused(manifest: str, written: str, allow: tuple[str, ...] = ()) -> bool:
    try:
        resolver(manifest, allow)(written)
    except ItemError as error:
        assert error.code is ErrorCode.FORBIDDEN
        return True
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "in-private").mkdir()
    (tmp_path / "in-private" / "secret.jpg").write_bytes(b"x")
    (inside / "ok.jpg").write_bytes(b"x")
    return inside


@pytest.mark.parametrize(
    "written", ["ok.jpg", "./ok.jpg", "sub/../ok.jpg", "file://{}/ok.jpg", "{}/ok.jpg", "FILE://{}//ok.jpg"]
)
def test_every_spelling_of_an_allowed_file_is_one_uri(folder: Path, written: str) -> None:
    assert resolver(f"{folder}/m.csv", ())(written.format(folder)) == f"{folder}/ok.jpg"


@pytest.mark.parametrize(
    "written",
    [
        "../in-private/secret.jpg",
        "sub/../../in-private/secret.jpg",
        "{}-private/secret.jpg",
        "file://{}/../in-private/secret.jpg",
        "local:///etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "file://etc/passwd",
        "link.jpg",
        "linked/secret.jpg",
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/a.jpg",
        "memory://secret.jpg",
        "s3://bucket/a.jpg",
        "simplecache::s3://bucket/a.jpg",
        "filecache::file:///etc/passwd",
        "zip://a.jpg::file:///etc/x.zip",
        "no-such-scheme://x",
        "ok.jpg\n/etc/passwd",
        "ok.jpg\0",
        "odd-\udcff.jpg",
    ],
)
def test_nothing_outside_of_the_manifests_folder_is_read(folder: Path, written: str) -> None:
    (folder / "link.jpg").symlink_to(folder.parent / "in-private" / "secret.jpg")
    (folder / "linked").symlink_to(folder.parent / "in-private")
    assert refused(f"{folder}/m.csv", written.format(folder))


def test_a_link_that_stays_inside_is_allowed(folder: Path) -> None:
    (folder / "alias.jpg").symlink_to(folder / "ok.jpg")
    assert resolver(f"{folder}/m.csv", ())("alias.jpg") == f"{folder}/alias.jpg"


def test_a_manifest_below_a_linked_folder_reads_its_own_folder(folder: Path) -> None:
    door = folder.parent / "door"
    door.symlink_to(folder)
    assert resolver(f"{door}/m.csv", ())("ok.jpg") == f"{door}/ok.jpg"


@pytest.mark.parametrize(
    ("written", "uri"),
    [
        ("img/a.jpg", "s3://bucket/lists/img/a.jpg"),
        ("s3://bucket/other/a.jpg", "s3://bucket/other/a.jpg"),
        ("S3A://bucket/a.jpg", "s3://bucket/a.jpg"),
    ],
)
def test_a_manifest_in_a_bucket_reads_its_bucket(written: str, uri: str) -> None:
    assert resolver("s3://bucket/lists/m.csv", ())(written) == uri


@pytest.mark.parametrize(
    "written",
    ["s3://bucket2/a.jpg", "s3:///bucket/a.jpg", "/etc/passwd", "../a.jpg", "s3://bucket/../bucket2/a", "file:///a"],
)
def test_a_manifest_in_a_bucket_reads_nothing_else(written: str) -> None:
    assert refused("s3://bucket/lists/m.csv", written)


def test_allow_replaces_the_manifests_own_place() -> None:
    allow = ("s3://photos/public", "memory://x/")
    assert resolver("s3://bucket/m.csv", allow)("s3://photos/public/a.jpg") == "s3://photos/public/a.jpg"
    assert resolver("s3://bucket/m.csv", allow)("memory:///x/a.jpg") == "memory://x/a.jpg"
    assert refused("s3://bucket/m.csv", "s3://photos/public-not/a.jpg", allow)
    assert refused("s3://bucket/m.csv", "a.jpg", allow)


def test_a_uri_with_credentials_is_refused_wherever_it_points() -> None:
    assert refused("s3://bucket/m.csv", "s3://KEY:SECRET@bucket/a.jpg", ("s3://",))


def test_the_root_may_be_allowed(folder: Path) -> None:
    assert resolver("s3://bucket/m.csv", ("/",))(f"{folder}/ok.jpg") == f"{folder}/ok.jpg"


@pytest.mark.parametrize(
    "written",
    ["https://h/pub/%2e%2e/x", "https://h/pub/%2E./x", "https://h/pub/a%2f..%2fx", "https://h/pub/..%5cx",
     "https://h/pub/%252e%252e/x", "https://h/pub/\\x", "https://h@evil/pub/x", "https://h.evil/pub/x", "http://h/pub/x"],
)  # fmt: skip
def test_web_addresses_cannot_climb_out_of_their_prefix(written: str) -> None:
    assert refused("s3://bucket/m.csv", written, ("https://h/pub/",))
    assert not refused("s3://bucket/m.csv", "https://h/pub/x%20y.jpg", ("https://h/pub/",))
