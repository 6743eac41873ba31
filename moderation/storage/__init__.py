"""The one seam to files and object stores: list, read, retry, publish.

Every other module names objects by URI and calls these functions. Errors: FileNotFoundError, DeniedError (a
PermissionError), or StorageError for what retries did not cure. For the whole run: BucketError where there is no such
bucket, CredentialsError where the caller is not known, StoreDownError where the store answers no request.
"""

from __future__ import annotations

from moderation.storage.access import (
    ObjectInfo,
    delete_empty_folder,
    delete_tree,
    filesystem,
    info,
    is_folder,
    open_input,
    publish,
    read_bytes,
    read_optional,
    read_typed,
)
from moderation.storage.budget import RetryBudget
from moderation.storage.clients import forget_clients
from moderation.storage.folders import list_names
from moderation.storage.listing import is_glob, list_objects
from moderation.storage.masking import mask_signatures
from moderation.storage.object_changes import copy_object, delete_object, has_tags, read_tags, write_tags
from moderation.storage.retry import (
    PROCESS_BUDGET,
    BucketError,
    ChangedError,
    CredentialsError,
    DeniedError,
    NotRegularError,
    StorageError,
    StoreDownError,
    retrying,
)
from moderation.storage.upload import open_output
from moderation.storage.uris import canonical, join, local_path, refuse_no_bucket, scheme_of, without_password


def retries() -> int:
    """Requests that this process has repeated so far."""
    return sum(PROCESS_BUDGET.retried().values())


__all__ = [
    "BucketError",
    "ChangedError",
    "CredentialsError",
    "DeniedError",
    "NotRegularError",
    "ObjectInfo",
    "RetryBudget",
    "StorageError",
    "StoreDownError",
    "canonical",
    "copy_object",
    "delete_empty_folder",
    "delete_object",
    "delete_tree",
    "filesystem",
    "forget_clients",
    "has_tags",
    "info",
    "is_folder",
    "is_glob",
    "join",
    "list_names",
    "list_objects",
    "local_path",
    "mask_signatures",
    "open_input",
    "open_output",
    "publish",
    "read_bytes",
    "read_optional",
    "read_tags",
    "read_typed",
    "refuse_no_bucket",
    "retries",
    "retrying",
    "scheme_of",
    "without_password",
    "write_tags",
]
