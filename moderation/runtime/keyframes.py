"""The job that cuts videos into keyframe tars on CPU nodes: loop, resume and receipts as in a backfill, no stack."""

from __future__ import annotations

from moderation import storage
from moderation.config.model import Config
from moderation.media import DECODE_VERSION
from moderation.pipeline.keyframes import CUT_VERSION
from moderation.planning.apart import check_apart
from moderation.results.ffmpeg import require_video_decoder
from moderation.results.record import RunFacts, run_id_of
from moderation.runtime.keyframe_task import KeyframeTask
from moderation.runtime.resume import RunOutcome, resume_run
from moderation.runtime.run import Run, load_policy_of

# A tar is written whole, from memory: 32 videos with 64 frames of 150 KB each are 300 MB.
MAX_ITEMS_PER_TAR = 32


def cut_keyframes(
    source: str,
    out: str,
    config: Config,
    *,
    limit: int | None = None,
    fresh: bool = False,
    max_hours: float | None = None,
    max_items: int | None = None,
) -> RunOutcome:
    """Cut every video of a source that has no committed tar in OUT; resumable like a backfill.

    Uses `source`, `shards` (at most MAX_ITEMS_PER_TAR items), `media` and `runtime` of the configuration, and no GPU.
    Raises UsageError before any work starts, FatalError (resumable) afterwards.
    """
    run = _prepare(source, out, config, limit)
    task = KeyframeTask(config=run.config, out=run.out)
    return resume_run(run, task, fresh=fresh, max_hours=max_hours, max_items=max_items, judged=False)


def _prepare(source: str, out: str, config: Config, limit: int | None) -> Run:
    source, out = storage.canonical(source), storage.canonical(out).rstrip("/")
    check_apart(source, out)
    require_video_decoder(config)
    shards = config.shards.model_copy(update={"max_items": min(config.shards.max_items, MAX_ITEMS_PER_TAR)})
    runtime = config.runtime.model_copy(update={"num_gpus": 0.0})
    config = config.model_copy(update={"shards": shards, "runtime": runtime})
    identity = {
        "source": storage.mask_signatures(source),
        "limit": limit,
        "source_config": config.source.model_dump(mode="json"),
        "shards": config.shards.model_dump(mode="json"),
        "media": config.media.model_dump(mode="json", exclude={"credentials"}),
        "keyframes": CUT_VERSION,
        "decode": DECODE_VERSION,
    }
    return Run(
        source=source,
        out=out,
        home=out,
        config=config,
        policy=load_policy_of(config),
        limit=limit,
        facts=RunFacts(run_id=run_id_of(identity), stack_fingerprint="", policy_hash=""),
        identity=identity,
    )
