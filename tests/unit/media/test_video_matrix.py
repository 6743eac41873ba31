"""Containers x codecs x odd features: each scored frame equals that of a sequential read, and none is lost.

ffmpeg draws the films (its test pattern, with a white part); PyAV reads them whole for comparison.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.file_types import sniff
from moderation.media.limits import canvas_size, start_deadline
from moderation.media.objects import decode_object
from moderation.media.pixels import scale_array, turn_upright
from moderation.media.video import decode_video
from moderation.media.video_pyav import read_orientation
from moderation.types import U8, ErrorCode, Kind, Media

CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "videos"
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="draws its films with ffmpeg, which is not installed")
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/videos is not there")
GAP_S = 0.7

X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
B_FRAMES = f"{X264} -bf 3 -g 25 -x264-params b-adapt=0:scenecut=0"
OPEN_GOP = f"{X264} -bf 3 -g 25 -x264-params b-adapt=0:scenecut=0:open-gop=1"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25:bframes=3"

# name: (the film's name ends in the container, ffmpeg's options)
FILMS = {
    "b.mp4": B_FRAMES,
    "no_b.mp4": f"{X264} -bf 0 -g 25",
    "open.mp4": OPEN_GOP,
    "b.mov": B_FRAMES,
    "b.mkv": B_FRAMES,
    "open.mkv": OPEN_GOP,
    "b.avi": B_FRAMES,
    "open.avi": OPEN_GOP,
    "no_b.avi": f"{X264} -bf 0 -g 25",
    "b.flv": B_FRAMES,
    "flv1.flv": "-c:v flv -g 25",
    "b.ts": B_FRAMES,
    "open.ts": OPEN_GOP,
    "b.m2ts": f"{B_FRAMES} -mpegts_m2ts_mode 1 -f mpegts",
    "b.asf": f"{B_FRAMES} -f asf",
    "wmv1.wmv": "-c:v wmv1 -g 25",
    "wmv2.asf": "-c:v wmv2 -g 25",
    "msmpeg4.avi": "-c:v msmpeg4 -g 25",
    "mpeg4.mp4": "-c:v mpeg4 -bf 2 -g 25",
    "mpeg4.avi": "-c:v mpeg4 -bf 2 -g 25",
    "h263.3gp": "-c:v h263 -s 352x288 -g 25",
    "mpeg1.mpg": "-c:v mpeg1video -bf 2 -g 25",
    "mpeg2.mpg": "-c:v mpeg2video -bf 2 -g 25",
    "mpeg2.vob": "-c:v mpeg2video -bf 2 -g 25 -f vob",
    "mpeg2.ts": "-c:v mpeg2video -bf 2 -g 25",
    "mpeg2.mkv": "-c:v mpeg2video -bf 2 -g 25",
    "hevc.mp4": X265,
    "hevc.ts": X265,
    "hevc_closed.mkv": f"{X265}:open-gop=0",
    "ten_bit.mp4": f"{X264} -pix_fmt yuv420p10le -bf 2 -g 25",
    "vp8.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -g 25",
    "vp8_hidden.webm": "-c:v libvpx -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 60 -b:v 200k",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25",
    "vp9_hidden.mkv": "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 60 -b:v 200k",
    "av1.mkv": "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 25",
    "mjpeg.avi": "-c:v mjpeg",
    "theora.ogv": "-c:v libtheora -g 25",
    "ffv1.mkv": "-c:v ffv1",
    "prores.mov": "-c:v prores_ks -profile:v 0",
    "dv.avi": "-c:v dvvideo -s 720x576 -r 25 -pix_fmt yuv420p",
    "odd.mp4": f"{X264} -vf scale=161:121 -pix_fmt yuv444p -g 25",
    "fragmented.mp4": f"{B_FRAMES} -movflags frag_keyframe+empty_moov",
    "live.mkv": f"{B_FRAMES} -f matroska -live 1",
    "delta.mp4": f"{X264} -g 1000 -bf 3",
    "uneven.mkv": f"{X264} -g 25 -vf select='lt(mod(n,10),3)' -vsync vfr",
    "raw.h264": B_FRAMES,
    "raw.hevc": f"{X265} -f hevc",
    "raw.m2v": "-c:v mpeg2video -bf 2 -g 25",
    "raw.m4v": "-c:v mpeg4 -bf 2 -g 25",
    "refresh.ts": f"{X264} -g 25 -intra-refresh 1",
    "pipe.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -g 25 PIPE",
}


def ffmpeg(*arguments: str | Path) -> bytes:
    assert FFMPEG is not None
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode and b"Unknown encoder" in done.stderr:
        pytest.skip(done.stderr.decode(errors="replace").strip())
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def draw(path: Path, options: str, seconds: float = 3, colour: str = "white") -> bytes:
    """A film of a moving test pattern; its second second is of one colour."""
    picture = f"testsrc2=s=160x120:r=25:d={seconds},drawbox=c={colour}:t=fill:enable='between(t,1,1.9)'"
    words = options.split()
    if "PIPE" in words:  # the header cannot be rewritten: no duration, no index
        data = ffmpeg("-f", "lavfi", "-i", picture, *[w for w in words if w != "PIPE"], "-f", "webm", "-")
        path.write_bytes(data)
    else:
        ffmpeg("-f", "lavfi", "-i", picture, *words, path)
    return path.read_bytes()


def decode(data: bytes, **limits: object) -> Media:
    config = MediaConfig.model_validate({"max_gap_s": GAP_S, **limits})
    media_type = sniff(data[:4096])
    assert media_type is not None and media_type.is_video
    return decode_video(data, media_type, config, start_deadline(30))


def read_in_sequence(data: bytes, stream: int = 0) -> list[U8]:
    """All frames of a track, by PyAV, upright and at canvas size."""
    frames: list[U8] = []
    with av.open(io.BytesIO(data)) as container:
        track = container.streams.video[stream]
        # An empty packet repeats a frame; the decoder would take it for the end.
        for packet in [*(p for p in container.demux(track) if p.size), None]:
            with suppress(av.FFmpegError):
                for frame in track.codec_context.decode(packet):
                    pixels = turn_upright(frame.to_ndarray(format="rgb24"), read_orientation(frame))
                    frames.append(scale_array(pixels, canvas_size(pixels.shape[1], pixels.shape[0], 448)))
    return frames


def assert_as_sequence(media: Media, frames: Sequence[U8], name: str) -> None:
    """Each scored frame is the one of its index, and the gap between two of them is at most the stated one."""
    assert media.kind is Kind.VIDEO and media.error is None, (name, media.error, media.error_detail)
    assert media.frames and media.duration_s is not None and media.widest_gap_s is not None
    assert abs(media.frames_total - len(frames)) <= 1 + len(frames) // 20, name
    for frame in media.frames:
        near = frames[max(0, frame.index - 1) : frame.index + 2]
        assert min(np.abs(f.astype(int) - frame.pixels).mean() for f in near) < 1, (name, frame.index)
    times_s = [f.time_s for f in media.frames if f.time_s is not None]
    assert times_s == sorted(times_s) and len(times_s) == len(media.frames)
    # Between two frames in a row nothing is unseen, however long the first one stays (a repeat is no frame in Theora).
    apart = [b.time_s - a.time_s for a, b in pairwise(media.frames) if b.index > a.index + 1]  # type: ignore[operator]
    assert max([*apart, times_s[0]]) <= media.widest_gap_s + 0.001, name
    assert media.widest_gap_s <= 2 * GAP_S, (name, media.widest_gap_s)
    assert any(f.pixels.mean() > 240 for f in media.frames), f"{name}: the white part was not seen"


@needs_ffmpeg
@pytest.mark.parametrize("name", FILMS)
def test_each_scored_frame_is_that_of_a_sequential_read(name: str, tmp_path: Path) -> None:
    data = draw(tmp_path / name, FILMS[name])
    assert_as_sequence(decode(data), read_in_sequence(data), name)


def remux(path: Path, *arguments: str | Path) -> bytes:
    ffmpeg(*arguments, path)
    return path.read_bytes()


@needs_ffmpeg
@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_turned_or_mirrored_film_comes_upright(matrix: tuple[int, ...], turned: bool, tmp_path: Path) -> None:
    a, b, c, d = (0, matrix[0], matrix[3], 0) if turned else matrix
    data = draw(tmp_path / "b.mp4", B_FRAMES)
    at = data.rindex(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    film = data[:at] + struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16) + data[at + 20 :]
    # x' = ax + cy, y' = bx + dy: the new places of the stored picture's corners.
    stored = read_in_sequence(data)[0]
    height, width = stored.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    column, row = a * x + c * y, b * x + d * y
    upright = np.zeros((width, height, 3) if turned else stored.shape, dtype=np.uint8)
    upright[row - row.min(), column - column.min()] = stored
    assert np.array_equal(decode(film).frames[0].pixels, upright)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["two.mp4", "two.mkv", "two.ts", "two.avi", "two.asf", "two.mpg"])
def test_every_track_is_looked_at(name: str, tmp_path: Path) -> None:
    codec = "-c:v mpeg2video" if name.endswith("mpg") else B_FRAMES
    inputs = "-f lavfi -i color=black:s=160x120:r=25:d=2 -f lavfi -i color=white:s=160x120:r=25:d=2 -map 0 -map 1"
    media = decode(remux(tmp_path / name, *inputs.split(), *codec.split()))
    assert media.unseen == ()
    assert len({f.index for f in media.frames}) == len(media.frames)
    means = [f.pixels.mean() for f in media.frames]
    assert min(means) < 15 and max(means) > 240


@needs_ffmpeg
@pytest.mark.parametrize("name", ["cover.mp4", "cover.mkv", "cover.m4a"])
def test_a_cover_is_looked_at(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "cover.jpg")
    black, cover = ["-f", "lavfi", "-i", "color=black:s=160x120:r=25:d=2"], tmp_path / "cover.jpg"
    attached = "-map 0 -map 1 -c:v:1 mjpeg -disposition:v:1 attached_pic"
    if name == "cover.mkv":
        arguments = [*black, *B_FRAMES.split(), "-attach", cover, "-metadata:s:t", "mimetype=image/jpeg"]
    elif name == "cover.mp4":
        arguments = [*black, "-i", cover, *attached.split(), "-c:v:0", "libx264"]
    else:
        sound = "-f lavfi -i sine=d=1"
        arguments = [*sound.split(), "-i", cover, *attached.replace("v:1", "v:0").split(), "-c:a", "aac"]
    media = decode(remux(tmp_path / name, *arguments))
    assert media.unseen == () and media.error is None
    assert media.frames[-1].pixels.mean() > 240


def joined(folder: Path, first: str, second: str, options: str = B_FRAMES) -> bytes:
    """Two films of three seconds, one behind the other; the second one is red for a second."""
    a, b = draw(folder / first, options), draw(folder / second, options, colour="red")
    return a + b


def has_red(media: Media) -> bool:
    return any(f.pixels[..., 0].mean() > 200 and f.pixels[..., 1].mean() < 60 for f in media.frames)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ts", B_FRAMES),
        ("ts", f"{X264} -bf 0 -g 25"),
        ("ts", "-c:v mpeg2video -bf 2 -g 25"),
        ("mpg", "-c:v mpeg2video -bf 2 -g 25"),
        ("m2v", "-c:v mpeg2video -bf 2 -g 25"),
        ("h264", B_FRAMES),
        ("ogv", "-c:v libtheora -g 25"),
    ],
)
def test_of_joined_recordings_both_are_seen(name: str, options: str, tmp_path: Path) -> None:
    data = joined(tmp_path, f"a.{name}", f"b.{name}", options)
    media = decode(data)
    assert media.error is None and media.unseen == ()
    assert media.duration_s == pytest.approx(6, abs=0.3)
    assert media.widest_gap_s is not None and media.widest_gap_s <= 2 * GAP_S
    assert has_red(media)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["mp4", "mkv", "avi", "flv", "asf"])
def test_a_second_file_behind_the_first_is_seen_or_told(name: str, tmp_path: Path) -> None:
    media = decode(joined(tmp_path, f"a.{name}", f"b.{name}"))
    assert media.unseen == ("track",) or has_red(media)


@needs_ffmpeg
@pytest.mark.parametrize("brand", [b"avif", b"heic", b"mif1"])
def test_a_still_brand_over_a_movie_shows_the_movie(brand: bytes, tmp_path: Path) -> None:
    film = draw(tmp_path / "b.mp4", B_FRAMES)
    data = film[:8] + brand + film[12:]
    media = decode_object(True, data, MediaConfig(max_gap_s=GAP_S), start_deadline(30))
    assert any(f.pixels.mean() > 240 for f in media.frames)
    assert media.error is ErrorCode.CORRUPT  # it holds no picture, though it claims to


@pytest.mark.parametrize("major", [b"avis", b"avif"])
def test_an_image_sequence_comes_once(major: bytes) -> None:
    film = io.BytesIO()
    first, *others = [Image.new("RGB", (64, 64), colour) for colour in ("black", "gray", "white")]
    first.save(film, "AVIF", save_all=True, append_images=others, duration=1000)
    data = film.getvalue()
    media = decode_object(True, data[:8] + major + data[12:], MediaConfig(max_gap_s=GAP_S), start_deadline(30))
    assert media.error is None and media.unseen == ()
    assert {round(float(f.pixels.mean()), -1) for f in media.frames} == {0, 130, 260}
    if major == b"avis":
        assert (media.kind, media.frames_total) == (Kind.ANIMATION, 3)


@needs_ffmpeg
def test_an_edit_list_that_begins_between_two_keyframes(tmp_path: Path) -> None:
    draw(tmp_path / "b.mp4", B_FRAMES)
    data = remux(tmp_path / "edit.mp4", "-ss", "0.5", "-i", tmp_path / "b.mp4", "-c", "copy")
    assert_as_sequence(decode(data), read_in_sequence(data), "edit.mp4")


@needs_ffmpeg
@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "avi", "flv", "asf", "mpg"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_film_cut_short_shows_what_is_there(name: str, share: float, tmp_path: Path) -> None:
    options = "-c:v mpeg2video -bf 2 -g 25" if name == "mpg" else B_FRAMES
    data = draw(tmp_path / f"a.{name}", options + (" -movflags +faststart" if name == "mp4" else ""))
    media = decode(data[: int(len(data) * share)])
    assert media.frames and media.error in (None, ErrorCode.TRUNCATED)
    assert media.duration_s is not None and 0.3 < media.duration_s < 3
    if name in ("mp4", "mkv", "avi"):  # these store their duration
        assert media.error is ErrorCode.TRUNCATED


@needs_ffmpeg
def test_keyframes_that_are_none_are_found_out(tmp_path: Path) -> None:
    """An MP4 without a table of keyframes claims that each frame is one; seeking would show grey or another picture."""
    data = draw(tmp_path / "a.mp4", f"{X264} -bf 2 -g 1000 -x264-params scenecut=0")
    data = data.replace(b"stss", b"free")
    assert_as_sequence(decode(data), read_in_sequence(data), "no stss")


@needs_ffmpeg
def test_a_codec_that_is_not_allowed_is_not_decoded(tmp_path: Path) -> None:
    data = draw(tmp_path / "a.avi", "-c:v snow -strict -2")
    with pytest.raises(ItemError) as caught:
        decode(data)
    assert caught.value.code is ErrorCode.UNSUPPORTED_TYPE


@needs_ffmpeg
@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_the_reader_is_chosen_and_told(decoder: str, tmp_path: Path) -> None:
    plain = draw(tmp_path / "b.mp4", B_FRAMES)
    untimed = draw(tmp_path / "b.avi", B_FRAMES)
    assert decode(plain, video_decoder=decoder).reader == ("pyav" if decoder == "pyav" else "decord")
    reader = decode(untimed, video_decoder=decoder).reader
    assert reader is not None and reader.startswith("pyav")
    pixels = [[f.pixels for f in decode(plain, video_decoder=d).frames] for d in ("pyav", decoder)]
    assert all(np.array_equal(a, b) for a, b in zip(*pixels, strict=True))


@needs_ffmpeg
def test_a_picture_that_stays_leaves_no_gap(tmp_path: Path) -> None:
    options = f"{X264} -vf select='eq(n,0)+eq(n,1)+eq(n,700)' -vsync vfr"
    media = decode(draw(tmp_path / "slides.mkv", options, seconds=30), max_gap_s=5.0)
    assert len(media.frames) == media.frames_total == 3
    assert media.widest_gap_s is not None and media.widest_gap_s <= 5


@needs_cases
@pytest.mark.parametrize("path", sorted(CASES.iterdir()) if CASES.is_dir() else [], ids=lambda p: p.name)
def test_each_case_is_read_as_in_sequence(path: Path) -> None:
    data = path.read_bytes()
    media = decode(data)
    frames = read_in_sequence(data)
    assert media.error is None and media.frames_total == len(frames)
    assert media.widest_gap_s is not None and media.widest_gap_s <= 2 * GAP_S
    for frame in media.frames:
        assert np.abs(frames[frame.index].astype(int) - frame.pixels).mean() < 1, frame.index
    if path.name.startswith("first2s"):
        is_white = [bool(f.pixels.mean() > 120) for f in media.frames]
        assert is_white == [f.time_s < 2 for f in media.frames if f.time_s is not None]
    if "white-black" in path.name:
        assert media.duration_s == pytest.approx(16, abs=0.1)
