"""Object stores: a key is a name, not a path, and every object with content is listed."""

from __future__ import annotations

from typing import Any

import pytest

from moderation import storage
from moderation.storage import listing
from moderation.storage.retry import DeniedError


class BucketOfKeys:
    """Pages and heads of a bucket, in place of a server: those that store files can't hold such keys."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.keys = dict(sorted(keys.items()))
        self.may_list = True

    def list_page(self, bucket: str, prefix: str, token: str | None) -> dict[str, Any]:
        if not self.may_list:
            raise DeniedError("no")
        keys = [key for key in self.keys if key.startswith(prefix) and (token is None or key > token)]
        page = [{"Key": key, "Size": self.keys[key], "ETag": f'"{key}"'} for key in keys[:2]]
        return {"Contents": page, "IsTruncated": len(keys) > 2, "NextContinuationToken": keys[1] if keys[2:] else None}

    def head(self, path: str) -> dict[str, Any]:
        key = path.partition("/")[2]
        if key not in self.keys:
            raise FileNotFoundError(path)
        return {"size": self.keys[key], "ETag": key}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> BucketOfKeys:
    keys = {"photos": 3, "photos/": 0, "photos/a.jpg": 1, "photos/b.jpg/": 2, "photos/c/": 0, "photos-old/d.jpg": 1}
    made = BucketOfKeys(keys)
    monkeypatch.setattr(listing.s3, "list_page", made.list_page)
    monkeypatch.setattr(listing.s3, "head", made.head)
    return made


def listed(uri: str) -> dict[str, int]:
    return {info.uri: info.size_bytes for info in storage.list_objects(uri)}


@pytest.mark.usefixtures("bucket")
def test_keys_that_end_in_a_slash_are_objects_if_they_have_content() -> None:
    assert listed("s3://b/photos/") == {"s3://b/photos/a.jpg": 1, "s3://b/photos/b.jpg/": 2}


@pytest.mark.usefixtures("bucket")
def test_an_object_named_like_the_folder_is_listed_with_what_lies_below_it() -> None:
    assert listed("s3://b/photos") == {"s3://b/photos": 3, "s3://b/photos/a.jpg": 1, "s3://b/photos/b.jpg/": 2}


def test_who_may_read_one_object_and_list_nothing_has_what_was_named(bucket: BucketOfKeys) -> None:
    bucket.may_list = False
    assert listed("s3://b/photos") == {"s3://b/photos": 3}
    with pytest.raises(PermissionError):
        listed("s3://b/photos/")
