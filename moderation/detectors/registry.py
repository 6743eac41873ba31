"""Detectors by name: entry points of the group `moderation.detectors`, loaded on demand.

A package adds a detector with

    [project.entry-points."moderation.detectors"]
    my_detector = "my_package.module:MyDetector"

An extra after it (`"m:C [faces]"`) names what to install when the import fails. The driver of a run imports the class
and builds it, but loads no weights: where the module imports torch in `load` alone, a run starts seconds sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from moderation.config.hints import did_you_mean
from moderation.config.model import DetectorConfig
from moderation.detectors.base import Detector, Weights
from moderation.errors import UsageError

GROUP = "moderation.detectors"
_MEMBERS = (*Detector.__annotations__, "take_weights", "load", "score", "unpack")


class _Available(Mapping[str, type[Detector]]):
    """Read-only; names cost nothing, a class is imported at look-up (so a broken plug-in harms no other)."""

    def __init__(self, points: Mapping[str, EntryPoint]) -> None:
        self._points = points

    def __getitem__(self, name: str) -> type[Detector]:
        return _load(self._points[name])

    def __contains__(self, name: object) -> bool:
        # Mapping's own method would look the name up, which imports the class.
        return name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def available() -> Mapping[str, type[Detector]]:
    """All installed detectors, sorted by name.

    Looking one up imports it: this raises UsageError with the pip command when a package is missing.
    Raises UsageError here when two packages claim one name.
    """
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        other = points.get(point.name)
        # One distribution found twice (a wheel and an editable checkout) has the same entry point, which is fine.
        if other is not None and other.value != point.value:
            raise UsageError(f"two packages provide the detector {point.name!r}: {other.value} and {point.value}")
        points[point.name] = point
    return _Available(points)


def build(config: DetectorConfig) -> Detector:
    """Build the detector that a configuration names, with its options; not loaded yet.

    Raises UsageError for an unknown name (names the nearest), a missing package, options that it refuses, or a class
    that lacks a member of `Detector` (names it).
    """
    detectors = available()
    if config.name not in detectors:
        hint = did_you_mean(config.name, detectors, otherwise="installed") or "; installed: none"
        raise UsageError(f"unknown detector {config.name!r}{hint}")
    if config.options_from is not None:
        raise UsageError(f"detector {config.title!r}: `options_from` is read by load_config()")
    detector = detectors[config.name](config.options)
    absent = [member for member in _MEMBERS if not hasattr(detector, member)]
    if absent:
        raise UsageError(
            f"detector {config.name!r} lacks {', '.join(f'`{member}`' for member in absent)}; let its class inherit"
            " moderation.detectors.base.DetectorDefaults, or define what is missing"
        )
    detector.name = config.title
    detector.take_weights(weights_of(detector, config))
    return detector


def weights_of(detector: Detector, config: DetectorConfig) -> tuple[Weights, ...]:
    """The weights to load: the detector's own, or the configuration's `weights` and `sha256` instead.

    A detector without weights of its own leaves a locator empty for the configuration to fill.
    Raises UsageError when there are none, or when the configured ones can't replace the detector's: they lack a sha256
    (only hf:// may, because a hub has its own), or the detector takes none or several files.
    """
    own = tuple(detector.weights)
    if config.weights is None and config.sha256 is None:
        if any(not w.locator for w in own):
            raise UsageError(
                f"detector {config.title!r}: say where they lie: `weights:` (s3://, file://, hf://) and `sha256:`"
            )
        return own
    locator = _configured(config)
    if any(w.locator == locator for w in own):
        return own  # already replaced
    replaced = _replaceable(own, config)
    weights = replace(replaced, locator=locator, sha256=config.sha256 or "")
    return tuple(weights if w is replaced else w for w in own)


def _replaceable(own: Sequence[Weights], config: DetectorConfig) -> Weights:
    """The one file that the configuration can replace: one without a locator, else the only one."""
    candidates = [w for w in own if not w.locator] or own
    if len(candidates) != 1:
        raise UsageError(f"detector {config.title!r}: takes {len(own)} weight files, `weights` can replace only one")
    return candidates[0]


def _configured(config: DetectorConfig) -> str:
    """The locator that a configuration gives for weights. Raises UsageError where its content cannot be verified."""
    if config.weights is None or (config.sha256 is None and not config.weights.startswith("hf://")):
        raise UsageError(f"detector {config.title!r}: `weights` and `sha256` go together")
    return config.weights


def check_options(name: str, options: Mapping[str, object], types: Mapping[str, type | tuple[type, ...]]) -> None:
    """Check names and types of options. Raises UsageError that names the nearest name or the expected type."""
    for key, value in options.items():
        if key not in types:
            hint = did_you_mean(key, types, otherwise="it knows") or "; it knows: none"
            raise UsageError(f"detector {name!r}: unknown option {key!r}{hint}")
        entry = types[key]
        accepted = entry if isinstance(entry, tuple) else (entry,)
        # Python counts bool as an int, but `top: true` is a mistake.
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            expected = " or ".join(t.__name__ for t in accepted)
            raise UsageError(f"detector {name!r}: option {key!r} must be {expected}, got {value!r}")


def _load(point: EntryPoint) -> type[Detector]:
    try:
        loaded: type[Detector] = point.load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == point.module.partition(".")[0]:
            raise UsageError(f"detector {point.name!r}: {point.value} is not there; reinstall its package") from error
        owner = point.dist.name if point.dist else package
        what = f"'{owner}[{','.join(point.extras)}]'" if point.extras else package.replace("_", "-")
        raise UsageError(f"detector {point.name!r} needs the package {package!r}; pip install {what}") from error
    except AttributeError as error:
        raise UsageError(f"detector {point.name!r}: {point.value} is not there; reinstall its package") from error
    return loaded
