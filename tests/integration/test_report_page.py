"""The report in a real browser: from disk, without a script, at two widths, in light and dark; pictures are blurred."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.finished_run import Made, write_run
from tests.job_runs import make_pictures, run_job

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]
POLICY = """
default: pass
checks:
  mask: {side: negative, votes: [a.mask], fuse: max, review: 0.5, block: 0.9}
"""
# What can be scrolled by itself (a wide table) is left out.
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
FILTER = "e => getComputedStyle(e).filter"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.unit.results.test_report import with_counts

    folder = tmp_path_factory.mktemp("report")
    make_pictures(folder / "in", 40)
    made = [Made(name=f"{n:04}.png", votes=[(n / 40,)]) for n in range(40)]
    out = with_counts(write_run(folder, ("a.mask",), made, POLICY))
    assert run_job("report", out, "--thumbnails", "9").returncode == 0
    return str(Path(out) / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_from_disk_and_fits(browser: Any, page_file: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(f"file://{page_file}")
    assert page.evaluate(WIDER) <= 0
    assert page.locator("svg.drawn").count() >= 2
    ink = page.evaluate("e => getComputedStyle(e).fill", page.locator("svg.drawn text").first.element_handle())
    assert ink == {"light": "rgb(27, 35, 48)", "dark": "rgb(231, 235, 241)"}[scheme]
    assert said == []
    context.close()


def test_a_picture_is_blurred_until_it_is_chosen_by_key_and_in_print(browser: Any, page_file: str) -> None:
    context = browser.new_context(java_script_enabled=True)
    page = context.new_page()
    page.goto(f"file://{page_file}")
    picture = page.locator(".examples img").first
    assert "blur" in picture.evaluate(FILTER)
    page.locator(".examples input").first.focus()
    page.keyboard.press("Space")
    assert picture.evaluate(FILTER) == "none"
    page.emulate_media(media="print")
    assert "blur" in picture.evaluate(FILTER)
    context.close()


def test_a_screen_reader_finds_its_way(browser: Any, page_file: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(f"file://{page_file}")
    found = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()
