"""Options that several jobs share, and the configuration that they make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from moderation.config.model import Config
    from moderation.evaluation.evaluate import LabelWords

ConfigOption = Annotated[
    str | None,
    typer.Option(envvar="MODERATION_CONFIG", help="Configuration file, or the name of a packaged one: default, full."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key; may be repeated.")
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        envvar="MODERATION_POLICY", help="Policy file, or the name of a packaged one, instead of the configuration's."
    ),
]
WorkersOption = Annotated[str | None, typer.Option(help="auto, or how many.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first items of the source.")]
MaxHoursOption = Annotated[float | None, typer.Option(min=0, help="End by then; the next call goes on.")]
MaxItemsOption = Annotated[int | None, typer.Option(min=1, help="End after so many; the next call goes on.")]
AllowPartialOption = Annotated[
    bool, typer.Option("--allow-partial", help="Exit code 0, not 5, where the call ends early with work left.")
]
VariantOption = Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")]

LabelsOption = Annotated[
    str,
    typer.Option(
        metavar="FILE", help="Labels: .csv .tsv .jsonl .parquet, with `label` and `item_id`, `uri` or `content_hash`."
    ),
]
BadOption = Annotated[
    list[str] | None, typer.Option("--bad", metavar="LABEL", help="This label is bad; may be repeated.")
]
BundlesOption = Annotated[
    str,
    typer.Option(
        "--bundles",
        metavar="STORE",
        envvar="MODERATION_BUNDLES",
        help="Folder or prefix of bundles, and of the pointer to the live one.",
    ),
]
BundleOption = Annotated[
    str | None, typer.Option(help="Stack and policy of a bundle: `current`, or its hash; instead of --config.")
]
StoreOption = Annotated[
    str | None, typer.Option("--bundles", metavar="STORE", envvar="MODERATION_BUNDLES", help="Where bundles lie.")
]
MeansOption = Annotated[
    list[str] | None,
    typer.Option("--means", metavar="CHECK=LABEL", help="This label confirms the check; may be repeated."),
]

AsOfOption = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="Day by which lists have ended; default: that of the run.")
]


def parse_day(text: str | None) -> date | None:
    """The day of `--as-of`. Raises UsageError."""
    from moderation.errors import UsageError

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--as-of {text!r}: not a date like 2026-12-31") from error


def resolve_policy_path(name: str) -> Path:
    """A policy file, or a packaged one by its name; not the configuration that is also called `default.yaml`.

    Raises UsageError naming the nearest.
    """
    from moderation.config.load import resolve_config_path
    from moderation.errors import UsageError

    try:
        return resolve_config_path(name, kind="policies")
    except UsageError as error:
        raise UsageError(f"no policy {name!r}: {error}") from error


def label_words(bad: Sequence[str] | None, means: Sequence[str] | None) -> LabelWords:
    """How `--bad` and `--means` read the words of labels."""
    from moderation.evaluation.evaluate import LabelWords

    return LabelWords(bad=tuple(bad or ()), means=tuple(means or ()))


def load_bundle_settings(
    bundle: str | None,
    store: str | None,
    config: str | None,
    overrides: Sequence[str] | None,
    *,
    workers: str | None = None,
    policy: str | None = None,
) -> Config:
    """The configuration of a bundle, or without a bundle, the one that a call asks for. Raises UsageError."""
    if bundle is None:
        return load_settings(config, overrides, workers=workers, policy=policy)
    from moderation.errors import UsageError

    if store is None:
        raise UsageError("--bundle needs --bundles STORE, or MODERATION_BUNDLES")
    for name, given in (("config", config), ("policy", policy)):
        if given is not None:
            said = f"--{name} (or MODERATION_{name.upper()})"
            raise UsageError(f"{said} with --bundle: the bundle holds it; one of them")
    held = [o for o in overrides or () if o.split("=")[0].split(".")[0] in ("stack", "media", "policy")]
    if held:
        raise UsageError(f"--set {held[0]} with --bundle: it would not be that bundle any more")

    from moderation.evaluation.bundle_store import CONFIG_FILE, bundle_cache, fetch_bundle, read_bundle
    from moderation.evaluation.bundles import check_stack

    folder = fetch_bundle(store, bundle, bundle_cache())
    settings = load_settings(str(folder / CONFIG_FILE), overrides, workers=workers)
    check_stack(read_bundle(store, folder.name), settings)
    return settings


def load_settings(
    config: str | None,
    overrides: Sequence[str] | None,
    *,
    workers: str | None = None,
    policy: str | None = None,
) -> Config:
    """The configuration that a call asks for. Raises UsageError."""
    from moderation.config.load import load_config

    return load_config(config, said_overrides(overrides, workers=workers, policy=policy))


def said_overrides(
    overrides: Sequence[str] | None, *, workers: str | None = None, policy: str | None = None
) -> list[str]:
    """What `--set` and the options that stand for a key say, the options last."""
    by_option = []
    if workers is not None:
        by_option.append(f"runtime.workers={workers}")
    if policy is not None:
        by_option.append(f"policy={json.dumps(policy)}")
    return [*(overrides or ()), *by_option]
