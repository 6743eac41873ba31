"""The run record, `run.json`: the identity of a run, and the state in which it was left."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

from moderation import storage
from moderation.config.canonical import canonical_json, parse_json
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.results.ffmpeg import decoder_versions, installed_version
from moderation.results.layout import RUN_FILE, run_uri
from moderation.version import __version__

_RUN_ID = re.compile(r"[0-9a-f]{16}")
_VIDEO = ("decord2", "torchcodec", "av")
_PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "pillow", *_VIDEO, "fsspec", "s3fs", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The origin of a run's parts, which each has in its schema's metadata."""

    run_id: str
    stack_fingerprint: str
    policy_hash: str
    as_of: str | None = None  # the day of the run, where its policy has lists whose entries end: 2026-12-31

    @property
    def day(self) -> date | None:
        """`as_of` as a date."""
        return None if self.as_of is None else date.fromisoformat(self.as_of)

    def metadata(self) -> dict[str, str]:
        """As strings, for Arrow."""
        facts = {
            "run_id": self.run_id,
            "stack_fingerprint": self.stack_fingerprint,
            "policy_hash": self.policy_hash,
            "code_version": __version__,
        }
        return facts if self.as_of is None else {**facts, "as_of": self.as_of}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The output of a run: whose it is and where it lies. Enough for a summary on a machine that cannot judge."""

    source: str
    out: str  # the tables and receipts
    home: str  # plan, run.json, summary.json, report.html, _SUCCESS: `out`, or the folder of a slice in it
    config: Config
    facts: RunFacts
    identity: Mapping[str, Any]  # what must be the same for a call to resume another's output
    certification: Mapping[str, Any] | None = None  # what it may decide by itself; see `certificates`
    votes_of: str | None = None  # of a rejudge: the OUT that has its votes
    extensions: Sequence[str] = ()  # whose votes are joined to those of the run, in this order; see `joined`
    detectors: Mapping[str, Any] | None = None  # what each vote is of; see `scoring.slots.describe_detectors`
    extending: str | None = None  # the extension whose verdicts are being put in the place of the run's


def run_id_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits: a hash of what decides the rows."""
    return sha256(canonical_json(identity).encode()).hexdigest()[:16]


def read_record(home: str) -> dict[str, Any] | None:
    """The run record of a run or a slice; None without one. Raises UsageError when it is not a JSON object."""
    data = storage.read_optional(run_uri(home))
    if data is None:
        return None
    try:
        record = parse_json(data)
    except ValueError as error:
        raise UsageError(f"{home}/{RUN_FILE}: not readable; choose another OUT, or --fresh to start over") from error
    if not isinstance(record, dict):
        raise UsageError(f"{home}/{RUN_FILE}: not that of a run; choose another OUT, or --fresh to start over")
    return record


def format_of(record: Mapping[str, Any], where: str) -> str:
    """The format of a run's parts, from its record. Raises UsageError where it is none that we write."""
    try:
        format_ = record["config"]["output"]["format"]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{where} is not readable as that of a run: {error}") from error
    if format_ not in ("parquet", "arrow"):
        raise UsageError(f"{where} is not readable as that of a run: output.format is {str(format_)[:40]!r}")
    return str(format_)


def write_record(run: Output, state: str, **facts: object) -> None:
    """Write the run record. state: running, partial, done, failed."""
    record = {
        "run_id": run.facts.run_id,
        "state": state,
        "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": run.identity,
        **({} if run.facts.as_of is None else {"as_of": run.facts.as_of}),
        **({} if run.votes_of is None else {"votes_of": run.votes_of}),
        **({"extensions": list(run.extensions)} if run.extensions else {}),
        **({} if run.detectors is None else {"detectors": run.detectors}),
        **({} if run.extending is None else {"extending": run.extending}),
        "config": run.config.model_dump(mode="json"),
        "versions": package_versions(),
        "decoders": decoder_versions(run.config.media),
        **facts,
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(run_uri(run.home), text.encode())


def extensions_of(record: Mapping[str, Any] | None, where: str) -> tuple[str, ...]:
    """The extensions that a run record names, whose votes count. Raises UsageError naming `where`."""
    names = (record or {}).get("extensions") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and _RUN_ID.fullmatch(name) for name in names):
        raise UsageError(f"{where}/{RUN_FILE}: `extensions` are not ids of runs; choose another OUT")
    return tuple(names)


def read_day(homes: Iterable[str]) -> date | None:
    """The day in the first of these records that has one; None where none has. Raises UsageError."""
    for home in homes:
        day = day_of(read_record(home), home)
        if day is not None:
            return day
    return None


def day_of(record: Mapping[str, Any] | None, home: str) -> date | None:
    """The day of a run, which its first call noted; None where its policy needed none. Raises UsageError."""
    noted = None if record is None else record.get("as_of")
    try:
        return None if noted is None else date.fromisoformat(noted)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{home}/{RUN_FILE}: `as_of` is not a date like 2026-12-31") from error


def package_versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "moderation": __version__,
        "python": platform.python_version(),
        **{name: installed for name in _PACKAGES if (installed := installed_version(name)) is not None},
    }


def describe_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two identities differ, in words."""
    for key in now:
        old, new = before.get(key), now[key]
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return describe_difference(
                {f"{key}.{k}": v for k, v in old.items()}, {f"{key}.{k}": v for k, v in new.items()}
            )
        return f"{key} was {old}, is {new} now"
    return "it has settings that this version does not know"
