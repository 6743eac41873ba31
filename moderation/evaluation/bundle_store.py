"""Bundles in a store, and the pointer to the one that is live. Loads no torch.

    STORE/bundles/<hash>/bundle.json       what it holds: sha256 of each file, stack, weights
    STORE/bundles/<hash>/config.yaml       the whole configuration, prompts and heads by their options and locators
    STORE/bundles/<hash>/policy.yaml       and policy.certificates.json, and what lies beside the policy
    STORE/current.json                     the live bundle, and the history of earlier ones

The pointer and its history are one object, written whole: a reader sees the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError, one_line
from moderation.storage.lease import Lease, hold_lease

BUNDLE_FILE: Final = "bundle.json"
CONFIG_FILE: Final = "config.yaml"
POLICY_FILE: Final = "policy.yaml"
CURRENT: Final = "current"
_BUNDLES: Final = "bundles"
_POINTER: Final = "current.json"
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a file in a bundle: at most one folder down
_MAX_HISTORY: Final = 1000
_ROLLBACK: Final = "rollback"
_JOB: Final = "promotion"  # what a holder of the store's lease is called
_LEAST_PREFIX: Final = 8  # hex digits by which a bundle may be named


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleWeights:
    """One file of weights: its locator and its sha256."""

    detector: str
    locator: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is promoted or rolled back. files: name -> sha256. policy: hash as certificates name it.

    weights: those of every detector; they stay where they lie.
    """

    stack_fingerprint: str
    policy: str
    weights: tuple[BundleWeights, ...]
    files: Mapping[str, str]
    code_version: str

    @property
    def bundle_hash(self) -> str:
        """sha256 (hex) over all of it: its name."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of the pointer. bundle: live from then on. reason: the gate's, or `rollback`. report: its page."""

    bundle: str
    at: datetime
    reason: str
    report: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """The live bundle, and every change, the newest last."""

    bundle: str
    history: tuple[Promotion, ...]


_BUNDLE = TypeAdapter(Bundle)
_POINTER_TYPE = TypeAdapter(Pointer)


def write_bundle(store: str, bundle: Bundle, contents: Mapping[str, bytes]) -> str:
    """Write a bundle's files, its own record last; returns the hash. The same content gives the same bundle."""
    folder = _folder(store, bundle.bundle_hash)
    for name in contents:
        check_name(name)
    for name, data in contents.items():
        storage.publish(storage.join(folder, name), data)
    record = json.dumps(asdict(bundle), indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(storage.join(folder, BUNDLE_FILE), record.encode())
    return bundle.bundle_hash


def check_name(file: str) -> None:
    """A file of a bundle lies in its folder, at most one folder down. Raises UsageError."""
    if not _NAME.fullmatch(file) or ".." in file:
        raise UsageError(f"{file!r} is not the name of a file in a bundle: it has to lie beside the policy")


def list_bundles(store: str) -> list[str]:
    """The hashes of all whole bundles, sorted."""
    prefix = storage.canonical(storage.join(store, _BUNDLES)).rstrip("/") + "/"
    try:
        uris = [info.uri.removeprefix(prefix) for info in storage.list_objects(prefix)]
    except FileNotFoundError:
        return []
    return sorted(
        u.removesuffix(f"/{BUNDLE_FILE}") for u in uris if u.endswith(f"/{BUNDLE_FILE}") and u.count("/") == 1
    )


def find_bundle(store: str, name: str) -> str:
    """The hash that a name means: `current`, a hash, or its first digits. Raises UsageError."""
    if name == CURRENT:
        pointer = read_pointer(store)
        if pointer is None:
            raise UsageError(f"{store}: no bundle has been promoted; `moderation promote` does that")
        return pointer.bundle
    known = list_bundles(store)
    matching = [h for h in known if h == name or (len(name) >= _LEAST_PREFIX and h.startswith(name))]
    if len(matching) != 1:
        what = f"{len(matching)} bundles begin with" if matching else "no bundle"
        raise UsageError(f"{store}: {what} {name!r}{did_you_mean(name, [h[:12] for h in known])}")
    return matching[0]


def read_bundle(store: str, bundle_hash: str) -> Bundle:
    """A bundle's record. Raises UsageError where it is not there, or its hash is not its name."""
    uri = storage.join(_folder(store, bundle_hash), BUNDLE_FILE)
    data = storage.read_optional(uri)
    if data is None:
        raise UsageError(f"{uri}: no such bundle")
    try:
        bundle = _BUNDLE.validate_json(data)
    except ValueError as error:
        raise UsageError(f"{uri}: not readable as a bundle: {one_line(error, 200)}") from error
    if bundle.bundle_hash != bundle_hash:
        raise UsageError(f"{uri}: its content is not that of the bundle {bundle_hash[:12]}: somebody changed it")
    return bundle


def bundle_cache() -> Path:
    """Where bundles are kept: below $MODERATION_CACHE, else in the user's cache folder."""
    named = os.environ.get("MODERATION_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moderation"
    return (Path(named) if named else home) / _BUNDLES


def fetch_bundle(store: str, name: str, cache: Path) -> Path:
    """A local folder with a bundle's files, each with the sha256 that its record says; below `cache`.

    Raises UsageError where a file is missing or was changed.
    """
    bundle_hash = find_bundle(store, name)
    bundle = read_bundle(store, bundle_hash)
    folder = cache / bundle_hash
    for file, sha256 in bundle.files.items():
        check_name(file)
        target = folder / file
        data = target.read_bytes() if target.is_file() else None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            uri = storage.join(_folder(store, bundle_hash), file)
            data = storage.read_optional(uri)
            if data is None or hashlib.sha256(data).hexdigest() != sha256:
                raise UsageError(f"{uri}: {'gone' if data is None else 'not what the bundle was made of'}")
            storage.publish(str(target), data)
    return folder


def read_pointer(store: str) -> Pointer | None:
    """The live bundle; None where none was promoted. Raises UsageError where the pointer cannot be read."""
    uri = storage.join(store, _POINTER)
    data = storage.read_optional(uri)
    if data is None:
        return None
    try:
        pointer = _POINTER_TYPE.validate_json(data)
        if not _HASH.fullmatch(pointer.bundle):
            raise ValueError("not the hash of a bundle")
    except ValueError as error:
        raise UsageError(f"{uri}: not readable as the pointer to a bundle: {one_line(error, 200)}") from error
    return pointer


def promote_bundle(store: str, promotion: Promotion) -> Pointer:
    """Point to a bundle: one write, with its history. Raises UsageError, LeaseHeldError while another one writes."""
    with hold_lease(store, job=_JOB) as lease:
        return _point_to(store, promotion, lease)


def _point_to(store: str, promotion: Promotion, lease: Lease) -> Pointer:
    # Two that write at once would both keep the history that they read, so that one of them would be lost.
    read_bundle(store, promotion.bundle)
    before = read_pointer(store)
    history = (*(before.history if before else ()), promotion)[-_MAX_HISTORY:]
    pointer = Pointer(bundle=promotion.bundle, history=history)
    data = _POINTER_TYPE.dump_json(pointer, indent=1)
    lease.check()
    storage.publish(storage.join(store, _POINTER), data)
    return pointer


def roll_back(store: str, at: datetime) -> Pointer:
    """Point to the bundle that was live before this one. Raises UsageError where there was none,
    LeaseHeldError.

    Two rollbacks go back by two bundles: a rollback never returns to the bundle that another one left.
    """
    with hold_lease(store, job=_JOB) as lease:
        return _point_to(store, Promotion(bundle=_bundle_before(store), at=at, reason=_ROLLBACK), lease)


def _bundle_before(store: str) -> str:
    pointer = read_pointer(store)
    stack: list[str] = []
    for change in pointer.history if pointer else ():
        if change.reason == _ROLLBACK and len(stack) > 1:
            stack.pop()
        elif not stack or stack[-1] != change.bundle:
            stack.append(change.bundle)
    if len(stack) < 2:
        raise UsageError(f"{store}: there is no bundle before this one to go back to")
    return stack[-2]


def _folder(store: str, bundle_hash: str) -> str:
    return storage.join(store, _BUNDLES, bundle_hash)
