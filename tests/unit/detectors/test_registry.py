"""Finding and building detectors, and the messages when that fails."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest

from moderation.config.model import DetectorConfig
from moderation.detectors import registry
from moderation.detectors.base import DetectorDefaults, View
from moderation.detectors.general.quality import QualityDetector
from moderation.errors import UsageError

GOOD_SHA = "0" * 64


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """These entry points, as if packages that provide them were installed."""
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=registry.GROUP)


def test_the_detectors_of_this_package_are_available() -> None:
    assert {"open_nsfw", "image_safety", "imagenet", "quality", "pdq"} <= set(registry.available())
    assert registry.available()["quality"] is QualityDetector


def test_what_is_available_cannot_be_changed() -> None:
    known: Any = registry.available()
    with pytest.raises(TypeError):
        known["mine"] = QualityDetector


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'open_nsfw'"):
        registry.build(DetectorConfig(name="open_nfsw"))


def test_options_reach_the_detector_and_a_wrong_one_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'jpeg_roundtrip'"):
        registry.build(DetectorConfig(name="open_nsfw", options={"jpeg_round_trip": True}))
    with pytest.raises(UsageError, match="must be bool, got 1"):
        registry.build(DetectorConfig(name="open_nsfw", options={"jpeg_roundtrip": 1}))


def test_a_missing_package_is_answered_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("mine", "no_such_package_abc.detectors:Mine"))
    with pytest.raises(UsageError, match="reinstall its package"):
        registry.build(DetectorConfig(name="mine"))


def test_a_package_that_a_detector_imports_is_named_for_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "plugin_that_needs.py").write_text("import some_missing_package.inner\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    install(monkeypatch, point("mine", "plugin_that_needs:Mine"))
    with pytest.raises(UsageError, match="pip install some-missing-package"):
        registry.build(DetectorConfig(name="mine"))


def test_a_broken_plug_in_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        point("broken", "no_such_package_abc:X"),
        point("fine", "moderation.detectors.general.quality:QualityDetector"),
    )
    assert list(registry.available()) == ["broken", "fine"]
    assert "broken" in registry.available()
    assert registry.build(DetectorConfig(name="fine")).labels == QualityDetector.labels


def test_two_packages_that_claim_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("mine", "a:A"), point("mine", "b:B"))
    with pytest.raises(UsageError, match="two packages provide the detector 'mine'"):
        registry.available()


def test_configured_weights_stand_for_the_detectors_own() -> None:
    config = DetectorConfig(name="open_nsfw", weights="s3://models/mine.onnx", sha256=GOOD_SHA)
    (found,) = registry.weights_of(registry.build(config), config)
    assert (found.locator, found.sha256) == ("s3://models/mine.onnx", GOOD_SHA)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DetectorConfig(name="open_nsfw", weights="file:///x"), "go together"),
        (DetectorConfig(name="quality", weights="file:///x", sha256=GOOD_SHA), "takes 0 weight files"),
    ],
)
def test_weights_without_checksum_or_use_are_refused(config: DetectorConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.build(config)


class FromElsewhere(DetectorDefaults):
    """A detector of another package: the defaults supply the members that it lacks."""

    name = "mine"
    version = "1"
    labels = ("x",)
    view = View(mode="canvas")
    cost_ms = 1.0

    def __init__(self, options: Any) -> None: ...

    def load(self, *_: Any) -> None: ...

    def score(self, *_: Any) -> None: ...


class WithoutDefaults:
    """One that was written before `ranges`, `networks` and `unpack` were members."""

    name = "mine"
    version = "1"
    labels = ("x",)
    view = View(mode="canvas")
    cost_ms = 1.0
    weights = requires = optional = ()
    embedding_dim = 0
    blob_sizes: ClassVar[Any] = {}

    def __init__(self, options: Any) -> None: ...

    def load(self, *_: Any) -> None: ...

    def score(self, *_: Any) -> None: ...


def test_a_detector_of_another_package_may_leave_members_to_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("mine", "mine:FromElsewhere"))
    monkeypatch.setattr(registry, "_load", lambda _: FromElsewhere)
    detector = registry.build(DetectorConfig(name="mine"))
    assert (detector.ranges, detector.optional, detector.networks) == ({}, (), ())
    detector.unpack()


def test_a_detector_that_lacks_members_is_refused_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("mine", "mine:WithoutDefaults"))
    monkeypatch.setattr(registry, "_load", lambda _: WithoutDefaults)
    with pytest.raises(UsageError, match=r"'mine' lacks `ranges`, `networks`, `take_weights`, `unpack`; .*Defaults"):
        registry.build(DetectorConfig(name="mine"))
