"""A match with an illegal list leaves no trace in OUT but its escalation. The list is of drawn, harmless pictures."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from moderation import storage
from moderation.actions.escalate import check_hook, hand_on
from moderation.actions.model import ActionRule, RowMatch
from moderation.actions.rows import read_judged_rows, rules_for
from moderation.analysis.sweep_lists import ListWords, read_swept_lists
from moderation.config.escalations import EscalationConfig
from moderation.config.model import Config, MediaConfig, RuntimeConfig
from moderation.detectors.hashing.known import KnownDetector
from moderation.detectors.hashing.pdq import Pdq
from moderation.detectors.views import TensorFrames
from moderation.errors import UsageError
from moderation.explain.deciding import choose_by_verdict, read_targets
from moderation.hashes.exchange import read_exchange
from moderation.hashes.lists import KnownPicture, encode_list
from moderation.pipeline.extending import extend_items, read_judged_frames
from moderation.pipeline.shard import moderate_shard
from moderation.planning.names import plan_uri
from moderation.planning.plan import encode_shards
from moderation.planning.shards import make_shard
from moderation.policy.judge import judge_item
from moderation.results.escalations import is_escalated, list_escalations, read_escalations
from moderation.results.export.run import FORMATS, export_run
from moderation.results.judged import judge_columns, judge_rows
from moderation.results.reader import open_run
from moderation.results.receipts import read_receipts
from moderation.results.record import RunFacts
from moderation.results.report_rows import read_report_rows
from moderation.results.summary import summarise
from moderation.results.votes import item_votes, vote_labels
from moderation.review.verdict_rows import read_verdict_rows
from moderation.types import Item, MediaObject, Verdict
from tests.fake_detectors import Fake, policy_for, pools_of, stack_of

FACTS = RunFacts(run_id="r1", stack_fingerprint="s1", policy_hash="p1")


def drawing(seed: int) -> bytes:
    """A drawn picture with enough content to hash."""
    small = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


def pdq_of(data: bytes) -> bytes:
    pixels = np.array(Image.open(io.BytesIO(data)))
    frames = TensorFrames([pixels], [(pixels.shape[1], pixels.shape[0])], torch.device("cpu"))
    found = Pdq({}).score(frames, {}).blobs["hash"][0]
    assert found is not None
    return found


class ListedAlready(KnownDetector):
    """Reads its list from a path of the test, instead of from weights."""

    path = ""

    def load(self, device: torch.device, dtype: torch.dtype, paths: Sequence[str]) -> None:
        super().load(device, dtype, [self.path])


class EscalatedRun:
    """An OUT of four drawings, the second of which is listed."""

    def __init__(self, folder: Path) -> None:
        self.out = str(folder / "out")
        pictures = [drawing(seed) for seed in range(4)]
        self.listed = pictures[1]
        entry = KnownPicture(hash=pdq_of(self.listed), label="made up", entry="entry 7")
        path = folder / "list.arrow"
        path.write_bytes(encode_list([entry], is_illegal=True)[0])
        known = ListedAlready({})
        known.path = str(path)
        stack = stack_of(Pdq({}), known, Fake(embedding_dim=4, regions=True), keep_embeddings=True)
        items = []
        for place, data in enumerate(pictures):
            file = folder / "in" / f"{place}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            info = storage.info(str(file))
            media = MediaObject(uri=info.uri, name=file.name, etag=info.etag, size_bytes=info.size_bytes)
            items.append(Item(item_id=f"item-{place}", uri=info.uri, objects=(media,)))
        shard = make_shard(items)
        self.policy = policy_for(stack)
        self.config = Config(runtime=RuntimeConfig(shards_in_flight=1), media=MediaConfig(decode_timeout_s=30))
        pools = pools_of()
        self.receipt = moderate_shard(
            shard, out=self.out, config=self.config, stack=stack, policy=self.policy, facts=FACTS, pools=pools
        )
        pools.fetch.shutdown()
        pools.decode.shutdown()
        storage.publish(plan_uri(self.out), encode_shards([shard]))
        record = {"run_id": "r1", "config": self.config.model_dump(mode="json")}
        (Path(self.out) / "run.json").write_text(json.dumps(record))
        self.shard_id = shard.shard_id

    def table(self, name: str) -> pa.Table:
        return pq.read_table(Path(self.out) / name / f"part-{self.shard_id}.parquet")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EscalatedRun]:
    yield EscalatedRun(tmp_path_factory.mktemp("illegal"))


def texts_of(path: Path) -> Iterator[bytes]:
    """All that a file says: its bytes, and of a table its cells."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pylist()).encode()


def traces(judged: EscalatedRun) -> list[str]:
    """Files outside escalations/ that hold a hash, an embedding or bytes of the listed picture."""
    hashed, digest = pdq_of(judged.listed), hashlib.sha256(judged.listed).hexdigest()
    signs = [hashed, hashed.hex().encode(), repr(hashed)[2:-1].encode(), digest.encode(), judged.listed[40:80]]
    signs += [b"entry 7", b"made up"]
    found = []
    for path in sorted(Path(judged.out).rglob("*")):
        if path.is_file() and path.parent.name != "escalations":
            found += [str(path) for text in texts_of(path) if any(sign in text for sign in signs)]
    return found


def test_the_row_is_blocked_and_has_nothing_of_the_picture(judged: EscalatedRun) -> None:
    rows = judged.table("verdicts").to_pylist()
    assert [is_escalated(row) for row in rows] == [False, True, False, False]
    row = rows[1]
    assert (row["verdict"], row["reason"]) == (Verdict.BLOCK, "escalated:illegal")
    empty = ("score", "confidence", "content_hash", "pdq", "width", "height", "reader", "check", "score_hot")
    assert {name: row[name] for name in empty} == dict.fromkeys(empty)
    assert row["evidence"] == [] and not row["audit"]
    assert all(other["content_hash"] and other["pdq"] for other in rows if not is_escalated(other))


def test_its_votes_are_null_but_for_the_match(judged: EscalatedRun) -> None:
    votes = judged.table("votes").to_pylist()[1]
    kept = {name for name, value in votes.items() if value not in (None, [])}
    assert kept == {"item_id", "frame", "role", "known.match"}
    others = judged.table("votes").to_pylist()[0]
    assert others["pdq.hash"] is not None and others["fake.embedding"] is not None


def test_the_escalation_has_what_a_report_needs(judged: EscalatedRun) -> None:
    (name,) = list_escalations(judged.out)
    (row,) = read_escalations(judged.out, name).to_pylist()
    assert row["content_hash"] == hashlib.sha256(judged.listed).hexdigest()
    assert row["pdq"] == row["list_hash"] == pdq_of(judged.listed).hex()
    assert (row["item_id"], row["rule"], row["list_label"], row["list_entry"]) == (
        "item-1",
        "known",
        "made up",
        "entry 7",
    )
    assert row["uri"].endswith("1.png") and row["distance"] == 0 and row["found_at"] is not None


def test_it_is_counted_for_itself(judged: EscalatedRun) -> None:
    (receipt,) = read_receipts(judged.out, {judged.shard_id})
    summary = summarise([receipt], {})
    assert summary["escalated"] == 1 and summary["verdicts"]["block"] >= 1


def test_no_policy_takes_it_back(judged: EscalatedRun) -> None:
    verdicts, votes = judged.table("verdicts"), judged.table("votes")
    assert vote_labels(votes) == judged.policy.labels
    columns = judge_columns(verdicts, votes, judged.policy)
    assert columns["reason"].to_pylist()[1] == "escalated:illegal"
    by_row = list(judge_rows(verdicts, dict(item_votes(votes, judged.policy.labels)), judged.policy))
    assert by_row[1] is not None and by_row[1].verdict is Verdict.BLOCK
    assert judge_item(None, None, judged.policy).verdict is not Verdict.PASS


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in ("openai", "rekognition")])
def test_no_export_has_it(judged: EscalatedRun, format_: str, tmp_path: Path) -> None:
    ending = ".jsonl" if format_ == "manifest" else ""
    export_run(judged.out, format_, to=str(tmp_path / f"export{ending}"))
    said = b"".join(text for path in tmp_path.rglob("*") if path.is_file() for text in texts_of(path))
    assert b"item-1" not in said.replace(b"item_id1", b"") and judged.listed not in said
    assert said


def test_no_sweep_takes_an_illegal_list(judged: EscalatedRun) -> None:
    path = str(Path(judged.out).parent / "list.arrow")
    with pytest.raises(UsageError, match="an illegal list"):
        read_swept_lists(path, ListWords())


def test_no_list_of_a_report_or_a_review_has_it(judged: EscalatedRun) -> None:
    rows = read_report_rows(judged.out, "parquet", [judged.shard_id], ["hot"], {"item-1": judged.shard_id})
    listed = [row["item_id"] for row in (*rows.queue, *rows.blocked)]
    assert "item-1" not in listed and "item-1" not in rows.uris
    assert "item-1" not in read_verdict_rows(open_run(judged.out), "salt").item_ids


def test_nothing_of_it_is_explained(judged: EscalatedRun) -> None:
    run = open_run(judged.out)
    with pytest.raises(UsageError, match="no item has the verdict block"):
        choose_by_verdict(run, Verdict.BLOCK, 5)
    with pytest.raises(UsageError, match="nothing of it is shown"):
        read_targets(run, [(judged.shard_id, "item-1")])


def test_no_action_is_for_it(judged: EscalatedRun) -> None:
    when = RowMatch(verdict=tuple(Verdict))
    rule = ActionRule(name="copy", do="copy", when=when, to="/away")
    rows = [row for part in read_judged_rows(open_run(judged.out)) for row in part]
    assert [len(rules_for([rule], row)) for row in rows] == [1, 0, 1, 1]


def test_an_illegal_list_is_not_added_to_a_run_that_was_judged_without_it(judged: EscalatedRun) -> None:
    stack: Any = SimpleNamespace(illegal=("known",))
    pools: Any = None
    with pytest.raises(UsageError, match="into a new OUT"):
        next(extend_items([], {}, config=judged.config, stack=stack, pools=pools))


def test_an_escalated_item_gets_no_further_votes(judged: EscalatedRun) -> None:
    frames = read_judged_frames(open_run(judged.out), judged.shard_id, ())
    assert [own.extendable for own in frames.values()] == [True, False, True, True]


def test_out_holds_no_trace_of_it(judged: EscalatedRun) -> None:
    export_run(judged.out, "parquet")
    export_run(judged.out, "copies")
    assert not traces(judged)
    control = hashlib.sha256(drawing(0)).hexdigest()
    assert control in repr(judged.table("verdicts").to_pylist()), "the search finds what is kept of others"
    assert pc.sum(pc.equal(judged.table("verdicts")["status"], "escalated")).as_py() == 1


def test_the_hook_gets_each_match_once(judged: EscalatedRun, tmp_path: Path) -> None:
    sink = tmp_path / "told.jsonl"
    code = f"import sys; open({str(sink)!r}, 'a').write(sys.stdin.read())"
    hook = EscalationConfig(command=(sys.executable, "-c", code))
    broken = EscalationConfig(command=(sys.executable, "-c", "raise SystemExit(3)"))
    assert hand_on(judged.out, broken).failed == (f"{sys.executable}: ended with 3",)
    for _ in range(2):
        handed = hand_on(judged.out, hook)
        assert (handed.rows, handed.told, handed.failed) == (1, 1, ())
    (line,) = sink.read_text().splitlines()
    assert json.loads(line)["item_id"] == "item-1"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"command": ["x"], "url": "https://h/"}, "one of them"),
        ({"url": "https://h/"}, "needs `secret_env`"),
        ({"url": "http://h/", "secret_env": "NONE"}, "others need https"),
        ({"secret_env": "NONE"}, "belongs to `url`"),
    ],
)
def test_a_wrong_hook_is_named_before_a_run(keys: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_hook(EscalationConfig.model_validate(keys))


@pytest.mark.parametrize(
    ("format_", "lines"),
    [
        ("csv", ["hash,bank", f"{'0f' * 32},illegal"]),
        ("threatexchange", [json.dumps({"indicator": "0f" * 32, "type": "HASH_PDQ", "bank": "Illegal"})]),
    ],
)
def test_one_entry_of_the_bank_makes_a_list_illegal(format_: str, lines: list[str]) -> None:
    assert read_exchange(lines, format_, name="list", label="x").is_illegal
    others = [line.replace("illegal", "spam").replace("Illegal", "spam") for line in lines]
    assert not read_exchange(others, format_, name="list", label="x").is_illegal
