"""What would stand in the way of a run: weights, extras, and whether OUT may be written to."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from moderation import storage
from moderation.config.model import Config
from moderation.doctor.diagnosis import find_detectors
from moderation.errors import ModerationError, one_line


def find_obstacles(config: Config, out: str) -> Iterator[str]:
    """One sentence for each thing that would end a run of this configuration into OUT."""
    for finding in find_detectors(config):
        if finding.stops_a_run:
            yield f"{finding.name}: {finding.detail}" + (f" -> {finding.advice}" if finding.advice else "")
    yield from try_writing(out)


def try_writing(out: str) -> Iterator[str]:
    """Why OUT can't be written to. What is written there is deleted at once."""
    out = storage.canonical(out)
    if storage.scheme_of(out) == "file":
        folder = next(path for path in (Path(out), *Path(out).parents) if path.exists())
        try:
            # Gone at once; permissions alone say nothing of a disk that is read-only or full.
            with tempfile.TemporaryFile(dir=folder):
                return
        except NotADirectoryError:
            yield f"{out}: {folder} is a file"
        except OSError as error:
            yield f"{out}: {folder} can't be written to: {error.strerror or error}"
        return
    probe = storage.join(out, f".probe-{secrets.token_hex(4)}")
    try:
        storage.publish(probe, b"")
        storage.delete_tree(probe)
    except (ModerationError, OSError) as error:
        yield one_line(error, 500)
