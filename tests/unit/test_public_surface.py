"""What others may import: a name that is added, renamed or lost shows up here, on purpose."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import moderation
from moderation import Moderator, VerdictRow

SURFACE = [
    "Config",
    "ErrorCode",
    "Evidence",
    "FatalError",
    "ItemError",
    "Kind",
    "ModerationError",
    "Moderator",
    "ShardError",
    "Status",
    "UsageError",
    "Verdict",
    "VerdictRow",
    "__version__",
    "load_config",
]
ROW_FIELDS = [
    "uri",
    "item_id",
    "kind",
    "status",
    "verdict",
    "reason",
    "check",
    "score",
    "confidence",
    "scores",
    "evidence",
    "threshold",
    "severity",
    "label",
    "reason_text",
    "segments",
    "audit",
    "error_code",
    "error_detail",
    "frames_total",
    "frames_scored",
    "duration_s",
    "widest_gap_s",
    "unseen",
    "reader",
    "width",
    "height",
    "size_bytes",
    "content_hash",
    "pdq",
    "votes",
]
SIGNATURES = {
    "from_config": "(path: 'str | Path | None' = None, policy: 'str | Path | None' = None, "
    "overrides: 'Sequence[str]' = ()) -> 'Self'",
    "moderate": "(self, inputs: 'Iterable[Input]') -> 'list[VerdictRow]'",
    "to_table": "(self, rows: 'Iterable[VerdictRow]') -> 'pa.Table'",
    "close": "(self) -> 'None'",
}


def loaded_by(statement: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) & {"torch", "ray", "PIL", "decord", "fsspec", "pyarrow", "pydantic", "numpy"}


def test_public_names_are_these_and_no_others() -> None:
    assert moderation.__all__ == SURFACE
    assert set(SURFACE) <= set(dir(moderation))


@pytest.mark.parametrize("name", SURFACE)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(moderation, name)
    assert isinstance(value, str) or inspect.getdoc(value)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Moderater'"):
        _ = moderation.Moderater


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import moderation") == set()


def test_importing_the_configuration_loads_neither_torch_nor_ray() -> None:
    assert not loaded_by("from moderation import load_config; load_config()") & {"torch", "ray", "decord"}


def test_notebook_call_does_not_load_ray() -> None:
    assert "ray" not in loaded_by("from moderation import Moderator")


def test_fields_of_a_row_are_frozen() -> None:
    assert [f.name for f in dataclasses.fields(VerdictRow)] == ROW_FIELDS


def test_calls_of_the_moderator_are_frozen() -> None:
    public = {name for name, value in vars(Moderator).items() if callable(getattr(Moderator, name)) and name[0] != "_"}
    assert public == set(SIGNATURES)
    for name, signature in SIGNATURES.items():
        assert str(inspect.signature(getattr(Moderator, name))) == signature, name
