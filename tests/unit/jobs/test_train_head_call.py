"""`moderation train-head` called wrongly, or over broken bundles: a sentence, exit code 2 or 4, and no traceback."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moderation.detectors.general.imagenet import ImageNet
from moderation.detectors.heads.head_file import encode_head
from moderation.training.heads.replay import ReplayMemory, encode_replay
from tests.finished_run import Made, write_run
from tests.job_runs import run_job

SHA = ImageNet.weights[0].sha256


def make_bundle(folder: Path, *, sha256: str = SHA) -> Path:
    """A head of two classes, with what it remembers."""
    import hashlib

    folder.mkdir()
    record = {
        "name": "goods",
        "classes": ["bad", "fine"],
        "backbone": {"detector": "imagenet", "sha256": sha256, "width": 1280},
    }
    tensors = {"weight": torch.zeros(2, 1280), "bias": torch.zeros(2), "temperature": torch.ones(1)}
    head = encode_head(record, tensors)
    memory = ReplayMemory(
        names=("0" * 64, "1" * 64),
        uris=("a", "b"),
        groups=("", ""),
        classes=("bad", "fine"),
        embeddings=torch.zeros(2, 1, 1280),
        targets=torch.eye(2),
        outside=torch.zeros(2, 2),
    )
    (folder / "head.safetensors").write_bytes(head)
    (folder / "replay.arrow").write_bytes(encode_replay(memory, {"head": hashlib.sha256(head).hexdigest()}))
    return folder


def write_csv(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("uri", "label"), *rows])
    return path


def assert_refused(words: str, *arguments: object, codes: tuple[int, ...] = (2,)) -> None:
    ended = run_job("train-head", *arguments)
    said = ended.stderr + ended.stdout
    assert "Traceback" not in said and "a fault of this program" not in said, said
    assert ended.returncode in codes, said
    assert words in said.replace("\n", " "), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say --images PICTURES, or --from BUNDLE"),
        (("--images", "x", "--add", "y"), "--add goes with --from"),
        (("--images", "x", "--new-class", "y"), "--new-class goes with --from"),
        (("--from", "x"), "--from BUNDLE needs --add"),
        (("--from", "x", "--add", "y", "--blocks", "2"), "--blocks does not go with --from"),
        (("--from", "x", "--add", "y", "--workers", "2"), "--workers does not go with --from"),
        (("--from", "/none", "--add", "y.csv"), "no head.safetensors there"),
        (("--images", "x", "--replay", "-1"), "replay"),
        (("--images", "x", "--workers", "65"), "--workers 65: 1 to 64"),
    ],
)
def test_options_that_do_not_go_together_are_named(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert_refused(words, "--out", tmp_path / "out", *arguments)


# What happens to a bundle, and what is said of it.
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing remembered": (lambda b: (b / "replay.arrow").unlink(), "train it again"),
    "memory is cut": (lambda b: (b / "replay.arrow").write_bytes((b / "replay.arrow").read_bytes()[:200]), "damaged"),
    "memory is a folder": (lambda b: ((b / "replay.arrow").unlink(), (b / "replay.arrow").mkdir()), "replay.arrow"),
    "head is text": (lambda b: (b / "head.safetensors").write_text("x"), "head.safetensors"),
    "head is another": (lambda b: (b / "head.safetensors").write_bytes(b"\0" * 64), "head.safetensors"),
}


@pytest.mark.parametrize("harm", HARM)
def test_broken_bundle_is_named(harm: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    harmed, words = HARM[harm]
    harmed(bundle)
    labels = write_csv(tmp_path / "labels.csv", ("1.jpg", "bad"))
    assert_refused(words, "--from", bundle, "--add", labels, "--out", tmp_path / "out", codes=(2, 4))
    assert not (tmp_path / "out").exists()


def test_what_is_added_must_be_labels_of_the_head(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "1.jpg").write_bytes(b"x")
    common = ("--from", bundle, "--out", tmp_path / "out", "--add")
    assert_refused("did you mean 'bad'", *common, write_csv(tmp_path / "typo.csv", ("1.jpg", "bda")))
    assert_refused("neither a file of labels", *common, tmp_path / "nothing")
    run = write_run(
        tmp_path / "run", ("a.weapon",), [Made(name="i.png", votes=[(0.1,)])],
        "default: pass\nchecks: {weapon: {side: negative, votes: [a.weapon], review: 0.6}}\n",
    )  # fmt: skip
    assert_refused("nobody has decided anything there yet", *common, run)


def test_head_of_other_weights_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", sha256="0" * 64)
    (tmp_path / "1.jpg").write_bytes(b"x")
    labels = write_csv(tmp_path / "labels.csv", ("1.jpg", "bad"))
    assert_refused(
        "other weights than the configuration has", "--from", bundle, "--add", labels, "--out", tmp_path / "o"
    )
