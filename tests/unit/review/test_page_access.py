"""The reviewers' page as a server: who gets in, what it refuses, what it takes. A real one on a free port."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from moderation.labels.decision_store import read_decisions, verify_decisions
from moderation.labels.decisions import standing_decisions
from moderation.review.appeals import Appeal, add_appeals
from moderation.review.serve import count_waiting
from tests.finished_run import Made
from tests.review_server import ANNA, BEN, CARL, SETTINGS, Served, decision_of, draw_picture, make_run, serving

EVIL = '"><img src=x onerror=alert(1)>\u202e.jpg'


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("review")
    changed = Made(name="changed.jpg", votes=[(0.31, 0.0, 0.1)], content_hash="0" * 64)
    draw_picture(folder / "in" / "changed.jpg", 901)
    gone = Made(name="gone.jpg", votes=[(0.32, 0.0, 0.1)])
    evil = Made(
        name=EVIL, votes=[(0.93, 0.0, 0.1)], attributes={"<b>title</b>": "<script>alert(1)</script>"}, content_hash=None
    )
    return make_run(folder, 12, [changed, gone, evil])


@pytest.fixture(scope="module")
def served(out: str) -> Iterator[Served]:
    with serving(out) as server:
        yield server


@pytest.fixture
def anna(served: Served) -> Served:
    return served.as_reviewer(ANNA)


def test_without_a_link_nothing_is_shown(served: Served) -> None:
    for path in ("/", "/picture?item=picture-000.jpg", "/frames?item=picture-000.jpg", "/overlay?item=a", "/?token=x"):
        answered = served.ask("GET", path)
        assert answered.status == 403, path
        assert b"picture-0" not in answered.body


def test_a_wrong_or_foreign_token_is_refused(served: Served) -> None:
    token = served.gate.token_of(ANNA)
    for cookie in (token[:-1], token.upper() + "0", "é" * 64, ""):
        answered = served.ask(
            "GET", "/picture?item=picture-000.jpg", headers={"Cookie": f"{served.gate.cookie}={cookie}"}
        )
        assert answered.status == 403


def test_the_link_becomes_a_cookie_that_no_script_reads(served: Served) -> None:
    answered = served.ask("GET", f"/?token={served.gate.token_of(ANNA)}")
    assert answered.status == 200
    cookie = answered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert served.gate.token_of(ANNA).encode() not in answered.body


def test_every_answer_forbids_scripts_frames_and_other_origins(anna: Served) -> None:
    for answered in (anna.get("/"), anna.get("/nothing"), anna.ask("POST", "/next", b"{"), anna.get("/page/review.js")):
        policy = answered.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answered.headers["x-frame-options"] == "DENY"
        assert answered.headers["x-content-type-options"] == "nosniff"
    page = anna.get("/").body.decode()
    assert "<script>" not in page
    assert "onclick" not in page
    assert "style=" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/page/../access.py", "/page/%2e%2e/access.py", "/page/..%2faccess.py", "/page/item.html", "/page//etc/passwd",
        "/picture?item=../run.json", "/picture?item=/etc/passwd", "/picture?item=..%2F..%2Frun.json",
        "/frames?item=file:///etc/passwd", "/overlay?item=../../run.json", "/picture", "/picture?item=%00",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(anna: Served, path: str) -> None:
    answered = anna.ask("GET", path)
    assert answered.status == 404
    assert b"root:" not in answered.body


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Length": "99999999"},
    ],
)
def test_a_request_from_another_site_decides_nothing(anna: Served, headers: dict[str, str], out: str) -> None:
    before = len(read_decisions(out))
    sent = {"decisions": [{"decision_id": "evil", "item_id": "picture-000.jpg", "decision": "block", "exposure_s": 0}]}
    assert anna.ask("POST", "/decisions", sent, headers).status == 403
    assert len(read_decisions(out)) == before


def test_another_name_for_this_machine_is_refused(anna: Served) -> None:
    assert anna.ask("GET", "/", headers={"Host": "rebound.example"}).status == 403
    assert anna.ask("GET", "/", headers={"Host": f"localhost:{anna.port}"}).status == 200


def test_a_picture_is_made_anew(anna: Served, out: str) -> None:
    answered = anna.get("/picture", item="picture-000.jpg", size="large")
    assert answered.status == 200
    assert answered.headers["content-type"] == "image/jpeg"
    original = (Path(out).parent / "in" / "picture-000.jpg").read_bytes()
    assert answered.body != original
    with Image.open(io.BytesIO(answered.body)) as image:
        assert image.size == (240, 180)
        assert not image.getexif()


def test_a_changed_or_missing_picture_is_not_shown(anna: Served) -> None:
    for name, error in (("changed.jpg", "changed"), ("gone.jpg", "not_found")):
        assert anna.get("/picture", item=name).status == 404
        assert anna.get("/frames", item=name).json == {"frames": [], "deciding": None, "total": 0, "error": error}


def test_markup_in_names_is_text(anna: Served) -> None:
    entry = next(entry for entry in anna.next(100) if entry["item_id"] == EVIL)
    # The script shows it as text, where it would turn what follows.
    assert entry["name"].isprintable()
    assert "<script" not in entry["html"]
    assert "<img src=x" not in entry["html"]
    assert "\u202e" not in entry["html"]
    assert "&lt;script&gt;" in entry["html"]


def test_messages_that_are_not_ours_are_refused_with_a_sentence(anna: Served) -> None:
    for path, body in (
        ("/next", b"{"), ("/next", b"[]"), ("/next", b'{"n": -1}'), ("/next", b'{"n": 1000000}'),
        ("/next", b"[" * 9000),
        ("/next", b'{"n": 1, "more": 2}'), ("/decisions", b'{"decisions": 3}'), ("/again", b'{"items": [1]}'),
        ("/next", b'{"n": 1, "filters": {"chek": "weapon"}}'), ("/next", b'{"n": 1, "filters": {"check": "wepon"}}'),
    ):  # fmt: skip
        answered = anna.ask("POST", path, body)
        assert answered.status == 400, body
        assert answered.body
        assert b"Traceback" not in answered.body
    assert b"weapon" in anna.ask("POST", "/next", {"n": 1, "filters": {"check": "wepon"}}).body


def test_a_decision_is_on_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        first, second = anna.next(2)
        sent = decision_of(first, "block", "d1", labels=["weapon"], reason="weapon", exposure_s=2.5, age_s=60.0)
        sent["shown"] = {"seen": "true", "veil": "grey", "appeal": "forged"}
        assert anna.decide(sent)["taken"] == ["d1"]
        assert anna.decide(sent)["taken"] == ["d1"]
        [kept] = read_decisions(out)
        assert (kept.item_id, kept.decision, kept.reviewer, kept.labels) == (
            first["item_id"],
            "block",
            "anna",
            ("weapon",),
        )
        assert kept.exposure_s == 2.5
        assert kept.shown == {"seen": "true", "veil": "grey"}
        assert kept.content_hash
        answer = anna.decide(decision_of(second, "pass", "d2", shown={"seen": "false"}), {"decision_id": "d3"})
        assert answer["taken"] == []
        assert {r["decision_id"] for r in answer["refused"]} == {"d2", "d3"}
    assert verify_decisions(out) == ()


def test_a_claim_of_another_reviewer_does_not_count(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with serving(out) as server:
        anna, ben = server.as_reviewer(ANNA), server.as_reviewer(BEN)
        entry = anna.next(1)[0]
        assert entry["item_id"] not in {other["item_id"] for other in ben.next(4)}
        answer = ben.decide(decision_of(entry, "pass", "stolen"))
        assert answer["taken"] == []
        assert answer["refused"][0]["decision_id"] == "stolen"
        assert anna.decide(decision_of(entry, "pass", "own"))["taken"] == ["own"]
    assert [d.reviewer for d in read_decisions(out)] == ["anna"]


def test_an_undone_item_comes_again_to_its_reviewer(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        entry = anna.next(1)[0]
        anna.decide(decision_of(entry, "block", "d1"))
        assert anna.decide(decision_of(entry, "skip", "u1", undoes="d1"))["taken"] == ["u1"]
        again = anna.ask("POST", "/again", {"items": [entry["item_id"]]}).json["items"]
        assert [e["item_id"] for e in again] == [entry["item_id"]]
        assert anna.decide(decision_of(again[0], "pass", "d2"))["taken"] == ["d2"]


def test_experts_are_marked_and_names_come_from_the_link_alone(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with serving(out) as server:
        carl = server.as_reviewer(CARL)
        entry = carl.next(1)[0]
        forged = {**decision_of(entry, "block", "d1"), "reviewer": "anna"}
        assert carl.decide(forged)["taken"] == []
        carl.decide(decision_of(entry, "block", "d2"))
    [kept] = read_decisions(out)
    assert (kept.reviewer, kept.expert) == ("carl", True)


def test_a_restarted_server_knows_what_was_decided_and_by_whom_items_are_held(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        first, second = anna.next(2)
        anna.decide(decision_of(first, "block", "d1"))
    with serving(out) as server:
        anna, ben = server.as_reviewer(ANNA), server.as_reviewer(BEN)
        assert second["item_id"] not in {entry["item_id"] for entry in ben.next(2)}
        assert anna.decide(decision_of(second, "pass", "d2"))["taken"] == ["d2"]
        assert first["item_id"] not in {entry["item_id"] for entry in anna.next(4)}


def test_what_a_browser_kept_while_the_server_was_down_still_counts_unless_another_has_the_item(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    short = replace(SETTINGS, claim_s=1.0)
    with serving(out, short) as server:
        first, second = server.as_reviewer(ANNA).next(2)
    time.sleep(1.1)
    with serving(out, short) as server:
        anna, ben = server.as_reviewer(ANNA), server.as_reviewer(BEN)
        assert anna.decide(decision_of(first, "block", "d1"))["taken"] == ["d1"]
        time.sleep(1.1)
        assert second["item_id"] in {entry["item_id"] for entry in ben.next(4)}
        assert anna.decide(decision_of(second, "block", "d2"))["taken"] == []


def test_an_audit_item_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    policy = """
default: pass
audit: {salt: s, block: {check: weapon, from: 0.0, rate: 1.0}}
checks:
  weapon: {side: negative, votes: [a.weapon], block: 0.95, review: 0.3, definition: weapon}
  ordinary: {side: positive, votes: [a.ordinary], pass: 0.9}
"""
    out = make_run(tmp_path, 2, policy=policy)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        for entry in anna.next(2):
            assert entry["blind"] is True
            assert (entry["verdict"], entry["check"], entry["boxes"], entry["overlay"]) == (None, None, [], False)
            assert "Rests on" not in entry["html"]
            assert "<meter" not in entry["html"]
            assert 'class="reason"' not in entry["html"]
            assert anna.get("/frames", item=entry["item_id"]).json["deciding"] is None


def test_near_copies_are_one_entry_and_are_decided_with_it(tmp_path: Path) -> None:
    digest = draw_picture(tmp_path / "in" / "same-a.jpg", 500)
    draw_picture(tmp_path / "in" / "same-b.jpg", 500)
    votes = [(0.62, 0.0, 0.1)]
    copies = [Made(name=name, votes=votes, content_hash=digest) for name in ("same-a.jpg", "same-b.jpg")]
    out = make_run(tmp_path, 2, copies)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        entries = anna.next(10)
        [entry] = [entry for entry in entries if entry["copies"]]
        assert {entry["item_id"], entry["copies"][0]["item_id"]} == {"same-a.jpg", "same-b.jpg"}
        assert len(entries) == 3
        sent = [decision_of(one, "block", f"d{n}") for n, one in enumerate([entry, *entry["copies"]])]
        assert anna.decide(*sent)["taken"] == ["d0", "d1"]


def test_the_uploader_of_an_item_is_a_filter(tmp_path: Path) -> None:
    for number in range(2):
        draw_picture(tmp_path / "in" / f"u{number}.jpg", 600 + number)
    named = [Made(name=f"u{n}.jpg", votes=[(0.5, 0.0, 0.1)], attributes={"uploader": "a=17"}) for n in range(2)]
    out = make_run(tmp_path, 3, named)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        group = next(entry["group"] for entry in anna.next(9) if entry["group"])
        assert group == "uploader=a=17"
        ben = server.as_reviewer(BEN)
        assert ben.next(9, filters={"attribute": group}) == []
    with serving(make_run(tmp_path / "again", 3, named)) as server:
        ben = server.as_reviewer(BEN)
        assert {entry["item_id"] for entry in ben.next(9, filters={"attribute": group})} == {"u0.jpg", "u1.jpg"}


def test_what_is_left_of_appeals_is_the_appeals(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    add_appeals(out, [Appeal(item_id="picture-001.jpg", text="no", time="2026-11-26T13:00:00+00:00")])
    assert count_waiting(out, [ANNA], SETTINGS) == {"open": 4, "appeal": 1}
    with serving(out) as server:
        answered = server.as_reviewer(ANNA).ask("POST", "/next", {"n": 1, "filters": {"appeals": "yes"}}).json
        assert ([e["item_id"] for e in answered["items"]], answered["progress"]["left"]) == (["picture-001.jpg"], 1)


def test_what_is_taken_back_before_it_was_sent_does_not_stand(tmp_path: Path) -> None:
    # A page sends every 400 ms, and less often without a network: an undo then comes with what it undoes.
    out = make_run(tmp_path, 3)
    with serving(out) as server:
        anna = server.as_reviewer(ANNA)
        entry, other = anna.next(2)
        answered = anna.decide(
            decision_of(entry, "pass", "d1"),
            decision_of(other, "pass", "d2"),
            decision_of(entry, "skip", "u1", undoes="d1"),
            decision_of(entry, "block", "d3"),
            decision_of(other, "skip", "u2", undoes="d2"),
        )
        assert (answered["taken"], answered["refused"]) == (["d1", "d2", "u1", "d3", "u2"], [])
    assert [(d.item_id, d.decision) for d in standing_decisions(read_decisions(out))] == [(entry["item_id"], "block")]


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Host": "[::1"}, {"Origin": "http://["}, {"Origin": "//]"}])
def test_an_address_that_is_none_is_refused(anna: Served, headers: dict[str, str]) -> None:
    assert anna.ask("POST", "/next", {"n": 1}, headers).status == 403


def test_a_page_may_hold_two_grids_of_near_copies(anna: Served) -> None:
    held = [f"{number:032x}" for number in range(3100)]
    assert anna.ask("POST", "/next", {"n": 1, "have": held}).status == 200


def test_behind_a_proxy_the_page_answers_to_its_address_alone(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with serving(out, public_url="https://Review.example:443/") as server:
        anna = server.as_reviewer(ANNA)
        kept, replaced = {"Host": "review.example"}, {}
        ours, theirs = {"Origin": "https://review.example"}, {"Origin": "https://evil.example"}
        assert [anna.ask("POST", "/next", {"n": 1}, host | ours).status for host in (kept, replaced)] == [200, 200]
        assert [anna.ask("POST", "/next", {"n": 1}, host | theirs).status for host in (kept, replaced)] == [403, 403]
        assert anna.ask("GET", "/", headers={"Host": "evil.example"}).status == 403
        cookie = server.ask("GET", f"/?token={server.gate.token_of(ANNA)}", headers=kept).headers["set-cookie"]
        assert "secure" in cookie.lower()
