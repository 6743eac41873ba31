"""Is everything here that a run needs? Findings, each with advice; nothing is changed.

Of Ray only the version is checked: starting it is the run's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from moderation.config.model import Config, DetectorConfig
from moderation.config.pool_choice import choose_pool, describe_pool
from moderation.config.ray_places import find_bad_places
from moderation.detectors.base import Detector, Weights
from moderation.detectors.registry import build, weights_of
from moderation.detectors.weights.locator import default_cache, resolve
from moderation.detectors.weights.mirror import VARIABLE
from moderation.detectors.weights.reach import is_here, why_out_of_reach
from moderation.doctor.findings import Finding
from moderation.doctor.packages import find_decoders, find_extras, find_versions
from moderation.doctor.probes import Machine, look_at_machine, probe_storage
from moderation.errors import FatalError, UsageError
from moderation.lists.policy_file import load_whole_policy
from moderation.pages.text import size
from moderation.policy.bind import bind
from moderation.policy.model import policy_hash
from moderation.scoring.build import build_stack
from moderation.scoring.devices import pick_device, pick_dtype

MIB = 1024 * 1024
GIB = 1024 * MIB

# Models of the default stack, and Python with torch: measured 1.1 GiB per worker on a CPU.
_WORKER_BYTES = 1300 * MIB
_GPU_WORKER_BYTES = 3072 * MIB  # with CUDA
# A run over a million items writes about 1 GB of votes; with less space the first nightly run may fail.
_MIN_DISK_BYTES = 2 * GIB
# Ray's object store holds receipts and plan rows, never pixels: a small one is enough. Docker's default is 64 MiB.
_MIN_SHM_BYTES = 256 * MIB


def diagnose(config: Config, uris: Sequence[str] = ()) -> list[Finding]:
    """All findings for this configuration on this machine.

    uris: sources or outputs to list, besides the prefixes of `source.allow`. Downloads nothing; local weights are read
    whole for their checksum. Never raises because of a finding.
    """
    machine = look_at_machine(default_cache())
    return [
        *find_versions(),
        *_devices(config, machine),
        *_workers(config),
        *find_detectors(config),
        *_policy(config),
        *find_extras(),
        *find_decoders(config.media),
        *_storage([*uris, *config.source.allow]),
        *_space(config, machine),
    ]


def _devices(config: Config, machine: Machine) -> Iterator[Finding]:
    group = "devices"
    native = torch.cpu._is_avx512_bf16_supported()
    arithmetic = "bf16 native" if native else "bf16 not native, fp32 is used"
    cores = f"{machine.usable_cores} of {machine.cores} cores"
    yield Finding(
        group=group,
        name="CPU",
        status="ok",
        detail=f"{cores}, {torch.get_num_threads()} torch threads, {arithmetic}",
    )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        about = torch.cuda.get_device_properties(index)
        detail = f"{about.name}, {size(about.total_memory)}"
        yield Finding(group=group, name=f"GPU {index}", status="ok", detail=detail)
    if not count:
        seen = machine.has_nvidia_device
        yield Finding(
            group=group,
            name="GPU",
            status="wrong" if seen else "note",
            detail="present, but this torch cannot use it" if seen else "none; the stack runs on the CPU",
            advice="install a torch built for CUDA, and check: nvidia-smi" if seen else "",
        )
    try:
        device = pick_device(config.stack.device)
        dtype = str(pick_dtype(config.stack.dtype, device)).removeprefix("torch.")
        yield Finding(group=group, name="the stack runs on", status="ok", detail=f"{device} in {dtype}")
    except UsageError as error:
        advice = "--set stack.device=auto"
        yield Finding(group=group, name="the stack runs on", status="wrong", detail=str(error), advice=advice)


def _workers(config: Config) -> Iterator[Finding]:
    """Who runs the workers of a run, and whether that can start here."""
    group, name = "devices", "a run begins by"
    try:
        yield Finding(group=group, name=name, status="ok", detail=describe_pool(config.runtime))
    except UsageError as error:
        yield Finding(group=group, name=name, status="wrong", detail=str(error), advice="--set runtime.pool=auto")
        return
    if not _needs_ray(config) or config.runtime.ray_address or os.environ.get("RAY_ADDRESS"):
        return
    for problem in find_bad_places():
        what, _, advice = problem.rpartition(": ")
        yield Finding(group=group, name="Ray", status="wrong", detail=what, advice=advice)


def _needs_ray(config: Config) -> bool:
    try:
        return choose_pool(config.runtime) == "ray"
    except UsageError:
        return False


def find_detectors(config: Config) -> Iterator[Finding]:
    """Whether each detector can be built, and its weights are here."""
    group = "detectors"
    total_ms = gated_ms = 0.0
    for entry in config.stack.detectors:
        title = entry.title
        if config.stack.only and title not in config.stack.only:
            yield Finding(group=group, name=title, status="note", detail="left out by stack.only")
            continue
        try:
            detector = build(entry)
            weights = weights_of(detector, entry)
        except (UsageError, FatalError) as error:
            yield _from_error(group, title, error)
            continue
        total_ms += detector.cost_ms
        gated_ms += detector.cost_ms if entry.when else 0.0
        yield from _weights(group, entry, detector, weights)
    if total_ms:
        detail = (
            f"{total_ms:.1f} ms per frame on two CPU cores, {1000 / total_ms:,.0f} frames/s, if every detector runs"
        )
        always_ms = total_ms - gated_ms
        if gated_ms and always_ms > 0:
            detail += f"; {always_ms:.1f} ms, {1000 / always_ms:,.0f} frames/s, where no `when:` is met"
        yield Finding(group=group, name="together", status="ok", detail=detail)


def _weights(group: str, entry: DetectorConfig, detector: Detector, weights: Sequence[Weights]) -> Iterator[Finding]:
    about = f"version {detector.version}, {detector.cost_ms:g} ms per frame" + (
        f", when {entry.when}" if entry.when else ""
    )
    if not weights:
        yield Finding(group=group, name=entry.title, status="ok", detail=f"{about}, a measurement: no weights")
    for w in weights:
        if not is_here(w):
            yield _from_elsewhere(group, entry.title, about, w)
            continue
        try:
            path = resolve(w)
        except (UsageError, FatalError, OSError) as error:
            yield _from_error(group, entry.title, error)
            continue
        detail = f"{about}; {w.locator}, {size(path.stat().st_size)}, sha256 {w.sha256[:12]} as expected, {w.licence}"
        yield Finding(group=group, name=entry.title, status="ok", detail=detail)


def _from_elsewhere(group: str, name: str, about: str, w: Weights) -> Finding:
    """Weights that are not here: fine where they can be fetched, else the run would not start."""
    detail = f"{about}; {w.locator} is not here yet ({w.licence})"
    why = why_out_of_reach(w)
    if why is None:
        advice = "nothing: it can be fetched from here, the first run does so and checks its sha256"
        return Finding(group=group, name=name, status="note", detail=detail, advice=advice)
    advice = f"moderation weights pull CONFIG --to s3://bucket/weights where there is a way, and {VARIABLE}= that here"
    return Finding(group=group, name=name, status="missing", detail=f"{detail}, and out of reach: {why}", advice=advice)


def _from_error(group: str, name: str, error: Exception) -> Finding:
    """A finding from one of our errors, which name the command that helps after the last `; `."""
    text, _, command = str(error).rpartition("; ")
    if not text:
        text, command = command, ""
    missing = command.startswith("pip install") or "no such" in text
    if isinstance(error, FatalError) and not isinstance(error, UsageError):
        text, command = (
            str(error),
            "restore the file (reinstall its package), or configure its sha256 if you changed it",
        )
    return Finding(group=group, name=name, status="missing" if missing else "wrong", detail=text, advice=command)


def _policy(config: Config) -> Iterator[Finding]:
    name = Path(config.policy).name
    try:
        policy = load_whole_policy(Path(config.policy))
        stack = build_stack(config)
        bind(policy, stack.labels, gated=stack.gated, disabled=stack.disabled)
    except (UsageError, OSError) as error:
        advice = "correct the policy or the stack"
        yield Finding(group="policy", name=name, status="wrong", detail=str(error), advice=advice)
        return
    detail = f"{len(policy.checks)} checks, fits the stack, hash {policy_hash(policy)[:12]}"
    yield Finding(group="policy", name=name, status="ok", detail=detail)


def _storage(uris: Sequence[str]) -> Iterator[Finding]:
    if not uris:
        advice = "moderation doctor SOURCE OUT lists them"
        yield Finding(group="storage", name="not asked", status="note", detail="no URI was given", advice=advice)
    for uri in dict.fromkeys(uris):
        answer = probe_storage(uri)
        yield Finding(group="storage", name=uri, status=answer.status, detail=answer.detail, advice=answer.advice)


def _space(config: Config, machine: Machine) -> Iterator[Finding]:
    group = "space"
    for name, free in machine.free_disk_bytes.items():
        low = free < _MIN_DISK_BYTES
        advice = f"free some, or point elsewhere: {_ELSEWHERE.get(name, 'another OUT')}" if low else ""
        yield Finding(
            group=group, name=name, status="note" if low else "ok", detail=f"{size(free)} free", advice=advice
        )
    shm = machine.shm_free_bytes
    if shm is not None and _needs_ray(config):
        low = shm < _MIN_SHM_BYTES
        advice = "docker run --shm-size=1g; in Kubernetes an emptyDir with medium: Memory at /dev/shm" if low else ""
        detail = f"{size(shm)} free, for Ray's object store"
        yield Finding(group=group, name="/dev/shm", status="note" if low else "ok", detail=detail, advice=advice)
    if machine.memory_bytes is not None:
        runtime = config.runtime
        on_gpu = torch.cuda.is_available()
        frame_bytes = runtime.waiting_frame_bytes(on_gpu=on_gpu)
        needs = (_GPU_WORKER_BYTES if on_gpu else _WORKER_BYTES) + frame_bytes + runtime.fetch_budget_bytes
        low = machine.memory_bytes < needs
        advice = "--set runtime.frame_budget_bytes=134217728, or a larger machine" if low else ""
        several = "; several share a GPU, see docs/gpu.md" if on_gpu else ""
        detail = f"{size(machine.memory_bytes)} available, a worker takes about {size(needs)}{several}"
        yield Finding(group=group, name="memory", status="wrong" if low else "ok", detail=detail, advice=advice)


_ELSEWHERE = {"temporary files": "TMPDIR", "weights cache": "MODERATION_CACHE"}
