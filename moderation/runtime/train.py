"""Training of a head by several processes: features by Ray tasks, layers data-parallel by Ray Train.

Every process takes the same steps on its share of each batch; gradients are summed (`torch.distributed`: gloo on CPUs,
NCCL on GPUs). Pictures come from the same sources as those of a run, so each node must reach them, and the cache
folder: features that a node leaves elsewhere are computed again by the caller.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import ray
import torch
from torch import nn

from moderation import storage
from moderation.config.model import Config, RuntimeConfig
from moderation.errors import FatalError, ModerationError, UsageError, one_line
from moderation.runtime.cluster import connect, leave
from moderation.training.heads.backbone import load_backbone
from moderation.training.heads.batches import Examples, FinetuneSettings, TrainingTeam
from moderation.training.heads.bundle import CHECKPOINT, HeadOutcome
from moderation.training.heads.checkpoint import load_progress, save_progress
from moderation.training.heads.features import compute_features
from moderation.training.heads.finetune import TunedNetwork, finetune
from moderation.training.heads.progress import LayerProgress
from moderation.training.heads.request import HeadRequest, find_requested
from moderation.training.heads.run import features_folder, train_head
from moderation.types import Item

MAX_WORKERS: Final = 64
_RETRIES: Final = 2  # of a task whose process died; its cache files are the same again
_KEY: Final = "ray"


def train_head_on_ray(
    config: Config, request: HeadRequest, settings: FinetuneSettings, *, workers: int, address: str | None = None
) -> HeadOutcome:
    """As `training.heads.run.train_head`, by `workers` processes of a cluster, or of one that is started here.

    Raises UsageError where the cluster has fewer processors than workers, FatalError where there is no cluster or a
    process fails.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"--workers {workers}: 1 to {MAX_WORKERS}")
    ours = connect(RuntimeConfig(ray_address=address))
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        if workers > cores:
            raise UsageError(f"--workers {workers}: the cluster has {cores} processors")
        return train_head(
            config,
            replace(request, workers=workers),
            settings,
            tune=partial(_tune_on_ray, workers, request.out),
            warm=partial(_warm_on_ray, workers),
        )
    finally:
        if ours:
            leave()


def _warm_on_ray(
    workers: int, items: Sequence[Item], config: Config, request: HeadRequest, settings: FinetuneSettings
) -> None:
    """Each task computes the features of every n-th item into the cache folder."""
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_warm_slice)
    waiting = [task.remote(list(items[first::workers]), config, request, settings) for first in range(workers)]
    try:
        ray.get(waiting)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ModerationError):
            raise error.cause from None
        raise FatalError(f"a task of the training failed: {one_line(error, 300)}") from None
    except ray.exceptions.RayError as error:
        raise FatalError(f"a task of the training was lost: {one_line(error, 300)}") from None


def _warm_slice(items: Sequence[Item], config: Config, request: HeadRequest, settings: FinetuneSettings) -> None:
    backbone = load_backbone(find_requested(config, request), config, blocks=request.blocks)
    compute_features(items, backbone, config, features_folder(request.cache), views=request.views, seed=settings.seed)


def _tune_on_ray(
    workers: int,
    out: str,
    network: TunedNetwork,
    examples: Examples,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    planned_epochs: int | None = None,
    resume: LayerProgress | None = None,
    save: Callable[[LayerProgress], None] = lambda _progress: None,
) -> LayerProgress:
    """As `finetune`; the first process saves, and leaves its last state in OUT, where the caller reads it."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    last = storage.join(out, f"{CHECKPOINT}.ray")
    on_gpu = device.type == "cuda"
    told = {
        "network": network.cpu(),
        "examples": ray.put(examples),
        "settings": settings,
        "dtype": dtype,
        "planned_epochs": planned_epochs,
        "resume": resume,
        "save": save,
        "last": last,
    }
    with tempfile.TemporaryDirectory(prefix="train") as folder:
        trainer = TorchTrainer(
            _be_a_worker,
            train_loop_config=told,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu),
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            # Ray's own notes of the run; what is kept is written by us.
            run_config=RunConfig(name="head", storage_path=folder, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray's errors of workers have no base class in common over its versions
            raise FatalError(f"training in {workers} processes failed: {one_line(error, 300)}") from error
    progress = load_progress(last, _KEY)
    if progress is None:
        raise FatalError(f"training in {workers} processes left no result at {last}")
    storage.delete_tree(last)
    network.to(device).load_state_dict(progress.best)
    return progress


def _be_a_worker(told: Mapping[str, Any]) -> None:
    import ray.train
    from ray.train.torch import get_device

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    first = rank == 0
    network: nn.Module = told["network"]
    progress = finetune(
        network,  # type: ignore[arg-type] # as _tune_on_ray() sends it
        ray.get(told["examples"]),
        told["settings"],
        device=get_device(),
        dtype=told["dtype"],
        planned_epochs=told["planned_epochs"],
        resume=told["resume"],
        save=told["save"] if first else lambda _progress: None,
        team=TrainingTeam(rank=rank, size=size, add=_sum_over_all),
    )
    if first:
        save_progress(told["last"], progress, _KEY)


def _sum_over_all(tensor: torch.Tensor) -> None:
    import torch.distributed as dist

    dist.all_reduce(tensor)
