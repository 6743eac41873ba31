"""The names right below a folder or prefix: one level, so that a folder of large folders is cheap to look at."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from moderation.storage import s3
from moderation.storage.access import filesystem
from moderation.storage.clients import is_s3
from moderation.storage.retry import retrying
from moderation.storage.uris import canonical, split_uri


def list_names(uri: str) -> list[str]:
    """Names of the files and folders right below a URI, sorted; none where nothing is there.

    Raises DeniedError, StorageError.
    """
    uri = canonical(uri).rstrip("/")
    scheme, path = split_uri(uri)
    try:
        if scheme == "file":
            return retrying(lambda: sorted(entry.name for entry in Path(path).iterdir()), what=uri)
        if is_s3(scheme):
            bucket, prefix = s3.split_key(path)
            return sorted(_s3_names(uri, bucket, f"{prefix}/" if prefix else ""))
        listed = retrying(lambda: filesystem(uri).ls(path, detail=False), what=uri)
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in listed)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _s3_names(uri: str, bucket: str, prefix: str) -> set[str]:
    """Names of objects and of folders right below a prefix; each page is retried by itself: there may be a thousand."""
    names: set[str] = set()
    token: str | None = None
    while True:
        page = retrying(partial(s3.list_page, bucket, prefix, token, delimiter="/"), what=uri)
        names.update(entry["Key"].removeprefix(prefix) for entry in page.get("Contents", []))
        names.update(entry["Prefix"].removeprefix(prefix).rstrip("/") for entry in page.get("CommonPrefixes", []))
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or token is None:
            return names - {""}
