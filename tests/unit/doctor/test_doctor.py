"""The doctor finds what would stop a run before the run does, and gives advice."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs.__main__ import app
from moderation.config.load import load_config
from moderation.config.model import Config, MediaConfig
from moderation.detectors.weights.checksum import sha256_of
from moderation.doctor import Finding, diagnose, diagnosis, findings_as_json, packages, render_findings
from moderation.doctor.probes import look_at_machine, probe_storage

LIGHT = ["stack.only=[quality, pdq]"]


@pytest.fixture(scope="module")
def healthy() -> list[Finding]:
    return diagnose(load_config(None, LIGHT))


def named(findings: list[Finding], name: str) -> Finding:
    (found,) = [f for f in findings if f.name == name]
    return found


def detectors_of(config: Config) -> list[Finding]:
    return [f for f in diagnose(config) if f.group == "detectors"]


def test_findings_cover_every_thing_that_a_run_needs(healthy: list[Finding]) -> None:
    groups = list(dict.fromkeys(f.group for f in healthy))
    assert groups == ["versions", "devices", "detectors", "policy", "extras", "decoders", "storage", "space"]
    assert {"python", "torch", "ray", "pyarrow", "CPU", "heic", "video, av1", "memory"} <= {f.name for f in healthy}


def test_machine_that_runs_these_tests_can_run_the_light_stack(healthy: list[Finding]) -> None:
    assert [f for f in healthy if f.stops_a_run and f.group != "space"] == []


def test_whatever_is_not_fine_comes_with_advice(healthy: list[Finding]) -> None:
    silent = [f for f in healthy if f.stops_a_run and not f.advice]
    assert silent == []


def test_detectors_that_a_run_leaves_out_are_said_to_be(healthy: list[Finding]) -> None:
    assert named(healthy, "open_nsfw").detail == "left out by stack.only"


def test_missing_package_is_answered_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version

    def without(name: str) -> str:
        if name in ("pyarrow", "pillow-heif"):
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(packages, "version", without)
    found = list(packages.find_versions())
    assert named(found, "pyarrow").status == "missing"
    assert named(found, "pyarrow").advice.startswith("pip install 'pyarrow>=")
    heic = named(list(packages.find_extras()), "heic")
    assert (heic.status, heic.advice) == ("note", "if you want it: pip install 'pillow-heif>=1.0'")


def test_package_that_is_too_old_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "0.0.1" if name == "torch" else real(name))
    found = named(list(packages.find_versions()), "torch")
    assert (found.status, found.detail.split(",")[0]) == ("wrong", "0.0.1")


@pytest.mark.parametrize(
    ("installed", "status", "advice"),
    [
        ({"decord2": "3.0"}, "ok", ""),
        ({"decord": "0.6.0"}, "wrong", "pip uninstall -y decord; pip install decord2"),
        ({}, "missing", "pip install decord2"),
        ({"decord": "0.6.0", "decord2": "3.0"}, "wrong", "pip uninstall -y decord; pip install --force-reinstall"),
    ],
)
def test_older_video_decoder_is_told_from_the_one_that_reads_av1(
    installed: dict[str, str], status: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name in installed:
            return installed[name]
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", version)
    found = named(list(packages.find_decoders()), "video, av1")
    assert found.status == status
    assert found.advice.startswith(advice)


def config_with(tmp_path: Path, detector: str) -> Config:
    (tmp_path / "config.yaml").write_text(f"stack: {{detectors: [{detector}]}}\n")
    return load_config(str(tmp_path / "config.yaml"))


def test_weights_are_checked_by_their_sum(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"weights")
    entry = f"{{name: open_nsfw, weights: 'file://{file}', sha256: {sha256_of(file)}}}"
    (found, total) = detectors_of(config_with(tmp_path, entry))
    assert found.status == "ok"
    assert "sha256" in found.detail and "16 ms per frame" in found.detail and "BSD-2-Clause" in found.detail
    assert total.name == "together"
    file.write_bytes(b"weightz")
    (found, _) = detectors_of(config_with(tmp_path, entry))
    assert found.status == "wrong"
    assert "expected" in found.detail and found.advice


@pytest.mark.parametrize(
    ("entry", "status", "words"),
    [
        ("{name: open_nfsw}", "wrong", "did you mean 'open_nsfw'?"),
        (f"{{name: open_nsfw, weights: 'file:///no/such.onnx', sha256: {'ab' * 32}}}", "missing", "no such file"),
        (f"{{name: open_nsfw, weights: 'pkg://no_such_package_abc/x', sha256: {'ab' * 32}}}", "missing", "pip install"),
        (f"{{name: open_nsfw, weights: 'memory://w/x', sha256: {'ab' * 32}}}", "missing", "out of reach: there is no"),
    ],
)
def test_detector_that_would_not_load_is_found(entry: str, status: str, words: str, tmp_path: Path) -> None:
    found = detectors_of(config_with(tmp_path, entry))[0]
    assert found.status == status
    assert words in f"{found.detail} {found.advice}"


def test_weights_that_can_be_fetched_are_a_note(tmp_path: Path) -> None:
    from moderation import storage

    storage.publish("memory://there/x.onnx", b"weights")
    entry = f"{{name: open_nsfw, weights: 'memory://there/x.onnx', sha256: {'ab' * 32}}}"
    found = detectors_of(config_with(tmp_path, entry))[0]
    assert found.status == "note"
    assert "is not here yet" in found.detail
    assert not found.stops_a_run


def test_a_hub_that_is_out_of_reach_is_no_readiness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    found = detectors_of(config_with(tmp_path, "{name: open_nsfw, weights: 'hf://no/such/x.onnx'}"))[0]
    assert found.status == "missing"
    assert "no route to the hub" in found.detail
    assert "weights pull" in found.advice


def test_policy_that_does_not_fit_the_stack_is_found(tmp_path: Path) -> None:
    found = [f for f in diagnose(config_with(tmp_path, "{name: quality}")) if f.group == "policy"]
    assert [f.status for f in found] == ["wrong"]


def test_device_that_is_not_there_is_found() -> None:
    found = named(
        list(diagnosis._devices(load_config(None, ["stack.device=cuda:99"]), look_at_machine(Path()))),
        "the stack runs on",
    )
    assert found.status == "wrong"
    assert found.advice == "--set stack.device=auto"


def test_storage_is_listed_and_an_absent_place_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert probe_storage(str(tmp_path)).status == "ok"
    assert "a.jpg" in probe_storage(str(tmp_path)).detail
    assert probe_storage(str(tmp_path / "nothing")).status == "note"
    assert probe_storage("nosuchscheme://x").status == "wrong"


@pytest.fixture
def s3_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    import s3fs

    def point_at(endpoint: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-show-this")

    # fsspec caches filesystems by their arguments, not by the environment in which they were made.
    s3fs.S3FileSystem.clear_instance_cache()
    yield point_at
    s3fs.S3FileSystem.clear_instance_cache()


def test_store_that_does_not_answer_is_found_in_bounded_time(s3_settings: Callable[[str], None]) -> None:
    with socket.socket() as silent:  # accepts connections but never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        s3_settings(endpoint)
        found = probe_storage("s3://bucket/photos", timeout_s=1.0)
    assert found.status == "wrong"
    assert "no answer in 1 s" in found.detail and endpoint in found.detail
    assert "AWS_ENDPOINT_URL" in found.advice


def test_secrets_are_never_shown(s3_settings: Callable[[str], None]) -> None:
    s3_settings("http://127.0.0.1:9")
    found = probe_storage("s3://bucket/photos", timeout_s=1.0)
    assert "do-not-show-this" not in f"{found.detail} {found.advice}"


def test_findings_are_shown_as_they_are_and_not_as_markup() -> None:
    findings = [
        Finding(
            group="storage", name="[red]s3://b[/red]", status="wrong", detail="[bold]x", advice="pip install 'a[b]'"
        )
    ]
    console = Console(file=io.StringIO(), width=120)
    console.print(render_findings(findings))
    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
    assert all(text in shown for text in ("[red]s3://b[/red]", "[bold]x", "pip install 'a[b]'"))
    assert json.loads(findings_as_json(findings))[0]["advice"] == "pip install 'a[b]'"


def test_command_ends_with_2_when_a_run_would_not_succeed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("stack: {detectors: [{name: open_nfsw}]}\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "config.yaml"), "--json"])
    assert done.exit_code == 2
    assert {f["status"] for f in json.loads(done.stdout) if f["group"] == "detectors"} == {"wrong"}


def test_cost_says_what_conditions_may_save(tmp_path: Path) -> None:
    *_, total = detectors_of(config_with(tmp_path, "{name: quality}, {name: pdq, when: quality.entropy >= 2}"))
    assert total.detail.startswith("1.7 ms per frame")
    assert "0.4 ms, 2,500 frames/s, where no `when:` is met" in total.detail


def test_pyav_is_asked_for_by_name_and_an_old_ffmpeg_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(packages.find_decoders(MediaConfig()))
    assert named(found, "video").detail.startswith("av ")
    monkeypatch.setattr(packages, "describe_below_floor", lambda media: "av 1 is older than FFmpeg 8: upgrade it")
    monkeypatch.setattr(packages, "look_at_package", lambda name: None)
    found = list(packages.find_decoders(MediaConfig()))
    assert (named(found, "video").status, named(found, "video").advice) == ("missing", "pip install 'av>=18.1,<19'")
    assert (named(found, "FFmpeg").status, named(found, "FFmpeg").advice) == ("note", "upgrade it")
