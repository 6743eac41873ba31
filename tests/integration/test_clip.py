"""CLIP end to end with two tiny variants that the tests train: words, fusion, cascade, kept embeddings, buckets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from moderation import storage
from moderation.analysis.ask import ask
from moderation.config.model import Config, DetectorConfig, OutputConfig
from moderation.detectors import registry
from moderation.detectors.clip.detector import Clip
from moderation.detectors.clip.questions import make_question
from moderation.detectors.views import TensorFrames
from moderation.detectors.weights import locator as weights
from moderation.detectors.weights.mirror import VARIABLE
from moderation.detectors.weights.pull import pull_weights
from moderation.errors import FatalError, UsageError
from moderation.pipeline.pools import make_pools
from moderation.pipeline.shard import moderate_shard
from moderation.planning.plan import plan_shards
from moderation.policy import aggregate
from moderation.policy.bind import bind
from moderation.policy.model import load_policy
from moderation.results.asked import asked_labels, with_asked
from moderation.results.layout import part_name
from moderation.results.receipts import committed_ids
from moderation.results.record import write_record
from moderation.results.tables import decode_table
from moderation.runtime.prepare import prepare_run
from moderation.scoring.build import build_stack
from moderation.scoring.stack import Stack
from moderation.types import F32, U8, Frame
from tests.tiny_clip import COLOURS, PICTURE, SHAPES, Scene, draw_set, train

pytestmark = [pytest.mark.slow, pytest.mark.long]

VARIANTS = ("tiny_a", "tiny_b")
SEED = 4711
TEMPLATES = ("{}",)

POLICY = """
default: pass
checks:
  no_face:
    side: negative
    votes: [tiny_a.face, tiny_b.face]
    invert: true
    fuse: mean_logit
    review: 0.5
    order: 1
    stop: true
  mask:
    {side: negative, votes: [tiny_a.mask, tiny_b.mask], fuse: mean_logit, review: 0.5, order: 2}
  text:
    {side: negative, votes: [tiny_a.text, tiny_b.text], fuse: mean_logit, review: 0.99}
"""


def config_of(folder: Path, **stack: Any) -> Config:
    """Both variants, embeddings kept; fp32, so that figures hold on any machine."""
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    entries = [{"name": "clip", "alias": v, **train(v).entry, "options": train(v).options} for v in VARIANTS]
    settings = {"detectors": entries, "keep_embeddings": True, "dtype": "fp32", "device": "cpu", "batch_size": 32}
    tree = {"stack": {**settings, **stack}, "policy": str(folder / "policy.yaml"), "shards": {"max_items": 16}}
    return Config.model_validate(tree)


def loaded(config: Config) -> Stack:
    stack = build_stack(config)
    stack.load()
    return stack


def frames_of(pictures: Sequence[U8]) -> list[Frame]:
    return [Frame(index=0, pixels=p, width=PICTURE, height=PICTURE) for p in pictures]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Words are cached where the test run ends, not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODERATION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return loaded(config_of(tmp_path_factory.mktemp("config")))


@pytest.fixture(scope="module")
def unseen() -> tuple[list[U8], list[Scene]]:
    return draw_set(600, SEED)


@pytest.fixture(scope="module")
def votes(stack: Stack, unseen: tuple[list[U8], list[Scene]]) -> Mapping[str, F32]:
    scores = stack.score(frames_of(unseen[0])).scores
    return {label: scores[:, i] for i, label in enumerate(stack.labels)}


def accuracies(votes: Mapping[str, F32], scenes: Sequence[Scene], variant: str) -> dict[str, float]:
    """Share of right answers to each question on the pictures that it is about."""
    face = np.array([s.shape is None for s in scenes])
    found: dict[str, float] = {}
    for name, about in {"mask": face, "glasses": face, "text": face | True}.items():
        truth = np.array([bool(getattr(s, name)) for s in scenes])
        found[name] = float(((votes[f"{variant}.{name}"] >= 0.5) == truth)[about].mean())
    found["face"] = float(((votes[f"{variant}.face"] >= 0.5) == face).mean())
    for name, answers in {"colour": tuple(COLOURS), "shape": SHAPES}.items():
        best = np.stack([votes[f"{variant}.{answer}"] for answer in answers]).argmax(axis=0)
        right = np.array([answers[b] == getattr(s, name) for b, s in zip(best, scenes, strict=True)])
        found[name] = float(right[~face].mean())
    return found


def test_two_variants_fused_are_no_worse_than_the_better_one_less_a_point(
    votes: Mapping[str, F32], unseen: tuple[list[U8], list[Scene]], record_property: Any
) -> None:
    both = dict(votes)
    for label in [label for label in votes if label.startswith("tiny_a.")]:
        name = label.partition(".")[2]
        pairs = np.stack([votes[f"{v}.{name}"] for v in VARIANTS], axis=1).tolist()
        both[f"fused.{name}"] = np.array([aggregate.fuse(pair, method="mean_logit") for pair in pairs], np.float32)
    found = {variant: accuracies(both, unseen[1], variant) for variant in (*VARIANTS, "fused")}
    means = {variant: float(np.mean(list(by_question.values()))) for variant, by_question in found.items()}
    print("\nzero-shot accuracy on 600 unseen drawn pictures:", means, found)  # noqa: T201 - the note quotes it
    assert min(means["tiny_a"], means["tiny_b"]) > 0.75  # words mean something
    assert means["fused"] >= max(means["tiny_a"], means["tiny_b"]) - 0.01


def test_scores_are_those_of_open_clip(stack: Stack, unseen: tuple[list[U8], list[Scene]]) -> None:
    import open_clip

    tiny = train("tiny_a")
    model = open_clip.CLIP(**tiny.architecture).eval()
    open_clip.load_checkpoint(model, str(tiny.path))
    tokens = open_clip.SimpleTokenizer(context_length=24)
    pictures = unseen[0][:8]
    size = tiny.architecture["vision_cfg"]["image_size"]
    preprocess = open_clip.image_transform(size, is_train=False)  # Pillow's bicubic, OpenAI's mean and std
    templates = ("{}", "a photo of {}", "a picture of {}", "a frame of a video of {}", "a low quality photo of {}")
    with torch.inference_mode():
        image = model.encode_image(torch.stack([preprocess(Image.fromarray(p)) for p in pictures]), normalize=True)
        sides = []
        for words in ("a masked face", "a bare face"):
            text = model.encode_text(tokens([t.format(words) for t in templates]), normalize=True).mean(dim=0)
            sides.append(torch.nn.functional.normalize(text, dim=0))
        expected = (model.logit_scale.exp() * image @ torch.stack(sides).T).softmax(dim=1)[:, 0].numpy()
    found = stack.score(frames_of(pictures)).scores[:, stack.labels.index("tiny_a.mask")]
    np.testing.assert_allclose(found, expected, atol=0.01)  # two levels of 255 between resamplers


def test_bf16_answers_as_fp32_within_a_few_hundredths(
    tmp_path: Path, unseen: tuple[list[U8], list[Scene]], votes: Mapping[str, F32]
) -> None:
    half = loaded(config_of(tmp_path, dtype="bf16"))
    scores = half.score(frames_of(unseen[0][:64])).scores
    exact = np.stack([votes[label][:64] for label in half.labels], axis=1)
    assert np.quantile(np.abs(scores - exact), 0.99) < 0.05


def test_a_transformer_embeds_in_bf16_as_in_fp32(tmp_path: Path, unseen: tuple[list[U8], list[Scene]]) -> None:
    import open_clip

    vision = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2}
    architecture = {**train("tiny_a").architecture, "vision_cfg": vision}
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = open_clip.CLIP(**architecture)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "vit.safetensors")
    batch = TensorFrames(unseen[0][:16], [(PICTURE, PICTURE)] * 16, torch.device("cpu"))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        detector = Clip({**train("tiny_a").options, "architecture": architecture})
        detector.load(torch.device("cpu"), dtype, [str(tmp_path / "vit.safetensors")])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found.append(detector.score(batch, {}))
    exact, half = found
    assert exact.embedding is not None
    assert half.embedding is not None
    assert half.embedding.dtype == torch.bfloat16  # else it was not cast
    assert torch.nn.functional.cosine_similarity(exact.embedding, half.embedding.float()).min() > 0.999
    assert half.scores.dtype == torch.float32


def test_a_batch_of_no_frames_gives_no_rows(stack: Stack) -> None:
    assert stack.score([]).scores.shape == (0, len(stack.labels))


# ---- a run, and questions asked of it afterwards --------------------------------------------------------------------


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, unseen: tuple[list[U8], list[Scene]]
) -> tuple[str, Config, dict[str, Scene]]:
    """40 pictures moderated into an OUT, with what each shows."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    shown: dict[str, Scene] = {}
    for i, (picture, scene) in enumerate(zip(*(part[:40] for part in unseen), strict=True)):
        path = folder / "in" / f"{i:02d}.png"
        Image.fromarray(picture).save(path)
        shown[str(path)] = scene
    (folder / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    config = config_of(folder).model_copy(update={"output": OutputConfig(format=request.param)})
    out = str(folder / "out")
    planned = prepare_run(str(folder / "in"), out, config)
    stack = loaded(config)
    policy = bind(load_policy(Path(config.policy)), stack.labels, gated=stack.gated)
    pools = make_pools(config, 1)
    for shard in plan_shards(str(folder / "in"), out, config):
        moderate_shard(shard, out=out, config=config, stack=stack, policy=policy, facts=planned.facts, pools=pools)
    write_record(planned, "done")
    return out, config, shown


def tables(out: str, table: str, config: Config) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((Path(out) / table).iterdir()):
        if config.output.format == "parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += pyarrow.ipc.open_file(path).read_all().to_pylist()
    return rows


def test_a_failed_check_that_stops_leaves_the_next_one_null(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, config, _ = run
    verdicts = [row for row in tables(out, "verdicts", config) if row["status"] == "ok"]
    stopped = [row for row in verdicts if row["score_no_face"] >= 0.5]
    went_on = [row for row in verdicts if row["score_no_face"] < 0.5]
    assert stopped
    assert went_on
    assert all(row["score_mask"] is None and row["verdict"] == "review" for row in stopped)
    assert all(row["score_mask"] is not None for row in went_on)
    assert all(row["score_text"] is not None for row in verdicts)  # no order: always asked


def test_kept_embeddings_answer_as_the_pictures_did(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, config, _ = run
    templates = ("{}", "a photo of {}", "a picture of {}", "a frame of a video of {}", "a low quality photo of {}")
    question = make_question("again", ["a masked face"], ["a bare face"], templates=templates)
    before = (Path(out) / "votes").iterdir()
    committed = {path.name: path.read_bytes() for path in before}
    ranking = ask(out, question, keep=True)
    assert ranking.labels == ("tiny_a.again", "tiny_b.again")
    assert asked_labels(out) == {"again": ranking.labels}
    votes = tables(out, "votes", config)
    assert ranking.frames == ranking.items == len(votes) == 40
    asked = {row["item_id"]: row for row in tables_of_asked(out, "again", config)}
    for row in votes:
        for variant in VARIANTS:
            assert asked[row["item_id"]][f"{variant}.again"] == pytest.approx(row[f"{variant}.mask"], abs=1e-3)
    assert {path.name: path.read_bytes() for path in (Path(out) / "votes").iterdir()} == committed


def tables_of_asked(out: str, name: str, config: Config) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((Path(out) / "asks" / name).glob("part-*")):
        table = pq.read_table(path) if config.output.format == "parquet" else pyarrow.ipc.open_file(path).read_all()
        rows += table.to_pylist()
    return rows


def test_a_new_question_ranks_what_it_asks_for_first(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, _, shown = run
    question = make_question("red", ["a red circle", "a red square"], ["a blue square", "a green square", "a face"])
    ranking = ask(out, question, limit=5)
    assert [f.score for f in ranking.found] == sorted((f.score for f in ranking.found), reverse=True)
    assert sum(shown[f.uri].colour in ("red", "yellow") for f in ranking.found) >= 4
    assert {f.verdict for f in ranking.found} <= {"pass", "review"}
    assert ask(out, question, limit=5).found == ranking.found
    assert ask(out, question, limit=1).found == ranking.found[:1]


def test_asked_columns_stand_beside_the_votes_row_by_row(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, config, _ = run
    ask(out, make_question("round", ["a red circle"], ["a red square"]), keep=True)
    shard_id = min(committed_ids(out))
    data = storage.read_bytes(storage.join(out, "votes", part_name(shard_id, config.output.format)))
    votes = decode_table(data, config.output.format)
    wider = with_asked(votes, out, shard_id, ["round"], config.output.format)
    assert wider.column_names[-2:] == ["tiny_a.round", "tiny_b.round"]
    assert wider.num_rows == votes.num_rows
    with pytest.raises(UsageError, match="no such question"):
        with_asked(votes, out, shard_id, ["never"], config.output.format)
    of_another_run = votes.replace_schema_metadata({"moderation.run_id": "other"})
    with pytest.raises(UsageError, match="the votes of another"):
        with_asked(of_another_run, out, shard_id, ["round"], config.output.format)


def test_a_name_that_is_taken_is_refused(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, _, _ = run
    with pytest.raises(UsageError, match=r"have tiny_a\.mask already"):
        ask(out, make_question("mask", ["a mask"]), keep=True)
    ask(out, make_question("bluish", ["a blue circle"]), keep=True)
    with pytest.raises(UsageError, match="was another question"):
        ask(out, make_question("bluish", ["a blue square"]), keep=True)
    with pytest.raises(UsageError, match="no CLIP variant tiny_c"):
        ask(out, make_question("bluish", ["a blue circle"]), only=["tiny_c"])


def test_duckdb_reads_asked_columns_as_they_are(run: tuple[str, Config, dict[str, Scene]]) -> None:
    out, config, _ = run
    if config.output.format != "parquet":
        pytest.skip("DuckDB reads Parquet")
    ask(out, make_question("greenish", ["a green circle"], ["a red circle", "a face"]), keep=True)
    query = f"""
        SELECT count(*), max("tiny_a.greenish") FROM '{out}/votes/*.parquet' JOIN '{out}/asks/greenish/*.parquet'
        USING (item_id, frame)"""
    rows = duckdb.sql(query).fetchall()
    assert rows[0][0] == 40
    assert 0 < rows[0][1] <= 1


def test_the_job_prints_what_was_found_and_keeps_it_under_the_name_given(
    run: tuple[str, Config, dict[str, Scene]],
) -> None:
    from jobs.ask import ask as ask_job

    out, _, _ = run
    app = typer.Typer()
    app.command()(ask_job)
    words = ["a yellow circle", "--against", "a blue circle", "--against", "a face", "--limit", "3"]
    found = json.loads(CliRunner().invoke(app, [out, *words, "--json"]).stdout)
    assert len(found["found"]) == 3
    shown = CliRunner().invoke(app, [out, *words, "--as-check", "yellowish"])
    assert shown.exit_code == 0
    assert "40 items, 40 frames" in shown.stdout
    assert asked_labels(out)["yellowish"] == ("tiny_a.yellowish", "tiny_b.yellowish")


# ---- weights through a bucket, and files that stand for words -------------------------------------------------------


def test_weights_go_through_a_bucket_and_a_changed_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unseen: tuple[list[U8], list[Scene]], votes: Mapping[str, F32]
) -> None:
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache" / "weights"))
    tiny = train("tiny_a")
    storage.publish("memory://models/tiny_a.safetensors", tiny.path.read_bytes())
    entry = {"name": "clip", "weights": "memory://models/tiny_a.safetensors", "options": tiny.options}
    config = Config.model_validate(
        {"stack": {"detectors": [{**entry, "alias": "tiny_a", "sha256": tiny.sha256}], "dtype": "fp32"}}
    )
    stack = loaded(config)
    label = stack.labels.index("tiny_a.mask")
    np.testing.assert_allclose(
        stack.score(frames_of(unseen[0][:8])).scores[:, label], votes["tiny_a.mask"][:8], atol=1e-5
    )
    wrong = Config.model_validate({"stack": {"detectors": [{**entry, "sha256": "0" * 64}]}})
    with pytest.raises(FatalError, match="not used"):
        build_stack(wrong).load()


def test_a_configuration_whose_hub_is_out_of_reach_runs_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = f"memory://mirror-of-{tmp_path.name}"
    pulled = pull_weights(config_of(tmp_path), mirror)
    assert {entry.sha256 for entry in pulled} == {train(v).sha256 for v in VARIANTS}
    monkeypatch.setenv(VARIABLE, mirror)
    monkeypatch.setenv("MODERATION_CACHE", str(tmp_path / "cache" / "weights"))
    tiny = train("tiny_b")
    entry = {"name": "clip", "weights": "hf://org/name/tiny_b.safetensors", "sha256": tiny.sha256}
    stack = loaded(Config.model_validate({"stack": {"detectors": [{**entry, "options": tiny.options}]}}))
    assert stack.labels[0] == "clip.mask"


def test_a_checkpoint_of_another_architecture_is_fatal(tmp_path: Path) -> None:
    other = {**train("tiny_a").options, "architecture": dict(train("tiny_b").architecture)}
    config = DetectorConfig.model_validate({"name": "clip", **train("tiny_a").entry, "options": other})
    detector = registry.build(config)
    with pytest.raises(FatalError, match="not a checkpoint of this architecture"):
        detector.load(torch.device("cpu"), torch.float32, [str(weights.resolve(detector.weights[0]))])


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value] # a path is what it takes

    path = tmp_path / "trap.pt"
    torch.save({"state_dict": Trap()}, path)
    detector = Clip(train("tiny_a").options)
    with pytest.raises(FatalError, match="not a checkpoint"):
        detector.load(torch.device("cpu"), torch.float32, [str(path)])
    assert not (tmp_path / "sprung").exists()


def test_tuned_embeddings_are_a_drop_in_for_the_words(
    tmp_path: Path, unseen: tuple[list[U8], list[Scene]], votes: Mapping[str, F32]
) -> None:
    plain = Clip(train("tiny_a").options)
    plain.name = "tiny_a"
    network = plain.load_words(str(train("tiny_a").path))
    mask = next(q for q in plain.questions if q.name == "mask")
    contrasts = plain.embed_questions([mask], network, {})
    path = tmp_path / "mask.safetensors"
    save_file({"tiny_a/mask": contrasts.texts_TD[:1].clone(), "against": contrasts.texts_TD[1:].clone()}, path)
    options = train("tiny_a").options
    tuned = {"embeddings": f"file://{path}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    questions = {"mask": {**options["questions"]["mask"], **tuned}}
    config = config_of(tmp_path)
    entry = {"name": "clip", "alias": "tiny_a", **train("tiny_a").entry, "options": {**options, "questions": questions}}
    stack = loaded(
        config.model_copy(
            update={
                "stack": Config.model_validate(
                    {"stack": {"detectors": [entry], "dtype": "fp32", "device": "cpu"}}
                ).stack
            }
        )
    )
    scores = stack.score(frames_of(unseen[0][:16])).scores[:, 0]
    np.testing.assert_allclose(scores, votes["tiny_a.mask"][:16], atol=1e-5)


def test_a_hundred_questions_take_one_pass_of_the_image_tower() -> None:
    questions = {f"q{i}": {"texts": [f"a red circle {i}"], "against": ["a face"]} for i in range(100)}
    tiny = train("tiny_a")
    detector = Clip({**tiny.options, "questions": questions})
    detector.load(torch.device("cpu"), torch.float32, [str(tiny.path)])
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    assert detector._visual is not None
    detector._visual.register_forward_hook(count)
    pictures, _ = draw_set(3, 1)
    batch = TensorFrames(pictures, [(PICTURE, PICTURE)] * 3, torch.device("cpu"))
    with torch.inference_mode(), nullcontext():
        assert detector.score(batch, {}).scores.shape == (3, 100)
    assert passes == 1
