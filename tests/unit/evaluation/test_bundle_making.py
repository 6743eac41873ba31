"""A bundle holds all that decides: a configuration read back from it judges by the same stack and the same policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jobs.options import load_bundle_settings
from moderation.config.load import load_config
from moderation.detectors.safety.skin import Skin
from moderation.errors import UsageError
from moderation.evaluation.bundle_store import CONFIG_FILE, fetch_bundle, read_bundle
from moderation.evaluation.bundles import check_stack, make_bundle
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.certified import certified_hash
from moderation.scoring.build import build_stack

POLICY = {
    "checks": {"skin": {"side": "negative", "votes": ["skin.share"], "block": 0.9, "review": 0.4}},
    "lists": {"known": {"action": "deny", "by": "content_hash", "from": "known.csv"}},
}


def make(folder: Path, policy: dict[str, object]) -> tuple[str, str]:
    """(store, hash) of a bundle of the detector `skin`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "known.csv").write_text(f"value,reason\n{'a' * 64},seen before\n")
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    config = {"policy": "policy.yaml", "stack": {"detectors": [{"name": "skin"}]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "store"), make_bundle(load_config(str(folder / "config.yaml")), str(folder / "store"))


def test_what_is_read_back_has_the_same_stack_and_policy(tmp_path: Path) -> None:
    store, bundle_hash = make(tmp_path, POLICY)
    folder = fetch_bundle(store, bundle_hash, tmp_path / "cache")
    config = load_config(str(folder / CONFIG_FILE))
    bundle = read_bundle(store, bundle_hash)
    policy = load_whole_policy(Path(config.policy))
    assert build_stack(config).fingerprint == bundle.stack_fingerprint
    assert certified_hash(policy) == bundle.policy
    # The list is read where it lies, so that what people add to it counts.
    assert [entry.value for entry in policy.lists["known"].entries or ()] == ["a" * 64]


def test_a_bundle_whose_detectors_this_version_has_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache"))
    store, bundle_hash = make(tmp_path, POLICY)
    assert load_bundle_settings(bundle_hash, store, None, None).stack.detectors[0].name == "skin"
    monkeypatch.setattr(Skin, "version", "of another release")
    with pytest.raises(UsageError, match=f"bundle {bundle_hash[:12]}: this version has detectors"):
        load_bundle_settings(bundle_hash, store, None, None)


def test_weights_that_are_others_than_those_of_the_bundle_are_named(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("checks: {mark: {side: attribute, votes: [watermark.mark]}}\n")
    (tmp_path / "config.yaml").write_text("{policy: policy.yaml, stack: {detectors: [{name: watermark}]}}\n")
    config, store = load_config(str(tmp_path / "config.yaml")), str(tmp_path / "store")
    bundle = read_bundle(store, make_bundle(config, store))
    check_stack(bundle, config)
    before = replace(bundle, stack_fingerprint="f", weights=(replace(bundle.weights[0], sha256="0" * 64),))
    with pytest.raises(UsageError, match="has other weights of watermark, so it would not be that bundle any more"):
        check_stack(before, config)


def test_another_threshold_is_another_bundle_and_the_same_is_not(tmp_path: Path) -> None:
    store, first = make(tmp_path, POLICY)
    assert make(tmp_path, POLICY)[1] == first
    checks = {"skin": {**POLICY["checks"]["skin"], "block": 0.95}}  # type: ignore[index] # a nested mapping
    second = make(tmp_path, {**POLICY, "checks": checks})[1]
    assert second != first
    assert sorted(path.name for path in (Path(store) / "bundles").iterdir()) == sorted([first, second])


def test_a_policy_that_does_not_fit_the_stack_makes_no_bundle(tmp_path: Path) -> None:
    checks = {"skin": {"side": "negative", "votes": ["skin.shar"], "review": 0.4}}
    with pytest.raises(UsageError, match=r"did you mean 'skin\.share'"):
        make(tmp_path, {"checks": checks})
    assert not (tmp_path / "store").exists()


def test_a_taxonomy_outside_the_policys_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.csv").write_text("x\n")
    with pytest.raises(UsageError):
        make(tmp_path / "inner", {**POLICY, "taxonomy": "../taxonomy.csv"})
