"""`moderation export`: a finished run in another form. The run stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa

from moderation import storage
from moderation.config.hints import did_you_mean
from moderation.errors import UsageError
from moderation.planning.slices import find_slices, slice_home
from moderation.policy.taxonomy import load_taxonomy
from moderation.results.export.coco import write_coco
from moderation.results.export.manifest import write_manifest
from moderation.results.export.objects import ObjectsReport, write_copies, write_webdataset
from moderation.results.export.plain import write_csv, write_json_lines, write_parquet
from moderation.results.export.selection import (
    PartSelection,
    RowSelection,
    SelectedRow,
    read_selected,
    read_selected_parts,
)
from moderation.results.export.services import load_categories, write_openai, write_rekognition
from moderation.results.layout import export_uri
from moderation.results.planned import iterate_planned
from moderation.results.reader import StoredRun, load_policy_of_run, open_run
from moderation.version import __version__

# format -> name of its file or folder in OUT/export, where there is no --to.
FORMATS: Final[Mapping[str, str]] = {
    "jsonl": "verdicts.jsonl",
    "csv": "verdicts.csv",
    "parquet": "verdicts.parquet",
    "coco": "coco.json",
    "rekognition": "rekognition.jsonl",
    "openai": "openai.jsonl",
    "manifest": "manifest.jsonl",
    "webdataset": "webdataset",
    "copies": "copies",
}
_FOLDERS: Final = {"webdataset": write_webdataset, "copies": write_copies}
_MANIFEST_ENDINGS: Final = (".jsonl", ".ndjson", ".manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written. rows: of the run; copies: left out as copies; failed: objects that could not be exported."""

    to: str
    rows: int
    items: int
    copies: int
    failed: int = 0
    escalated: int = 0  # matches with an illegal list, which nobody hands on
    folders: tuple[str, ...] = ()  # of a manifest: its objects' folders, for `source.allow`


def export_run(
    out: str,
    format_: str,
    *,
    to: str | None = None,
    selection: RowSelection | None = None,
    policy: str | None = None,
    taxonomy: str | None = None,
) -> ExportReport:
    """Write the selected rows of a run in a format. to: a file, or a folder of `webdataset` and `copies`.

    policy: a file, where that of the run is gone (`openai` needs its thresholds). taxonomy: another table of labels.
    Raises UsageError for an unknown format, an OUT without a run, or a selection that cannot be made.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_!r}: no such format{did_you_mean(format_, FORMATS)}")
    if format_ == "manifest" and to is not None and not to.endswith(_MANIFEST_ENDINGS):
        raise UsageError(f"--to {to}: a manifest ends in {' or '.join(_MANIFEST_ENDINGS)}: its lines are JSON")
    run = open_run(out)
    where = storage.canonical(to or export_uri(run.out, FORMATS[format_])).rstrip("/")
    _refuse_within(run.out, where)
    taken = PartSelection(run.out, selection or RowSelection())
    if format_ in _FOLDERS:
        written = _FOLDERS[format_](read_selected(run, taken), where, run.load_config())
        return _report(where, taken, written)
    write = _writer(run, format_, taken, policy, taxonomy)
    with storage.open_output(where) as file:
        items = write(file)
    folders = _folders_of(run) if format_ == "manifest" else ()
    return ExportReport(
        to=where, rows=taken.rows, items=items, copies=taken.copies, folders=folders, escalated=taken.escalated
    )


def _refuse_within(out: str, to: str) -> None:
    """Raises UsageError where an export would lie among the tables of the run."""
    out = storage.canonical(out).rstrip("/")
    if f"{to}/".startswith(f"{out}/") and not to.startswith(export_uri(out, "")):
        raise UsageError(f"--to {to}: is the run itself or in it; only {export_uri(out, '')} is for exports there")


def _report(to: str, taken: PartSelection, written: ObjectsReport) -> ExportReport:
    return ExportReport(
        to=to,
        rows=taken.rows,
        items=written.items,
        copies=taken.copies,
        failed=written.left_out,
        escalated=taken.escalated,
    )


def _writer(
    run: StoredRun, format_: str, taken: PartSelection, policy: str | None, taxonomy: str | None
) -> Callable[[IO[bytes]], int]:
    """The writer of a one-file format. It reads and checks all that it needs before the file is opened."""
    if format_ == "parquet":
        return lambda file: write_parquet((table for _, table in read_selected_parts(run, taken)), file)
    if format_ == "coco":
        return lambda file: write_coco(_with_votes(run, taken), file)
    rows = read_selected(run, taken)
    if format_ == "rekognition":
        checks = _checks_of(run)
        labels = load_taxonomy(taxonomy)
        return lambda file: write_rekognition(rows, file, checks=checks, taxonomy=labels, model=_model(run))
    if format_ == "openai":
        bound, categories = load_policy_of_run(run, policy), load_categories(taxonomy)
        return lambda file: write_openai(rows, file, policy=bound, categories=categories, model=_model(run))
    plain = {"jsonl": write_json_lines, "csv": write_csv, "manifest": write_manifest}[format_]
    return lambda file: plain(rows, file)


def _with_votes(run: StoredRun, taken: PartSelection) -> Iterator[tuple[Sequence[SelectedRow], pa.Table]]:
    for shard_id, verdicts in read_selected_parts(run, taken):
        rows = [SelectedRow(cells=cells, item=None) for cells in verdicts.to_pylist()]
        yield rows, run.read_votes(shard_id)


def _checks_of(run: StoredRun) -> tuple[str, ...]:
    """The checks that the verdicts have a score of."""
    names = run.read_verdicts(run.shard_ids[0]).column_names
    return tuple(name.removeprefix("score_") for name in names if name.startswith("score_"))


def _model(run: StoredRun) -> str:
    """The model name in the export: this library and the stack."""
    metadata = run.read_verdicts(run.shard_ids[0]).schema.metadata or {}
    fingerprint = metadata.get(b"moderation.stack_fingerprint", b"").decode()
    return f"moderation-{__version__}+{fingerprint[:16]}"


def _folders_of(run: StoredRun) -> tuple[str, ...]:
    """The few folders or buckets that hold all objects; a reader of the manifest has to allow them."""
    homes = [run.out, *(slice_home(run.out, part) for part in find_slices(run.out))]
    folders: set[str] = set()
    for shard in iterate_planned(homes):
        for item in shard.items:
            folders.update(_top_of(media.uri) for media in item.objects)
    return tuple(sorted(folders))


def _top_of(uri: str) -> str:
    """`s3://bucket/`, or the folder of a local file."""
    if storage.scheme_of(uri) == "file":
        return f"{uri.rpartition('/')[0]}/"
    return "/".join(uri.split("/")[:3]) + "/"
