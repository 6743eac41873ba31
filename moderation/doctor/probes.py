"""The questions that `doctor` puts to the machine and to storage: facts only, each with a timeout."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moderation import storage
from moderation.concurrency import usable_cores
from moderation.errors import UsageError, one_line

# Longer than one slow listing, shorter than the five attempts of a run.
PROBE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts about this machine, within its container's limits; None where unknown."""

    cores: int
    usable_cores: int
    memory_bytes: int | None
    shm_free_bytes: int | None
    free_disk_bytes: Mapping[str, int]
    has_nvidia_device: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAnswer:
    """The result of listing a URI."""

    status: Literal["ok", "missing", "wrong", "note"]
    detail: str
    advice: str = ""


def look_at_machine(cache: Path) -> Machine:
    """Read this machine's facts. cache: folder of downloaded weights."""
    places = {"working folder": Path.cwd(), "temporary files": Path(tempfile.gettempdir()), "weights cache": cache}
    shm = Path("/dev/shm")
    return Machine(
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        shm_free_bytes=shutil.disk_usage(shm).free if shm.is_dir() else None,
        free_disk_bytes={name: shutil.disk_usage(_existing(path)).free for name, path in places.items()},
        has_nvidia_device=Path("/dev/nvidiactl").exists(),
    )


def probe_storage(uri: str, timeout_s: float = PROBE_TIMEOUT_S) -> StorageAnswer:
    """List a URI up to its first object. Never raises; a listing that hangs is abandoned in its thread."""
    answers: list[StorageAnswer] = []
    # A daemon thread: a connection that hangs must not keep the process alive.
    thread = threading.Thread(target=lambda: answers.append(_list_first(uri)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    if answers:
        return answers[0]
    return StorageAnswer(status="wrong", detail=f"no answer in {timeout_s:g} s{_endpoint(uri)}", advice=_reach(uri))


def _list_first(uri: str) -> StorageAnswer:
    try:
        first = next(storage.list_objects(uri), None)
    except FileNotFoundError:
        advice = "right for a new OUT; wrong for a SOURCE: check its name"
        return StorageAnswer(status="note", detail=f"answers, but is empty{_endpoint(uri)}", advice=advice)
    except PermissionError as error:
        return StorageAnswer(status="wrong", detail=_short(error), advice=_credentials(uri))
    except UsageError as error:
        return StorageAnswer(status="wrong", detail=_short(error), advice="correct the URI, or install what it names")
    except Exception as error:  # noqa: BLE001 - clients raise errors of their own; any of them is the finding
        no_credentials = type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError")
        return StorageAnswer(
            status="wrong",
            detail=f"{type(error).__name__}: {_short(error)}{_endpoint(uri)}",
            advice=_credentials(uri) if no_credentials else _reach(uri),
        )
    if first is None:
        return StorageAnswer(status="note", detail="answers, but is empty", advice="check its name, if it is a SOURCE")
    return StorageAnswer(status="ok", detail=f"readable; the first object is {first.uri}{_endpoint(uri)}")


def _is_s3(uri: str) -> bool:
    return storage.scheme_of(uri) in ("s3", "s3a")


def _endpoint(uri: str) -> str:
    if not _is_s3(uri):
        return ""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f" (endpoint {named})" if named else " (endpoint of AWS: AWS_ENDPOINT_URL is not set)"


def _reach(uri: str) -> str:
    if _is_s3(uri):
        return "export AWS_ENDPOINT_URL=https://HOST:PORT of your store, and check that this machine reaches it"
    return "check that this machine reaches it"


def _credentials(uri: str) -> str:
    """Which credentials are visible, by name only, and what to set."""
    if not _is_s3(uri):
        return "give this user read access"
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    seen = [name for name in names if os.environ.get(name)]
    if seen:
        named = ", ".join(seen)
        return f"{named} are set: check that they are this store's; they need s3:ListBucket and s3:GetObject here"
    return "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... (or AWS_PROFILE, or the machine's role)"


def _short(error: BaseException) -> str:
    return one_line(error, 300)


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _memory_bytes() -> int | None:
    """Memory available now: what Linux calls available, or less where a container's limit is closer."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(0, int(limit) - used))
