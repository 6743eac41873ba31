"""Copies in OUT of what decided: the policy, and the files that the configuration named for the detectors.

    OUT/decided_by/<policy hash>.json    the policy as the workers had it; the run record names its hash
    OUT/decided_by/<sha256>.yaml         its file, with its comments; definitions of checks
    OUT/decided_by/<sha256>.json         options of a detector: questions, rules
    OUT/decided_by/<sha256>.safetensors  tuned prompts
    OUT/decided_by/index.json            the role and sha256 of each file; of weights the sha256 alone

Names are hashes of the content, so that slices of one run write the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from moderation import storage
from moderation.config.canonical import canonical_json
from moderation.config.load import validate
from moderation.config.model import Config, DetectorConfig
from moderation.errors import UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.definitions import definition_path
from moderation.policy.model import Policy, policy_hash
from moderation.results.layout import DECIDED_FOLDER, decided_index_uri, decided_uri

# Tuned prompts are kilobytes to a megabyte; what is larger is named by its sha256 alone.
_MAX_KEPT_BYTES: Final = 4 << 20
_COPIED: Final = "embeddings"


class _KeptFile(NamedTuple):
    name: str
    data: bytes


def keep_inputs(out: str, policy: Policy, config: Config) -> None:
    """Copy what decides to OUT, before anything is decided. Raises FatalError where OUT is not writable."""
    files: list[_KeptFile] = [
        # Only keys that were set: an attribute may not have the key `null`, not even with its default.
        _KeptFile(f"{policy_hash(policy)}.json", policy.model_dump_json(by_alias=True, exclude_unset=True).encode())
    ]
    source = _read_local(config.policy)
    if source is not None:
        files.append(_by_content(source, ".yaml"))
    definitions = _keep_definitions(policy, Path(config.policy).parent, files)
    detectors = [_keep_detector(entry, files) for entry in config.stack.detectors]
    index = {
        "version": 1,
        "policy": {
            "file": config.policy,
            "sha256": None if source is None else _sha256(source),
            "policy_hash": policy_hash(policy),
            # Missing certificates may have narrowed the policy, so it cannot be compared with its file.
            "lists": [] if policy.require_certificate else sorted(policy.lists),
        },
        "definitions": definitions,
        "detectors": [entry for entry in detectors if entry is not None],
        "files": {file.name: _sha256(file.data) for file in files},
    }
    for file in files:
        storage.publish(decided_uri(out, file.name), file.data)
    text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False)
    storage.publish(decided_index_uri(out), text.encode())


def read_kept_policy(out: str, record: Mapping[str, Any]) -> Policy | None:
    """The policy that a run was decided by; None where OUT does not have it (a run of an earlier version).

    record: `run.json`. Raises UsageError where this version does not accept it.
    """
    hash_ = _hash_of(record)
    data = None if hash_ is None else storage.read_optional(decided_uri(out, f"{hash_}.json"))
    if data is None:
        return None
    where = decided_uri(out, f"{hash_}.json")
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise UsageError(f"{where}: not readable; name a policy by --policy") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{where}: not a policy; name one by --policy")
    return validate(Policy, tree, where=where)


def describe_drift(out: str, record: Mapping[str, Any]) -> str | None:
    """How the policy's file differs from what OUT keeps, in words; None where it does not, or nothing is kept."""
    index = read_index(out)
    kept = (index or {}).get("policy")
    if not isinstance(kept, dict) or not kept.get("file"):
        return None
    file = Path(str(kept["file"]))
    data = _read_local(str(file))
    if data is None:
        return f"{file}: is not there any more; what it said is kept in {storage.join(out, DECIDED_FOLDER)}"
    # The same file may name a list that has other entries now.
    if (_sha256(data) == kept.get("sha256") and not kept.get("lists")) or _says_the_same(file, _hash_of(record)):
        return None
    return f"{file}: has changed since this run; the verdicts are by what it said then, as {out} keeps it"


def describe_damage(out: str) -> Iterator[str]:
    """One sentence for each kept file that is gone from OUT or was changed."""
    index = read_index(out)
    files = (index or {}).get("files")
    for name, sha256 in sorted(files.items()) if isinstance(files, dict) else ():
        if PurePosixPath(str(name)).name != name:
            yield f"{decided_index_uri(out)} names {str(name)[:100]!r}, which is no file of its folder"
            continue
        data = storage.read_optional(decided_uri(out, name))
        if data is None or _sha256(data) != sha256:
            yield f"{decided_uri(out, name)} is {'gone' if data is None else 'not as it was'}: it says what decided"


def read_index(out: str) -> dict[str, Any] | None:
    """The index of what OUT keeps; None where there is none, or it is not readable."""
    data = storage.read_optional(decided_index_uri(out))
    try:
        index = None if data is None else json.loads(data)
    except ValueError:
        return None
    return index if isinstance(index, dict) else None


def _keep_definitions(policy: Policy, beside: Path, files: list[_KeptFile]) -> dict[str, str]:
    """Check -> the file of its definition; adds these to `files`."""
    kept = {}
    for name, check in policy.checks.items():
        if check.definition is None:
            continue
        path = definition_path(check.definition, beside=beside, where=f"checks.{name}.definition")
        data = _read_local(str(path))
        if data is not None:
            file = _by_content(data, path.suffix or ".yaml")
            files.append(file)
            kept[name] = file.name
    return kept


def _keep_detector(entry: DetectorConfig, files: list[_KeptFile]) -> dict[str, Any] | None:
    """The index entry of a detector; adds its files to `files`."""
    options = _by_content(canonical_json(dict(entry.options)).encode(), ".json") if entry.options else None
    tuned = list(_tuned(entry.options))
    files += [] if options is None else [options]
    files += [kept for locator, sha256 in tuned if (kept := _read_pinned(locator, sha256)) is not None]
    pinned = [*([(entry.weights, entry.sha256)] if entry.weights else []), *tuned]
    if options is None and not pinned:
        return None
    return {
        "name": entry.title,
        "options": None if options is None else options.name,
        "pinned": [{"locator": storage.mask_signatures(locator), "sha256": sha256} for locator, sha256 in pinned],
    }


def _read_pinned(locator: str, sha256: str) -> _KeptFile | None:
    data = _read_small(locator)
    if data is None or _sha256(data) != sha256:
        return None
    return _by_content(data, PurePosixPath(locator).suffix or ".bin")


def _tuned(tree: object) -> Iterator[tuple[str, str]]:
    """Pairs of `embeddings` and `sha256` in one mapping, anywhere in a detector's options."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get(_COPIED), str) and isinstance(tree.get("sha256"), str):
            yield tree[_COPIED], tree["sha256"].lower()
        for value in tree.values():
            yield from _tuned(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tuned(value)


def _read_small(locator: str) -> bytes | None:
    """The file that a locator names, if it is here and small. Workers raise the error where it is missing."""
    if locator.startswith(("pkg://", "hf://")):
        return None
    try:
        return storage.read_bytes(locator) if storage.info(locator).size_bytes <= _MAX_KEPT_BYTES else None
    except (OSError, UsageError, storage.StorageError):
        return None


def _read_local(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _hash_of(record: Mapping[str, Any]) -> str | None:
    identity = record.get("identity")
    hash_ = identity.get("policy") if isinstance(identity, Mapping) else None
    return hash_ if isinstance(hash_, str) and hash_.isalnum() else None


def _says_the_same(file: Path, hash_: str | None) -> bool:
    """Whether a changed file still means the same policy: perhaps only a comment changed."""
    try:
        return policy_hash(load_whole_policy(file)) == hash_
    except UsageError:
        return False


def _by_content(data: bytes, suffix: str) -> _KeptFile:
    return _KeptFile(f"{_sha256(data)}{suffix}", data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
