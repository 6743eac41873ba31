"""Typed configuration: frozen, strict, each field documented where it stands; loads without torch.

`load_config()` reads YAML, applies `--set a.b=c`, and turns every mistake into one `UsageError` that names the key
and the nearest right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from moderation.config.devices import DeviceName
from moderation.config.escalations import EscalationConfig
from moderation.config.explain import ExplainConfig
from moderation.config.hash_passes import DENSE, HASHING
from moderation.config.nights import LearnConfig, MonitorConfig
from moderation.config.section import ConfigSection

MIB = 1024 * 1024


class SourceConfig(ConfigSection):
    """Where items come from and what they may read."""

    type: Literal["auto", "prefix", "manifest", "webdataset", "parquet", "requests"] = Field(
        default="auto",
        description="auto: by the name of SOURCE (.csv .tsv .jsonl .json .manifest .txt .list, also .gz; "
        ".parquet .arrow .tar; a folder of nothing but tars or tables as what they are), else a prefix or glob. "
        "requests: lines of an OpenAI Batch",
    )
    keyframes: bool = Field(default=False, description="tar: the pictures of one folder are one item's keyframes")
    bytes_column: str | None = Field(default=None, description="parquet/arrow: the column that holds encoded bytes")
    allow: tuple[str, ...] = Field(
        default=(),
        description="prefixes that URIs of a manifest may name (empty: only the manifest's own folder or bucket); "
        "links in a local folder may lead there, too",
    )
    max_manifest_rows: int = Field(default=50_000_000, ge=1, description="refuse larger manifests and tables")
    max_manifest_bytes: int = Field(
        default=16 * 1024 * MIB, ge=MIB, description="refuse a manifest whose unpacked cells take more than this"
    )
    max_grouped_bytes: int = Field(
        default=2 * 1024 * MIB,
        ge=MIB,
        description="of a manifest with `group`, `frame` or `time_s`: its rows are held in memory until those of one "
        "item are brought together; of the names and small files (.json, .txt, ...) of four tars, indexed together",
    )


class ShardConfig(ConfigSection):
    """Bounds of a shard: the unit of retry. Smaller loses less to a crash; larger writes fewer files."""

    max_items: int = Field(default=256, ge=1, le=100_000)
    max_bytes: int = Field(default=256 * MIB, ge=1)
    order_by: str | None = Field(
        default=None,
        min_length=1,
        description="attribute with a number: items with a larger one are judged first (missing: 0). The first shard "
        "starts only after all is listed; at most 1,000 different values",
    )


class MediaConfig(ConfigSection):
    """Limits on untrusted input, and how videos are sampled."""

    max_bytes: int = Field(default=512 * MIB, ge=1, description="a larger object is `too_large` and is not fetched")
    max_pixels: int = Field(default=100_000_000, ge=1, description="of one picture, before decoding")
    max_seconds: float = Field(default=4 * 3600.0, gt=0, description="a longer video is `too_long`")
    max_frames: int = Field(default=64, ge=1, description="scored frames of one item, spread evenly over all of it")
    frame_budget: int = Field(
        default=400,
        ge=1,
        description="scored frames of a video where max_frames would leave gaps over max_gap_s: as many more as close "
        "them, up to this (one hour: one every 9 s); no effect below max_frames",
    )
    video_decoder: Literal["auto", "decord", "torchcodec", "torchcodec_cuda", "pyav"] = Field(
        default="auto",
        description="auto: decord for codecs and containers where it is known to be right and its times agree with "
        "those of the packets, else PyAV; decord: wherever the times agree; torchcodec: as auto, by the FFmpeg of the "
        "system (extra torchcodec), torchcodec_cuda: on NVDEC, unmeasured; pyav: always",
    )
    sampling: Literal["keyframes", "uniform", "hybrid", "shots"] = Field(
        default="keyframes",
        description="keyframes: I-frames, and one more wherever two are over max_gap_s apart; uniform: by `fps`; "
        "hybrid: both; shots: first, middle and last frame of each shot, and more in gaps",
    )
    fps: float = Field(default=1.0, gt=0, le=120, description="frames per second, for uniform and hybrid")
    max_gap_s: float = Field(default=5.0, gt=0, description="widest gap between scored frames, frame_budget permitting")
    decode_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="for one item; a slower one is `timeout`. An album or a set of keyframes has 4 s more for each "
        "further object",
    )
    unknown: Literal["review", "skip"] = Field(
        default="review",
        description="bytes that are neither known media nor clearly something else (a text, a program): "
        "review: `unsupported_type`; skip: `not_media`, no verdict",
    )
    canvas_px: int = Field(default=448, ge=224, le=4096, description="short side to which larger frames are scaled")
    tiles: Literal["off", "grid", "auto"] = Field(
        default="off",
        description="score parts of a still picture as frames of their own. grid: the cells of a picture that is a "
        "grid; auto: those, and pieces of long or large pictures",
    )
    max_tiles: int = Field(default=9, ge=2, le=64, description="tiles of one picture")
    wholes: Literal["off", "auto"] = Field(
        default="off", description="auto: an album of 4, 6 or 9 pictures cut from one is also judged as that one"
    )
    credentials: bool = Field(
        default=False, description="read each file's Content Credentials; on where the stack has the detector `c2pa`"
    )


class DetectorConfig(ConfigSection):
    """One detector of the stack. `name: head:scenes` is short for `name: head` and `alias: scenes`."""

    name: str
    alias: str | None = Field(
        default=None,
        pattern="^[a-z][a-z0-9_]*$",
        description="what its columns are called, for a detector that is listed twice: `clip_b32` -> `clip_b32.mask`",
    )
    when: str | None = Field(default=None, description="condition on an earlier vote: `open_nsfw.nsfw >= 0.1`")
    weights: str | None = Field(default=None, description="locator instead of the detector's own")
    sha256: str | None = Field(default=None, description="of those weights")
    options: Mapping[str, Any] = Field(default_factory=dict, description="checked by the detector")
    options_from: str | None = Field(
        default=None,
        description="YAML file, relative to this one or packaged, with options that several detectors share; "
        "`options` win. Read with the configuration, so workers need no file",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_name(cls, given: Any) -> Any:  # noqa: ANN401 - whatever a file holds
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return given
        name, colon, alias = given["name"].partition(":")
        # A file may patch `{name: head, alias: scenes}` of its base as `head:scenes`.
        return {**given, "name": name, "alias": alias} if colon and given.get("alias") in (None, alias) else given

    @property
    def title(self) -> str:
        """The name that its columns begin with."""
        return self.alias or self.name


class StackConfig(ConfigSection):
    """The detectors and how they run."""

    detectors: tuple[DetectorConfig, ...] = ()
    only: tuple[str, ...] = Field(default=(), description="run only these detectors")
    device: DeviceName = Field(default="auto", description="auto, cpu, cuda, cuda:N")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the device multiplies it natively, else fp32"
    )
    compile: bool = Field(default=False, description="torch.compile the networks; needs a C++ compiler on CPU")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="frames per batch; null: 16 on a CPU, 256 on a GPU (fewer where memory is short)",
    )
    keep_embeddings: bool = Field(default=False, description="write normalised float16 embeddings into votes/")

    @property
    def hashes_alone(self) -> bool:
        """Whether nothing runs that does more than hash."""
        running = {d.name for d in self.detectors if not self.only or d.title in self.only}
        return bool(running) and running <= HASHING

    def frames_per_batch(self, *, on_gpu: bool) -> int:
        """`batch_size`, or the default: a GPU needs many frames at once (docs/gpu.md)."""
        return self.batch_size or (256 if on_gpu else 16)


class OutputConfig(ConfigSection):
    """The tables."""

    format: Literal["parquet", "arrow"] = "parquet"
    compression: Literal["zstd", "snappy", "none"] = "zstd"


class RuntimeConfig(ConfigSection):
    """Workers and bounds. One worker owns one shard, end to end."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="auto: one for every two cores beside a GPU, at most 8 on each; else one for all cores",
    )
    pool: Literal["auto", "ray", "processes"] = Field(default="auto", description="auto: Ray for a cluster or GPUs")
    num_gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(default="auto", description="GPUs per worker")
    num_cpus: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(default="auto", description="cores per worker")
    decode_threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: as many as the worker has CPU cores"
    )
    decoder: Literal["thread", "process"] = Field(
        default="thread",
        description="process: each decode thread has its own process without credentials and with bounded memory; a "
        "file that crashes, stalls or fills it costs only its own row",
    )
    decoder_memory_bytes: int = Field(
        default=2048 * MIB, ge=256 * MIB, description="of a decoder process, beyond what it starts with"
    )
    fetch_threads: int = Field(default=16, ge=1, le=256)
    shards_in_flight: int = Field(default=2, ge=1, le=8, description="per worker: one is scored, the next decoded")
    frame_budget_bytes: int | None = Field(
        default=None,
        ge=16 * MIB,
        description="decoded pixels waiting in a worker; null: 384 MiB on a CPU, 1 GiB on a GPU",
    )
    decode_budget_bytes: int | None = Field(
        default=None,
        ge=64 * MIB,
        description="of a worker: what its decoders take together, by the sizes in the headers; an item that takes "
        "more is decoded alone; null: 128 MiB a decode thread, 1 GiB at least",
    )
    fetch_budget_bytes: int = Field(default=128 * MIB, ge=MIB, description="encoded bytes waiting in a worker")
    shard_attempts: int = Field(default=2, ge=1, le=10, description="tries before a shard is bisected")
    shard_timeout_s: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="a shard that takes longer is killed and retried; auto: 300 s, 4 s for "
        "each object, and media.decode_timeout_s for each item over the decode threads (or 1 s for 256 KiB)",
    )
    score_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="a batch that takes longer in the detectors ends the worker, as a device that hangs does",
    )
    no_room_every_s: float = Field(default=60.0, gt=0, description="how often to report that no worker has room")
    grace_s: float = Field(default=30.0, ge=0, description="time after SIGTERM for shards in flight to finish")
    max_error_rate: float = Field(default=0.05, ge=0, le=1, description="a larger share of error rows: exit code 3")
    min_night_errors: int = Field(
        default=10, ge=1, description="nightly: fewer error rows than this are never exit code 3, whatever their share"
    )
    ray_address: str | None = Field(default=None, description="a running cluster; null: RAY_ADDRESS, else a local one")

    def decoding_bytes(self, threads: int) -> int:
        """`decode_budget_bytes`, or what it is by the threads."""
        return self.decode_budget_bytes or max(1024, 128 * threads) * MIB

    def waiting_frame_bytes(self, *, on_gpu: bool) -> int:
        """`frame_budget_bytes`, or the default of the device."""
        return self.frame_budget_bytes or (1024 if on_gpu else 384) * MIB


class ReportConfig(ConfigSection):
    """What `report.html` shows besides the numbers; see docs/report.md."""

    thumbnails: int | None = Field(
        default=None,
        ge=0,
        le=200,
        description="pictures of the head of the review queue, blurred until chosen; null: 24 where SOURCE and OUT are "
        "local folders, else 0. They are read again, and made small by the decoder",
    )
    price_per_gpu_hour: float | None = Field(
        default=None, ge=0, description="in any currency: `cost` in summary.json, of the run and of a million items"
    )
    object_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="page of an object in a bucket, with {bucket} and {key}; local files and http(s) need none",
    )


class Config(ConfigSection):
    """All that a job needs besides SOURCE and OUT."""

    source: SourceConfig = SourceConfig()
    shards: ShardConfig = ShardConfig()
    media: MediaConfig = MediaConfig()
    stack: StackConfig = StackConfig()
    policy: str = Field(default="policies/default.yaml", description="path, relative to this file or packaged")
    output: OutputConfig = OutputConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    monitor: MonitorConfig = MonitorConfig()
    report: ReportConfig = ReportConfig()
    explain: ExplainConfig = ExplainConfig()
    learn: LearnConfig = LearnConfig()
    escalations: EscalationConfig = EscalationConfig()

    @model_validator(mode="after")
    def _credentials_where_a_detector_reads_them(self) -> Config:
        if any(detector.name == "c2pa" for detector in self.stack.detectors) and not self.media.credentials:
            # Sections are frozen; a validator that runs afterwards has no other way to derive one key from another.
            object.__setattr__(self, "media", self.media.model_copy(update={"credentials": True}))
        return self

    @model_validator(mode="after")
    def _hashes_alone_are_dense(self) -> Config:
        if self.stack.hashes_alone:
            unset = {name: value for name, value in DENSE.items() if name not in self.media.model_fields_set}
            object.__setattr__(self, "media", self.media.model_copy(update=unset))
        return self
