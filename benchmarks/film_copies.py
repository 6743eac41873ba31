"""Which framed and marked copies of videos `duplicates` finds; JSON into benchmarks/results/. Takes the program ffmpeg.

    python -m benchmarks.film_copies VIDEO... [--keep FOLDER]

Of each video 17 copies are made, sampled as a pass of `pdq` alone does, and all are held against each other. Found are
copies that are joined with the video itself; wrong are pairs of different videos.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import write_result
from moderation.config.load import load_config
from moderation.detectors.hashing import pdq
from moderation.file_types import MediaType
from moderation.hashes.film_pairs import film_pairs
from moderation.hashes.films import FilmFrames, make_films
from moderation.hashes.part_hashes import PartHashes, concatenate_parts, no_parts
from moderation.media.limits import start_deadline
from moderation.media.video import decode_video
from moderation.results.frame_hashes import FrameHashes
from moderation.types import U8

_BASE: Final = "[0:v]scale=480:320,setsar=1"
_SEPIA: Final = "colorchannelmixer=.393:.769:.189:0:.349:.686:.168:0:.272:.534:.131"
_CPU: Final = torch.device("cpu")
# name -> filter from [0:v], and a drawn picture as [1:v], to [o].
COPIES: Final = {
    "orig": f"{_BASE}[o]",
    "barlr": f"{_BASE},pad=640:320:80:0:black,fps=24[o]",
    "bartb": f"{_BASE},pad=480:440:0:60:black,scale=320:-2[o]",
    "barall": f"{_BASE},pad=640:440:80:60:white[o]",
    "barcol": f"{_BASE},pad=480:400:0:0:0x3060c0,fps=20[o]",
    "barcol2": f"{_BASE},pad=600:320:120:0:0x808080[o]",
    "barcap": f"{_BASE},pad=480:380:0:60:white[b];[b][1:v]overlay=0:0[o]",
    "barblur": f"{_BASE},split[a][b];[a]scale=640:426,crop=640:320,gblur=20[c];[c][b]overlay=80:0[o]",
    "logoTL": f"{_BASE}[b];[b][1:v]overlay=0:0[o]",
    "logoBR": f"{_BASE}[b];[b][1:v]overlay=W-w-8:H-h-8,fps=15[o]",
    "logoC": f"{_BASE}[b];[b][1:v]overlay=(W-w)/2:(H-h)/2[o]",
    "logobar": f"{_BASE}[b];[b][1:v]overlay=0:H-h,pad=640:320:80:0:black[o]",
    "smallbar": f"{_BASE}[b];[b][1:v]overlay=10:10,pad=640:320:80:0:black[o]",
    "sepbar": f"{_BASE},{_SEPIA},pad=640:320:80:0:black,scale=320:-2[o]",
    "greybar": f"{_BASE},hue=s=0,pad=480:420:0:50:black,fps=24[o]",
    "wm": f"{_BASE}[b];[b][1:v]overlay=0:0[o]",
    "wmsd": f"{_BASE}[b];[b][1:v]overlay=0:0,fps=12[o]",
    "trimbar": f"{_BASE},pad=640:320:80:0:black[o]",
}


def draw_mark(name: str) -> Image.Image:
    """The caption, logo or watermark of a copy."""
    if name == "barcap":
        caption = Image.new("RGBA", (480, 60), "white")
        ImageDraw.Draw(caption).text((20, 8), "when the caption is", "black", ImageFont.load_default(size=40))
        return caption
    if name.startswith("wm"):
        letters = Image.new("RGBA", (480, 320))
        ImageDraw.Draw(letters).text(
            (10, 120), "SAMPLE WATERMARK", (255,) * 3 + (150,), ImageFont.load_default(size=54)
        )
        return letters
    width, height = {"smallbar": (64, 40), "logoTL": (240, 160), "logoC": (240, 160)}.get(name, (260, 170))
    logo = Image.new("RGBA", (width, height), "white")
    draw = ImageDraw.Draw(logo)
    draw.ellipse((0.05 * width, 0.05 * height, 0.95 * width, 0.95 * height), (200, 30, 30))
    draw.rectangle((0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height), (20, 20, 160))
    return logo


def make_copies(video: Path, folder: Path) -> Iterator[Path]:
    """Encode the copies that are not there yet; 12 seconds each."""
    for name, filters in COPIES.items():
        copy = folder / f"{video.stem}-{name}.mp4"
        if not copy.exists():
            draw_mark(name).save(folder / "mark.png")
            start = ["-ss", "1.27"] if name == "trimbar" else []
            mark = ["-i", str(folder / "mark.png")] if "[1:v]" in filters else []
            subprocess.run(
                ["ffmpeg", "-v", "error", "-y", *start, "-i", str(video), *mark, "-filter_complex", filters,
                 "-map", "[o]", "-an", "-t", "12", "-c:v", "libx264", "-preset", "veryfast",
                 "-crf", "28" if "fps" in filters else "23", "-pix_fmt", "yuv420p", str(copy)],
                check=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        yield copy


def hash_film(path: Path) -> FrameHashes:
    """The hashes of its frames with enough content."""
    media = load_config(None, ["stack.only=[pdq]"]).media
    video = decode_video(path.read_bytes(), MediaType.MP4, media, start_deadline(600))
    frames = [torch.from_numpy(frame.pixels) for frame in video.frames]
    small = pdq.shrink(frames, _CPU)
    blobs = pdq.content_hashes([frame.pixels for frame in video.frames], small)
    hashed = FrameHashes(
        hashes=_rows(pdq.pack(pdq.hash_bits(small))),
        quality=(pdq.quality(small).numpy() * 100).round().astype(np.int16),
        parts=PartHashes(inner=_rows(blobs["inner"]), quarters=_rows(blobs["quarters"]), edges=_rows(blobs["edges"])),
    ).within_bars()
    return hashed.take(np.flatnonzero(hashed.quality >= 50))


def _rows(blobs: Any) -> U8:  # noqa: ANN401 - bytes or None
    return np.frombuffer(b"".join(blob or bytes(32) for blob in blobs), np.uint8).reshape(-1, 32)


def find_pairs(films: dict[str, FrameHashes], *, with_parts: bool) -> dict[str, Any]:
    """The pairs of copies among all films. with_parts: not by whole frames alone."""
    names = list(films)
    film = np.repeat(np.arange(len(names)), [len(films[name].hashes) for name in names])
    parts = concatenate_parts([films[name].parts for name in names]) if with_parts else no_parts(len(film))
    hashes = np.concatenate([films[name].hashes for name in names])
    began_s = time.process_time()
    made: FilmFrames = make_films(film, hashes, np.full(len(film), np.nan), parts)
    pairs = film_pairs(made, 31)
    joined = [(names[a], names[b]) for a, b in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)]
    whole = [pair for pair in joined if any(name.endswith("-orig") for name in pair)]
    own = [pair for pair in whole if pair[0].rpartition("-")[0] == pair[1].rpartition("-")[0]]
    found = Counter(name.rpartition("-")[2] for pair in own for name in pair if not name.endswith("-orig"))
    wrong = [pair for pair in joined if pair[0].rpartition("-")[0] != pair[1].rpartition("-")[0]]
    return {
        "with_parts": with_parts,
        "frames": len(film),
        "found": sum(found.values()),
        "found_by_copy": {name: found[name] for name in COPIES if name != "orig"},
        "wrong_pairs": len(wrong),
        "cpu_s": round(time.process_time() - began_s, 1),
    }


def main() -> None:
    """Make the copies, compare them, print and keep what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the copies, used again if there")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp())
    copies = [copy for video in given.videos for copy in make_copies(video, folder)]
    films = {copy.stem: hash_film(copy) for copy in copies}
    results = [find_pairs(films, with_parts=with_parts) for with_parts in (False, True)]
    for result in results:
        print(result)
    write_result("film_copies", {"videos": len(given.videos), "copies": len(COPIES) - 1, "results": results})


if __name__ == "__main__":
    main()
