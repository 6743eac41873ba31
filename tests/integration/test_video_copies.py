"""Copies of videos among strangers: drawn, altered, encoded, decoded, hashed, and grouped by `duplicates`. No Ray."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from moderation.analysis.duplicates import Nearness, find_duplicates
from moderation.analysis.known_hashes import build_list, match_run
from moderation.config.load import load_config
from moderation.detectors.hashing import pdq
from moderation.file_types import MediaType
from moderation.media.limits import start_deadline
from moderation.media.video import decode_video
from moderation.types import Kind
from tests.drawn_films import ALTERATIONS, alter_film, draw_film, encode_film
from tests.finished_run import Made, write_run

pytestmark = pytest.mark.long

POLICY = "checks: {mask: {side: negative, votes: [a.mask], review: 0.5}}\ndefault: pass\n"


def hashed(name: str, data: bytes) -> Made:
    """A video as a pass of `pdq` alone samples and hashes it."""
    media = load_config(None, ["stack.only=[pdq]"]).media
    video = decode_video(data, MediaType.MP4, media, start_deadline(60))
    assert video.widest_gap_s is not None and video.widest_gap_s <= 0.5
    frames, cpu = [torch.from_numpy(frame.pixels) for frame in video.frames], torch.device("cpu")
    small = pdq.shrink(frames, cpu)
    quality = pdq.quality(small).tolist()
    return Made(
        name=name,
        votes=[(0.1, q) for q in quality],
        hashes=[h.hex() for h in pdq.pack(pdq.hash_bits(small))],
        parts=pdq.content_hashes([frame.pixels for frame in video.frames], small),
        times_s=[frame.time_s for frame in video.frames],
        kind=Kind.VIDEO,
    )


@pytest.fixture(scope="module")
def videos() -> list[Made]:
    made = []
    for seed in range(3):
        frames = draw_film(seed)
        for how in ALTERATIONS:
            altered, fps = alter_film(frames, how)
            made.append(hashed(f"{seed}-{how}.mp4", encode_film(altered, fps)))
    black = [np.zeros((240, 320, 3), np.uint8)] * 24
    title = draw_film(99)[:1] * 24
    for seed in (7, 8):
        made.append(hashed(f"black{seed}.mp4", encode_film([*black, *draw_film(seed, seconds=3)], 8)))
        made.append(hashed(f"titled{seed}.mp4", encode_film([*title, *draw_film(seed + 10, seconds=6)], 8)))
    made.append(hashed("black.mp4", encode_film(black, 8)))
    made.append(hashed("title.mp4", encode_film(title, 8)))
    return made


def test_all_variants_of_a_video_are_one_group_and_strangers_are_apart(videos: list[Made], tmp_path: Path) -> None:
    out = write_run(tmp_path, ("a.mask", "pdq.quality"), videos, POLICY)
    report = find_duplicates(out, Nearness())
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for row in pq.read_table(report.uri).to_pylist():
        groups[row["group_id"]].add(row["item_id"])
    wanted = [{f"{seed}-{how}.mp4" for how in ALTERATIONS} for seed in range(3)]
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, wanted))


def test_a_listed_video_is_found_with_its_stretch(videos: list[Made], tmp_path: Path) -> None:
    listed = next(made for made in videos if made.name == "2-same.mp4")
    lines = [f"{n},100,{h},{listed.times_s[n]}" for n, h in enumerate(listed.hashes)]
    (tmp_path / "film.txt").write_text("\n".join(lines))
    built = build_list([str(tmp_path / "film.txt")], str(tmp_path / "known.arrow"), exchange="vpdq")
    out = write_run(tmp_path, ("a.mask", "pdq.quality"), videos, POLICY)
    rows = {row["item_id"]: row for row in pq.read_table(match_run(out, built.uri, built.sha256).uri).to_pylist()}
    # A list names hashes of whole frames: what a large logo leaves cannot be compared with them.
    found = {f"2-{how}.mp4" for how in ALTERATIONS if not how.startswith("large logo")}
    assert {name for name, row in rows.items() if row["copy"]} == found
    trimmed = rows["2-trimmed.mp4"]
    # 19 frames of 8 a second were cut off the beginning.
    assert trimmed["start_s"] == 0 and trimmed["listed_start_s"] == pytest.approx(19 / 8, abs=0.6)
    assert trimmed["share_of_item"] > 0.9 > trimmed["share_of_listed"]
