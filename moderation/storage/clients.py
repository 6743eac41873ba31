"""The fsspec filesystem of a URI: one per process and scheme, with our bounds instead of the client's own.

Endpoint, region, profile and credentials are the client's business: it reads the environment, or the usual files
(`~/.aws/config`, `~/.aws/credentials`, a machine's role). Nothing here takes them as an argument, so that none can
come from a manifest or end in a table. Other settings of s3fs come from `$FSSPEC_S3`, as JSON: `requester_pays`,
`s3_additional_kwargs` (encryption), `config_kwargs` (how a bucket is addressed).
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import fsspec
from fsspec.config import conf

from moderation.errors import UsageError

# A request that hangs this long is aborted and retried. Bounds the wait for the next bytes, not for all of them.
REQUEST_TIMEOUT_S = 60.0
TIMEOUT_VARIABLE = "MODERATION_REQUEST_TIMEOUT_S"
_CONNECT_TIMEOUT_S = 10.0
# Of one client; where more threads fetch at once (runtime.fetch_threads is at most 256), some wait.
_CONNECTIONS = 128
_S3 = frozenset({"s3", "s3a"})
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")

_open: dict[tuple[int, str], Any] = {}
_lock = threading.Lock()


def request_timeout_s() -> float:
    """How long one request may hang: `$MODERATION_REQUEST_TIMEOUT_S`, else 60 s. Raises UsageError."""
    given = os.environ.get(TIMEOUT_VARIABLE)
    if not given:
        return REQUEST_TIMEOUT_S
    try:
        timeout_s = float(given)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise UsageError(f"{TIMEOUT_VARIABLE}={given}: expected seconds, more than 0")
    return timeout_s


def connect_timeout_s() -> float:
    """How long a connection may take to open: at most 10 s."""
    return min(_CONNECT_TIMEOUT_S, request_timeout_s())


def is_s3(scheme: str) -> bool:
    """Whether s3fs serves a scheme."""
    return scheme in _S3


def filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec is untyped
    """The filesystem of a scheme, shared by the threads of this process. Listings are never cached.

    fsspec by itself keeps one per thread, and each s3fs then has a client of its own: sixteen threads spent more time
    on making clients than on reading. (s3fs caches listings by default; a resume that trusts a stale one redoes or
    skips work.) Raises UsageError when the package for the scheme is missing.
    """
    key = (os.getpid(), "s3" if is_s3(scheme) else scheme)
    fs = _open.get(key)
    if fs is None:
        with _lock:
            fs = _open.get(key)
            if fs is None:
                fs = _open[key] = _make(key[1])
    return fs


def forget_clients() -> None:
    """Drop the clients of this process: the next call reads the environment again."""
    with _lock:
        _open.clear()


def _make(scheme: str) -> Any:  # noqa: ANN401 - fsspec is untyped
    try:
        fs = fsspec.filesystem(scheme, skip_instance_cache=True, **(_s3_options() if scheme == "s3" else {}))
    except ImportError as error:
        raise UsageError(f"{scheme}://: {error}; install the package for it") from error
    if hasattr(fs, "retries"):
        fs.retries = 1  # s3fs retries nothing itself: retries are in retry.py, with one budget
    return fs


def _s3_options() -> dict[str, Any]:
    timeout_s = request_timeout_s()
    # Merged here: fsspec would replace all of the user's `config_kwargs` by ours.
    of_user = conf.get("s3", {}).get("config_kwargs", {})
    return {
        "use_listings_cache": False,
        "default_fill_cache": False,
        # s3fs' own read-ahead would multiply our exact ranges.
        "default_cache_type": "none",
        "config_kwargs": {
            "connect_timeout": connect_timeout_s(),
            "read_timeout": timeout_s,
            "max_pool_connections": _CONNECTIONS,
            # `max_attempts` would allow one retry more, from botocore's own quota.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            **_checksum_options(),
            **of_user,
        },
    }


def _checksum_options() -> dict[str, str]:
    """Checksums only where a request requires them, unless the environment or a profile says otherwise.

    Since botocore 1.36 the default is to ask for them always: some servers then answer a range with the checksum of the
    whole object, and others refuse the uploads (https://github.com/boto/boto3/issues/4392).
    """
    import botocore.exceptions
    import botocore.session  # half a second, which a run over local files does not need

    try:
        profile = botocore.session.Session().get_scoped_config()
    except botocore.exceptions.BotoCoreError:
        profile = {}  # an unreadable file or a missing profile: the client reports it itself
    said = {*profile, *(name.removeprefix("AWS_").lower() for name in os.environ)}
    return {name: "when_required" for name in _CHECKSUMS if name not in said}
