"""Retries of one request, with faults sorted by type and status code, never by text."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from moderation.errors import FatalError, ModerationError, ShardError, UsageError, one_line
from moderation.storage.budget import RetryBudget
from moderation.storage.masking import mask_signatures

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

# Six waits, together 10 to 20 s: a store may be away that long without an error row.
ATTEMPTS = 7
FIRST_WAIT_S = 0.2
MAX_WAIT_S = 8.0
# One per process: a store sees the requests of all its threads together.
PROCESS_BUDGET = RetryBudget()
# A store's retries are logged once in this time, as one count.
LOG_EVERY_S = 10.0
# S3 codes that a retry can cure (the rest are the caller's mistake or final).
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "Throttling",
     "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"}
)  # fmt: skip


class StorageError(ShardError):
    """Storage kept failing after its retries."""


class ChangedError(ModerationError):
    """An object is not the one that was listed: its etag, or a local file's size or time, has changed."""


class StoreDownError(FatalError):
    """Storage answers no request, or the retries are spent: going on would make error rows of good items."""


class DeniedError(ModerationError, PermissionError):
    """Storage knows the caller and refuses. Whoever catches it makes an error row or ends the call."""


class NotRegularError(ModerationError, OSError):
    """A local name that is no regular file: a pipe, a socket, a device."""


class BucketError(UsageError):
    """There is no such bucket."""


class CredentialsError(FatalError, PermissionError):
    """The credentials are missing, wrong or expired: the run stops, or every item would get an error row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """The exception for a final error, and its signs: any one of them is enough."""

    raised: type[Exception]
    codes: frozenset[str]
    status: int | None = None
    client_classes: frozenset[str] = frozenset()
    classes: tuple[type[Exception], ...] = ()


# The first that matches counts.
_FAULTS = (
    # A name that no bucket has, or can have.
    _Fault(
        raised=BucketError,
        codes=frozenset({"NoSuchBucket", "InvalidBucketName"}),
        client_classes=frozenset({"botocore.ParamValidationError"}),
    ),
    _Fault(
        raised=FileNotFoundError,
        codes=frozenset({"NoSuchKey", "404", "NotFound"}),
        status=404,
        classes=(FileNotFoundError, NotADirectoryError),
    ),
    # The object is not at fault: the caller is unknown, or no longer known, and every later request would fail, too.
    _Fault(
        raised=CredentialsError,
        codes=frozenset(
            {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
        ),
        status=401,
        client_classes=frozenset(
            {
                "botocore.NoCredentialsError",
                "botocore.PartialCredentialsError",
                "botocore.CredentialRetrievalError",
                "botocore.UnauthorizedSSOTokenError",
                "botocore.SSOTokenLoadError",
                "botocore.TokenRetrievalError",
            }
        ),
    ),
    # Only reads are conditional: If-Match with the etag of the listing.
    _Fault(raised=ChangedError, codes=frozenset({"PreconditionFailed"}), status=412),
    _Fault(
        raised=DeniedError,
        codes=frozenset({"AccessDenied", "AllAccessDisabled"}),
        status=403,
        classes=(PermissionError,),
    ),
)


def retrying(
    call: Callable[[], _T], *, what: str, attempts: int = ATTEMPTS, budget: RetryBudget = PROCESS_BUDGET
) -> _T:
    """`call()`, again after transient faults with jittered exponential waits. what: the URI, also names the store.

    Raises FileNotFoundError, DeniedError (a PermissionError), ChangedError, BucketError and CredentialsError at once;
    StorageError when the attempts are used up; StoreDownError when the store answers no other request either, or the
    process has no retries left to spend on it (a StorageError of web addresses: others may well answer).
    """
    store = _store_of(what)
    began = budget.mark(store)
    for attempt in range(1, attempts + 1):
        try:
            result = call()
        except Exception as error:
            final = _classify(error)
            if final is not None or not _is_transient(error):
                budget.answer(store)
                _raise_final(error, final, what)
            budget.fail(store)
            if attempt == attempts:
                _raise_spent(error, what, store, attempts, is_down=budget.is_down(store, began, attempts))
            if not budget.take(store):
                detail = f"fails so often that retries are spent; the last: {mask_signatures(what)}: {_short(error)}"
                raise (StorageError if _is_web(store) else StoreDownError)(f"{store} {detail}") from error
            if (unsaid := budget.unsaid(store, time.monotonic(), LOG_EVERY_S)) is not None:
                _LOG.warning("%s: %d retries; now of %s: %s", store, unsaid, mask_signatures(what), _short(error))
            _wait(attempt)
        else:
            budget.answer(store)
            return result
    raise AssertionError("unreachable")


def _raise_final(error: Exception, final: type[Exception] | None, what: str) -> NoReturn:
    """Raise what no retry cures: as `final`, a client's own fault as StorageError, anything else as it is."""
    if final is None and "botocore.ClientError" not in _class_names(error):
        raise error
    raise (final or StorageError)(f"{mask_signatures(what)}: {_said(final)}{_short(error)}") from error


def _raise_spent(error: Exception, what: str, store: str, attempts: int, *, is_down: bool) -> NoReturn:
    what = mask_signatures(what)
    if is_down and not _is_web(store):
        raise StoreDownError(f"{store} answers no request: {what}: {_short(error)}") from error
    raise StorageError(f"{what}: still failing after {attempts} attempts: {_short(error)}") from error


def _is_web(store: str) -> bool:
    """Whether a store is one of many that a list may name: that it is down ends its items, not the run."""
    return store.lower().startswith(("http://", "https://"))


def _wait(attempt: int) -> None:
    # Half of it jitter: workers that were slowed down together do not come back together.
    max_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2**attempt)
    time.sleep(random.uniform(max_s / 2, max_s))


def _store_of(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if separator else "local files"


def _classify(error: BaseException) -> type[Exception] | None:
    """The exception for a final error; None where a retry may cure it, or the error is unknown."""
    code, status = _code_and_status(error)
    if code in _TRANSIENT_CODES:
        # Before the class: s3fs turns some of these (a clock that is off) into PermissionError.
        return None
    return next((fault.raised for fault in _FAULTS if _shows(error, code, status, fault)), None)


def _shows(error: BaseException, code: str | None, status: int | None, fault: _Fault) -> bool:
    if code in fault.codes or (status is not None and status == fault.status):
        return True
    return isinstance(error, fault.classes) or bool(_class_names(error) & fault.client_classes)


def _class_names(error: BaseException) -> set[str]:
    # By class, without importing clients that may not be installed.
    return {cls.__module__.partition(".")[0] + "." + cls.__name__ for cls in type(error).__mro__}


def _is_transient(error: BaseException) -> bool:
    code, status = _code_and_status(error)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return True
    if isinstance(error, TimeoutError | asyncio.TimeoutError | ConnectionError):
        return True
    transient = {"aiohttp.ClientError", "botocore.HTTPClientError", "botocore.ConnectionError",
             "botocore.ResponseStreamingError", "fsspec.FSTimeoutError", "aiobotocore.AioResponseStreamingError",
             "botocore.IncompleteReadError", "httpx.TransportError",
             # Bytes that do not match their checksum: damaged on the way, so that the next answer may be right.
             "botocore.FlexibleChecksumError"}  # fmt: skip
    if _class_names(error) & transient:
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


def _said(final: type[Exception] | None) -> str:
    if final is BucketError:
        return "no such bucket: "
    if final is CredentialsError:
        return "credentials are missing, wrong or expired: "
    return "not permitted: " if final is DeniedError else ""


def _short(error: BaseException) -> str:
    text = one_line(error).replace(" (reached max retries: 0)", "")  # botocore's own retries are off
    return f"{type(error).__name__}: {mask_signatures(text)[:200]}"
