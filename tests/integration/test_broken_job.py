"""Forty broken files and their good neighbours through the whole job; and the codes that no file can show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from moderation.types import ErrorCode
from tests.broken_files import LIMITS, make_broken_files, make_good_files
from tests.job_runs import by_name, make_tiny_config, run_job, verdicts
from tests.plugins.plugin_detectors import ABORTS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

COLUMNS = ["status", "verdict", "error_code", "frames_scored", "error_detail"]


def limits() -> list[str]:
    """`LIMITS`, for the command line."""
    changed = LIMITS.model_dump(exclude_defaults=True)
    return [part for key, value in changed.items() for part in ("--set", f"media.{key}={value}")]


def test_forty_broken_files_are_forty_rows_and_their_neighbours_are_unharmed(tmp_path: Path) -> None:
    codes = make_broken_files(tmp_path / "in")
    good = make_good_files(tmp_path / "good")
    for name in good:
        shutil.copy(tmp_path / "good" / name, tmp_path / "in" / f"good_{name}")
    config = make_tiny_config(tmp_path / "config")
    ended = run_job("backfill", tmp_path / "in", "--out", tmp_path / "out", "--config", config, *limits())
    assert ended.returncode == 3, ended.stderr
    rows = by_name(verdicts(tmp_path / "out"), COLUMNS)
    assert len(rows) == len(codes) + len(good) == 40 + len(good)
    assert {name: rows[name][2] for name in codes} == {name: str(code) for name, code in codes.items()}
    for name, code in codes.items():
        status, verdict, _, frames, detail = rows[name]
        assert (status, verdict) == (("skipped", None) if code is ErrorCode.NOT_MEDIA else ("error", "review")), name
        assert bool(frames) == (code is ErrorCode.TRUNCATED), name
        assert detail, name
    for name, expected in good.items():
        assert rows[f"good_{name}"][:4] == ("ok", "pass", None, expected.frames_total), name


def test_codes_that_no_file_can_show(tmp_path: Path) -> None:
    """Missing, outside what a manifest may read, and one on which the process dies."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32), (60, 60, 60)).save(tmp_path / "in" / "plain.png")
    Image.new("RGB", (32, 32), ABORTS).save(tmp_path / "in" / "deadly.png")
    uris = ["in/plain.png", "in/deadly.png", "in/gone.png", "/etc/hostname", "file:///etc/passwd"]
    uris += ["s3://somebody-elses/secret.png", "http://169.254.169.254/latest/meta-data", "../../outside.png"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    config = make_tiny_config(tmp_path / "config", deadly=True)
    ended = run_job("backfill", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--config", config)
    assert ended.returncode == 3, ended.stderr
    rows = by_name(verdicts(tmp_path / "out"), COLUMNS)
    assert rows.pop("plain.png")[:3] == ("ok", "pass", None)
    deadly = rows.pop("deadly.png")
    assert deadly[:3] == ("error", "review", "decoder_crashed") and "SIGABRT" in deadly[4]
    assert rows.pop("gone.png")[:3] == ("error", "review", "not_found")
    assert len(rows) == 5
    assert {row[:3] for row in rows.values()} == {("error", "review", "forbidden")}
