"""The one seam to files and object stores: list, read, retry, publish.

Every other module names objects by URI and calls these functions. Errors: FileNotFoundError, DeniedError (a
PermissionError), or StorageError for what retries did not cure. For the whole run: BucketError where there is no such
bucket, CredentialsError where the caller is not known, StoreDownError where the store answers nobody.
"""

from __future__ import annotations

from moderation.storage.access import (
    ObjectInfo,
    canonical,
    delete_empty_folder,
    delete_tree,
    filesystem,
    info,
    is_folder,
    join,
    open_input,
    publish,
    read_bytes,
    read_optional,
    scheme_of,
    without_password,
)
from moderation.storage.budget import RetryBudget
from moderation.storage.clients import forget_clients
from moderation.storage.listing import is_glob, list_objects
from moderation.storage.retry import (
    BucketError,
    ChangedError,
    CredentialsError,
    DeniedError,
    StorageError,
    StoreDownError,
    retrying,
)

__all__ = [
    "BucketError",
    "ChangedError",
    "CredentialsError",
    "DeniedError",
    "ObjectInfo",
    "RetryBudget",
    "StorageError",
    "StoreDownError",
    "canonical",
    "delete_empty_folder",
    "delete_tree",
    "filesystem",
    "forget_clients",
    "info",
    "is_folder",
    "is_glob",
    "join",
    "list_objects",
    "open_input",
    "publish",
    "read_bytes",
    "read_optional",
    "retrying",
    "scheme_of",
    "without_password",
]
