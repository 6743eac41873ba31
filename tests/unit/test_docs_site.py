"""The documentation's site: pages made from the code say what the code says, and links lead to pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from jobs.__main__ import app
from moderation.policy.model import Check
from moderation.results.schema import verdicts_schema
from moderation.types import ErrorCode
from tools.build_docs import DRAWN, PAGES, ROOT, with_links, with_pictures
from tools.reference import REFERENCE_PAGES


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: make() for name, make in REFERENCE_PAGES.items()}


def test_every_command_and_option_is_there(pages: dict[str, str]) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        if not hasattr(command, "commands"):
            assert f"## `moderation {name}`" in pages["commands"]
            assert all(option in pages["commands"] for p in command.params for option in p.opts if option[:2] == "--")


def test_every_column_key_and_code_is_there(pages: dict[str, str]) -> None:
    assert all(f"`{field.name}`" in pages["tables"] for field in verdicts_schema([], {}))
    assert all(f"`{info.alias or name}`" in pages["policy"] for name, info in Check.model_fields.items())
    assert all(f"`{code}`" in pages["codes"] for code in ErrorCode)
    assert "moderation_items_total" in pages["metrics"]
    assert "max_error_rate" in pages["configuration"]
    assert "Moderator" in pages["python"]


def test_no_path_of_this_machine_is_in_a_page(pages: dict[str, str]) -> None:
    assert not [name for name, text in pages.items() if str(ROOT) in text]


def test_a_diagram_is_drawn_with_the_words_of_its_text() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    page = with_pictures(text, DRAWN["ARCHITECTURE.md"])
    assert "mermaid" in text and "mermaid" not in page and DRAWN["ARCHITECTURE.md"] in page
    drawn = (ROOT / "docs" / "path-of-an-item.svg").read_text(encoding="utf-8")
    diagram = text.partition("```mermaid")[2].partition("```")[0]
    words = [word for label in re.findall(r'\["?([^"\]]+)"?\]', diagram) for word in re.findall(r"[a-z]+", label)]
    assert len(words) > 20 and not [word for word in words if word not in drawn and word != "br"]
    with pytest.raises(ValueError, match="without a picture"):
        with_pictures(text, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[the policy](docs/policy.md#form)", "[the policy](policy.md#form)"),
        ("[`x`](configs/full.yaml) here", "`x` here"),
        ("[on Kubernetes](cluster/README.md)", "[on Kubernetes](kubernetes.md)"),
        ("[a](https://example.org/a) [b](#here)", "[a](https://example.org/a) [b](#here)"),
    ],
)
def test_links_are_meant_from_where_the_text_lay(text: str, expected: str) -> None:
    assert with_links(text, ROOT, PAGES) == expected
    assert with_links("[up](../policy.md)", ROOT / "docs" / "adr", PAGES / "adr") == "[up](../policy.md)"


@pytest.mark.long
def test_the_site_is_built_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    for command in (["-m", "tools.build_docs"], ["-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="https://' not in text
        assert '<link rel="stylesheet" href="https://' not in text
