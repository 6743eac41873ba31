"""Configuration: every mistake is one sentence that names the key and the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from moderation.config.load import load_config, packaged_configs, read_yaml, resolve_config_path
from moderation.config.model import Config
from moderation.errors import UsageError
from moderation.policy.model import load_policy


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("media.max_pixel=5", "unknown key 'media.max_pixel'; did you mean 'max_pixels'?"),
        ("stak.batch_size=5", "unknown key 'stak'; did you mean 'stack'?"),
        ("batch_size=5", "unknown key 'batch_size'; did you mean 'stack.batch_size'?"),
        ("stack.detectors=[{nam: quality}]", "unknown key 'stack.detectors.0.nam'; did you mean 'name'?"),
        ("output.zzz=1", "unknown key 'output.zzz'; known here: compression, format"),
        ("stack.batch_size=lots", "stack.batch_size: should be a whole number .given: 'lots'"),
        ("stack.batch_size=0", "stack.batch_size: should be greater than or equal to 1"),
        ("output.format=csv", "output.format: .*'parquet' or 'arrow'.*given: 'csv'"),
        ("stack.only=quality", r"stack.only: should be a list, such as \[a, b\] .given: 'quality'"),
        ("runtime.workers=-1", "runtime.workers: should be greater than or equal to 1, or should be 'auto' .given: -1"),
        ("runtime.num_cpus=.inf", "runtime.num_cpus: should be a finite number"),
        ("media.decode_timeout_s=.inf", "--set media.decode_timeout_s: media.decode_timeout_s: should be a finite"),
        ("media.fps=.nan", "media.fps: should be less than or equal to 120"),
        ("report.object_url=ftp://x", "report.object_url: should match pattern"),
        ("shards.order_by=''", "shards.order_by: should have at least 1 character"),
        ("media=3", "media: should be a section"),
        ("stack.detectors=[{name: pdq, options: 3}]", "stack.detectors.0.options: should be a section"),
        ("stack.device=gpu", "stack.device: 'gpu' is no device: should be auto, cpu, cuda or cuda:N; did you mean"),
        ("stack.device=cuda:x", "stack.device: 'cuda:x' is no device"),
        ("explain.stride_px=500", "explain: stride_px 500 is over window_px 64"),
        ("stack.batch_size", "expected key=value"),
        ("=3", "expected key=value"),
        ("stack.batch_size.deep=3", "'batch_size' is not a section|stack.batch_size"),
        ("stack.only=[a", r"'\[a' is not YAML"),
    ],
)
def test_a_wrong_override_is_named_with_the_nearest_right_key(override: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_config(overrides=[override])


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(UsageError) as wrong:
        load_config(overrides=["media.max_pixel=5", "stack.batch_size=-1"])
    assert len(str(wrong.value).splitlines()) == 2


def test_overrides_are_typed_by_yaml() -> None:
    config = load_config(
        overrides=[
            "stack.batch_size=8",
            "stack.only=[quality, pdq]",
            "runtime.max_error_rate=1e-3",
            "stack.keep_embeddings=true",
            "source.bytes_column=null",
            "runtime.workers=2",
            "source.allow=['s3://a/b=c/']",
        ]
    )
    assert (config.stack.batch_size, config.stack.only) == (8, ("quality", "pdq"))
    assert (config.runtime.max_error_rate, config.runtime.workers) == (0.001, 2)
    assert config.stack.keep_embeddings is True
    assert config.source.bytes_column is None
    assert config.source.allow == ("s3://a/b=c/",)


def test_the_last_override_wins_and_the_file_yields_to_it(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "stack: {batch_size: 3}\nshards: {max_items: 9}\n")
    config = load_config(path, ["stack.batch_size=4", "stack.batch_size=5"])
    assert (config.stack.batch_size, config.shards.max_items) == (5, 9)


def test_a_policy_is_looked_for_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "there" / "c.yaml", "policy: policies/default.yaml\n")
    beside = write(tmp_path / "there" / "policies" / "default.yaml", "")
    write(tmp_path / "policies" / "default.yaml", "")  # in the working directory
    assert load_config(path).policy == beside


def test_a_policy_on_the_command_line_is_looked_for_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "there" / "c.yaml", "")
    beside = write(tmp_path / "there" / "mine.yaml", "")
    assert load_config(path, ["policy=mine.yaml"]).policy == beside
    here = write(tmp_path / "mine.yaml", "")
    assert load_config(path, ["policy=mine.yaml"]).policy == here


def test_a_policy_that_is_packaged_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = packaged_configs().absolute() / "policies" / "default.yaml"
    assert load_config(write(tmp_path / "c.yaml", "")).policy == str(packaged)
    assert resolve_config_path("configs/policies/default.yaml") == packaged


def test_a_policy_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers read it too, from another working directory.
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.yaml", "policy: p.yaml")
    write(tmp_path / "p.yaml", "")
    assert load_config("c.yaml").policy == str(tmp_path / "p.yaml")


def test_a_file_that_is_not_there_is_told_with_the_nearest_packaged_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file 'defalt.yaml'.*did you mean 'default.yaml'"):
        load_config("defalt.yaml")
    with pytest.raises(UsageError, match=r"no file 'none.yaml'"):
        load_config(write(tmp_path / "c.yaml", "policy: none.yaml"))


@pytest.mark.parametrize("name", ["watermark", "watermark.yaml", "configs/watermark.yaml"])
def test_a_configuration_that_is_only_a_policy_is_told_as_one(name: str) -> None:
    with pytest.raises(UsageError, match=r"no configuration '\S+'; .* a packaged policy: --policy watermark$"):
        load_config(name)
    assert Path(load_config(None, ["policy=watermark"]).policy).name == "watermark.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stack: [", "not readable as YAML"),
        ("- a\n", "expected a mapping at the top, found list"),
        ("1: 2\n", "Keys should be strings"),
    ],
)
def test_a_file_that_is_no_configuration_is_a_usage_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_config(write(tmp_path / "c.yaml", text))


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "c.yaml", ""))
    assert config == Config(policy=config.policy)


def test_a_configuration_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.stack.batch_size = 3  # type: ignore[misc]  # the point of the test


def test_a_configuration_survives_the_way_to_another_process() -> None:
    config = load_config(overrides=["stack.batch_size=3"])
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_pass_of_hashes_alone_samples_videos_densely_unless_told_otherwise() -> None:
    alone = load_config(None, ["stack.only=[pdq]"]).media
    assert (alone.sampling, alone.fps, alone.frame_budget) == ("uniform", 8.0, 900)
    told = load_config(None, ["stack.only=[pdq]", "media.sampling=keyframes", "media.fps=1"]).media
    assert (told.sampling, told.fps, told.frame_budget) == ("keyframes", 1.0, 900)
    assert load_config(None, ["stack.only=[pdq, quality]"]).media.sampling == "keyframes"
    assert load_config(None).media.sampling == "keyframes"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("media: {max_frames: 5}\nruntime: {}\nmedia: {max_tiles: 3}\n", ":3: 'media' stands twice: in line 1, and in"),
        ("media:\n  fps: 1\n  'fps': 2\n", ":3: 'fps' stands twice: in line 2"),
        ("a: &b {<<: {x: 1}, x: 2, y: 1, y: 2}\n", ":1: 'y' stands twice"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_yaml(Path(write(tmp_path / "c.yaml", text)))


def test_what_a_merge_brings_along_may_be_said_again(tmp_path: Path) -> None:
    text = "x: {z: &a {k: 1}}\nouter: {base: &b {<<: *a, k: 2}}\nown: {<<: *b, k: 3}\n"
    assert read_yaml(Path(write(tmp_path / "c.yaml", text)))["own"] == {"k": 3}


def test_a_threshold_or_a_check_that_stands_twice_in_a_policy_is_refused(tmp_path: Path) -> None:
    check = "{side: negative, votes: [a.b], block: 0.9"
    twice = f"checks:\n  gore: {check}}}\n  gore: {check}, review: 0.1}}\n"
    for text in (twice, f"checks: {{a: {check}, block: 1}}}}\n"):
        with pytest.raises(UsageError, match="stands twice"):
            load_policy(Path(write(tmp_path / "p.yaml", text)))


@pytest.mark.parametrize("name", ["", " "])
def test_the_empty_name_of_an_unset_variable_stands_for_no_file(name: str) -> None:
    with pytest.raises(UsageError, match="the name of a file is empty"):
        load_config(name)
    with pytest.raises(UsageError, match="the name of a file is empty"):
        load_config(overrides=[f"policy='{name}'"])


def test_an_address_is_no_file_of_a_configuration() -> None:
    with pytest.raises(
        UsageError, match=r"^s3://bucket/c\.yaml: configurations and policies are files of this machine"
    ):
        load_config("s3://bucket/c.yaml")
