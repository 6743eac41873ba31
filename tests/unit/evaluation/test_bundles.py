"""Bundles: one hash for all that decides, a pointer with history, and what was changed behind its back."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.evaluation.bundle_store import (
    Bundle,
    Promotion,
    fetch_bundle,
    find_bundle,
    list_bundles,
    promote_bundle,
    read_bundle,
    read_pointer,
    roll_back,
    write_bundle,
)
from moderation.storage.lease import LeaseHeldError, hold_lease

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def store_of(folder: Path, *policies: str) -> tuple[str, list[str]]:
    """A store with a bundle for each policy text."""
    store = str(folder / "store")
    return store, [write_one(store, text.encode()) for text in policies]


def write_one(store: str, policy: bytes, name: str = "policy.yaml") -> str:
    contents = {name: policy}
    files = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    bundle = Bundle(stack_fingerprint="stack", policy="p", weights=(), files=files, code_version="0.1.0")
    return write_bundle(store, bundle, contents)


def promote(store: str, bundle_hash: str, hours: int = 0) -> None:
    promote_bundle(store, Promotion(bundle=bundle_hash, at=NOW + timedelta(hours=hours), reason="better"))


def test_the_same_content_is_the_same_bundle_and_is_found_by_its_first_digits(tmp_path: Path) -> None:
    store, (first, second, again) = store_of(tmp_path, "a", "b", "a")
    assert first == again != second
    assert list_bundles(store) == sorted({first, second})
    assert find_bundle(store, first[:12]) == first
    with pytest.raises(UsageError, match="no bundle 'ffffffff'"):
        find_bundle(store, "ffffffff")
    with pytest.raises(UsageError, match="no bundle"):
        find_bundle(store, first[:3])


def test_the_pointer_moves_in_one_write_and_keeps_its_history(tmp_path: Path) -> None:
    store, (first, second) = store_of(tmp_path, "a", "b")
    assert read_pointer(store) is None
    with pytest.raises(UsageError, match="no bundle has been promoted"):
        find_bundle(store, "current")
    promote(store, first)
    promote(store, second, 1)
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.bundle == find_bundle(store, "current") == second
    assert [change.bundle for change in pointer.history] == [first, second]
    assert sorted(p.name for p in Path(store).iterdir()) == ["bundles", "current.json"]


def test_rolled_back_twice_goes_back_two_and_not_to_and_fro(tmp_path: Path) -> None:
    store, (first, second, third) = store_of(tmp_path, "a", "b", "c")
    for hours, bundle_hash in enumerate((first, second, third)):
        promote(store, bundle_hash, hours)
    assert roll_back(store, NOW).bundle == second
    assert roll_back(store, NOW).bundle == first
    with pytest.raises(UsageError, match="no bundle before this one"):
        roll_back(store, NOW)
    promote(store, third, 9)
    assert roll_back(store, NOW).bundle == first
    pointer = read_pointer(store)
    assert pointer is not None
    assert len(pointer.history) == 7


def test_of_promotions_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    """Each is in the history or was refused; without a lease the last one to write lost the rest."""
    store, bundles = store_of(tmp_path, *"abcd")
    promote(store, bundles[0])
    refused = []

    def promote_one(bundle_hash: str) -> None:
        try:
            promote(store, bundle_hash)
        except LeaseHeldError:
            refused.append(bundle_hash)

    with ThreadPoolExecutor() as pool:
        list(pool.map(promote_one, bundles[1:]))
    pointer = read_pointer(store)
    assert pointer is not None
    assert sorted([c.bundle for c in pointer.history] + refused) == sorted(bundles)
    assert pointer.bundle == pointer.history[-1].bundle


def test_nobody_rolls_back_while_another_one_promotes(tmp_path: Path) -> None:
    store, (first, second) = store_of(tmp_path, "a", "b")
    promote(store, first)
    promote(store, second)
    with hold_lease(store), pytest.raises(LeaseHeldError, match="another promotion holds the lease"):
        roll_back(store, NOW)
    assert roll_back(store, NOW).bundle == first


def test_a_bundle_that_is_not_there_cannot_be_promoted(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path, "a")
    with pytest.raises(UsageError, match="no such bundle"):
        promote(store, "0" * 64)
    assert read_pointer(store) is None


def test_what_was_changed_in_a_bundle_is_refused(tmp_path: Path) -> None:
    store, (first,) = store_of(tmp_path, "a")
    folder = Path(store) / "bundles" / first
    cache = tmp_path / "cache"
    assert (fetch_bundle(store, first, cache) / "policy.yaml").read_text() == "a"
    (cache / first / "policy.yaml").write_text("changed here")
    assert (fetch_bundle(store, first, cache) / "policy.yaml").read_text() == "a"
    (folder / "policy.yaml").write_text("changed there")
    with pytest.raises(UsageError, match="not what the bundle was made of"):
        fetch_bundle(store, first, tmp_path / "other")
    record = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**record, "policy": "another"}))
    with pytest.raises(UsageError, match="somebody changed it"):
        read_bundle(store, first)


@pytest.mark.parametrize("name", ["../policy.yaml", "/etc/passwd", "a/../../b", "a/b/c"])
def test_a_file_of_a_bundle_never_leaves_its_folder(tmp_path: Path, name: str) -> None:
    store = str(tmp_path / "store")
    files = {name: hashlib.sha256(b"x").hexdigest()}
    bundle = Bundle(stack_fingerprint="s", policy="p", weights=(), files=files, code_version="1")
    with pytest.raises(UsageError, match="not the name of a file"):
        fetch_bundle(store, write_bundle(store, bundle, {}), tmp_path / "cache")


def test_a_pointer_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text('{"bundle": "../x", "history": []}')
    with pytest.raises(UsageError, match="not readable as the pointer"):
        read_pointer(str(tmp_path))
