"""Every name in OUT, once; those of plan and slices are in `planning.names`, of reviews in `review_layout`.

OUT/plan.parquet  OUT/plan/  OUT/slices/     the plan: see `planning.names`
OUT/run.json                                 the run record
OUT/decided_by/                              policy, questions, rules, tuned prompts as they were: see `results.decided`
OUT/verdicts/  OUT/votes/  OUT/tars/         parts: one per shard and table
OUT/receipts/                                one per committed shard
OUT/poison.json                              items that kill or stall a worker, and why they are not judged
OUT/lease/                                   which job writes there now: see `results.occupancy`
OUT/asks/<question>/                         columns of questions that were asked afterwards
OUT/extensions/<id>/                         votes of detectors that were added afterwards: see `results.joined`
OUT/night/                                   what the listing of a night found
OUT/summary.json  OUT/report.html  OUT/_SUCCESS
OUT/comparison.html                          the run beside another
OUT/duplicates.parquet  OUT/known.parquet  OUT/verdicts_grouped/  OUT/checks/  OUT/document/   derived from the run
OUT/duplicates/                              the page of the groups of copies
OUT/sorted/<detector>/                       its pictures by the classes of a detector
OUT/evaluation/  OUT/promotion/              measures by labels, and a comparison with the incumbent
OUT/monitor/                                 in the folder of all nights: what new labels said of certificates
OUT/index.html                               in the folder of all nights: their trend
OUT/export/                                  what `moderation export` writes by default
OUT/sweeps/  OUT/lists/  TO/changes/         sweeps and learned lists: see `results.sweep_layout`
OUT/actions/  OUT/escalations/               what was done, and what has to be reported: see `results.after_layout`
OUT/decisions/                               what reviewers decided, appended only: see `labels.decision_store`
OUT/review/                                  claims and appeals: see `review.claims`, `review.appeals`
OUT/explanations/                            which part of a picture a score rests on: rows, maps, overlays, a page
"""

from __future__ import annotations

from typing import Final

from moderation import storage
from moderation.planning.names import PLAN_FILE, PLAN_FOLDER, SLICES_FOLDER

RUN_FILE: Final = "run.json"
SUMMARY_FILE: Final = "summary.json"
REPORT_FILE: Final = "report.html"
COMPARISON_FILE: Final = "comparison.html"  # with another run
SUCCESS_FILE: Final = "_SUCCESS"
POISON_FILE: Final = "poison.json"

DECIDED_FOLDER: Final = "decided_by"
DECIDED_INDEX: Final = "index.json"

VERDICTS: Final = "verdicts"
VOTES: Final = "votes"
TARS: Final = "tars"
RECEIPTS_FOLDER: Final = "receipts"
ASKS_FOLDER: Final = "asks"
ASK_FILE: Final = "ask.json"
EXTENSIONS_FOLDER: Final = "extensions"
EXTENSION_ITEMS: Final = "items"  # of an extension: one row per item, what became of it
NEWEST_FILE: Final = "newest.json"  # beside extensions: the one that was begun last
STAGED_FOLDER: Final = "judged"  # beside extensions: verdicts until all are there and replace those of OUT
NIGHT_FOLDER: Final = "night"

DUPLICATES_FILE: Final = "duplicates.parquet"
DUPLICATES_FOLDER: Final = "duplicates"
KNOWN_FILE: Final = "known.parquet"
GROUPED_FOLDER: Final = "verdicts_grouped"
GROUPED_FILE: Final = "grouped.json"
CHECKS_FOLDER: Final = "checks"
DOCUMENT_FOLDER: Final = "document"
SORTED_FOLDER: Final = "sorted"
SORTED_FILE: Final = "sorted.parquet"
MONITOR_FOLDER: Final = "monitor"
PROMOTION_FOLDER: Final = "promotion"
PROMOTION_FILE: Final = "promotion.json"
EVALUATION_FOLDER: Final = "evaluation"
EVALUATION_FILE: Final = "evaluation.json"
INVENTORY_FILE: Final = "inventory.json"
PAGE_FILE: Final = "index.html"  # of a folder of pages
EXPORT_FOLDER: Final = "export"
# Not among RUN_FOLDERS: starting over must not remove what people have decided.
EXPLANATIONS_FOLDER: Final = "explanations"
EXPLANATION_MAPS: Final = "maps"  # in the folder of explanations
EXPLANATION_OVERLAYS: Final = "overlays"
EXPLANATION_STRIPS: Final = "strips"
EXPLANATION_SUMMARY_PAGE: Final = "summary.html"
EXPLANATION_SUMMARY_FILE: Final = "summary.json"
EXPORT_MANIFEST_FILE: Final = "manifest.jsonl"  # of copies
EXPORT_ERRORS_FILE: Final = "errors.jsonl"  # of objects that were left out of an export
FIGURE_FORMATS: Final = ("png", "svg")

QUIET_FILE: Final = "quiet.jsonl"  # in the folder of all nights: those without anything to do

REJUDGE_FILE: Final = "rejudge.json"  # in the folder of a rejudge, which is never OUT

# What starting over removes, with all its content. Receipts first: without a receipt a part does not count.
RUN_FILES: Final = (
    RUN_FILE, PLAN_FILE, SUMMARY_FILE, REPORT_FILE, COMPARISON_FILE, SUCCESS_FILE, POISON_FILE, DUPLICATES_FILE,
    KNOWN_FILE,
)  # fmt: skip
RUN_FOLDERS: Final = (
    RECEIPTS_FOLDER, PLAN_FOLDER, VERDICTS, VOTES, TARS, SLICES_FOLDER, ASKS_FOLDER, NIGHT_FOLDER, GROUPED_FOLDER,
    DECIDED_FOLDER, EXPORT_FOLDER, EXTENSIONS_FOLDER, EXPLANATIONS_FOLDER,
)  # fmt: skip


def part_name(shard_id: str, format_: str) -> str:
    """File name of a shard's part in any table."""
    return f"part-{shard_id}.{format_}"


def part_uri(out: str, table: str, shard_id: str, format_: str) -> str:
    """A shard's part. table: VERDICTS, VOTES, TARS or GROUPED_FOLDER."""
    return storage.join(out, table, part_name(shard_id, format_))


def list_part_ids(out: str, table: str, format_: str) -> set[str]:
    """The shards that have a part in a table, committed or not; one listing."""
    prefix, suffix = part_name("", format_).partition(".")[0], f".{format_}"
    names = _names_in(storage.join(out, table))
    return {n.removeprefix(prefix).removesuffix(suffix) for n in names if n.startswith(prefix) and n.endswith(suffix)}


def list_part_ids_of_any_format(out: str, table: str) -> set[str]:
    """The shards that have a part in a table, in whatever format; one listing."""
    prefix = part_name("", "x").partition(".")[0]
    names = _names_in(storage.join(out, table))
    return {n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)}


def _names_in(folder: str) -> list[str]:
    try:
        return [info.uri.rsplit("/", 1)[-1] for info in storage.list_objects(folder)]
    except FileNotFoundError:
        return []


def receipts_folder(out: str) -> str:
    """The receipts of all shards."""
    return storage.join(out, RECEIPTS_FOLDER)


def receipt_uri(out: str, shard_id: str) -> str:
    """A shard's receipt."""
    return storage.join(out, RECEIPTS_FOLDER, f"{shard_id}.json")


def nights_page_uri(root: str) -> str:
    """The page of a nightly job: the trend of its nights. root: the folder that holds them."""
    return storage.join(root, PAGE_FILE)


def asks_folder(out: str) -> str:
    """All questions that were asked afterwards."""
    return storage.join(out, ASKS_FOLDER)


def ask_uri(out: str, name: str) -> str:
    """The record of a question that was asked afterwards."""
    return storage.join(out, ASKS_FOLDER, name, ASK_FILE)


def ask_part_uri(out: str, name: str, shard_id: str, format_: str) -> str:
    """The columns of a question for one shard."""
    return storage.join(out, ASKS_FOLDER, name, part_name(shard_id, format_))


def extensions_folder(out: str) -> str:
    """All extensions of a run."""
    return storage.join(out, EXTENSIONS_FOLDER)


def extension_home(out: str, name: str) -> str:
    """The folder of an extension: its plan, run record, receipts and parts. name: its id."""
    return storage.join(out, EXTENSIONS_FOLDER, name)


def run_of_extension(home: str) -> str | None:
    """OUT of the run that the folder of an extension belongs to; None for any other folder."""
    out, _, folder = home.rpartition("/")[0].rpartition("/")
    return out if folder == EXTENSIONS_FOLDER and out else None


def newest_extension_uri(out: str) -> str:
    """Which extension was begun last."""
    return storage.join(out, EXTENSIONS_FOLDER, NEWEST_FILE)


def staged_folder(out: str, run_id: str) -> str:
    """Where the verdicts of an extended run wait until all are there. run_id: of the extended run."""
    return storage.join(out, EXTENSIONS_FOLDER, STAGED_FOLDER, run_id)


def run_uri(home: str) -> str:
    """The run record. home: OUT, or the folder of a slice in it."""
    return storage.join(home, RUN_FILE)


def decided_uri(out: str, name: str) -> str:
    """A kept file of what decided a run. Its name is a hash and a suffix."""
    return storage.join(out, DECIDED_FOLDER, name)


def decided_index_uri(out: str) -> str:
    """The index of the files that decided a run."""
    return storage.join(out, DECIDED_FOLDER, DECIDED_INDEX)


def summary_uri(home: str) -> str:
    """The numbers of a run or a slice."""
    return storage.join(home, SUMMARY_FILE)


def report_uri(home: str) -> str:
    """The page of a run or a slice."""
    return storage.join(home, REPORT_FILE)


def comparison_uri(out: str) -> str:
    """The page that holds a run beside another."""
    return storage.join(out, COMPARISON_FILE)


def success_uri(home: str) -> str:
    """The empty file that says that a run or a slice is done."""
    return storage.join(home, SUCCESS_FILE)


def poison_uri(home: str) -> str:
    """Items that a run does not judge because they kill or stall workers. home: OUT, or a slice's folder in it."""
    return storage.join(home, POISON_FILE)


def duplicates_uri(out: str) -> str:
    """Groups of copies."""
    return storage.join(out, DUPLICATES_FILE)


def duplicates_folder(out: str) -> str:
    """The page of the groups of copies."""
    return storage.join(out, DUPLICATES_FOLDER)


def known_uri(out: str) -> str:
    """Matches with a list of known pictures."""
    return storage.join(out, KNOWN_FILE)


def grouped_uri(out: str) -> str:
    """The record of the verdicts with their groups."""
    return storage.join(out, GROUPED_FOLDER, GROUPED_FILE)


def checks_folder(out: str) -> str:
    """Figures and the page of checks, by default."""
    return storage.join(out, CHECKS_FOLDER)


def document_folder(out: str) -> str:
    """The inventory and its page, by default."""
    return storage.join(out, DOCUMENT_FOLDER)


def sorted_folder(out: str, detector: str) -> str:
    """Of the pictures sorted by a detector's classes."""
    return storage.join(out, SORTED_FOLDER, detector)


def evaluation_folder(out: str) -> str:
    """Measures by labels and their page, by default."""
    return storage.join(out, EVALUATION_FOLDER)


def promotion_folder(out: str) -> str:
    """How a candidate did against the incumbent, by default."""
    return storage.join(out, PROMOTION_FOLDER)


def monitor_uri(home: str, file: str) -> str:
    """A file of the monitor of certificates. home: the folder that holds the nights."""
    return storage.join(home, MONITOR_FOLDER, file)


def export_uri(out: str, name: str) -> str:
    """An export, by default."""
    return storage.join(out, EXPORT_FOLDER, name)


def explanations_folder(out: str) -> str:
    """Explanations, by default."""
    return storage.join(out, EXPLANATIONS_FOLDER)


def explanation_name(key: str) -> str:
    """The row of an explanation, in the folder of explanations."""
    return part_name(key, "arrow")


def night_uri(out: str, file: str) -> str:
    """A file of what the listing of a night found."""
    return storage.join(out, NIGHT_FOLDER, file)
