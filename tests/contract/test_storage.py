"""What every store does behind `moderation.storage`: local files, memory, and the S3 servers that are installed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moderation import storage
from moderation.errors import FatalError, UsageError
from tests.s3_server import BUCKET, S3Server, environment


@pytest.fixture
def s3_server(rclone: S3Server) -> Iterator[str]:
    with environment(rclone.env()):
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["local", "memory", "rclone", "moto"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    name = f"{tmp_path.parent.name}-{tmp_path.name}"
    if request.param == "local":
        yield str(tmp_path / "root")
    elif request.param == "memory":
        yield f"memory://{name}"
    else:
        with environment(request.getfixturevalue(request.param).env()):
            yield f"s3://{BUCKET}/{name}"


def fill(root: str, *names: str) -> None:
    for name in names:
        storage.publish(storage.join(root, name), name.encode())


def below(root: str, uri: str | None = None) -> list[str]:
    """Names of the objects of a listing, relative to `root`."""
    return [o.uri.removeprefix(root + "/") for o in storage.list_objects(uri or root)]


def test_what_is_published_is_read_back(root: str) -> None:
    uri = storage.join(root, "deep", "er", "a.bin")
    storage.publish(uri, b"one")
    assert storage.read_bytes(uri) == b"one"
    storage.publish(uri, b"")
    assert storage.read_bytes(uri) == b""
    storage.publish(uri, b"three")
    with storage.open_input(uri) as file:
        file.seek(2)
        assert file.read() == b"ree"
    assert below(root) == ["deep/er/a.bin"]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 4, b"0123"), (3, 2, b"34"), (7, None, b"789"), (0, None, b"0123456789"), (8, 99, b"89"), (3, 0, b""),
     (0, 99, b"0123456789"), (10, 5, b"")],
)  # fmt: skip
def test_a_range_is_read_exactly(root: str, offset: int, length: int | None, expected: bytes) -> None:
    uri = storage.join(root, "a.bin")
    storage.publish(uri, b"0123456789")
    assert storage.read_bytes(uri, offset=offset, length=length) == expected


def test_a_range_of_an_empty_object_is_empty(root: str) -> None:
    uri = storage.join(root, "empty")
    storage.publish(uri, b"")
    assert storage.read_bytes(uri, offset=0, length=100) == b""


def test_what_is_not_there_is_not_found(root: str) -> None:
    fill(root, "there/a")
    missing = storage.join(root, "missing")
    for call in (storage.read_bytes, storage.info, lambda uri: list(storage.list_objects(uri))):
        with pytest.raises(FileNotFoundError):
            call(missing)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(missing, offset=0, length=5)
    assert storage.read_optional(missing) is None
    assert not storage.is_folder(missing)
    with pytest.raises(FileNotFoundError):
        storage.info(storage.join(root, "there"))


def test_a_prefix_is_listed_recursively_and_ends_at_its_name(root: str) -> None:
    fill(root, "photos/b.jpg", "photos/a.jpg", "photos/c/d.jpg", "photos-old/e.jpg", "photo")
    assert below(root, storage.join(root, "photos")) == ["photos/a.jpg", "photos/b.jpg", "photos/c/d.jpg"]
    assert storage.is_folder(storage.join(root, "photos"))
    assert below(root, storage.join(root, "photos")) == below(root, storage.join(root, "photos") + "/")


def test_a_listing_says_the_same_of_an_object_as_asking_for_it(root: str) -> None:
    fill(root, "a.jpg", "b/c.jpg")
    listed = list(storage.list_objects(root))
    assert [o.size_bytes for o in listed] == [5, 7]
    assert [storage.info(o.uri) for o in listed] == listed
    assert list(storage.list_objects(listed[0].uri)) == listed[:1]


def test_an_object_that_was_written_again_has_another_etag(root: str) -> None:
    fill(root, "a")
    before = storage.info(storage.join(root, "a"))
    storage.publish(storage.join(root, "a"), b"longer than before")
    after = storage.info(storage.join(root, "a"))
    assert before.etag
    assert after.etag
    assert before.etag != after.etag


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[b-z].*", ["b.jpg"]),
        ("*/*.jpg", ["x/c.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "x/c.jpg", "x/y/d.jpg"]),
        ("x/**", ["x/c.jpg", "x/e.png", "x/y/d.jpg"]),
        ("**/y/*", ["x/y/d.jpg"]),
    ],
)
def test_a_glob_lists_what_it_matches(root: str, pattern: str, expected: list[str]) -> None:
    fill(root, "a.jpg", "b.jpg", "x/c.jpg", "x/e.png", "x/y/d.jpg")
    assert below(root, storage.join(root, pattern)) == expected


def test_a_glob_that_matches_nothing_is_not_found(root: str) -> None:
    fill(root, "a.jpg")
    for pattern in ("*.png", "none/*", "b*/**"):
        with pytest.raises(FileNotFoundError):
            below(root, storage.join(root, pattern))


def test_one_level_has_the_names_of_files_and_folders(root: str) -> None:
    fill(root, "a", "b/c", "b/d/e", "f/g")
    assert storage.list_names(root) == ["a", "b", "f"]
    assert storage.list_names(storage.join(root, "b")) == ["c", "d"]
    assert storage.list_names(storage.join(root, "none")) == []


def test_a_tree_is_deleted_and_nothing_beside_it(root: str) -> None:
    fill(root, "a/b", "a/c/d", "ab")
    storage.delete_tree(storage.join(root, "a"))
    assert below(root) == ["ab"]
    storage.delete_tree(storage.join(root, "a"))
    assert below(root) == ["ab"]


def test_wrong_credentials_stop_the_run(s3_server: str) -> None:
    with environment({"AWS_ACCESS_KEY_ID": "somebodyelse"}), pytest.raises(storage.CredentialsError):
        storage.read_bytes(f"{s3_server}/a", offset=0, length=1)


def test_a_bucket_that_is_not_there_is_told_apart_from_an_object(s3_server: str) -> None:
    for call in (storage.read_bytes, lambda uri: list(storage.list_objects(uri)), storage.read_optional):
        with pytest.raises(storage.BucketError, match="s3://nosuch/a"):
            call("s3://nosuch/a")
    with pytest.raises(FatalError, match="cannot write s3://nosuch/a"):
        storage.publish("s3://nosuch/a", b"x")


def test_a_bucket_is_no_object(s3_server: str) -> None:
    for call in (storage.read_bytes, storage.info):
        with pytest.raises(FileNotFoundError):
            call(s3_server)


def test_threads_share_one_client(s3_server: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: storage.filesystem(s3_server), range(8)))
    assert all(client is clients[0] for client in clients)


@pytest.mark.parametrize("uri", ["s3://id:hidden@bucket/a", "s3://hidden@bucket/a", "https://me:hidden@host/a"])
def test_a_uri_with_a_password_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UsageError, match="credentials") as raised:
        storage.canonical(uri)
    assert "hidden" not in str(raised.value)


def test_an_azure_container_is_no_password() -> None:
    uri = "abfs://container@account.dfs.core.windows.net/a"
    assert storage.canonical(uri) == uri


@pytest.mark.parametrize("given", ["none", "0", "-1", "inf"])
def test_a_deadline_that_is_none_is_a_usage_error(given: str) -> None:
    with environment({"MODERATION_REQUEST_TIMEOUT_S": given}), pytest.raises(UsageError, match=given):
        storage.filesystem("s3://bucket")


def test_a_wildcard_for_a_bucket_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="a wildcard in the name of a bucket"):
        list(storage.list_objects("s3://*/a"))


@pytest.mark.parametrize("window", [{}, {"offset": 0, "length": 100}, {"offset": 1, "length": 2}, {"offset": 8}])
@pytest.mark.parametrize("after", [b"9876543210", b"98", b"98765432109"])
def test_a_version_that_is_not_there_any_more_is_not_read(root: str, window: dict[str, int], after: bytes) -> None:
    uri = storage.join(root, "a.bin")
    storage.publish(uri, b"0123456789")
    (listed,) = storage.list_objects(root)
    assert storage.read_bytes(uri, etag=listed.etag, **window) == storage.read_bytes(uri, **window)
    storage.publish(uri, after)
    with pytest.raises(storage.ChangedError, match=r"a\.bin"):
        storage.read_bytes(uri, etag=listed.etag, **window)
    with pytest.raises(storage.ChangedError), storage.open_input(uri, etag=listed.etag) as file:
        file.read(1)
