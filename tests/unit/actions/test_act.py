"""What is done to objects after a verdict: once each, only to the judged version, with a receipt, and taken back."""

from __future__ import annotations

import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from moderation import storage
from moderation.actions import act as act_module
from moderation.actions import manifests
from moderation.actions.act import ActOptions, act
from moderation.actions.effects import perform, prepare, receipt_of
from moderation.actions.journal import ActionJournal, ActionState
from moderation.actions.model import ActionRule, RowMatch
from moderation.actions.of_run import act_on_run, undo_run
from moderation.actions.read import read_actions
from moderation.actions.rows import JudgedRow, read_judged_rows
from moderation.actions.steps import ActionStep, CertifiedToday, certified_today
from moderation.errors import FatalError, UsageError
from moderation.results.reader import open_run
from moderation.types import MediaObject, Verdict
from tests.finished_run import RUN_ID, Made, write_run
from tests.s3_server import BUCKET, environment, find_moto, serve_moto
from tests.webhook_receiver import Receiver, receiving

SECRET = "0123456789abcdef0123456789"
POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], review: 0.5, block: 0.9}
"""
ITEMS = [("bad0.png", 0.95), ("bad1.png", 0.99), ("unsure.png", 0.6), ("fine.png", 0.1)]


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A run over four files that are there."""
    (tmp_path / "in").mkdir()
    made = []
    for name, score in ITEMS:
        (tmp_path / "in" / name).write_bytes(name.encode() * 10)
        digest = hashlib.sha256(name.encode() * 10).hexdigest()
        made.append(Made(name=name, votes=[(score,)], content_hash=digest))
    return write_run(tmp_path, ("a.weapon",), made, POLICY)


def actions_file(tmp_path: Path, *rules: Mapping[str, object], **keys: object) -> str:
    path = tmp_path / "actions.yaml"
    tree = {"objects": [str(tmp_path / "in")], "destinations": [str(tmp_path / "away")], "actions": rules, **keys}
    path.write_text(json.dumps(tree))
    return str(path)


def rule(tmp_path: Path, do: str, **keys: object) -> dict[str, object]:
    to = {"copy": "", "move": "", "manifest": "/blocked.jsonl"}.get(do)
    given = {} if to is None else {"to": f"{tmp_path}/away{to}"}
    return {"name": do, "do": do, "when": {"verdict": ["block"]}, **given, **keys}


def away(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "away").rglob("*") if path.is_file())


def run(out: str, path: str, *, dry_run: bool = False, **options: bool) -> dict[str, dict[str, int]]:
    report = act_on_run(out, path, ActOptions(**options), dry_run=dry_run).report
    return {name: dict(counts) for name, counts in report.counts.items()}


def test_blocked_objects_are_copied_once(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "copy"))
    assert run(out, path) == {"copy": {"done": 2}}
    assert [file.read_bytes()[:8] for file in away(tmp_path)] == [b"bad0.png", b"bad1.png"]
    parts = len(list((Path(out) / "actions").glob("*.arrow")))
    assert run(out, path) == {}
    assert len(list((Path(out) / "actions").glob("*.arrow"))) == parts


def test_a_dry_run_writes_nothing(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"), rule(tmp_path, "manifest"))
    assert run(out, path, dry_run=True) == {"move": {"intended": 2}, "manifest": {"intended": 2}}
    assert not (tmp_path / "away").exists() and not (Path(out) / "actions").exists()


def test_a_changed_object_is_left_alone(tmp_path: Path, out: str) -> None:
    (tmp_path / "in" / "bad0.png").write_bytes(b"another picture")
    assert run(out, actions_file(tmp_path, rule(tmp_path, "move"))) == {"move": {"refused (changed)": 1, "done": 1}}
    assert (tmp_path / "in" / "bad0.png").read_bytes() == b"another picture"


def test_an_object_is_compared_in_pieces(tmp_path: Path) -> None:
    """Without an etag its content tells which version it is; it need not fit in memory."""
    (tmp_path / "in").mkdir()
    size, digest = 64 << 20, hashlib.sha256()
    with (tmp_path / "in" / "long.mp4").open("wb") as file:
        file.truncate(size)
    for _ in range(64):
        digest.update(bytes(1 << 20))
    out = write_run(
        tmp_path, ("a.weapon",), [Made(name="long.mp4", votes=[(0.95,)], content_hash=digest.hexdigest())], POLICY
    )
    path = actions_file(tmp_path, rule(tmp_path, "move"))
    tracemalloc.start()
    try:
        assert run(out, path) == {"move": {"done": 1}}
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_an_object_that_is_gone_is_said(tmp_path: Path, out: str) -> None:
    (tmp_path / "in" / "bad0.png").unlink()
    assert run(out, actions_file(tmp_path, rule(tmp_path, "copy"))) == {"copy": {"refused (not_found)": 1, "done": 1}}


def test_objects_outside_the_allowed_prefixes_are_not_touched(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"), objects=[str(tmp_path / "other")])
    assert run(out, path) == {"move": {"refused (not_allowed)": 2}}
    assert (tmp_path / "in" / "bad0.png").exists()


def test_moved_objects_go_back_on_undo(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"))
    run(out, path)
    assert not (tmp_path / "in" / "bad0.png").exists()
    report = undo_run(out, path, RUN_ID, items=["bad0.png"])
    assert dict(report.counts["move"]) == {"undone": 1}
    assert (tmp_path / "in" / "bad0.png").exists() and not (tmp_path / "in" / "bad1.png").exists()
    assert run(out, path) == {}, "what was undone stays undone"
    assert run(out, path, again=True) == {"move": {"done": 1}}


def test_a_move_goes_not_back_over_another_object(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"))
    run(out, path)
    (tmp_path / "in" / "bad0.png").write_bytes(b"new")
    report = undo_run(out, path, RUN_ID)
    assert dict(report.counts["move"]) == {"undone": 1, "refused (occupied)": 1}
    assert (tmp_path / "in" / "bad0.png").read_bytes() == b"new"


def test_an_unknown_run_or_item_is_named(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "copy"))
    run(out, path)
    with pytest.raises(UsageError, match=f"did you mean '{RUN_ID}'"):
        undo_run(out, path, RUN_ID[:-1])
    with pytest.raises(UsageError, match=r"did you mean 'bad"):
        undo_run(out, path, RUN_ID, items=["bad.png"])


def test_a_manifest_has_a_line_per_row_and_loses_it_on_undo(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "manifest"))
    assert run(out, path) == {"manifest": {"done": 2}}
    file = tmp_path / "away" / "blocked.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["item_id"], line["check"]) for line in lines] == [("bad0.png", "weapon"), ("bad1.png", "weapon")]
    undo_run(out, path, RUN_ID, items=["bad1.png"])
    assert [json.loads(line)["item_id"] for line in file.read_text().splitlines()] == ["bad0.png"]


def night(tmp_path: Path, out: str, run_id: str, *, ended: bool = False) -> dict[str, int]:
    """A night's manifest of the same items, under another id."""
    rows = [[replace(row, run_id=run_id) for row in part] for part in read_judged_rows(open_run(out))]
    actions = read_actions(Path(actions_file(tmp_path, rule(tmp_path, "manifest"))))
    certified = CertifiedToday(refused={"block:weapon": "it has ended"} if ended else {})
    return dict(act(out, lambda: rows, actions, certified, ActOptions(), {}).counts.get("manifest", {}))


def manifest_lines(tmp_path: Path) -> list[tuple[str, str]]:
    lines = (tmp_path / "away" / "blocked.jsonl").read_text().splitlines()
    return [(line["run_id"], line["item_id"]) for line in map(json.loads, lines)]


def test_a_second_night_keeps_the_lines_of_the_first_and_each_is_undone_alone(tmp_path: Path, out: str) -> None:
    assert [night(tmp_path, out, run_id) for run_id in ("first", "second", "first")] == [{"done": 2}, {"done": 2}, {}]
    both = [(run_id, name) for run_id in ("first", "second") for name in ("bad0.png", "bad1.png")]
    assert manifest_lines(tmp_path) == both
    undo_run(out, actions_file(tmp_path, rule(tmp_path, "manifest")), "first", items=["bad0.png"])
    assert manifest_lines(tmp_path) == both[1:]


@pytest.mark.parametrize("there", [b"no JSON\n", b'{"uri": "x"}\n', b"[]\n", b"x" * (3 << 20)])
def test_a_file_that_is_no_manifest_is_not_written_over(there: bytes, tmp_path: Path, out: str) -> None:
    (tmp_path / "away").mkdir()
    file = tmp_path / "away" / "blocked.jsonl"
    file.write_bytes(there)
    with pytest.raises(FatalError, match="manifest"):
        night(tmp_path, out, "first")
    assert file.read_bytes() == there and away(tmp_path) == [file]


def test_lines_over_several_pieces_stay_as_they_are(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_PIECE_BYTES", 512)
    night(tmp_path, out, "first")
    before = (tmp_path / "away" / "blocked.jsonl").read_bytes()
    night(tmp_path, out, "second")
    assert (tmp_path / "away" / "blocked.jsonl").read_bytes().startswith(before)


def test_a_certificate_that_ends_leaves_done_and_undone_lines_as_they_are(tmp_path: Path, out: str) -> None:
    night(tmp_path, out, "first")
    path = actions_file(tmp_path, rule(tmp_path, "manifest"))
    undo_run(out, path, "first", items=["bad0.png"])
    assert night(tmp_path, out, "first", ended=True) == {}
    assert {r.item_id: str(r.state) for r in ActionJournal(out).all_newest()} == {
        "bad0.png": "undone",
        "bad1.png": "done",
    }
    undo_run(out, path, "first")
    assert manifest_lines(tmp_path) == []


def test_a_manifest_has_uncertified_rows_where_they_are_asked_for(tmp_path: Path, out: str) -> None:
    rows = list(read_judged_rows(open_run(out)))
    actions = read_actions(Path(actions_file(tmp_path, rule(tmp_path, "manifest"))))
    ended = CertifiedToday(refused={"block:weapon": "it has ended"})
    counts = [
        dict(act(out, lambda: rows, actions, ended, ActOptions(uncertified=asked), {}).counts["manifest"])
        for asked in (False, True)
    ]
    assert counts == [{"refused (certificate)": 2}, {"done": 2}]


class KillError(BaseException):
    """In place of a kill."""


def test_a_killed_call_goes_on(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"))

    def delete(uri: str) -> None:
        Path(uri).unlink()
        raise KillError

    monkeypatch.setattr(storage, "delete_object", delete)
    with pytest.raises(KillError):
        run(out, path)
    monkeypatch.undo()
    states = {receipt.state for receipt in ActionJournal(out).all_newest()}
    assert states == {ActionState.INTENDED}
    assert run(out, path) == {"move": {"done": 2}}
    undo_run(out, path, RUN_ID)
    assert (tmp_path / "in" / "bad0.png").exists() and not away(tmp_path)


@pytest.mark.parametrize("batch", [256, 1])
def test_what_a_killed_call_had_tagged_and_moved_is_done(
    batch: int, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(act_module, "_BATCH", batch)
    tags: dict[str, dict[str, str]] = {}
    tagging = rule(tmp_path, "tag", tags={"moderation": "{verdict}"})
    path = actions_file(tmp_path, tagging, rule(tmp_path, "move"))

    def delete(uri: str) -> None:
        Path(uri).unlink()
        raise KillError

    def no_tags_without_an_object(uri: str) -> dict[str, str]:
        if not Path(uri).exists():
            raise FileNotFoundError(uri)
        return tags.get(uri, {})

    monkeypatch.setattr(storage, "has_tags", lambda _: True)
    monkeypatch.setattr(storage, "read_tags", no_tags_without_an_object)
    monkeypatch.setattr(storage, "write_tags", tags.__setitem__)
    with monkeypatch.context() as killed, pytest.raises(KillError):
        killed.setattr(storage, "delete_object", delete)
        run(out, path)
    moved = away(tmp_path)
    assert run(out, path) == {"tag": {"done": 2}, "move": {"done": 2}}
    assert moved and [tags[str(copy)] for copy in moved] == [{"moderation": "block"}] * len(moved)
    assert run(out, path) == {}


def forbid(*_: object, **__: object) -> None:
    raise PermissionError("AccessDenied")


def test_a_move_that_failed_at_its_end_is_taken_back(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "move"))
    monkeypatch.setattr(storage, "delete_object", forbid)
    assert run(out, path) == {"move": {"failed (forbidden)": 2}}
    monkeypatch.undo()
    assert len(away(tmp_path)) == 2
    (tmp_path / "in" / "bad1.png").write_bytes(b"another picture")
    monkeypatch.setattr(storage, "copy_object", forbid)
    assert run(out, path) == {"move": {"failed (forbidden)": 1, "failed (changed)": 1}}
    monkeypatch.undo()
    assert dict(undo_run(out, path, RUN_ID).counts["move"]) == {"undone": 2}
    assert (tmp_path / "in" / "bad0.png").exists() and not away(tmp_path)


def test_what_failed_before_anything_was_asked_for_is_not_undone(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "copy"))
    monkeypatch.setattr(storage, "info", forbid)
    assert run(out, path) == {"copy": {"failed (forbidden)": 2}}
    monkeypatch.undo()
    assert undo_run(out, path, RUN_ID).receipts == 0
    assert run(out, path) == {"copy": {"done": 2}}


@pytest.mark.parametrize(("now", "outcome", "copies"), [(b"new", "refused (changed)", 0), (None, "done", 1)])
def test_a_move_leaves_no_copy_of_an_object_that_changed_meanwhile(
    now: bytes | None, outcome: str, copies: int, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = storage.copy_object

    def race(uri: str, target: str, *, etag: str | None = None) -> str | None:
        copied = copy(uri, target, etag=etag)
        if now is None:
            Path(uri).unlink()
        else:
            Path(uri).write_bytes(now)
        return copied

    monkeypatch.setattr(storage, "copy_object", race)
    path = actions_file(tmp_path, {**rule(tmp_path, "move"), "when": {"verdict": ["review"]}})
    assert run(out, path) == {"move": {outcome: 1}}
    assert len(away(tmp_path)) == copies


def test_a_refused_move_leaves_the_copy_that_another_action_made(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    when = {"when": {"verdict": ["review"]}}
    path = actions_file(tmp_path, {**rule(tmp_path, "copy"), **when}, {**rule(tmp_path, "move"), **when})
    copy, copied = storage.copy_object, list[str]()

    def race(uri: str, target: str, *, etag: str | None = None) -> str | None:
        tag = copy(uri, target, etag=etag)
        copied.append(target)
        if len(copied) == 2:
            Path(uri).write_bytes(b"other")
        return tag

    monkeypatch.setattr(storage, "copy_object", race)
    assert run(out, path) == {"copy": {"done": 1}, "move": {"refused (changed)": 1}}
    assert len(set(copied)) == 1 and Path(copied[0]).exists()


@pytest.mark.parametrize("between", [0, 1], ids=["in a row", "apart"])
def test_an_object_that_is_named_twice_is_moved_once(between: int, tmp_path: Path, out: str) -> None:
    rows = [row for part in read_judged_rows(open_run(out)) for row in part]
    twice, other = rows[0], rows[1]
    others = [replace(other, item_id=f"other{n}") for n in range(between)]
    actions = read_actions(Path(actions_file(tmp_path, rule(tmp_path, "move"))))
    named = [[twice], others, [twice]]
    report = act(out, lambda: named, actions, CertifiedToday(), ActOptions(), {})
    assert dict(report.counts["move"]) == {"done": 1 + bool(between)} and report.skipped["move"] == 1
    undo_run(out, actions_file(tmp_path, rule(tmp_path, "move")), RUN_ID)
    assert (tmp_path / "in" / "bad0.png").exists() and not away(tmp_path)


def test_a_tag_that_failed_is_restored_to_what_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tags, media = {"moderation": "old", "other": "1"}, MediaObject(uri="s3://b/x.jpg", name="x.jpg", etag="e")
    row = JudgedRow(
        run_id="r", item_id="i", uri=media.uri, verdict="block", reason="n", check=None, label=None, severity=None,
        score=None, kind="image", content_hash="c", size_bytes=1, objects=(media,), is_packed=False,
    )  # fmt: skip
    tagging = ActionRule(name="t", do="tag", when=RowMatch(verdict=(Verdict.BLOCK,)), tags={"moderation": "{verdict}"})
    step = ActionStep(row=row, rule=tagging, action="t@1", uri=media.uri, media=media, tags={"moderation": "block"})

    def write(_: str, wanted: Mapping[str, str]) -> None:
        tags.update(wanted)  # it has its effect, and its answer is lost
        raise storage.StorageError("the connection ended")

    monkeypatch.setattr(storage, "info", lambda _: SimpleNamespace(etag="e", size_bytes=1))
    monkeypatch.setattr(storage, "read_tags", lambda _: dict(tags))
    monkeypatch.setattr(storage, "write_tags", write)
    now, before = datetime.now(UTC), None
    for look in (storage.info, forbid, storage.info):
        monkeypatch.setattr(storage, "info", look)
        found = prepare(step, before)
        outcome = perform(step, found) if found.state is ActionState.INTENDED else found
        before = receipt_of(step, outcome, now)
        assert before.tags_before == {"moderation": "old"} and before.may_be_there


def test_a_changed_receipt_stops_the_call(tmp_path: Path, out: str) -> None:
    path = actions_file(tmp_path, rule(tmp_path, "copy"))
    run(out, path)
    part = sorted((Path(out) / "actions").glob("part-*"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(FatalError, match="was changed"):
        run(out, path)


def test_what_an_ended_certificate_covered_is_left_alone(tmp_path: Path, out: str) -> None:
    certificates = {"expires": "2020-01-01", "actions": ["block:weapon"], "uncertified": {}, "withdrawn": False}
    (Path(out) / "summary.json").write_text(json.dumps({"certificates": certificates}))
    path = actions_file(tmp_path, rule(tmp_path, "copy"))
    assert run(out, path) == {"copy": {"refused (certificate)": 2}}
    assert run(out, path, uncertified=True) == {"copy": {"done": 2}}


def test_without_any_certificate_nothing_has_ended() -> None:
    said = {"expires": None, "actions": ["block:weapon"], "uncertified": {"block:weapon": "there is no certificate"}}
    assert not certified_today(said, date(2026, 1, 1)).refused


def test_a_check_that_the_policy_lacks_is_named(tmp_path: Path, out: str) -> None:
    when = {"verdict": ["block"], "check": ["weapons"]}
    with pytest.raises(UsageError, match="did you mean 'weapon'"):
        run(out, actions_file(tmp_path, rule(tmp_path, "copy", when=when)))


def test_rows_are_chosen_by_reason(tmp_path: Path, out: str) -> None:
    when = {"verdict": ["block", "review"], "reason": ["negative:*:review"]}
    assert run(out, actions_file(tmp_path, rule(tmp_path, "copy", when=when))) == {"copy": {"done": 1}}
    assert away(tmp_path)[0].read_bytes().startswith(b"unsure")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setattr("moderation.actions.webhook._FIRST_WAIT_S", 0.001)
    with receiving() as server:
        yield server


def hook(tmp_path: Path, receiver: Receiver, **keys: object) -> str:
    given = {"per_second": 1000, "timeout_s": 0.3, **keys}
    return actions_file(tmp_path, rule(tmp_path, "webhook", url=receiver.url, secret_env="HOOK_SECRET", **given))


def test_a_webhook_is_signed_and_sent_again_after_faults(tmp_path: Path, out: str, receiver: Receiver) -> None:
    receiver.faults = [503, "cut", 429]
    assert run(out, hook(tmp_path, receiver)) == {"webhook": {"done": 2}}
    assert receiver.seen == 5
    for headers, body in receiver.taken:
        at, _, signature = headers["Moderation-Signature"].partition(",v1=")
        expected = hmac.new(SECRET.encode(), f"{at[2:]}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(signature, expected)
    assert sorted(json.loads(body)["item_id"] for _, body in receiver.taken) == ["bad0.png", "bad1.png"]
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.taken}) == 2
    assert run(out, hook(tmp_path, receiver)) == {} and receiver.seen == 5


def test_a_receiver_that_hangs_is_left_after_its_time(tmp_path: Path, out: str, receiver: Receiver) -> None:
    receiver.faults = ["hang", "hang"]
    assert run(out, hook(tmp_path, receiver, attempts=1)) == {"webhook": {"failed (unreachable)": 2}}
    assert run(out, hook(tmp_path, receiver)) == {"webhook": {"done": 2}}, "what failed is tried again"


def test_a_refusal_is_not_repeated(tmp_path: Path, out: str, receiver: Receiver) -> None:
    receiver.faults = [400, 302]
    assert run(out, hook(tmp_path, receiver)) == {"webhook": {"failed (http_400)": 1, "failed (http_302)": 1}}
    assert receiver.seen == 2


def test_the_receiver_is_told_of_an_undo(tmp_path: Path, out: str, receiver: Receiver) -> None:
    path = hook(tmp_path, receiver)
    run(out, path)
    undo_run(out, path, RUN_ID, items=["bad0.png"])
    assert json.loads(receiver.taken[-1][1])["event"] == "moderation.undone"


def test_what_is_done_again_after_an_undo_is_no_repetition_for_its_receiver(
    tmp_path: Path, out: str, receiver: Receiver
) -> None:
    path = hook(tmp_path, receiver)
    for _ in range(2):
        run(out, path, again=True)
        undo_run(out, path, RUN_ID)
    keys = [headers["Idempotency-Key"] for headers, _ in receiver.taken]
    assert len(keys) == 8 and len(set(keys)) == 8


def test_an_address_that_never_answers_is_given_up(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderation.actions.hand_over._GIVEN_UP_AFTER", 1)
    monkeypatch.setattr(act_module, "_THREADS", 1)
    (tmp_path / "many").mkdir()
    many = write_run(tmp_path / "many", ("a.weapon",), [Made(name=f"{n}", votes=[(0.99,)]) for n in range(6)], POLICY)
    receiver.faults = [503] * 100
    report = act_on_run(many, hook(tmp_path, receiver, attempts=2), ActOptions()).report
    assert report.stopped == ("webhook",)
    assert receiver.seen == 2
    assert dict(report.counts["webhook"]) == {"failed (http_503)": 1, "failed (left)": 5}


IN_BUCKET = {"objects": [f"s3://{BUCKET}/in"], "destinations": [f"s3://{BUCKET}/away"]}


def run_in_bucket(tmp_path: Path) -> str:
    """A run over the same four files in a bucket, in whose `in/` they are."""
    for name, _ in ITEMS:
        storage.publish(f"s3://{BUCKET}/in/{name}", name.encode())
    made = [
        Made(name=name, votes=[(score,)], content_hash=hashlib.sha256(name.encode()).hexdigest())
        for name, score in ITEMS
    ]
    return write_run(tmp_path, ("a.weapon",), made, POLICY, prefix=f"s3://{BUCKET}/in")


@pytest.mark.long
@pytest.mark.skipif(find_moto() is None, reason="no moto_server beside this Python")
def test_tags_in_a_bucket_are_set_once_and_restored(tmp_path: Path) -> None:
    with serve_moto() as server, environment(server.env()):
        out = run_in_bucket(tmp_path)
        storage.write_tags(f"s3://{BUCKET}/in/bad0.png", {"owner": "a", "moderation": "unknown"})
        tagging = {"name": "tag", "do": "tag", "when": {"verdict": ["block"]}, "tags": {"moderation": "{verdict}"}}
        moving = {"name": "move", "do": "move", "when": {"verdict": ["block"]}, "to": f"s3://{BUCKET}/away"}
        path = actions_file(tmp_path, tagging, moving, **IN_BUCKET)
        assert run(out, path) == {"tag": {"done": 2}, "move": {"done": 2}}
        copies = [info.uri for info in storage.list_objects(f"s3://{BUCKET}/away")]
        assert [storage.read_tags(uri)["moderation"] for uri in copies] == ["block", "block"]
        assert run(out, path) == {}
        report = undo_run(out, path, RUN_ID)
        assert {name: dict(counts) for name, counts in report.counts.items()} == {
            "move": {"undone": 2},
            "tag": {"undone": 2},
        }
        assert storage.read_tags(f"s3://{BUCKET}/in/bad0.png") == {"owner": "a", "moderation": "unknown"}
        assert storage.read_tags(f"s3://{BUCKET}/in/bad1.png") == {}
        assert not storage.is_folder(f"s3://{BUCKET}/away")


@pytest.mark.long
@pytest.mark.skipif(find_moto() is None, reason="no moto_server beside this Python")
def test_what_was_moved_and_cannot_go_back_is_not_deleted_as_a_copy(tmp_path: Path) -> None:
    """In S3 the copy and what was moved to the same place have one etag."""
    with serve_moto() as server, environment(server.env()):
        out = run_in_bucket(tmp_path)
        rules = [
            {"name": do, "do": do, "when": {"verdict": ["review"]}, "to": f"s3://{BUCKET}/away"}
            for do in ("copy", "move")
        ]
        path = actions_file(tmp_path, *rules, **IN_BUCKET)
        assert run(out, path) == {"copy": {"done": 1}, "move": {"done": 1}}
        storage.publish(f"s3://{BUCKET}/in/unsure.png", b"another upload")
        report = undo_run(out, path, RUN_ID)
        assert {name: dict(counts) for name, counts in report.counts.items()} == {
            "move": {"refused (occupied)": 1},
            "copy": {"refused (moved)": 1},
        }
        (left,) = storage.list_objects(f"s3://{BUCKET}/away")
        assert storage.read_bytes(left.uri) == b"unsure.png"
