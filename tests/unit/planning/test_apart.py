"""OUT does not lie in what SOURCE lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation.errors import UsageError
from moderation.planning.apart import check_apart


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("s3://b", "s3://b/out"),
        ("s3://b/photos", "s3://b/photos/out"),
        ("s3://b/photos/", "s3://b/photos"),
        ("s3://b/**", "s3://b/out"),
        ("s3://b/*/*/*.parquet", "s3://b/out"),
        ("memory://a", "memory:///a/out"),
    ],
)
def test_inside_is_refused(source: str, out: str) -> None:
    with pytest.raises(UsageError, match="lies in SOURCE"):
        check_apart(source, out)


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("s3://b/photos", "s3://b/photos-out"),
        ("s3://b/**/*.jpg", "s3://b/out"),
        ("s3://b/m.csv", "s3://b/out"),
        ("s3://b/photos", "/photos/out"),
    ],
)
def test_beside_is_fine(source: str, out: str) -> None:
    check_apart(source, out)


def test_links_are_looked_through(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for source, out in (("in", "link/out"), ("link", "in/out"), ("in", "in")):
        with pytest.raises(UsageError, match="--ledger"):
            check_apart(str(tmp_path / source), f"file://{tmp_path / out}", "--ledger")


@pytest.mark.parametrize(
    ("source", "out"), [("s3://b/photos", "s3://b"), ("s3://b/a/*.jpg", "s3://b/a"), ("memory://a/b", "memory://a")]
)
def test_a_source_inside_of_out_is_refused(source: str, out: str) -> None:
    with pytest.raises(UsageError, match=r"lies in (--out|SOURCE)"):
        check_apart(source, out)
