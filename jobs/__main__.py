"""`python -m jobs`, installed as `moderation`: one thin file per job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from moderation.version import SCHEMA_VERSION, __version__

from .act import ACT_CODES, act
from .ask import ask
from .backfill import backfill
from .bundle import bundle_list, bundle_make
from .certify import certify
from .checks import checks
from .concepts import concepts
from .config_show import config_show
from .doctor import doctor
from .document import document
from .drift import drift
from .duplicates import duplicates
from .ending import EXIT_CODES, run_to_end
from .enroll import enroll
from .escalations import escalations
from .evaluate import evaluate
from .explain import explain
from .export import export
from .hashes import hashes_build, hashes_match
from .init import init
from .keyframes import keyframes
from .labels import labels
from .lists import lists_learn, lists_show
from .merge import merge
from .mine import mine
from .nightly import nightly
from .policy import policy_diff, policy_show, policy_test
from .promote import promote
from .rejudge import rejudge
from .report import report
from .review import review_appeals, review_export, review_import, review_stats, review_verify
from .review_serve import review_serve
from .smoke import smoke
from .sort import sort
from .status import status
from .sweep import sweep
from .train_head import train_head
from .train_watermark import train_watermark
from .transparency import transparency
from .tune_prompts import tune_prompts
from .verify import verify
from .weights import weights_pull
from .why import why


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moderation {__version__}, tables of schema version {SCHEMA_VERSION}")
        raise typer.Exit


app = typer.Typer(
    help="Batch moderation of images and videos in object storage.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # No docstring: the program's help text is given above.
    del version


app.command("backfill", epilog=EXIT_CODES)(backfill)
app.command("keyframes", epilog=EXIT_CODES)(keyframes)
app.command("status")(status)
app.command("verify", epilog=EXIT_CODES)(verify)
app.command("merge")(merge)
app.command("nightly", epilog=EXIT_CODES)(nightly)
app.command("why")(why)
app.command(
    "explain",
    epilog="Exit codes: 0 done. 2 wrong usage, nothing was started. 3 no item could be explained: their rows say why. 4"
    " stopped by an error.",
)(explain)
app.command("ask")(ask)
app.command("tune-prompts")(tune_prompts)
app.command("train-head")(train_head)
app.command("train-watermark")(train_watermark)
app.command("checks")(checks)
app.command("document")(document)
app.command("sort")(sort)
app.command("rejudge")(rejudge)
app.command("report")(report)
app.command("labels")(labels)
app.command("mine")(mine)
app.command("sweep", epilog=EXIT_CODES)(sweep)
app.command("evaluate")(evaluate)
app.command("certify")(certify)
app.command("drift")(drift)
app.command("promote", epilog="Exit codes: 0 it is live now. 1 a limit is not kept. 2 wrong usage.")(promote)
app.command("export", epilog=EXIT_CODES)(export)
app.command("act", epilog=ACT_CODES)(act)
app.command("escalations")(escalations)
app.command("transparency")(transparency)
app.command("duplicates")(duplicates)
app.command("enroll")(enroll)
app.command("doctor")(doctor)
app.command("smoke", epilog=EXIT_CODES)(smoke)
app.command("concepts")(concepts)
app.command("init")(init)
config_app = typer.Typer(help="Configuration.", no_args_is_help=True, rich_markup_mode=None)
config_app.command("show")(config_show)
app.add_typer(config_app, name="config")
weights_app = typer.Typer(help="Weights.", no_args_is_help=True, rich_markup_mode=None)
weights_app.command("pull")(weights_pull)
app.add_typer(weights_app, name="weights")
policy_app = typer.Typer(help="Policies: shown, tested, compared.", no_args_is_help=True, rich_markup_mode=None)
policy_app.command("show")(policy_show)
policy_app.command("test")(policy_test)
policy_app.command("diff")(policy_diff)
app.add_typer(policy_app, name="policy")
bundle_app = typer.Typer(help="Bundles: what is promoted or rolled back.", no_args_is_help=True, rich_markup_mode=None)
bundle_app.command("make")(bundle_make)
bundle_app.command("list")(bundle_list)
app.add_typer(bundle_app, name="bundle")
review_app = typer.Typer(help="Review by people.", no_args_is_help=True, rich_markup_mode=None)
review_app.command("verify", epilog="Exit codes: 0 as they were made. 1 changed, lost or moved.")(review_verify)
review_app.command("stats")(review_stats)
review_app.command("export")(review_export)
review_app.command("import")(review_import)
review_app.command("appeals")(review_appeals)
review_app.command("serve")(review_serve)
app.add_typer(review_app, name="review")
hashes_app = typer.Typer(help="Lists of known pictures.", no_args_is_help=True, rich_markup_mode=None)
hashes_app.command("build")(hashes_build)
hashes_app.command("match")(hashes_match)
app.add_typer(hashes_app, name="hashes")
lists_app = typer.Typer(help="Lists that learn from decisions.", no_args_is_help=True, rich_markup_mode=None)
lists_app.command("learn")(lists_learn)
lists_app.command("show")(lists_show)
app.add_typer(lists_app, name="lists")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one job; every error becomes a sentence and an exit code."""
    run_to_end(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
