"""An actions file, read and checked before any work: keys, templates of tags, destinations, addresses, secrets."""

from __future__ import annotations

import ipaddress
import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from moderation import storage
from moderation.actions.model import MAX_TAG_NAME, ActionRule, ActionsFile
from moderation.config.files import read_yaml
from moderation.config.hints import did_you_mean
from moderation.config.load import validate
from moderation.errors import UsageError
from moderation.policy.model import Policy

# What a tag's value may hold besides text.
PLACEHOLDERS: Final = ("verdict", "reason", "check", "label", "severity", "run_id", "item_id")
_TAG_TEXT: Final = re.compile(r"[\w +\-=.:/@]*")
_MAX_FILE_BYTES: Final = 1 << 20
_MIN_SECRET: Final = 16


def read_actions(path: Path, environment: Mapping[str, str] | None = None) -> ActionsFile:
    """Read and check an actions file. environment: of the process by default.

    Raises UsageError that names each wrong key, and the nearest right one.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such actions file")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise UsageError(f"{path}: over {_MAX_FILE_BYTES:,} bytes; no actions file")
    actions = validate(ActionsFile, read_yaml(path), where=str(path))
    problems = list(_problems(actions, os.environ if environment is None else environment))
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return actions


def check_against_policy(actions: ActionsFile, policy: Policy, path: Path) -> None:
    """Raises UsageError where an action is for a check or a severity that the policy does not have."""
    known = {"check": tuple(policy.checks), "severity": tuple(policy.severities)}
    for rule in actions.actions:
        for key, words in known.items():
            for word in getattr(rule.when, key):
                if word not in words:
                    hint = did_you_mean(word, words)
                    raise UsageError(f"{path}: {rule.name}: when.{key}: the policy has no {word!r}{hint}")


def is_within(uri: str, prefixes: Sequence[str]) -> bool:
    """Whether an object lies below one of these prefixes. A prefix without a `/` at its end gets one."""
    try:
        place = storage.canonical(uri)
        folders = [_as_folder(prefix) for prefix in prefixes]
    except UsageError:
        return False
    # A store takes `..` in a key as it is; a proxy before it may not.
    return ".." not in place.split("/") and any(place.startswith(folder) for folder in folders)


def _as_folder(prefix: str) -> str:
    return storage.canonical(prefix).rstrip("/") + "/"


def _problems(actions: ActionsFile, environment: Mapping[str, str]) -> Iterator[str]:
    for key in ("objects", "destinations"):
        for prefix in getattr(actions, key):
            yield from _prefix_problems(key, prefix)
    for rule in actions.actions:
        yield from (f"{rule.name}: {problem}" for problem in _rule_problems(rule, actions, environment))
    yield from _manifest_problems(actions)


def _manifest_problems(actions: ActionsFile) -> Iterator[str]:
    """Each manifest has its own file: the lines of a run in it are written whole."""
    names: dict[str, str] = {}
    for rule in actions.actions:
        if rule.do != "manifest" or rule.to is None or not is_within(rule.to, actions.destinations):
            continue
        first = names.setdefault(storage.canonical(rule.to), rule.name)
        if first != rule.name:
            yield f"{rule.name}: to: {rule.to} is the manifest of {first!r} already; name another file"


def _prefix_problems(key: str, prefix: str) -> Iterator[str]:
    try:
        place = storage.canonical(prefix)
    except UsageError as error:
        yield f"{key}: {error}"
        return
    if not place.partition("://")[2 if "://" in place else 0].strip("/"):
        yield f"{key}: {prefix!r} is everything; name a bucket or a folder"


def _rule_problems(rule: ActionRule, actions: ActionsFile, environment: Mapping[str, str]) -> Iterator[str]:
    if rule.to is not None:
        # Copies lie below their prefix, which may be a destination itself.
        place = rule.to if rule.do == "manifest" else storage.join(rule.to, "copy")
        if not is_within(place, actions.destinations):
            listed = ", ".join(actions.destinations) or "none"
            yield f"to: {rule.to} is not within `destinations` ({listed})"
        if rule.do == "manifest" and not rule.to.endswith((".jsonl", ".ndjson")):
            yield f"to: {rule.to}: a manifest ends in .jsonl; its lines are JSON"
    for name, value in rule.tags.items():
        yield from _tag_problems(name, value)
    if rule.url is not None:
        yield from url_problems(rule.url)
    if rule.secret_env is not None:
        yield from secret_problems(rule.secret_env, environment)


def _tag_problems(name: str, value: str) -> Iterator[str]:
    if not name or len(name) > MAX_TAG_NAME or not _TAG_TEXT.fullmatch(name) or name.lower().startswith("aws:"):
        yield f"tags: {name[:40]!r} cannot be a tag: letters, digits, spaces and + - = . _ : / @, not `aws:` first"
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(value) if field is not None]
    except ValueError as error:
        yield f"tags.{name}: {error}"
        return
    for field in fields:
        if field not in PLACEHOLDERS:
            yield f"tags.{name}: unknown placeholder {{{field}}}{did_you_mean(field, PLACEHOLDERS)}"


def url_problems(url: str) -> Iterator[str]:
    """What is wrong with the address of a webhook."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        yield f"url: {error}"
        return
    if parts.username is not None or parts.password is not None:
        # Not repeated: it holds a password.
        yield "url: has a user or a password in it; the receiver checks the signature instead"
    elif not host or parts.scheme not in ("https", "http"):
        yield f"url: {url[:200]}: expected https://host/path"
    elif parts.scheme == "http" and not is_loopback(host):
        yield f"url: {url[:200]}: http goes to this machine alone (127.0.0.1, localhost); others need https"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name; nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secret_problems(name: str, environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the secret of a webhook."""
    secret = environment.get(name, "")
    if not secret:
        yield f"secret_env: the environment has no variable {name[:80]!r}"
    elif len(secret) < _MIN_SECRET:
        yield f"secret_env: {name[:80]} has fewer than {_MIN_SECRET} characters, which can be guessed"
