"""Objects that are written piece by piece, because they are larger than memory should hold."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from moderation.errors import FatalError, ModerationError
from moderation.storage.access import filesystem
from moderation.storage.local_files import writing_local
from moderation.storage.retry import BucketError, retrying
from moderation.storage.uris import canonical, split_uri


@contextlib.contextmanager
def open_output(uri: str) -> Iterator[IO[bytes]]:
    """An object to write to. It appears, whole, when the block ends without an error, otherwise not at all.

    A local file is renamed at the end. For a store the bytes wait in a temporary file, and are sent at the end.
    Raises FatalError where it cannot be written, StorageError where storage kept failing.
    """
    uri = canonical(uri)
    scheme, path = split_uri(uri)
    try:
        if scheme == "file":
            with writing_local(Path(path)) as file:
                yield file
        else:
            with tempfile.NamedTemporaryFile() as held:
                yield held
                held.flush()
                retrying(lambda: filesystem(uri).put_file(held.name, path), what=uri)
    except BucketError as error:
        raise FatalError(f"cannot write {uri}: {error}") from error
    except ModerationError:
        raise  # some of our errors are OSErrors: from what is read meanwhile
    except OSError as error:
        raise FatalError(f"cannot write {uri}: {error}") from error
