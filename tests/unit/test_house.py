"""The script behind `make check` finds what breaks a limit, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("radon", reason="a development dependency")

from tools import check_house

LAYERS = """
[[tool.importlinter.contracts]]
type = "layers"
containers = ["moderation"]
exhaustive = true
layers = ["upper | beside", "lower : types"]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(LAYERS)
    for room in ("upper", "beside", "lower"):
        write(tmp_path / "moderation" / room / "__init__.py", "")
    write(tmp_path / "moderation" / "__init__.py", "")
    write(tmp_path / "moderation" / "types.py", "")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def ladder(name: str, conditions: int) -> str:
    return f"def {name}(x):\n" + "".join(f"    if x == {n}:\n        return {n}\n" for n in range(conditions))


def test_a_room_that_no_layer_names_is_found(tree: Path) -> None:
    assert list(check_house.rooms_without_a_layer(tree)) == []
    write(tree / "moderation" / "attic" / "__init__.py", "")
    write(tree / "moderation" / "cellar.py", "")
    offences = check_house.rooms_without_a_layer(tree)
    assert [offence.where for offence in offences] == ["moderation.attic", "moderation.cellar"]


def test_a_contract_that_is_not_exhaustive_is_found(tree: Path) -> None:
    write(tree / "pyproject.toml", LAYERS.replace("true", "false"))
    (offence,) = check_house.rooms_without_a_layer(tree)
    assert offence.measured == "the contract is not exhaustive"


def test_a_long_module_needs_a_reason_and_a_reason_a_long_module(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree / "moderation" / "types.py", "x = 1\n" * (check_house.MAX_LINES + 1))
    (offence,) = check_house.long_modules(tree)
    assert (offence.where, offence.measured) == ("moderation/types.py", "301 lines")
    monkeypatch.setattr(check_house, "LONG_MODULES", {"moderation/types.py": "one table"})
    assert list(check_house.long_modules(tree)) == []
    write(tree / "moderation" / "types.py", "x = 1\n")
    (offence,) = check_house.long_modules(tree)
    assert offence.limit == "stale reason"


def test_functions_methods_and_closures_are_measured_each_by_itself(tree: Path) -> None:
    code = (
        ladder("plain", 10)
        + "class Outer:\n    class Inner:\n        def method(self):\n            return 1\n"
        + "    def own(self):\n        def closure():\n            return 2\n        return closure\n"
    )
    write(tree / "moderation" / "types.py", code)
    functions = {f.where.partition(" ")[2]: f.complexity for f in check_house.measured_functions(tree)}
    assert functions == {"plain": 11, "Inner.method": 1, "Outer.own": 1, "closure": 1}
    assert [f.complexity for f in check_house.complex_functions(check_house.measured_functions(tree))] == [11]


def test_a_class_name_in_two_files_is_found_whatever_its_underscores(tree: Path) -> None:
    write(tree / "moderation" / "types.py", "class Known: ...\nclass Other: ...\n")
    write(tree / "tests" / "test_a.py", "def test():\n    class _Known: ...\n")
    (offence,) = check_house.repeated_classes(check_house.classes_by_name(tree))
    assert (offence.measured, offence.where) == ("Known", "moderation/types.py:1 tests/test_a.py:2")
