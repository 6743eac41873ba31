"""A run is done only where its receipts are those of its plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moderation.config.model import Config
from moderation.errors import FatalError, ItemError, UsageError
from moderation.planning.names import plan_uri
from moderation.planning.plan import read_shard_sizes
from moderation.results.finish import finish_run
from moderation.results.output import check_output, nothing_left
from moderation.results.poison import read_poison, write_poison
from moderation.results.record import Output, RunFacts, write_record
from moderation.types import ErrorCode
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""


@pytest.fixture
def run(tmp_path: Path) -> Output:
    out = write_run(tmp_path, ("a.mask",), [Made(name=f"i{n}", votes=[(0.1,)]) for n in range(9)], POLICY)
    config = Config.model_validate(json.loads((tmp_path / "out" / "run.json").read_text())["config"])
    facts = RunFacts(run_id="r", stack_fingerprint="stack", policy_hash="policy")
    run = Output(source="s", out=out, home=out, config=config, facts=facts, identity={"run": "r"})
    write_record(run, "running")
    return run


def finish(run: Output) -> dict[str, object]:
    planned = list(read_shard_sizes(plan_uri(run.home)) or ())
    return finish_run(run, planned, wall_s=1.0, partial=False, facts={})


def state(run: Output) -> tuple[str, bool]:
    out = Path(run.out)
    return json.loads((out / "run.json").read_text())["state"], (out / "_SUCCESS").exists()


def test_a_run_whose_receipts_are_those_of_its_plan_is_done(run: Output) -> None:
    assert finish(run)["items"] == 9
    assert state(run) == ("done", True)
    assert nothing_left(run, check_output(run))


@pytest.mark.parametrize("harm", ["gone", "cut", "of another shard"])
def test_a_run_that_lost_a_receipt_is_not_done_and_goes_on(run: Output, harm: str) -> None:
    finish(run)
    first, second = sorted((Path(run.out) / "receipts").iterdir())[:2]
    if harm == "gone":
        first.unlink()
    else:
        first.write_bytes(second.read_bytes() if harm == "of another shard" else first.read_bytes()[:50])
    with pytest.raises(FatalError, match="1 of 3 planned shards have no receipt that fits"):
        finish(run)
    assert state(run) == ("partial", False)
    assert not nothing_left(run, check_output(run))


def test_a_receipt_that_is_in_no_plan_is_told(run: Output) -> None:
    first = min((Path(run.out) / "receipts").iterdir())
    first.with_name(f"{'f' * 32}.json").write_bytes(first.read_bytes())
    with pytest.raises(FatalError, match="1 committed shards are in no plan"):
        finish(run)
    assert state(run) == ("partial", False)


def test_a_part_that_was_changed_is_a_sentence(run: Output) -> None:
    part = min((Path(run.out) / "verdicts").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UsageError, match="is not the one that was committed"):
        finish(run)
    assert not state(run)[1]


def test_poison_is_kept_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert read_poison(out) == {}
    write_poison(out, {"a": ItemError(ErrorCode.DECODER_CRASHED, "SIGSEGV")})
    kept = read_poison(out)
    assert (kept["a"].code, kept["a"].detail) == (ErrorCode.DECODER_CRASHED, "SIGSEGV")
    for text in ("", "[]", '{"a": 1}', '{"a": {"code": "surprise", "detail": ""}}'):
        (tmp_path / "poison.json").write_text(text)
        assert read_poison(out) == {}


def test_a_shard_whose_part_is_gone_or_whose_receipt_tells_of_fewer_items_is_judged_again(run: Output) -> None:
    finish(run)
    out = Path(run.out)
    parts, receipts = sorted((out / "verdicts").iterdir()), sorted((out / "receipts").iterdir())
    parts[0].unlink()
    edited = json.loads(receipts[1].read_text())
    receipts[1].write_text(json.dumps(edited | {"rows_in": 1, "rows": {"verdicts": 1, "votes": 1}}))
    committed = check_output(run)
    assert committed == {receipt.stem for receipt in receipts[2:]}
    assert not nothing_left(run, committed)
    with pytest.raises(FatalError, match="2 of 3 planned shards have no receipt that fits"):
        finish(run)
    assert state(run) == ("partial", False)
