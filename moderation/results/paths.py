"""Whether SOURCE is there and OUT is apart from it: asked before anything heavy is loaded."""

from __future__ import annotations

from itertools import islice

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.errors import UsageError
from moderation.planning.apart import check_apart
from moderation.planning.slices import find_slices
from moderation.results.layout import run_uri
from moderation.sources import open_source


def check_paths(source: str, out: str, config: SourceConfig) -> None:
    """Raises UsageError where a new run could not begin: SOURCE is not there, is empty, or holds OUT.

    A run that has begun in OUT may go on without its source: perhaps nothing is left to do.
    """
    storage.refuse_no_bucket(out)
    source, out = storage.canonical(source), storage.canonical(out).rstrip("/")
    check_apart(source, out)
    if storage.scheme_of(out) in ("http", "https"):
        raise UsageError(f"--out {out}: a web address is only read; write to a path or to s3://")
    if storage.read_optional(run_uri(out)) is None and not find_slices(out):
        open_source(source, config)


def holds_more(source: str, config: SourceConfig, limit: int | None) -> bool:
    """Whether a source has more items than `limit` (None: no limit); false of one that is gone."""
    if limit is None:
        return False
    try:
        return next(islice(open_source(storage.canonical(source), config), limit, None), None) is not None
    except UsageError:
        return False
