"""Decoding in processes: the same frames; a lost process costs its item only, and holds nothing of the worker's."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media import decode_item
from moderation.media.decoder_pool import DecoderPool, DecoderProcess
from moderation.media.decoder_process import leave_network
from moderation.media.wire import receive_media
from moderation.types import ErrorCode, Item, Kind, Media, MediaObject
from tests.drawn_media import jpegs, mp4
from tests.job_runs import REPOSITORY, is_running

MEMORY = 1 << 30


def item_of(*names: str, kind: Kind | None = None, **attributes: str) -> Item:
    objects = tuple(MediaObject(uri=f"s3://b/{name}?X-Amz-Signature=s3cret", name=name) for name in names)
    return Item(item_id="x", uri="s3://b/x", objects=objects, kind=kind, attributes=attributes)


def encode(size: tuple[int, int], seed: int, form: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form)
    return sink.getvalue()


def animation() -> bytes:
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
    sink = io.BytesIO()
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:], duration=[100, 200, 300])
    return sink.getvalue()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    made = DecoderPool(MediaConfig(), MEMORY)
    yield made
    made.close()


def assert_same(ours: Media, theirs: Media) -> None:
    assert [f.pixels.tolist() for f in ours.frames] == [f.pixels.tolist() for f in theirs.frames]
    for name in ("kind", "frames_total", "duration_s", "widest_gap_s", "width", "height", "error", "error_detail"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for mine, other in zip(ours.frames, theirs.frames, strict=True):
        for name in ("index", "width", "height", "time_s", "role", "parent", "box"):
            assert getattr(mine, name) == getattr(other, name), name


@pytest.mark.parametrize(
    ("names", "payloads", "kind"),
    [
        (["a.jpg"], [encode((300, 200), 1)], None),
        (["a.png"], [encode((30, 20), 2, "PNG")], None),
        (["a.gif"], [animation()], None),
        (["a.jpg", "b.jpg"], [encode((64, 48), 3), encode((48, 64), 4)], Kind.ALBUM),
        (["a.jpg", "b.jpg"], [encode((64, 48), 3), ItemError(ErrorCode.NOT_FOUND, "gone")], Kind.ALBUM),
        (["a.jpg"], [b"no picture"], None),
        (["a.jpg"], [encode((300, 200), 1)[:900]], None),
        (["a.jpg"], [b""], None),
        (["notes.txt"], [b"words"], None),
    ],
)
def test_an_item_decodes_as_in_the_worker(
    pool: DecoderPool, names: list[str], payloads: list[bytes], kind: Kind
) -> None:
    item = item_of(*names, kind=kind)
    assert_same(pool.decode(item, payloads), decode_item(item, payloads, MediaConfig()))


def test_frames_outlive_their_process() -> None:
    made = DecoderPool(MediaConfig(), MEMORY)
    media = made.decode(item_of("a.jpg"), [encode((300, 200), 1)])
    made.close()
    assert media.frames[0].pixels.shape == (200, 300, 3)
    assert media.frames[0].pixels.std() > 1


def test_a_decoder_that_dies_costs_its_item_and_the_next_is_decoded() -> None:
    made = DecoderPool(MediaConfig(), MEMORY)
    made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    (process,) = made._processes
    os.kill(process._process.pid, signal.SIGSTOP)  # it is at work when it dies

    def crash() -> None:
        os.kill(process._process.pid, signal.SIGSEGV)
        os.kill(process._process.pid, signal.SIGCONT)

    threading.Timer(0.3, crash).start()
    lost = made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    assert (lost.error, lost.frames) == (ErrorCode.DECODER_CRASHED, ())
    assert "SIGSEGV" in lost.error_detail
    assert made.decode(item_of("a.jpg"), [encode((30, 20), 1)]).error is None
    made.close()


def test_a_killed_decoder_is_told_from_a_crashed_one() -> None:
    process = DecoderProcess(MediaConfig(), MEMORY)
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(ItemError) as raised:
        process.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    assert raised.value.code is ErrorCode.OUT_OF_MEMORY
    process.close()


def test_a_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderation.media.decoder_pool._LATE_S", 0.5)
    made = DecoderPool(MediaConfig(decode_timeout_s=6), MEMORY)
    made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    (process,) = made._processes
    os.kill(process._process.pid, signal.SIGSTOP)
    lost = made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    assert lost.error is ErrorCode.TIMEOUT
    assert process._process.poll() is not None
    made.close()


MEDIA = dict.fromkeys(("frames_total", "duration_s", "widest_gap_s", "width", "height", "error", "reader"))
MEDIA |= {"kind": "image", "error_detail": "", "unseen": []}
FRAME = {
    "shape": [1, 1, 3],
    "index": 0,
    "width": 1,
    "height": 1,
    "time_s": None,
    "role": "frame",
    "parent": None,
    "box": None,
    "readings": {},
}


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        json.dumps({"media": MEDIA, "frames": [{**FRAME, "shape": [float("inf"), 1, 3]}]}),
        json.dumps({"media": {**MEDIA, "unseen": 3}, "frames": []}),
        json.dumps({"media": MEDIA, "frames": ["x"]}),
    ],
)
def test_an_answer_that_no_decoder_gives_costs_its_item_only(answer: str) -> None:
    """A decoder that a stranger's file has taken over may answer anything."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(len(answer).to_bytes(4, "big") + answer.encode())
        with pytest.raises(ValueError, match=r".+"):
            receive_media(ours)


@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_a_video_is_read_in_a_quarter_of_the_memory_that_is_the_default(reader: Literal["auto", "pyav"]) -> None:
    """Libraries that were mapped after the limit was set left no room: every video was `corrupt`."""
    config = MediaConfig(video_decoder=reader)
    made = DecoderPool(config, 512 << 20)
    video = mp4(jpegs(4))
    ours = made.decode(item_of("a.mp4"), [video])
    made.close()
    assert ours.error is None
    assert_same(ours, decode_item(item_of("a.mp4"), [video], config))


def test_a_picture_that_needs_more_memory_than_there_may_be_is_an_error_of_its_own() -> None:
    made = DecoderPool(MediaConfig(max_pixels=300_000_000), 256 << 20)
    bomb = io.BytesIO()
    Image.new("RGB", (15_000, 15_000)).save(bomb, "PNG")
    lost = made.decode(item_of("a.png"), [bomb.getvalue()])
    assert lost.error is ErrorCode.OUT_OF_MEMORY
    assert made.decode(item_of("a.jpg"), [encode((30, 20), 1)]).error is None
    made.close()


def test_a_decoder_has_none_of_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    process = DecoderProcess(MediaConfig(), MEMORY)
    process.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    assert b"s3cret" not in Path(f"/proc/{process._process.pid}/environ").read_bytes()
    assert b"s3cret" not in Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
    process.close()


def test_a_decoder_that_stands_still_ends_with_a_worker_that_is_killed() -> None:
    program = (
        "import os, signal, time\n"
        "from moderation.config.model import MediaConfig\n"
        "from moderation.media.decoder_pool import DecoderProcess\n"
        "from tests.unit.media.test_decoder_pool import MEMORY, encode, item_of\n"
        "process = DecoderProcess(MediaConfig(), MEMORY)\n"
        "process.decode(item_of('a.jpg'), [encode((30, 20), 1)])\n"
        "os.kill(process._process.pid, signal.SIGSTOP)\n"
        "print(process._process.pid, flush=True)\n"
        "time.sleep(3600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert psutil.pid_exists(pid)
        worker.send_signal(signal.SIGKILL)
    until_s = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not is_running(pid)


def test_a_decoder_has_no_network_where_the_kernel_allows_that() -> None:
    child = os.fork()
    if not child:
        os._exit(0 if leave_network() else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        pytest.skip("this kernel lets no process leave its network")
    process = DecoderProcess(MediaConfig(), MEMORY)
    process.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    there, here = (Path(f"/proc/{pid}/ns/net").readlink() for pid in (process._process.pid, "self"))
    assert there != here
    process.close()


def test_many_items_leave_no_descriptor_and_no_process_behind() -> None:
    made = DecoderPool(MediaConfig(), MEMORY)
    made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not read
    for _ in range(40):
        made.decode(item_of("a.jpg"), [encode((30, 20), 1)])
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - as above
    (process,) = made._processes
    made.close()
    deadline_s = time.monotonic() + 10
    while process._process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert process._process.poll() is not None
