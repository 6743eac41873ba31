"""Retries of one request, with faults sorted by type and status code, never by text."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeVar

from moderation.errors import FatalError, ShardError

_T = TypeVar("_T")

ATTEMPTS = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 8.0
# One request that hangs is cut here and tried again; a whole 512 MiB object at 10 MiB/s takes 51 s.
REQUEST_TIMEOUT_S = 60.0
# S3 codes that a retry can cure (the rest are the caller's mistake or final).
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "Throttling",
     "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"}
)  # fmt: skip
_DENIED_CODES = frozenset({"AccessDenied", "AllAccessDisabled"})
# Nothing is wrong with the object: whoever asks is not known, or no longer, and every next request would end the same.
_UNKNOWN_CALLER_CODES = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_UNKNOWN_CALLER_CLASSES = frozenset(
    {"botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.CredentialRetrievalError",
     "botocore.UnauthorizedSSOTokenError", "botocore.SSOTokenLoadError", "botocore.TokenRetrievalError"}
)  # fmt: skip
_ABSENT_CODES = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NotFound"})


class StorageError(ShardError):
    """Storage kept failing after its retries."""


class CredentialsError(FatalError, PermissionError):
    """The credentials are missing, wrong or expired: the run stops, rather than that every item gets an error row."""


def retrying(call: Callable[[], _T], *, what: str, attempts: int = ATTEMPTS) -> _T:
    """`call()`, again after transient faults with jittered exponential waits.

    Raises FileNotFoundError, PermissionError and CredentialsError at once, StorageError when the attempts are used up.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            verdict = _classify(error)
            if verdict is not None:
                raise verdict(f"{what}: {_short(error)}") from error
            if not _is_transient(error):
                raise
            if attempt == attempts:
                raise StorageError(f"{what}: still failing after {attempts} attempts: {_short(error)}") from error
            # Full jitter: workers that were slowed down together do not come back together.
            time.sleep(random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)))
    raise AssertionError("unreachable")


def _classify(error: BaseException) -> type[OSError] | None:
    code, status = _code_and_status(error)
    if code in _TRANSIENT_CODES:
        # Before the class: s3fs turns some of these (a clock that is off) into PermissionError.
        return None
    if isinstance(error, FileNotFoundError | NotADirectoryError) or code in _ABSENT_CODES or status == 404:
        return FileNotFoundError
    if code in _UNKNOWN_CALLER_CODES or status == 401 or _class_names(error) & _UNKNOWN_CALLER_CLASSES:
        return CredentialsError
    if isinstance(error, PermissionError) or code in _DENIED_CODES or status == 403:
        return PermissionError
    return None


def _class_names(error: BaseException) -> set[str]:
    # By class, without importing clients that may not be installed.
    return {cls.__module__.partition(".")[0] + "." + cls.__name__ for cls in type(error).__mro__}


def _is_transient(error: BaseException) -> bool:
    code, status = _code_and_status(error)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return True
    if isinstance(error, TimeoutError | asyncio.TimeoutError | ConnectionError):
        return True
    known = {"aiohttp.ClientError", "botocore.HTTPClientError", "botocore.ConnectionError",
             "botocore.ResponseStreamingError", "fsspec.FSTimeoutError", "aiobotocore.AioResponseStreamingError",
             "botocore.IncompleteReadError", "httpx.TransportError"}  # fmt: skip
    if _class_names(error) & known:
        return True
    # s3fs translates unknown codes to a bare OSError; a local OSError (ENOSPC, EIO) carries an errno of its own.
    return isinstance(error, OSError) and error.errno in (None, 5, 16, 104, 110) and bool(code or error.__cause__)


def _code_and_status(error: BaseException) -> tuple[str | None, int | None]:
    for link in (error, error.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            code = response.get("Error", {}).get("Code")
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return (str(code) if code else None, int(status) if status else None)
        status = getattr(link, "status", None)
        if isinstance(status, int):
            return None, status
    return None, None


def is_out_of_range(error: BaseException) -> bool:
    """Whether an object has no byte in the range that was asked for (HTTP 416)."""
    code, status = _code_and_status(error)
    return code == "InvalidRange" or status == 416


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
