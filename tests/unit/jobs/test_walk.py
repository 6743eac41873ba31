"""Every job, with something wrong at every seam: no traceback, a documented exit code, a sentence that says what it is.

The faults are real ones of the file system. Root may read everything, so that what is denied is tried as nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderation import storage
from moderation.evaluation.bundle_store import Bundle, write_bundle
from moderation.labels.decision_store import append_decisions
from moderation.labels.decisions import Answer, Decision
from moderation.lists.policy_file import load_whole_policy
from moderation.policy.certified import certified_hash
from moderation.review.filters import QueueFilter
from moderation.review.session import open_session
from tests.finished_run import Made, write_run
from tests.job_runs import make_tiny_config, run_job

NOBODY = 65534
MAX_SENTENCES = 12  # findings of `verify`, problems of a configuration
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.6}
"""
ACTIONS = """
destinations: [MADE/away]
actions:
  - {name: list, do: manifest, when: {verdict: [pass]}, to: MADE/away/passed.jsonl}
"""
MAPPING = """
platform: shop
territory: EU
content_date: uploaded
default:
  {ground: incompatible, reference: "Terms, 4", explanation: Not allowed., category: STATEMENT_CATEGORY_VIOLENCE}
"""


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root is let into every folder; another user is not."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def decide(out: str) -> None:
    """Decisions and claims as a review leaves them."""
    with open_session(out) as session:
        session.next_items("ann", filters=QueueFilter(verdict=("pass",)))
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)
    said = [
        Decision(decision_id=str(n), item_id=f"i{n}.png", decision=Answer.PASS, reviewer="ann", decided_at=noon)
        for n in range(4)
    ]
    for decision in said:
        append_decisions(out, [decision])


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder that nobody may pass through; pytest's own are for their owner."""
    folder = Path(tempfile.mkdtemp(prefix="walk"))
    folder.chmod(0o755)
    write_run(folder, ("a.weapon",), [Made(name=f"i{n}.png", votes=[(0.1,)]) for n in range(9)], POLICY)
    make_tiny_config(folder / "config")
    (folder / "actions.yaml").write_text(ACTIONS.replace("MADE", str(folder)))
    (folder / "dsa.yaml").write_text(MAPPING)
    (folder / "decisions.csv").write_text("item_id,decision\ni1.png,pass\n")
    (folder / "appeals.csv").write_text("item_id,text,time\ni1.png,no,2026-11-26\n")
    decide(str(folder / "out"))
    words = ["weapon" if n % 2 else "fine" for n in range(9)]
    labels = [f"{folder}/in/i{n}.png,{word}" for n, word in enumerate(words)]
    (folder / "labels.csv").write_text("\n".join(["uri,label", *labels]) + "\n")
    policy = certified_hash(load_whole_policy(folder / "policy.yaml"))
    bundle = Bundle(stack_fingerprint="stack", policy=policy, weights=(), files={}, code_version="1")
    write_bundle(str(folder / "store"), bundle, {})
    yield folder
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def out(made: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir=made)) / "out"
    folder.parent.chmod(0o755)
    shutil.copytree(made / "out", folder)
    return folder


def first(out: Path, folder: str) -> Path:
    return sorted(path for path in (out / folder).iterdir() if path.name != "head.json")[0]


def replace(path: Path, data: bytes | None = None) -> None:
    """Another file in its place; without data a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_bytes(data) if data is not None else path.mkdir()


def loop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path.name)


def sign(out: Path, table: str, data: bytes) -> None:
    """Another part, with a receipt that says that it is the right one."""
    part, receipt = first(out, table), first(out, "receipts")
    part.write_bytes(data)
    record = json.loads(receipt.read_text())
    record["sha256"][table] = hashlib.sha256(data).hexdigest()
    receipt.write_text(json.dumps(record))


def rewrite(out: Path, **changes: object) -> None:
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, **changes}))


def without_columns(path: Path) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(path).select(["item_id"]), sink)
    return bytes(sink.getvalue())


def other_types(path: Path) -> bytes:
    table = pq.read_table(path)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array([None] * table.num_rows) for name in table.column_names}), sink)
    return bytes(sink.getvalue())


def cut(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size // 2]


DEEP = b"[" * 5_000 + b"]" * 5_000
# What happens to OUT, by name.
HARM: dict[str, Callable[[Path], object]] = {
    "nothing": lambda out: None,
    "out is a file": lambda out: replace(out, b"x"),
    "out is a loop": loop,
    "out is denied": lambda out: out.chmod(0),
    "record is a folder": lambda out: replace(out / "run.json"),
    "record is a loop": lambda out: loop(out / "run.json"),
    "record is denied": lambda out: (out / "run.json").chmod(0),
    "record is cut": lambda out: replace(out / "run.json", cut(out / "run.json")),
    "record is no text": lambda out: replace(out / "run.json", b"\xff\xfe\x00"),
    "record is a list": lambda out: replace(out / "run.json", b"[]"),
    "record is empty": lambda out: replace(out / "run.json", b"{}"),
    "record is deep": lambda out: replace(out / "run.json", DEEP),
    "record of other types": lambda out: rewrite(out, run_id=[], config=7, state={}, updated_at=[], identity=1),
    "record of wrong extensions": lambda out: rewrite(out, extensions=["../x"], detectors={"detectors": {"tiny": 1}}),
    "record of lost extensions": lambda out: rewrite(out, extensions=["0" * 16], extending="1" * 16),
    "record of another configuration": lambda out: rewrite(out, config={"output": {"format": []}, "policy": 3}),
    "record names no policy": lambda out: rewrite(out, config={"output": {"format": "parquet"}, "policy": "/none"}),
    "plan is cut": lambda out: replace(out / "plan.parquet", cut(out / "plan.parquet")),
    "plan is a folder": lambda out: replace(out / "plan.parquet"),
    "plan is denied": lambda out: (out / "plan.parquet").chmod(0),
    "plan without columns": lambda out: replace(out / "plan.parquet", without_columns(first(out, "verdicts"))),
    "receipts are a file": lambda out: replace(out / "receipts", b"x"),
    "receipts are denied": lambda out: (out / "receipts").chmod(0),
    "receipts are gone": lambda out: shutil.rmtree(out / "receipts"),
    "receipt is a folder": lambda out: replace(first(out, "receipts")),
    "receipt is a loop": lambda out: loop(first(out, "receipts")),
    "receipt is denied": lambda out: first(out, "receipts").chmod(0),
    "receipt is cut": lambda out: replace(first(out, "receipts"), cut(first(out, "receipts"))),
    "receipt is deep": lambda out: replace(first(out, "receipts"), DEEP),
    "part is gone": lambda out: first(out, "verdicts").unlink(),
    "part is a folder": lambda out: replace(first(out, "verdicts")),
    "part is denied": lambda out: first(out, "verdicts").chmod(0),
    "part is cut": lambda out: replace(first(out, "verdicts"), cut(first(out, "verdicts"))),
    "part is cut and signed": lambda out: sign(out, "verdicts", cut(first(out, "verdicts"))),
    "part without columns, signed": lambda out: sign(out, "verdicts", without_columns(first(out, "verdicts"))),
    "part of other types, signed": lambda out: sign(out, "verdicts", other_types(first(out, "verdicts"))),
    "votes are cut and signed": lambda out: sign(out, "votes", cut(first(out, "votes"))),
    "votes without columns, signed": lambda out: sign(out, "votes", without_columns(first(out, "votes"))),
    "votes of other types, signed": lambda out: sign(out, "votes", other_types(first(out, "votes"))),
    "votes are denied": lambda out: (out / "votes").chmod(0),
    "votes are a loop": lambda out: loop(out / "votes"),
    "pages are a file": lambda out: [(out / name).write_bytes(b"x") for name in ("checks", "document", "again")],
}
PROMOTED = ("--labels", "MADE/labels.csv", "--bad", "weapon", "--bundles", "MADE/store", "--dry-run")
# Every job that reads an OUT.
READERS: dict[str, tuple[str, ...]] = {
    "status": ("status", "OUT"),
    "verify": ("verify", "OUT"),
    "repair": ("verify", "OUT", "--repair"),
    "merge": ("merge", "OUT"),
    "checks": ("checks", "OUT"),
    "document": ("document", "OUT"),
    "report": ("report", "OUT"),
    "sort": ("sort", "OUT", "--by", "a", "--previews", "0"),
    "diff": ("policy", "diff", "MADE/policy.yaml", "MADE/policy.yaml", "--on", "OUT"),
    "rejudge": ("rejudge", "OUT", "--policy", "MADE/policy.yaml", "--to", "OUT/again"),
    "act": ("act", "OUT", "--actions", "MADE/actions.yaml"),
    "undo": ("act", "OUT", "--actions", "MADE/actions.yaml", "--undo", "0123456789abcdef"),
    "escalations": ("escalations", "OUT", "--config", "TINY"),
    "statements": ("export", "OUT", "--format", "dsa", "--mapping", "MADE/dsa.yaml"),
    "transparency": ("transparency", "OUT"),
    "duplicates": ("duplicates", "OUT", "--write"),
    "ask": ("ask", "OUT", "a weapon"),
    "explain": ("explain", "OUT", "--item", "i0.png"),
    "why": ("why", "OUT", "i0.png"),
    "hashes": ("hashes", "match", "OUT", "--list", "MADE/policy.yaml", "--sha256", "0" * 64),
    "backfill": ("backfill", "MADE/in", "--out", "OUT", "--config", "TINY", "--dry-run"),
    "extend": ("backfill", "MADE/in", "--out", "OUT", "--config", "TINY", "--extend", "--dry-run"),
}  # fmt: skip
# Jobs over finished runs that take longer: with a part of the harm, one of each kind.
LEARNERS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "OUT", "--labels", "MADE/labels.csv", "--bad", "weapon", "--to", "OUT/page"),
    "certify": ("certify", "OUT", "--dry-run"),
    "certify labelled": ("certify", "OUT", "--labels", "MADE/labels.csv", "--bad", "weapon", "--to", "OUT/p.yaml"),
    "drift": ("drift", "OUT", "--against", "MADE/out"),
    "drift from": ("drift", "MADE/out", "--against", "OUT", "--all"),
    "promote": ("promote", "OUT", "--against", "MADE/out", *PROMOTED, "--to", "OUT/page"),
    "promote against": ("promote", "MADE/out", "--against", "OUT", *PROMOTED, "--to", "OUT/page"),
    "export": ("export", "OUT", "--format", "csv", "--to", "OUT/x.csv"),
    "export copies": ("export", "OUT", "--format", "copies", "--minus-duplicates", "--to", "OUT/copies"),
    "export scores": ("export", "OUT", "--format", "openai", "--verdict", "pass"),
}  # fmt: skip

TELLING_HARM = (
    "receipt is deep", "record is denied", "part is cut and signed", "votes without columns, signed",
)  # fmt: skip
HARMED = [*itertools.product(READERS, HARM), *itertools.product(LEARNERS, TELLING_HARM)]


# Jobs that read what reviewers decided, and what happens to that.
REVIEWING: dict[str, tuple[str, ...]] = {
    "review serve": ("review", "serve", "OUT", "--dry-run"),
    "review verify": ("review", "verify", "OUT"),
    "review stats": ("review", "stats", "OUT"),
    "review export": ("review", "export", "OUT", "--to", "OUT/x.csv", "--format", "csv", "--todo"),
    "review import": ("review", "import", "OUT", "MADE/decisions.csv"),
    "review appeals": ("review", "appeals", "OUT", "MADE/appeals.csv"),
    "labels": ("labels", "OUT", "--to", "OUT/labels.csv"),
    "mine": ("mine", "OUT", "--to", "OUT/hard.jsonl"),
}  # fmt: skip
# Of what happens to a run, what these jobs may meet in another way than those above.
HARM_OF_RUN = (
    "nothing", "out is a loop", "out is denied", "record is cut", "record of other types", "record names no policy",
    "receipts are gone", "receipt is cut", "part is gone", "part is cut and signed", "part without columns, signed",
    "part of other types, signed", "votes without columns, signed",
)  # fmt: skip
HARM_TO_REVIEW: dict[str, Callable[[Path], object]] = {
    "decisions are a file": lambda out: replace(out / "decisions", b"x"),
    "decisions are denied": lambda out: (out / "decisions").chmod(0),
    "decisions are a loop": lambda out: loop(out / "decisions"),
    "head of decisions is a folder": lambda out: replace(out / "decisions" / "head.json"),
    "head of decisions is deep": lambda out: replace(out / "decisions" / "head.json", DEEP),
    "decision part is cut": lambda out: replace(first(out, "decisions"), cut(first(out, "decisions"))),
    "decision part is a folder": lambda out: replace(first(out, "decisions")),
    "decision part is denied": lambda out: first(out, "decisions").chmod(0),
    "decision part is gone": lambda out: first(out, "decisions").unlink(),
    "review is a file": lambda out: replace(out / "review", b"x"),
    "claims are a folder": lambda out: replace(out / "review" / "claims.json"),
    "appeals are a folder": lambda out: (out / "review" / "appeals.jsonl").mkdir(),
}


def assert_ends_well(ended: subprocess.CompletedProcess[str]) -> None:
    said = ended.stderr + ended.stdout
    assert "Traceback" not in said and "a fault of this program" not in said, said
    assert ended.returncode in (0, 1, 2, 3, 4), said
    if ended.returncode:
        assert said.strip()
        assert len(ended.stderr.strip().split("\n")) <= MAX_SENTENCES, said


@pytest.mark.parametrize(("job", "harm"), HARMED)
def test_a_job_over_a_harmed_output_says_what_is_wrong(made: Path, out: Path, harm: str, job: str) -> None:
    walk(made, out, harm, HARM[harm], (READERS | LEARNERS)[job])


@pytest.mark.parametrize(
    ("job", "harm"),
    [
        *itertools.product(("review serve", "review export", "mine"), HARM_OF_RUN),
        *itertools.product(
            ("review serve", "review verify", "review stats", "review import", "labels"), HARM_TO_REVIEW
        ),
        ("review appeals", "appeals are a folder"),
        ("review appeals", "decision part is cut"),
        ("review appeals", "receipts are gone"),
    ],
)
def test_a_job_of_a_review_over_a_harmed_output_says_what_is_wrong(made: Path, out: Path, harm: str, job: str) -> None:
    walk(made, out, harm, {**HARM, **HARM_TO_REVIEW}[harm], REVIEWING[job])


def walk(made: Path, out: Path, harm: str, do_harm: Callable[[Path], object], job: tuple[str, ...]) -> None:
    do_harm(out)
    arguments = [
        a.replace("OUT", str(out)).replace("TINY", "MADE/config/config.yaml").replace("MADE", str(made)) for a in job
    ]
    with as_nobody() if "denied" in harm else contextlib.nullcontext():
        ended = run_job(*arguments)
    assert_ends_well(ended)


def write_table(path: Path, **columns: list[object]) -> None:
    pq.write_table(pa.table(columns), path)


def write_tar(path: Path) -> bytes:
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.json"), io.BytesIO())
    return path.read_bytes()


# What SOURCE is, by name: the function makes it at the path, which has the suffix of the name.
SOURCES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "loop": lambda path: path.symlink_to(path.name),
    "empty folder": lambda path: path.mkdir(),
    "denied folder": lambda path: path.mkdir(mode=0),
    "below a file/x": lambda path: path.parent.write_bytes(b""),
    "name too long" + "x" * 300: lambda path: None,
    "pipe": os.mkfifo,
    "folder.parquet": lambda path: path.mkdir(),
    "folder.csv": lambda path: path.mkdir(),
    "folder.tar": lambda path: path.mkdir(),
    "denied.csv": lambda path: (path.write_text("uri\n"), path.chmod(0)),
    "denied.parquet": lambda path: (write_table(path, uri=["a"]), path.chmod(0)),
    "denied.tar": lambda path: (write_tar(path), path.chmod(0)),
    "loop.csv": lambda path: path.symlink_to(path.name),
    "loop.tar": lambda path: path.symlink_to(path.name),
    "empty.csv": lambda path: path.write_bytes(b""),
    "empty.jsonl": lambda path: path.write_bytes(b""),
    "empty.parquet": lambda path: path.write_bytes(b""),
    "empty.arrow": lambda path: path.write_bytes(b""),
    "empty.tar": lambda path: path.write_bytes(b""),
    "noise.csv": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "noise.json": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "noise.jsonl": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "noise.parquet": lambda path: path.write_bytes(b"PAR1" + bytes(range(256)) * 9 + b"PAR1"),
    "noise.arrow": lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(range(256)) * 9 + b"ARROW1"),
    "noise.tar": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "noise.csv.gz": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "deep.json": lambda path: path.write_bytes(DEEP),
    "deep.jsonl": lambda path: path.write_bytes(DEEP),
    "cut.tar": lambda path: path.write_bytes(write_tar(path)[:700]),
    "cut.parquet": lambda path: (write_table(path, uri=["a"] * 99), path.write_bytes(cut(path))),
    "nulls.csv": lambda path: path.write_bytes(b"uri\0\n\0\n"),
    "other.csv": lambda path: path.write_text("name,place\na,b\n"),
    "twice.csv": lambda path: path.write_text("uri,uri\na,b\n"),
    "nested.parquet": lambda path: write_table(path, uri=[["a"], []]),
    "numbers.parquet": lambda path: write_table(path, uri=[1, 2], item_id=[None, None]),
    "bytes.parquet": lambda path: write_table(path, picture=[b"x"], bytes=[b"y"]),
    "no columns.parquet": lambda path: write_table(path),
}  # fmt: skip
LISTING: dict[str, tuple[str, ...]] = {
    "backfill": ("backfill", "SOURCE", "--out", "MADE/x", "--config", "TINY", "--dry-run"),
    "doctor": ("doctor", "SOURCE", "--config", "TINY"),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES, ids=lambda name: name[:20])
@pytest.mark.parametrize("job", LISTING)
def test_a_job_over_a_wrong_source_says_what_is_wrong(made: Path, tmp_path: Path, source: str, job: str) -> None:
    folder = Path(tempfile.mkdtemp(dir=made))
    folder.chmod(0o755)
    path = folder / source
    SOURCES[source](path)
    arguments = [
        a.replace("SOURCE", str(path)).replace("TINY", f"{made}/config/config.yaml").replace("MADE", str(made))
        for a in LISTING[job]
    ]
    with as_nobody() if "denied" in source else contextlib.nullcontext():
        ended = run_job(*arguments)
    assert_ends_well(ended)
    if job == "backfill" and source != "bytes.parquet":
        assert ended.returncode or " errors already" in ended.stdout, ended.stdout


# What a file that an option names is.
FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "denied": lambda path: (path.write_text("{}"), path.chmod(0)),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256))),
    "deep": lambda path: path.write_bytes(DEEP),
    "list": lambda path: path.write_bytes(b"[1, 2]"),
    "number": lambda path: path.write_bytes(b"7"),
    "other": lambda path: path.write_bytes(b'{"a": {"b": [1]}}'),
    "nothing": lambda path: path.write_bytes(b"null"),
    "tagged": lambda path: path.write_bytes(b"!!python/object/apply:os.system [id]"),
    "checks": lambda path: path.write_bytes(b'{"checks": {"a": {"side": "negative", "votes": 3, "review": "x"}}}'),
}
READING_FILES: dict[str, tuple[str, ...]] = {
    "configuration": ("config", "show", "--config", "FILE"),
    "policy": ("backfill", "MADE", "--out", "MADE/x", "--policy", "FILE", "--dry-run"),
    "doctor's policy": ("doctor", "--config", "TINY", "--set", "policy=FILE"),
    "policy shown": ("policy", "show", "FILE"),
    "policy tested": ("policy", "test", "FILE", "MADE/list.csv"),
    "cases": ("policy", "test", "policies/default.yaml", "FILE"),
    "policies": ("policy", "diff", "MADE/policy.yaml", "FILE", "--on", "MADE/out"),
    "run of policies": ("policy", "diff", "MADE/policy.yaml", "MADE/policy.yaml", "--on", "FILE"),
    "reports": ("report", "MADE/out", "FILE"),
    "report against": ("report", "MADE/out", "--against", "FILE"),
    "place of a report": ("report", "MADE/out", "--to", "FILE/x/y.html"),
    "policy of rejudge": ("rejudge", "MADE/out", "--policy", "FILE", "--to", "MADE/again"),
    "learned lists": ("lists", "learn", "MADE/out", "--to", "FILE"),
    "learned table": ("lists", "show", "FILE"),
    "runs of learned lists": ("lists", "learn", "FILE", "--to", "MADE/learned.csv"),
    "policy of sweep": ("sweep", "MADE/out", "--policy", "FILE", "--dry-run"),
    "list of sweep": ("sweep", "MADE/out", "--list", "FILE", "--dry-run"),
    "hashes of sweep": ("sweep", "MADE/out", "--list", "FILE", "--by", "pdq", "--dry-run"),
    "runs of sweep": ("sweep", "FILE", "--policy", "MADE/policy.yaml", "--dry-run"),
    "earlier sweep": ("sweep", "MADE/out", "--policy", "MADE/policy.yaml", "--after", "FILE", "--dry-run"),
    "folder of sweep": ("sweep", "MADE/out", "--policy", "MADE/policy.yaml", "--to", "FILE/x"),
    "policy of checks": ("checks", "MADE/out", "--policy", "FILE"),
    "policy of document": ("document", "MADE/out", "--policy", "FILE"),
    "taxonomy": ("document", "MADE/out", "--taxonomy", "FILE", "--to", "MADE/doc"),
    "labels of mine": ("mine", "MADE/out", "--labels", "FILE", "--to", "MADE/hard.jsonl"),
    "decisions as csv": ("review", "import", "MADE/out", "FILE", "--format", "csv"),
    "decisions of label studio": ("review", "import", "MADE/out", "FILE", "--format", "label-studio"),
    "appeals": ("review", "appeals", "MADE/out", "FILE"),
    "list": ("hashes", "build", "FILE", "--out", "MADE/list"),
    "list of videos": ("hashes", "build", "FILE", "--exchange", "vpdq", "--out", "MADE/list"),
    "list of an exchange": ("hashes", "build", "FILE", "--exchange", "threatexchange", "--out", "MADE/list"),
    "hashes": ("hashes", "match", "MADE/out", "--list", "FILE", "--sha256", "SHA256"),
    "weights": ("weights", "pull", "FILE", "--to", "MADE/mirror"),
    "people": ("enroll", "FILE", "--out", "MADE/people"),
    "labels": ("tune-prompts", "--images", "MADE", "--labels", "FILE", "--check", "a", "--out", "MADE/p"),
    "ledger of duplicates": ("duplicates", "MADE/out", "--ledger", "FILE"),
    "ledger": ("nightly", "MADE/missing", "--ledger", "FILE", "--out", "MADE/nights", "--config", "TINY"),
    "night": ("nightly", "MADE/missing", "--ledger", "MADE/ledger", "--out", "FILE", "--config", "TINY"),
    "figures": ("checks", "MADE/out", "--plot", "--to", "FILE/x"),
    "mirror": ("weights", "pull", "TINY", "--to", "FILE/x"),
    "explanations": ("explain", "MADE/out", "--item", "i0.png", "--to", "FILE/x"),
    "run of explanations": ("explain", "FILE", "--verdict", "pass"),
    "report": ("hashes", "build", "MADE/list.csv", "--out", "FILE/x"),
}  # fmt: skip
LEARNING_FILES: dict[str, tuple[str, ...]] = {
    "labels of evaluate": ("evaluate", "MADE/out", "--labels", "FILE", "--to", "MADE/page"),
    "labels of certify": ("certify", "MADE/out", "--labels", "FILE", "--to", "MADE/p.yaml"),
    "labels of promote": ("promote", "MADE/out", "--against", "MADE/out", *PROMOTED, "--labels", "FILE"),
    "policy of evaluate": ("evaluate", "MADE/out", "--labels", "MADE/labels.csv", "--policy", "FILE", "--to", "MADE/e"),
    "policy of certify": ("certify", "MADE/out", "--policy", "FILE", "--dry-run"),
    "target of certify": ("certify", "MADE/out", "--labels", "MADE/labels.csv", "--bad", "weapon", "--to", "FILE"),
    "run of drift": ("drift", "FILE", "--against", "MADE/out"),
    "limits": ("promote", "MADE/out", "--against", "MADE/out", *PROMOTED, "--limits", "FILE", "--to", "MADE/page"),
    "bundles": ("promote", "--rollback", "--bundles", "FILE"),
    "bundles listed": ("bundle", "list", "--bundles", "FILE"),
    "bundle of a configuration": ("bundle", "make", "--bundles", "MADE/store", "--config", "FILE"),
    "bundle of a policy": ("bundle", "make", "--bundles", "MADE/store", "--config", "TINY", "--policy", "FILE"),
    "store of bundles": ("bundle", "make", "--bundles", "FILE", "--config", "TINY"),
    "export": ("export", "MADE/out", "--format", "jsonl", "--to", "FILE/x"),
    "export of copies": ("export", "MADE/out", "--format", "copies", "--to", "FILE"),
    "policy of export": ("export", "MADE/out", "--format", "openai", "--policy", "FILE", "--to", "MADE/x"),
    "taxonomy of export": ("export", "MADE/out", "--format", "rekognition", "--taxonomy", "FILE", "--to", "MADE/x"),
    "labels of a head": ("train-head", "--images", "MADE", "--labels", "FILE", "--out", "MADE/head"),
    "pictures of a head": ("train-head", "--images", "FILE", "--out", "MADE/head"),
    "stack of a head": ("train-head", "--images", "MADE", "--out", "MADE/head", "--config", "FILE"),
    "backgrounds": ("train-watermark", "--backgrounds", "FILE", "--out", "MADE/marks", "--composites", "64"),
    "stack of marks": ("train-watermark", "--backgrounds", "MADE", "--out", "MADE/marks", "--config", "FILE"),
}  # fmt: skip

TELLING_FILES = ("missing", "folder", "noise")
GIVEN = [*itertools.product(READING_FILES, FILES), *itertools.product(LEARNING_FILES, TELLING_FILES)]


@pytest.mark.parametrize(("job", "kind"), GIVEN)
def test_a_job_with_a_wrong_file_says_what_is_wrong(made: Path, job: str, kind: str) -> None:
    folder = Path(tempfile.mkdtemp(dir=made))
    folder.chmod(0o755)
    path = folder / kind
    FILES[kind](path)
    (made / "list.csv").write_text("hash,quality\n" + "0f" * 32 + ",100\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    words = {"FILE": str(path), "TINY": "MADE/config/config.yaml", "MADE": str(made), "SHA256": sha256}
    arguments = [
        reduce(lambda text, word: text.replace(word, words[word]), words, a)
        for a in (READING_FILES | LEARNING_FILES)[job]
    ]
    with as_nobody() if "denied" in kind else contextlib.nullcontext():
        ended = run_job(*arguments)
    assert_ends_well(ended)


WRONG_CALLS = """
no-such-job
backfill
backfill x
backfill x --out y --limit 0
backfill x --out y --limit x
backfill x --out y --extend
backfill x --out y --extend --dry-run
backfill x --out y --extend --fresh
backfill x --out y --slice 3
backfill x --out y --slice 3/2
backfill x --out y --set a
backfill x --out y --set media.max_framse=3
backfill x --out y --set media=3
backfill x --out y --set =
backfill x --out y --set media.max_frames=[
backfill x --out y --workers many --dry-run
backfill x --out y --workers 0 --dry-run
backfill x --out y --max-items 5 --limit 2
backfill ftp2://x --out y --dry-run
backfill x --out nosuch://y --dry-run
backfill s3://key:secret@bucket/x --out y --dry-run
backfill x --out y --config defalt --dry-run
backfill x --out y --policy defalt --dry-run
keyframes
keyframes x
nightly x
nightly x --out y
nightly x --ledger l --out y --lease-s 1
nightly x --ledger l --out l
status
policy show
policy show x
policy test x y
policy diff x y
policy diff x y --on z
rejudge x --policy policies/default.yaml --to y --as-of monday
status x
status ''
verify
verify x
verify x --repair
merge
merge x
merge x --prune
ask x
ask x y
ask x y --limit 0
checks x
checks x --format gif
document x
document x --examples 1000
report x
report x y
report x y z
report x --json
report x y --against z
report x --thumbnails 999
report x --object-url javascript:x
rejudge x
rejudge x --policy default
rejudge x --policy policies/default.yaml --to y
duplicates x
lists
lists learn x
lists learn x --to y.csv
lists learn x --to y.csv --near 99
lists learn x --to y.csv --sweep z
lists show x.csv
sweep x
sweep x --policy policies/default.yaml
sweep x --policy policies/default.yaml --list y --to z
sweep x --decision y --as blok --to z
sweep x --as block --policy policies/default.yaml --to z
sweep x --list y.csv --action alow --dry-run
sweep x --list y.csv --by owners --dry-run
sweep x --decision y --distance 99 --dry-run
duplicates x --distance 99
duplicates x --members both
duplicates x --members inherit
duplicates x --similarity 7
enroll x
enroll x --out y --part upper=x
enroll x --out y --part uper=1
hashes
hashes build
hashes build x
hashes build x --out y --exchange xml
hashes build x --out y --label ''
hashes match x --list y
hashes match x --list y --sha256 z
explain
explain x
explain x --item y
explain x --verdict pass --top 0
explain x --verdict pas
weights
weights pull x
weights pull defalt --to y
config
config show x
config show --set stack.detectors=3
doctor --config x
doctor nosuch://x
review
review serve
review serve x
review serve x --dry-run
review serve x --port 99999
review serve x --reviewer 'a b'
review serve x --reviewer a --reviewer a
review serve x --reviewer a --expert a
review serve x --second-share 2
evaluate x --labels y
evaluate x --labels y --precision 2
evaluate x --labels y --means gun
certify x
certify x --to y
certify x --labels y
certify x --dry-run
certify x --labels y --to z --leak 2
certify x --labels y --to z --calibrate magic
drift x
drift x --against y
promote x --bundles y
promote x --bundles y --against z
promote x --bundles y --against z --labels w
promote x --bundles y --against z --labels w --limits v
promote --bundles y --rollback
bundle make
bundle make --bundles y --config defalt
bundle make --bundles y --set stack.devise=cpu
export
export x --format y
export x --format jsonl
export x --format jsonl --verdict passed
export x --format openai --policy defalt
train-head
train-head --images x --out y --backbone z
train-head --images x --out y
train-head --images x --out y --name 9
train-head --images x --out y --held-share 2
train-head --images x --out y --config defalt
train-watermark
train-watermark --backgrounds x --out y
train-watermark --backgrounds x --out y --config defalt
tune-prompts
tune-prompts --images x --labels y --check z --out w --shots 0
tune-prompts --images x --labels y --check z --out w --shots 1,2
tune-prompts --images x --labels y --check z --out w --curve x
tune-prompts --images x --labels y --check z --out w --rule x
review
review verify
review verify x
review stats x
review export x
review export x --to y --format xml
review export x --to y.csv --format jsonl
review export x --to y.jsonl --filter a
review export x --to y.jsonl --filter verdct=pass
review export x --to y.jsonl --filter kind=film
review export x --to y.jsonl --url a=b
review import x y
review import x y.csv
review import x y.csv --format xml
review appeals x
review appeals x y
labels
labels x
labels x --for testing
labels x --check y
labels x --to y.txt
mine x
mine x --to y.csv
mine x --to y.jsonl
mine x --to y.jsonl --count 0
mine x --to y.jsonl --near 2
"""


@pytest.mark.parametrize("call", WRONG_CALLS.splitlines())
def test_a_wrong_call_ends_with_2_and_starts_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_job(*shlex.split(call))
    assert_ends_well(ended) if call and " " in call else None
    assert ended.returncode == 2, ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        "review serve OUT --dry-run", "status OUT", "report OUT", "report OUT OUT", "verify OUT", "verify OUT --repair",
        "merge OUT", "checks OUT",
        "rejudge OUT --policy policies/default.yaml --to OUT/y",
        "lists learn OUT --to y.csv", "lists learn . --to OUT/y.csv", "lists show OUT/y.csv",
        "sweep OUT --policy policies/default.yaml --to y",
        "duplicates OUT", "document OUT", "backfill OUT --out x --dry-run", "backfill OUT/x.csv --out x --dry-run",
        "backfill OUT/x.parquet --out x --dry-run", "backfill OUT/x.tar --out x --dry-run", "backfill x --out OUT",
        "nightly x --ledger OUT --out y", "nightly OUT --ledger x --out y", "enroll OUT --out x",
        "review verify OUT", "review stats OUT", "review export OUT --to x.jsonl", "review import OUT x.csv",
        "review appeals OUT", "labels OUT", "mine OUT --to x.jsonl",
        "hashes build OUT --out x", "explain OUT --item x", "hashes match x --list OUT --sha256 0", "doctor OUT",
        "evaluate OUT --labels x", "evaluate OUT --labels OUT/l.csv", "certify OUT --dry-run", "drift OUT --against x",
        "promote x --against OUT --labels l.csv --bundles OUT", "export OUT --format csv",
        "promote --rollback --bundles OUT", "train-head --images OUT --out x",
        "hashes build OUT --out x", "hashes match x --list OUT --sha256 0", "doctor OUT",
    ],
)  # fmt: skip
def test_a_store_that_nobody_answers_for_is_a_sentence(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moderation.storage.retry.MAX_WAIT_S", 0.01)
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    storage.forget_clients()
    try:
        ended = run_job(*shlex.split(call.replace("OUT", "s3://bucket/x")))
    finally:
        storage.forget_clients()
    assert_ends_well(ended)
    assert ended.returncode in (2, 4)
