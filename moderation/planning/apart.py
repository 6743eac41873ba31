"""OUT must not lie in what SOURCE lists, nor SOURCE in OUT: the next run would judge its own tables."""

from __future__ import annotations

import os
import re

from fsspec.utils import glob_translate

from moderation import storage
from moderation.errors import UsageError

# Names in OUT or in a ledger; a pattern must match none of them.
_WRITTEN = (
    "run.json",
    "plan.parquet",
    "verdicts/part-0.parquet",
    "votes/part-0.arrow",
    "tars/part-0.tar",
    "x/y/z.jsonl",
)


def check_apart(source: str, folder: str, name: str = "--out") -> None:
    """Raises UsageError where `folder`, which the run writes to, is or lies in what SOURCE lists, or SOURCE in it.

    name: what the message calls the folder. Links of local folders are resolved.
    """
    source, folder = storage.canonical(source), storage.canonical(folder)
    inside = False
    if storage.is_glob(source):
        matches = re.compile(glob_translate(source)).match
        inside = any(matches(storage.join(folder, written)) for written in _WRITTEN)
    else:
        inside = _with_slash(folder).startswith(_with_slash(source))
    shown = storage.mask_signatures(source)
    if not inside and _with_slash(source).startswith(_with_slash(folder)):
        raise UsageError(f"SOURCE {shown} lies in {name} {folder}: name a folder beside it for what the run writes")
    if inside:
        raise UsageError(f"{name} {folder} lies in SOURCE {shown}: the next run would judge its own tables")


def _with_slash(uri: str) -> str:
    if storage.scheme_of(uri) == "file":
        uri = os.path.realpath(uri)
    return f"{uri.rstrip('/')}/"
