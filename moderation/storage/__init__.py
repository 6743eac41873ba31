"""The one seam to files and object stores: list, read, retry, publish.

Every other module names objects by URI and calls these functions. Errors: FileNotFoundError, PermissionError, or
StorageError for what retries did not cure; CredentialsError (fatal) where the caller is not known.
"""

from __future__ import annotations

from moderation.storage.access import (
    ObjectInfo,
    canonical,
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
)
from moderation.storage.listing import is_glob, list_objects
from moderation.storage.retry import CredentialsError, StorageError, retrying

__all__ = [
    "CredentialsError",
    "ObjectInfo",
    "StorageError",
    "canonical",
    "delete_tree",
    "filesystem",
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
]
