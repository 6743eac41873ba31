"""Soft prompts end to end with two tiny variants: tuned, dropped in for the words; and offline work on a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from moderation.analysis.ask import ask
from moderation.analysis.checks import describe_checks
from moderation.analysis.inventory import take_inventory
from moderation.analysis.rejudge import rejudge
from moderation.config.model import Config
from moderation.detectors.clip.questions import make_question
from moderation.errors import UsageError
from moderation.pipeline.pools import make_pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.plan import plan_shards
from moderation.policy.bind import bind
from moderation.policy.model import load_policy
from moderation.results.receipts import committed_ids
from moderation.results.record import write_record
from moderation.runtime.prepare import prepare_run
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.training.prompts.curve import FUSED, ZERO_SHOT
from moderation.training.prompts.run import TuningOutcome, tune_prompts
from moderation.training.prompts.spaces import Settings
from moderation.types import U8, Frame
from tests.job_runs import run_job
from tests.tiny_clip import PICTURE, SHAPES, Scene, draw_set, train

pytestmark = [pytest.mark.slow, pytest.mark.long]

VARIANTS = ("tiny_a", "tiny_b")
LEARN_SEED, TEST_SEED = 99, 4711
QUICK = Settings(folds=3, epochs=60)
# Words that half miss, as a user's do who has not looked at pictures: single words, or forms that say a colour too.
VAGUE = {
    "writing": {"texts": ["with text"], "against": ["clean"], "templates": "plain"},
    "form": {"answers": {"circle": ["a red circle"], "square": ["a blue square"], "triangle": ["a green triangle"]}},
    "covered": {"texts": ["a masked face"], "against": ["a bare face"], "templates": "plain"},
}
LABELS: Mapping[str, Callable[[Scene], str]] = {
    "writing": lambda s: "writing" if s.text else "against",
    "form": lambda s: s.shape or "",
    "covered": lambda s: "" if s.shape is not None else "1" if s.mask else "0",
}


def config_of(only: Sequence[str] = VARIANTS, questions: Mapping[str, Any] | None = None, **more: Any) -> Config:
    """The variants with vague questions; fp32, so that figures hold on any machine."""
    entries = [
        {"name": "clip", "alias": v, **train(v).entry, "options": {**train(v).options, "questions": questions or VAGUE}}
        for v in only
    ]
    stack = {"detectors": entries, "keep_embeddings": True, "dtype": "fp32", "device": "cpu", "batch_size": 32}
    return Config.model_validate({"stack": stack, **more})


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of our own; one thread: products this small are slower on two, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODERATION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def learn_from(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 labelled pictures: a folder, and a file of labels a question."""
    folder = tmp_path_factory.mktemp("labelled")
    pictures, scenes = draw_set(240, LEARN_SEED)
    (folder / "pics").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "pics" / f"{i:03d}.png")
    for check, label in LABELS.items():
        with (folder / f"{check}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "label"])
            rows.writerows([f"{i:03d}.png", label(scene)] for i, scene in enumerate(scenes))
    return folder


@pytest.fixture(scope="module")
def unseen() -> tuple[list[U8], list[Scene]]:
    return draw_set(600, TEST_SEED)


def tuned(folder: Path, check: str, out: Path, **options: Any) -> TuningOutcome:
    settings = options.pop("settings", QUICK)
    return tune_prompts(
        options.pop("config", config_of()),
        images=str(folder / "pics"),
        labels=str(folder / f"{check}.csv"),
        check=check,
        out=str(out),
        settings=settings,
        **options,
    )


def with_file(outcome: TuningOutcome) -> Mapping[str, Any]:
    """The questions, one of them answered by a file instead of by its words."""
    found = {"embeddings": f"file://{outcome.uri}", "sha256": outcome.sha256}
    return {**VAGUE, outcome.check: {**VAGUE[outcome.check], **found}}


def accuracy(config: Config, check: str, unseen: tuple[list[U8], list[Scene]]) -> dict[str, float]:
    """Share of right answers on pictures that nothing has learned from, by variant and fused."""
    stack = build_stack(config)
    stack.load()
    scores = stack.score([Frame(index=0, pixels=p, width=PICTURE, height=PICTURE) for p in unseen[0]]).scores
    names = list(SHAPES) if check == "form" else [check]
    truth = [LABELS[check](scene) for scene in unseen[1]]
    about = np.array([t != "" for t in truth])
    found: dict[str, float] = {}
    logits = []
    for variant in VARIANTS:
        columns = scores[:, [stack.labels.index(f"{variant}.{name}") for name in names]].astype(np.float64)
        columns = columns if check == "form" else np.hstack([columns, 1 - columns])
        logits.append(np.log(columns.clip(1e-9)))
        found[variant] = _right(logits[-1], check, truth, about)
    found[FUSED] = _right(np.mean(logits, axis=0), check, truth, about)
    return found


def _right(logits: Any, check: str, truth: Sequence[str], about: Any) -> float:
    names = list(SHAPES) if check == "form" else [check, "against"]
    other = {"1": check, "0": "against"}
    called = [names[i] for i in logits.argmax(axis=1)]
    return float(np.mean([c == other.get(t, t) for c, t in zip(called, truth, strict=True)], where=about))


@pytest.mark.parametrize("check", list(VAGUE))
def test_ten_labelled_pictures_a_class_beat_the_words(
    check: str, learn_from: Path, tmp_path: Path, unseen: tuple[list[U8], list[Scene]]
) -> None:
    outcome = tuned(learn_from, check, tmp_path / "tuned.safetensors", shots=10)
    words = accuracy(config_of(), check, unseen)
    learned = accuracy(config_of(questions=with_file(outcome)), check, unseen)
    print(f"\n{check}: words {words}, tuned {learned}, seeds {LEARN_SEED} {TEST_SEED} {QUICK.seed}")  # noqa: T201 - the note quotes it
    assert learned[FUSED] > words[FUSED]


def test_the_file_says_what_it_is_and_scores_as_it_was_measured(learn_from: Path, tmp_path: Path) -> None:
    outcome = tuned(learn_from, "form", tmp_path / "form.safetensors", licence="CC0-1.0", curve=(1, 10, 1.0))
    with safe_open(tmp_path / "form.safetensors", framework="np") as file:
        record = json.loads(file.metadata()["moderation"])
        names = set(file.keys())
    assert names == {f"{v}/{shape}" for v in VARIANTS for shape in SHAPES}
    assert record["check"] == "form"
    assert record["licence"] == "CC0-1.0"
    assert record["data"]["pictures"] == outcome.data.pictures == sum(outcome.data.classes.values())
    assert record["folds"] == 3
    assert record["scores"]["tuned/fused"]["accuracy"] > record["scores"]["zero-shot/fused"]["accuracy"]
    assert {(p.method, p.shots) for p in outcome.points} == {
        ("zero-shot", ""), ("tuned", "1"), ("probe", "1"), ("tuned", "10"), ("probe", "10"), ("tuned", "100%"),
        ("probe", "100%"),
    }  # fmt: skip
    best = max(p.quality.accuracy for p in outcome.points if p.method == "tuned")
    assert best > next(p.quality.accuracy for p in outcome.points if p.method == ZERO_SHOT)
    again = json.loads(outcome.as_json())
    assert again["points"][0]["method"] == "zero-shot"


def test_the_same_pictures_are_embedded_once_and_give_the_same_file(learn_from: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = tuned(learn_from, "writing", tmp_path / "a.safetensors", cache=cache)
    second = tuned(learn_from, "writing", tmp_path / "b.safetensors", cache=cache)
    assert first.data.computed == 240
    assert second.data.computed == 0
    assert first.sha256 == second.sha256
    other = tuned(learn_from, "covered", tmp_path / "c.safetensors", cache=cache)
    assert other.data.computed == 0  # another question about the same pictures
    assert other.data.unlabelled == 240 - other.data.pictures
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert tuned(learn_from, "writing", tmp_path / "d.safetensors", cache=cache).sha256 == first.sha256


def test_pictures_that_cannot_be_read_are_named_and_left_out(learn_from: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pics"
    pictures.mkdir()
    for path in (learn_from / "pics").iterdir():
        (pictures / path.name).write_bytes(path.read_bytes())
    (pictures / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    labels = (learn_from / "writing.csv").read_text()
    (tmp_path / "writing.csv").write_text(labels)
    outcome = tuned(tmp_path, "writing", tmp_path / "w.safetensors")
    assert [uri.rsplit("/", 1)[-1] for uri in outcome.data.failed] == ["000.png"]
    assert outcome.data.pictures == 239


def test_a_picture_that_stands_twice_counts_once_and_needs_one_label(learn_from: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pics"
    pictures.mkdir()
    for path in (learn_from / "pics").iterdir():
        (pictures / path.name).write_bytes(path.read_bytes())
    (pictures / "copy.png").write_bytes((pictures / "000.png").read_bytes())
    rows = (learn_from / "writing.csv").read_text()
    label = rows.splitlines()[1].partition(",")[2]
    (tmp_path / "writing.csv").write_text(f"{rows}copy.png,{label}\n")
    outcome = tuned(tmp_path, "writing", tmp_path / "w.safetensors")
    assert (outcome.data.pictures, outcome.data.repeated) == (240, 1)
    other = "against" if label == "writing" else "writing"
    (tmp_path / "writing.csv").write_text(f"{rows}copy.png,{other}\n")
    with pytest.raises(UsageError, match="are the same picture, labelled as two classes"):
        tuned(tmp_path, "writing", tmp_path / "w.safetensors")


def test_vectors_before_the_words_are_an_alternative_of_the_same_form(
    learn_from: Path, tmp_path: Path, unseen: tuple[list[U8], list[Scene]]
) -> None:
    settings = replace(QUICK, epochs=20, folds=2)
    outcome = tuned(
        learn_from, "writing", tmp_path / "context.safetensors", shots=10, context_tokens=4, settings=settings
    )
    assert outcome.method == "context"
    words = accuracy(config_of(), "writing", unseen)
    learned = accuracy(config_of(questions=with_file(outcome)), "writing", unseen)
    print(f"\nwriting, 4 context vectors: words {words}, tuned {learned}")  # noqa: T201 - the note quotes it
    assert learned[FUSED] > words[FUSED] - 0.01
    wordy = {"writing": {"texts": ["a circle " * 6], "against": ["clean"], "templates": "plain"}}
    with pytest.raises(UsageError, match="has no room for 16 words"):
        config = config_of(questions=wordy)
        tuned(learn_from, "writing", tmp_path / "x.safetensors", config=config, context_tokens=16)


# ---- a file that belongs to something else ----


@pytest.fixture(scope="module")
def writing(learn_from: Path, tmp_path_factory: pytest.TempPathFactory) -> TuningOutcome:
    return tuned(learn_from, "writing", tmp_path_factory.mktemp("tuned") / "writing.safetensors")


def loaded(config: Config) -> Stack:
    stack = build_stack(config)
    stack.load()
    return stack


def test_a_file_is_found_by_its_model_whatever_the_variant_is_called(writing: TuningOutcome) -> None:
    config = config_of(questions=with_file(writing))
    entries = tuple(d.model_copy(update={"alias": f"my_{d.alias}"}) for d in config.stack.detectors)
    renamed = loaded(config.model_copy(update={"stack": config.stack.model_copy(update={"detectors": entries})}))
    assert renamed.labels[0] == "my_tiny_a.writing"


def test_a_file_of_another_model_is_refused(writing: TuningOutcome, learn_from: Path, tmp_path: Path) -> None:
    alone = tuned(learn_from, "writing", tmp_path / "a.safetensors", only=["tiny_a"])
    with pytest.raises(UsageError, match="tuned for other weights or another architecture than 'tiny_b'"):
        loaded(config_of(["tiny_b"], with_file(alone)))


def test_a_file_of_another_check_or_of_other_answers_is_refused(writing: TuningOutcome, learn_from: Path) -> None:
    given = {"embeddings": f"file://{writing.uri}", "sha256": writing.sha256}
    with pytest.raises(UsageError, match="tuned for the check 'writing', not for 'covered'"):
        loaded(config_of(questions={"covered": {**VAGUE["covered"], **given}}))
    answers = {"answers": {"printed": ["text"], "clean": ["clean"]}, **given}
    with pytest.raises(UsageError, match="tuned for the answers"):
        loaded(config_of(questions={"writing": answers}))


def test_a_wrong_call_is_refused_before_a_network_is_loaded(learn_from: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    with pytest.raises(UsageError, match=r"--check 'writting': no such question; did you mean 'writing'"):
        tune_prompts(
            config_of(), images=str(learn_from), labels="x.csv", check="writting", out=str(out), settings=QUICK
        )
    with pytest.raises(UsageError, match="--variant 'tiny_c'"):
        tuned(learn_from, "writing", out, only=["tiny_c"])
    with pytest.raises(UsageError, match="--context-tokens 99"):
        tuned(learn_from, "writing", out, context_tokens=99)
    with pytest.raises(UsageError, match="no such file"):
        tune_prompts(
            config_of(),
            images=str(learn_from / "pics"),
            labels=str(learn_from / "none.csv"),
            check="writing",
            out=str(out),
            settings=QUICK,
        )
    assert not out.exists()


# ---- a run, and what is made of it afterwards ----

POLICY = """
default: pass
checks:
  writing: {side: negative, votes: [tiny_a.writing, tiny_b.writing], fuse: mean_logit, review: 0.5}
  covered: {side: negative, votes: [tiny_a.covered, tiny_b.covered], fuse: mean_logit, review: 0.5}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, unseen: tuple[list[U8], list[Scene]]) -> tuple[Path, Path]:
    """(configuration as YAML, OUT) of 40 pictures, each with what it shows as an attribute."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    with (folder / "in" / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "shows", "caption"])
        for i, (picture, scene) in enumerate(zip(*(part[:40] for part in unseen), strict=True)):
            Image.fromarray(picture).save(folder / "in" / f"{i:02d}.png")
            rows.writerow([f"{i:02d}.png", scene.shape or "face", "words on it" if scene.text else "nothing on it"])
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    config = config_of(policy=str(folder / "policy.yaml"), shards={"max_items": 16})
    path = folder / "config.yaml"
    path.write_text(config.model_dump_json())
    out, source = str(folder / "out"), str(folder / "in" / "list.csv")
    planned = prepare_run(source, out, config)
    stack = loaded(config)
    policy = bind(load_policy(Path(config.policy)), stack.labels, gated=stack.gated)
    pools = make_pools(config, 1)
    for shard in plan_shards(source, out, config):
        moderate_shard(shard, out=out, config=config, stack=stack, policy=policy, facts=planned.facts, pools=pools)
    write_record(planned, "done")
    return path, Path(out)


def test_a_question_asked_afterwards_becomes_a_check_of_another_policy(run: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = run
    question = make_question("reddish", ["a red circle", "a red square"], ["a blue circle", "a green square", "a face"])
    ask(str(out), question, keep=True)
    more = "  reddish: {side: negative, votes: [tiny_a.reddish, tiny_b.reddish], fuse: mean_logit, review: 0.8}\n"
    (tmp_path / "more.yaml").write_text(POLICY + more, encoding="utf-8")
    found = rejudge(str(out), str(tmp_path / "more.yaml"), str(tmp_path / "again"))
    assert found.asks == ("reddish",)
    assert found.items == 40
    assert set(found.moved) <= {("pass", "review")}
    assert found.moved
    parts = sorted((tmp_path / "again" / "verdicts").iterdir())
    assert len(parts) == len(committed_ids(str(out))) == 3
    scores = [s for p in parts for s in pq.read_table(p)["score_reddish"].to_pylist()]
    assert all(s is not None for s in scores)


def test_checks_and_inventory_of_the_run(run: tuple[Path, Path]) -> None:
    _, out = run
    writing, covered = sorted(describe_checks(str(out)), key=lambda c: c.name, reverse=True)
    assert writing.fused.total == covered.fused.total == 40
    assert writing.pairs[0].frames == 40
    found = take_inventory(str(out))
    assert found.items == 40
    assert sum(found.verdicts.values()) == 40
    flagged = {t.term for t in found.flagged}
    assert flagged  # captions of what was flagged are not those of the rest


def test_the_jobs_do_it_from_the_command_line(run: tuple[Path, Path], learn_from: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config, out = run
    done = run_job(
        "tune-prompts", "--images", learn_from / "pics", "--labels", learn_from / "form.csv", "--check", "form",
        "--out", tmp_path / "form.safetensors", "--config", config, "--shots", "4", "--folds", "2", "--epochs", "10",
        "--curve", "1,4", "--report", tmp_path / "report.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "zero-shot" in done.stdout
    assert "sha256:" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["check"] == "form"
    done = run_job("checks", out, "--plot", "--to", tmp_path / "checks")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checks" / "writing.png").is_file()
    done = run_job("document", out, "--to", tmp_path / "document")
    assert done.returncode == 0, done.stderr
    assert "data:image/jpeg" in (tmp_path / "document" / "index.html").read_text()
    (tmp_path / "strict.yaml").write_text(POLICY.replace("review: 0.5", "review: 0.1"))
    done = run_job("rejudge", out, "--policy", tmp_path / "strict.yaml", "--to", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert "pass -> review" in done.stdout
    wrong = run_job("tune-prompts", "--images", out, "--labels", "x", "--check", "form", "--out", "x", "--shots", "0")
    assert wrong.returncode == 2
