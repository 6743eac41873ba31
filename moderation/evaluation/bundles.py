"""`moderation bundle make`: stack, weights, prompts, policy and certificates under one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from moderation import storage
from moderation.config.load import packaged_configs, read_yaml
from moderation.config.model import Config
from moderation.config.show import show_config
from moderation.errors import UsageError
from moderation.evaluation.bundle_store import CONFIG_FILE, POLICY_FILE, Bundle, BundleWeights, write_bundle
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.bind import bind
from moderation.policy.certified import certified_hash
from moderation.policy.model import Policy, load_policy
from moderation.results.certificates import certificates_path, read_certificates
from moderation.scoring.build import build_stack
from moderation.version import __version__


def make_bundle(config: Config, store: str) -> str:
    """Write the bundle of a configuration to a store; returns its hash, the same for the same configuration and policy.

    Weights stay where they lie; the bundle has their locators and sha256. Entries of lists are read at run time. Raises
    UsageError where its parts do not fit together.
    """
    path = Path(config.policy)
    policy = load_whole_policy(path)
    stack = build_stack(config)
    bind(policy, stack.labels, gated=stack.gated, disabled=stack.disabled)
    contents = dict(_contents(config, policy, path))
    bundle = Bundle(
        stack_fingerprint=stack.fingerprint,
        policy=certified_hash(policy),
        weights=tuple(
            BundleWeights(detector=slot.detector.name, locator=w.locator, sha256=w.sha256, licence=w.licence)
            for slot in stack.slots
            for w in slot.weights
        ),
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())},
        code_version=__version__,
    )
    return write_bundle(store, bundle, contents)


def check_stack(bundle: Bundle, config: Config) -> None:
    """Check that a bundle's configuration still means its stack: another version may ship other detectors or weights.

    config: read back from the bundle. Raises UsageError naming the detectors that are others.
    """
    stack = build_stack(config)
    if stack.fingerprint == bundle.stack_fingerprint:
        return
    now = {(slot.detector.name, w.locator): w.sha256 for slot in stack.slots for w in slot.weights}
    others = sorted({w.detector for w in bundle.weights if now.get((w.detector, w.locator)) != w.sha256})
    what = f"other weights of {', '.join(others)}" if others else "detectors or decoding of another version"
    raise UsageError(
        f"bundle {bundle.bundle_hash[:12]}: this version has {what}, so it would not be that bundle any more:"
        f" run the version that it was made with (it says {bundle.code_version}), or make and promote another bundle"
    )


def _contents(config: Config, policy: Policy, path: Path) -> Iterator[tuple[str, bytes]]:
    yield CONFIG_FILE, show_config(config.model_copy(update={"policy": POLICY_FILE})).encode()
    yield POLICY_FILE, _portable_policy(path)
    file = certificates_path(str(path))
    if read_certificates(file) is not None:
        yield certificates_path(POLICY_FILE), storage.read_bytes(file)
    if policy.taxonomy is not None:
        yield policy.taxonomy, (path.parent / policy.taxonomy).read_bytes()
    for name in sorted({check.definition for check in policy.checks.values() if check.definition is not None}):
        beside = path.parent / "definitions" / f"{name}.yaml"
        if beside.is_file() and not beside.is_relative_to(packaged_configs()):
            yield f"definitions/{name}.yaml", beside.read_bytes()


def _portable_policy(path: Path) -> bytes:
    """The policy's file, with full paths of the lists beside it, because these go on changing where they are."""
    lists = load_policy(path).lists
    beside = {name: rule.from_ for name, rule in lists.items() if rule.from_ is not None and "://" not in rule.from_}
    if not beside:
        return path.read_bytes()
    tree = read_yaml(path)
    for name, file in beside.items():
        tree["lists"][name]["from"] = f"file://{(path.parent / file).absolute()}"
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
