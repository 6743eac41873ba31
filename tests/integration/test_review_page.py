"""The reviewers' page in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moderation.labels.decision_store import read_decisions, verify_decisions
from moderation.labels.decisions import Decision, standing_decisions
from moderation.types import Kind
from tests.finished_run import Made
from tests.job_runs import JobProcess, job_env
from tests.review_server import ANNA, BEN, Served, draw_picture, make_run, serving

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 60_000
SHOWN_STATE = "() => [document.body.dataset, document.querySelector('dialog[open]')?.id].map(s => JSON.stringify(s))"
LINK = re.compile(r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]+")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium on this machine"),
]


def wait_until(page: Page, expression: str, arg: object = None) -> None:
    """Wait until a function of the page says so. Playwright's own `wait_for_function` did not see it on small pages."""
    deadline_s = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline_s, (expression, page.inner_text("body"), page.evaluate(SHOWN_STATE))
        page.wait_for_timeout(50)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Browser, link: str, width: int = 1280) -> Page:
    """The page of a reviewer in a browser of their own, once its first item is painted."""
    context = browser.new_context(viewport={"width": width, "height": 800 if width > 800 else 844})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"the script failed: {error}"))
    page.goto(link)
    wait_for_item(page)
    return page


def wait_for_item(page: Page, unlike: str | None = None) -> str:
    """Wait until an item (another than `unlike`) is painted; returns its id."""
    wait_until(
        page, "unlike => document.body.dataset.state === 'ready' && document.body.dataset.shown !== unlike", arg=unlike
    )
    return str(page.get_attribute("body", "data-shown"))


def press(page: Page, *keys: str) -> str:
    """Press keys of which the last decides; returns the next item's id."""
    before = page.get_attribute("body", "data-shown")
    for key in keys:
        page.keyboard.press(key)
    return wait_for_item(page, before)


def wait_until_sent(page: Page) -> None:
    wait_until(page, "() => !Object.keys(localStorage).some(key => key.startsWith('outbox:'))")


def answers(out: str) -> dict[str, Decision]:
    """Item -> its standing decision; skips of an undo are left out."""
    return {decision.item_id: decision for decision in standing_decisions(read_decisions(out))}


def said(page: Page) -> str:
    return str(page.text_content("#said"))


def test_ten_decisions_by_keyboard_an_undo_and_a_reload(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 14)
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA))
        assert "token" not in page.url
        page.keyboard.press("p")
        assert "blurred" in said(page)
        items = [wait_for_item(page)]
        for keys in (["r", "p"], ["1", "b"], ["e"], ["s"], ["2", "1", "b"], *[["r", "p"]] * 5):
            items.append(press(page, *keys))
        assert len(set(items)) == 11
        press(page, "u")
        assert page.get_attribute("body", "data-shown") == items[9]
        page.reload()
        assert wait_for_item(page) == items[9]
        wait_until_sent(page)
        assert set(answers(out)) == set(items[:9])
        # The memory of what can be undone outlives a reload.
        assert press(page, "u") == items[8]
        press(page, "b")
        wait_until_sent(page)
        page.context.close()
    kept = answers(out)
    assert [kept[item].decision for item in items[:9]] == [
        "pass", "block", "escalate", "skip", "block", "pass", "pass", "pass", "block",
    ]  # fmt: skip
    assert kept[items[1]].labels == ("gore",)
    assert set(kept[items[4]].labels) == {"gore", "weapon"}
    assert kept[items[0]].shown["revealed"] == "true"
    assert (kept[items[0]].exposure_s or 0) > 0
    assert verify_decisions(out) == ()


def test_two_reviewers_at_once_never_get_the_same_item(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 24)
    with serving(out) as served:
        pages = [open_page(browser, served.link(who)) for who in (ANNA, BEN)]
        seen: list[set[str]] = [{wait_for_item(page)} for page in pages]
        for _ in range(5):
            for page, own in zip(pages, seen, strict=True):
                own.add(press(page, "b"))
        for page in pages:
            wait_until_sent(page)
            page.context.close()
    assert not seen[0] & seen[1]
    by = {name: {i for i, d in answers(out).items() if d.reviewer == name} for name in ("anna", "ben")}
    assert len(by["anna"]) == len(by["ben"]) == 5
    assert by["anna"] <= seen[0]
    assert by["ben"] <= seen[1]


def test_a_killed_server_loses_nothing_and_the_page_goes_on(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = job_env(MODERATION_REVIEW_SECRET="a secret of the tests alone")
    command = (
        "review",
        "serve",
        out,
        "--port",
        port,
        "--reviewer",
        "anna",
        "--hidden-share",
        "0",
        "--second-share",
        "0",
    )
    with JobProcess(*command, env=env) as first:
        page = open_page(browser, wait_for_link(first))
        for _ in range(3):
            press(page, "b")
        wait_until_sent(page)
        for _ in range(3):
            press(page, "b")
        first.kill()
        assert first.wait(30) == -signal.SIGKILL
        acknowledged = set(answers(out))
        assert len(acknowledged) >= 3
        # The page has the next pictures already, and keeps what it cannot send.
        press(page, "b")
        wait_until(page, "() => document.getElementById('said').textContent.includes('kept here')")
    with JobProcess(*command, env=env) as second:
        wait_for_link(second)
        wait_until_sent(page)
        press(page, "b")
        wait_until_sent(page)
        page.context.close()
        second.terminate()
        assert second.wait(30) == 0, second.stderr
    kept = answers(out)
    assert acknowledged <= set(kept)
    assert len(kept) == 8
    assert len(read_decisions(out)) == 8
    assert verify_decisions(out) == ()


def wait_for_link(job: JobProcess) -> str:
    for _ in range(600):
        link = LINK.search(job.stdout)
        if link is not None:
            return link.group()
        assert job.poll() is None, job.stderr
        signal.sigtimedwait([], 0.1)
    raise AssertionError(f"no link: {job.stdout} {job.stderr}")


def test_the_grid_passes_all_but_the_odd_ones(browser: Browser, tmp_path: Path) -> None:
    gone = Made(name="gone.jpg", votes=[(0.31, 0.0, 0.1)])
    out = make_run(tmp_path, 14, [gone])
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA))
        page.keyboard.press("g")
        wait_until(
            page, "() => document.querySelectorAll('.cell').length === 15 && document.body.dataset.state === 'ready'"
        )
        page.keyboard.press("p")
        assert "blurred" in said(page)
        page.keyboard.press("r")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        odd = page.eval_on_selector_all(
            ".cell[aria-pressed=true]", "cells => cells.map(cell => cell.getAttribute('aria-label'))"
        )
        # Whose picture cannot be shown is odd by itself: it is never passed.
        assert len(odd) == 2
        assert any("gone.jpg" in name for name in odd)
        page.keyboard.press("p")
        for _ in odd:
            wait_until(page, "() => document.querySelector('.item') && document.body.dataset.state === 'ready'")
            press_last(page)
        wait_until_sent(page)
        page.context.close()
    kept = answers(out)
    assert len(kept) == 15
    assert sum(decision.decision == "pass" for decision in kept.values()) == 13
    assert kept["gone.jpg"].decision == "block"
    assert kept[next(i for i, d in kept.items() if d.decision == "pass")].shown["view"] == "grid of 15"


def press_last(page: Page) -> None:
    """Block what is in sight; there may be nothing after it."""
    shown = page.get_attribute("body", "data-shown")
    page.keyboard.press("b")
    wait_until(page, "s => document.body.dataset.shown !== s || document.body.dataset.state === 'empty'", arg=shown)


def serve_odd_items(folder: Path) -> str:
    """A run with an album-like animation, an unreadable item and markup in a name."""
    from PIL import Image

    frames = [Image.new("RGB", (120, 90), (40 * n, 90, 200 - 40 * n)) for n in range(5)]
    (folder / "in").mkdir(parents=True)
    frames[0].save(folder / "in" / "moves.gif", save_all=True, append_images=frames[1:], duration=400)
    film = Made(
        name="moves.gif", votes=[(0.1, 0.0, 0.1), (0.2, 0.0, 0.1), (0.9, 0.0, 0.1), (0.2, 0.0, 0.1), (0.1, 0.0, 0.1)],
        kind=Kind.ANIMATION, times_s=(0.0, 0.4, 0.8, 1.2, 1.6),
    )  # fmt: skip
    evil = "<img src=x onerror=document.body.dataset.hacked=1>.jpg"
    draw_picture(folder / "in" / evil, 77)
    return make_run(folder, 60, [film, Made(name=evil, votes=[(0.8, 0.0, 0.1)])])


def test_it_works_without_a_mouse_for_screen_readers_and_on_small_screens(browser: Browser, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    out = serve_odd_items(tmp_path)
    with serving(out) as served:
        for width in (1280, 390):
            page = open_page(browser, served.link(ANNA if width > 800 else BEN), width)
            assert_no_serious_finding(Axe(), page)
            page.keyboard.press("r")
            shot = page.screenshot()
            assert len(shot) > 5_000
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            page.keyboard.press("?")
            assert_no_serious_finding(Axe(), page)
            page.keyboard.press("Escape")
            # The browser closes a dialog when it has asked itself; keys until then are the dialog's.
            wait_until(page, "() => !document.querySelector('dialog[open]')")
            page.keyboard.press("g")
            wait_until(page, "() => document.querySelector('.cell') && document.body.dataset.state === 'ready'")
            assert_no_serious_finding(Axe(), page)
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            if width < 800:
                page.keyboard.press("r")
                page.keyboard.press("p")
                assert "scroll" in said(page)
                page.locator(".cell").last.scroll_into_view_if_needed()
            page.keyboard.press("g")
            wait_for_item(page)
            assert page.get_attribute("body", "data-hacked") is None
            # Every action is a button with a name, reached by Tab.
            names = page.eval_on_selector_all("footer button", "buttons => buttons.map(b => b.textContent.trim())")
            assert [name.split()[0] for name in names] == [
                "Pass",
                "Block",
                "Escalate",
                "Skip",
                "Reveal",
                "Undo",
                "Later",
                "Overlay",
                "Comment",
            ]
            page.context.close()


def assert_no_serious_finding(axe: Any, page: Page) -> None:
    found = axe.run(page).response["violations"]
    serious = [
        (v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert not serious, serious


def test_a_strip_jumps_to_the_picture_that_decided(browser: Browser, tmp_path: Path) -> None:
    out = serve_odd_items(tmp_path)
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA) + "&kind=animation")
        page.wait_for_selector(".strip button")
        assert page.locator(".strip button").count() == 5
        assert page.locator(".strip button[aria-pressed=true]").get_attribute("data-frame") == "2"
        page.keyboard.press("ArrowLeft")
        assert page.locator(".strip button[aria-pressed=true]").get_attribute("data-frame") == "1"
        page.keyboard.press("j")
        assert page.locator(".strip button[aria-pressed=true]").get_attribute("data-frame") == "2"
        page.context.close()


@pytest.mark.parametrize(("second", "outcome"), [("bad.jpg", "Not all of its pictures"), ("good.jpg", "Passed")])
def test_an_album_is_passed_only_if_all_of_it_can_be_seen(
    browser: Browser, tmp_path: Path, second: str, outcome: str
) -> None:
    for seed, name in enumerate(("first.jpg", "good.jpg")):
        draw_picture(tmp_path / "in" / name, seed + 50)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    album = Made(name="album", votes=[(0.5, 0.0, 0.1)] * 2, kind=Kind.ALBUM, members=("first.jpg", second))
    out = make_run(tmp_path, 2, [album])
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA) + "&kind=album")
        page.wait_for_selector(".strip button")
        assert page.locator(".strip button").count() == (2 if second == "good.jpg" else 1)
        page.wait_for_timeout(500)  # its small pictures
        page.keyboard.press("r")
        page.keyboard.press("p")
        assert outcome in said(page)
        page.keyboard.press("e")
        page.context.close()


def test_an_album_is_not_passed_before_it_was_seen(browser: Browser, tmp_path: Path) -> None:
    for number in range(2):
        draw_picture(tmp_path / "in" / f"{number}.jpg", number + 50)
    album = Made(name="album", votes=[(0.5, 0.0, 0.1)] * 2, kind=Kind.ALBUM, members=("0.jpg", "1.jpg"))
    out = make_run(tmp_path, 2, [album])
    with serving(out) as served:
        page = browser.new_page()
        page.route("**/frames?*", lambda route: None)  # never answered
        page.goto(served.link(ANNA) + "&kind=album")
        wait_for_item(page)
        page.keyboard.press("r")
        page.keyboard.press("p")
        assert "Not all of its pictures" in said(page)
        page.close()


def test_a_picture_is_passed_only_in_all_of_its_looks(browser: Browser, tmp_path: Path) -> None:
    from PIL import Image

    # White on nothing: over white it is empty, over black it is not.
    pixels = Image.new("RGBA", (120, 90), (255, 255, 255, 0))
    pixels.paste((255, 255, 255, 255), (30, 20, 90, 70))
    (tmp_path / "in").mkdir(parents=True)
    pixels.save(tmp_path / "in" / "white.png")
    out = make_run(tmp_path, 3, [Made(name="white.png", votes=[(0.5, 0.0, 0.1)])])
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA))
        page.keyboard.press("g")
        wait_until(
            page, "() => document.querySelectorAll('.cell').length === 4 && document.body.dataset.state === 'ready'"
        )
        page.keyboard.press("r")
        page.keyboard.press("p")
        assert wait_for_item(page) == "white.png"
        page.wait_for_selector(".strip button")
        assert page.locator(".strip button").count() == 2
        wait_until_sent(page)
        page.context.close()
    assert "white.png" not in answers(out) and len(answers(out)) == 3


def test_what_did_not_load_is_asked_for_again_and_can_be_left_for_later(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 6)
    with serving(out) as served:
        context = browser.new_context()
        page = context.new_page()
        page.route("**/picture?*", lambda route: route.abort())
        page.goto(served.link(ANNA))
        wait_for_item(page)
        page.unroute("**/picture?*")
        item = press(page, "n")
        assert page.locator(".picture img").count() == 1
        assert press(page, "r", "p") != item
        # A picture that never comes does not hold up the others.
        page.route(re.compile(r"/picture\?.*picture-00[3-5]"), lambda route: None)
        page.reload()
        wait_for_item(page)
        page.keyboard.press("n")
        wait_until_sent(page)
        context.close()
    assert answers(out)[item].decision == "pass"


def test_an_undo_right_after_a_decision_and_keys_of_another_alphabet(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 12)
    with serving(out) as served:
        page = open_page(browser, served.link(ANNA))
        first = page.get_attribute("body", "data-shown")
        for key, code in (("к", "KeyR"), ("з", "KeyP")):
            event = f"new KeyboardEvent('keydown', {{key: '{key}', code: '{code}', bubbles: true}})"
            page.evaluate(f"() => {{ document.body.dispatchEvent({event}); }}")
        wait_for_item(page, first)
        page.keyboard.press("u")
        wait_until(page, "i => document.body.dataset.shown === i && document.body.dataset.state === 'ready'", first)
        press(page, "b")
        wait_until_sent(page)
        assert "not taken" not in said(page)
        page.context.close()
    assert [(d.item_id, d.decision) for d in standing_decisions(read_decisions(out))] == [(first, "block")]


def test_a_frame_of_another_site_stays_empty(browser: Browser, tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with serving(out) as served:
        framed = framing_page(served)
        context = browser.new_context()
        page = context.new_page()
        page.goto(served.link(ANNA))
        page.set_content(framed)
        page.wait_for_timeout(500)
        assert all('id="stage"' not in frame.content() for frame in page.frames[1:])
        context.close()


def framing_page(served: Served) -> str:
    return f'<iframe src="http://127.0.0.1:{served.port}/"></iframe>'
