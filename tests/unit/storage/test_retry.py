"""Which faults are tried again, which are told at once, and as what. Sorted by type and status, never by text."""

from __future__ import annotations

import contextlib
import errno
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moderation.errors import FatalError, ModerationError, ShardError
from moderation.storage import (
    BucketError,
    CredentialsError,
    DeniedError,
    RetryBudget,
    StorageError,
    StoreDownError,
    retry,
    retrying,
)


class ServerError(Exception):
    """As botocore raises it: the answer in `response`."""

    def __init__(self, code: str = "", status: int | None = None) -> None:
        super().__init__("an error occurred")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HttpError(Exception):
    """As aiohttp raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def translated(error: OSError, code: str) -> OSError:
    """As s3fs raises it: another class, with the server's answer as its cause."""
    error.__cause__ = ServerError(code)
    return error


def botocore_error(name: str) -> Exception:
    """An error of this class, as it is told apart without importing botocore."""
    made: Exception = type(name, (Exception,), {"__module__": "botocore.exceptions"})("none")
    return made


class Failing:
    """Fails with each of these errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "read"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)


TRANSIENT: list[Callable[[], Exception]] = [
    lambda: ServerError("SlowDown"),
    lambda: ServerError(status=503),
    lambda: HttpError(429),
    lambda: HttpError(500),
    lambda: TimeoutError("no answer"),
    lambda: ConnectionResetError("cut short"),
    lambda: botocore_error("HTTPClientError"),
    lambda: botocore_error("ResponseStreamingError"),
    lambda: translated(OSError(errno.EIO, "of an unknown code"), "SomethingNew"),
    lambda: translated(OSError(errno.EBUSY, "busy"), "ServiceUnavailable"),
    lambda: translated(PermissionError("the clock is off"), "RequestTimeTooSkewed"),
]
FINAL: list[tuple[Callable[[], Exception], type[Exception]]] = [
    (lambda: FileNotFoundError("a"), FileNotFoundError),
    (lambda: NotADirectoryError("a"), FileNotFoundError),
    (lambda: ServerError("NoSuchKey"), FileNotFoundError),
    (lambda: ServerError("404", 404), FileNotFoundError),
    (lambda: ServerError("NoSuchBucket", 404), BucketError),
    (lambda: HttpError(404), FileNotFoundError),
    (lambda: PermissionError("a"), DeniedError),
    (lambda: ServerError("AccessDenied", 403), DeniedError),
    (lambda: HttpError(403), DeniedError),
    (lambda: ServerError("ExpiredToken", 400), CredentialsError),
    (lambda: translated(PermissionError("a"), "InvalidAccessKeyId"), CredentialsError),
    (lambda: HttpError(401), CredentialsError),
    (lambda: botocore_error("NoCredentialsError"), CredentialsError),
    (lambda: OSError(errno.ENOSPC, "full"), OSError),
    (lambda: ServerError("InvalidBucketName", 400), BucketError),
    (lambda: botocore_error("ParamValidationError"), BucketError),
    (lambda: botocore_error("ClientError"), StorageError),
    (lambda: ServerError("MethodNotAllowed", 405), ServerError),
    (lambda: ValueError("a mistake"), ValueError),
]


@pytest.mark.parametrize("make", TRANSIENT)
def test_a_passing_fault_is_tried_again(make: Callable[[], Exception]) -> None:
    call = Failing(make(), make())
    assert retrying(call, what="s3://b/k", attempts=3) == "read"
    assert call.calls == 3


@pytest.mark.parametrize("make", TRANSIENT)
def test_a_fault_that_stays_is_a_storage_error(make: Callable[[], Exception]) -> None:
    call = Failing(*(make() for _ in range(9)))
    with pytest.raises(StorageError, match="s3://b/k: still failing after 2 attempts"):
        retrying(call, what="s3://b/k", attempts=2)
    assert call.calls == 2


@pytest.mark.parametrize(("make", "expected"), FINAL)
def test_a_final_fault_is_told_at_once(make: Callable[[], Exception], expected: type[Exception]) -> None:
    call = Failing(make())
    with pytest.raises(expected) as raised:
        retrying(call, what="s3://b/k")
    assert call.calls == 1
    # Of one object, unless nobody would be served.
    assert isinstance(raised.value, FatalError) == (expected in (CredentialsError, BucketError))


def test_waits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 100.0)
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    retrying(Failing(*(TimeoutError() for _ in range(4))), what="x", attempts=5)
    assert len(waits) == 4
    assert all(0 <= wait <= retry.MAX_WAIT_S for wait in waits)


def test_the_first_answer_ends_it() -> None:
    call = Failing()
    assert retrying(call, what="x") == "read"
    assert call.calls == 1


def test_a_store_that_keeps_failing_ends_the_run_when_the_retries_are_spent() -> None:
    budget = RetryBudget(burst=10, share=0.5)
    calls = [Failing(*(TimeoutError() for _ in range(9))) for _ in range(9)]
    with pytest.raises(StoreDownError, match="s3://b fails so often"):
        for call in calls:
            with contextlib.suppress(StorageError):
                retrying(call, what="s3://b/k", attempts=3, budget=budget)
    # Ten retries, and the first tries of six requests: the sixth was not tried again.
    assert sum(call.calls for call in calls) == 10 + 6
    assert budget.retried() == {"s3://b": 10}


def test_answers_earn_retries_and_every_store_has_its_own() -> None:
    budget = RetryBudget(burst=2, share=0.5)
    for _ in range(50):
        # One fault to two answers, for ever: a third of the requests.
        retrying(Failing(TimeoutError()), what="s3://b/k", budget=budget)
        retrying(Failing(), what="s3://b/k", budget=budget)
    with pytest.raises(StoreDownError):
        retrying(Failing(*(TimeoutError() for _ in range(9))), what="s3://b/k", budget=budget)
    assert retrying(Failing(TimeoutError()), what="s3://other/k", budget=budget) == "read"


def test_not_found_is_an_answer() -> None:
    budget = RetryBudget(burst=1, share=1)
    for _ in range(5):
        retrying(Failing(TimeoutError()), what="s3://b/k", budget=budget)
        with pytest.raises(FileNotFoundError):
            retrying(Failing(FileNotFoundError()), what="s3://b/k", budget=budget)


def test_an_object_that_alone_fails_is_not_the_store_being_down() -> None:
    for _ in range(5):
        with pytest.raises(StorageError):
            retrying(Failing(*(TimeoutError() for _ in range(9))), what="s3://b/k", budget=RetryBudget())


def test_a_store_that_answers_nobody_ends_the_run() -> None:
    budget = RetryBudget()
    endings: list[type[BaseException]] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        try:
            retrying(always, what="s3://b/k", attempts=4, budget=budget)
        except (StorageError, StoreDownError) as error:
            endings.append(type(error))

    def always() -> None:
        together.wait()
        raise TimeoutError

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert endings.count(StoreDownError) >= 5


@pytest.mark.parametrize(
    ("kind", "root"),
    [
        (StorageError, ShardError),
        (CredentialsError, FatalError),
        (StoreDownError, FatalError),
        (DeniedError, ModerationError),
        (DeniedError, PermissionError),
    ],
)
def test_errors_have_their_blast_radius_also_in_another_process(kind: Any, root: Any) -> None:
    error = pickle.loads(pickle.dumps(kind("s3://b/k: no")))  # noqa: S301 - our own bytes
    assert isinstance(error, root)
    assert type(error) is kind
    assert str(error) == "s3://b/k: no"


class FlexibleChecksumError(Exception):
    """Named as botocore's."""

    __module__ = "botocore.exceptions"


def test_bytes_that_do_not_fit_their_checksum_are_asked_for_again() -> None:
    answers = iter([FlexibleChecksumError("damaged"), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "fine"

    assert retrying(call, what="s3://b/a", budget=RetryBudget()) == "fine"


def test_a_checksum_that_never_fits_is_an_error_of_ours() -> None:
    def call() -> None:
        raise FlexibleChecksumError("damaged")

    with pytest.raises(StorageError, match="s3://b/a: still failing after 7 attempts: FlexibleChecksumError"):
        retrying(call, what="s3://b/a", budget=RetryBudget())


def test_the_log_says_of_retries_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    budget = RetryBudget()
    for _ in range(2):
        answers = iter([TimeoutError("late"), TimeoutError("late"), None])

        def call(answers: Iterator[TimeoutError | None] = answers) -> None:
            if (error := next(answers)) is not None:
                raise error

        retrying(call, what="s3://b/a", budget=budget)
    assert [record.getMessage() for record in caplog.records] == [
        "s3://b: 1 retries; now of s3://b/a: TimeoutError: late"
    ]
    assert budget.unsaid("s3://b", 1e9, 10.0) == 3
