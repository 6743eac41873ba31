"""The commands: name, place, and what `--help` says of each. A test holds the sentences to the docstrings."""

from __future__ import annotations

from typing import Final

from .ending import EXIT_CODES
from .lazy_group import JobEntry

_ACT_CODES: Final = """Exit codes: 0 done. 2 wrong usage, nothing was started. 3 some were refused or failed. 4 stopped
by an error: the same command goes on."""
_EXPLAIN_CODES: Final = """Exit codes: 0 done. 2 wrong usage, nothing was started. 3 no item could be explained: their
rows say why. 4 stopped by an error."""
_PROMOTE_CODES: Final = "Exit codes: 0 it is live now. 1 a limit is not kept. 2 wrong usage."
_REVIEW_CODES: Final = "Exit codes: 0 as they were made. 1 changed, lost or moved."


def _job(name: str, place: str, sentence: str, epilog: str | None = None, *, tables: bool = True) -> JobEntry:
    return JobEntry(name=name, place=place, help=sentence, epilog=epilog, tables=tables)


COMMANDS: Final = (
    _job("backfill", "backfill:backfill", "Judge every item of SOURCE.", EXIT_CODES),
    _job(
        "keyframes",
        "keyframes:keyframes",
        "Cut the videos of SOURCE into the frames that a backfill with the same `media` settings would score.",
        EXIT_CODES,
    ),
    _job("status", "status:status", "Say how far the run in OUT is, at what rate, and with which errors."),
    _job(
        "verify",
        "verify:verify",
        "Compare every part in OUT with its receipt, and the receipts with the plan.",
        EXIT_CODES,
    ),
    _job(
        "merge",
        "merge:merge",
        "Check that all slices of OUT are done, and write the plan, summary and report of the whole.",
    ),
    _job(
        "nightly",
        "nightly:nightly",
        "Judge what of SOURCE is new or changed since LEDGER, into OUT/<night>/.",
        EXIT_CODES,
    ),
    _job(
        "why",
        "why:why",
        "Say why ITEM has its verdict: rule, check, threshold, evidence, and what would have changed it.",
    ),
    _job(
        "explain",
        "explain:explain",
        "Say which part of the deciding frame each verdict rests on; OUT's pictures are fetched again.",
        _EXPLAIN_CODES,
    ),
    _job(
        "ask",
        "ask:ask",
        "Rank the items of OUT by how well their best frame answers a question that was never asked of the pictures.",
    ),
    _job(
        "tune-prompts",
        "tune_prompts:tune_prompts",
        "Learn what stands for the words of CHECK from labelled pictures, and say what it gained.",
    ),
    _job(
        "train-head",
        "train_head:train_head",
        "Train a head on labelled pictures: a linear probe, or the last layers too where held-back pictures say so.",
    ),
    _job(
        "train-watermark",
        "train_watermark:train_watermark",
        "Train the detector `watermark` on marks that are drawn and pasted here.",
    ),
    _job(
        "checks",
        "checks:checks",
        "Show, for each check, every variant's scores, the fused one, the thresholds, and where variants disagree.",
    ),
    _job(
        "document",
        "document:document",
        "Take the inventory of OUT: share by concept, terms that stand out among what was flagged, blurred examples.",
    ),
    _job(
        "sort",
        "sort:sort",
        "Sort the pictures of OUT by the highest label of a detector: a table and a page; nothing is moved.",
    ),
    _job(
        "rejudge",
        "rejudge:rejudge",
        "Judge the votes of OUT by another policy; it may also read questions asked afterwards (`ask --as-check`).",
    ),
    _job(
        "report",
        "report:report",
        "Write report.html of OUT again, or hold two runs side by side: what moved, which scores are other ones.",
    ),
    _job(
        "labels",
        "labels:labels",
        "All decisions in OUT as labels: an expert's answer, else what two agree on, else the latest single one.",
    ),
    _job(
        "mine",
        "mine:mine",
        "Find confident mistakes (by --labels), items whose detectors differ, and scores near a threshold.",
    ),
    _job(
        "sweep",
        "sweep:sweep",
        "Apply a policy, a list or decisions to all that runs have judged, and write the verdicts that change.",
        EXIT_CODES,
    ),
    _job(
        "evaluate",
        "evaluate:evaluate",
        "Hold the scores and verdicts of OUT against labels; several OUTs stand beside each other, or --together.",
    ),
    _job(
        "certify",
        "certify:certify",
        "Certify what a policy may block and pass by itself, from labels of its audit; the rest is reviewed.",
    ),
    _job(
        "drift",
        "drift:drift",
        "Hold every score of OUT against a reference run: population stability, and a test corrected for their number.",
    ),
    _job(
        "promote",
        "promote:promote",
        "Point STORE to the candidate's bundle if it keeps the limits; exit code 1, and why, if it does not.",
        _PROMOTE_CODES,
    ),
    _job(
        "export",
        "export:export",
        "Write the rows of OUT in another format, or the objects that they are of.",
        EXIT_CODES,
    ),
    _job(
        "act",
        "act:act",
        "Do what FILE says to the objects of OUT, each once, with a receipt in OUT/actions/.",
        _ACT_CODES,
    ),
    _job(
        "escalations",
        "escalations:escalations",
        "Count the rows of OUT/escalations/, and hand on those that the hook of the configuration has not taken yet.",
    ),
    _job(
        "transparency",
        "transparency:transparency",
        "Count what was restricted, by whom, what became of appeals, and what certificates say of errors.",
    ),
    _job("duplicates", "duplicates:duplicates", "Group the copies of OUT round the largest picture of each."),
    _job(
        "enroll",
        "enroll:enroll",
        "Make a gallery of known people; the detector `gallery` then looks for them (option `gallery`).",
    ),
    _job("doctor", "doctor:doctor", "Look at versions, devices, weights, decoders, storage and space.", tables=False),
    _job("smoke", "smoke:smoke", "Judge 25 drawn pictures: proves storage, workers, device and weights.", EXIT_CODES),
    _job(
        "concepts",
        "concepts:concepts",
        "List the classes of the detector `imagenet`, and the concepts of the configuration that hold them.",
        tables=False,
    ),
    _job("init", "init:init", "Write a configuration, a policy and cases for it to DIR.", tables=False),
)

CONFIG: Final = (
    _job(
        "show",
        "config_show:config_show",
        "Print the configuration that a run would have, as YAML that can be saved and used as --config.",
        tables=False,
    ),
)

WEIGHTS: Final = (
    _job(
        "pull",
        "weights:weights_pull",
        "Fetch and check the weights of CONFIG and copy them to a mirror; MODERATION_WEIGHTS=TO then finds them there.",
        tables=False,
    ),
)

POLICY: Final = (
    _job(
        "show",
        "policy:policy_show",
        "Show a policy: its checks with what belongs to each and what does not, its lists, rules and audit.",
    ),
    _job("test", "policy:policy_test", "Hold a policy to a table of cases."),
    _job("diff", "policy:policy_diff", "Tell which items change sides between two policies, from stored votes."),
)

BUNDLE: Final = (
    _job(
        "make",
        "bundle:bundle_make",
        "Write the bundle of a configuration into STORE and print its hash; the same content is the same bundle.",
    ),
    _job("list", "bundle:bundle_list", "List the bundles of STORE, and which were live when."),
)

REVIEW: Final = (
    _job(
        "verify",
        "review:review_verify",
        "Check that no decision in OUT was changed, lost or moved since it was made.",
        _REVIEW_CODES,
    ),
    _job("stats", "review:review_stats", "Pace, agreement, hidden items and conflicts of a review."),
    _job(
        "export",
        "review:review_export",
        "Write decisions, or with --todo items to decide, for another program; `review import` reads them back.",
    ),
    _job(
        "import",
        "review:review_import",
        "Append the decisions of FILE to those in OUT; the same file again changes nothing.",
    ),
    _job(
        "appeals",
        "review:review_appeals",
        "Take appeals in, and tell what became of them: `review serve` has them as a queue of their own.",
    ),
    _job(
        "serve",
        "review_serve:review_serve",
        "Serve a page on which reviewers decide the items of OUT; it prints one link per reviewer.",
    ),
)

HASHES: Final = (
    _job("build", "hashes:hashes_build", "Make the file that the detector `known` reads of lists of PDQ hashes."),
    _job("match", "hashes:hashes_match", "Hold the hashes that a run kept against a list: no pictures are read."),
)

LISTS: Final = (
    _job("learn", "lists:lists_learn", "Make lists of all that reviewers have blocked and passed."),
    _job("show", "lists:lists_show", "Show what was learned: which decision made an entry, by whom, until when."),
)
