"""Labelled items as read: what is wrong with one is said in the words of whoever noticed it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from moderation.config.load import load_config
from moderation.training.reading import read_items
from moderation.types import ErrorCode, Item, MediaObject
from tests.job_runs import make_pictures


def test_item_that_may_not_be_read_says_why_and_the_next_one_is_read(tmp_path: Path) -> None:
    picture = next(make_pictures(tmp_path / "pictures", 1).iterdir())
    items = [
        Item(item_id="a", uri="/a.png", objects=(), error=ErrorCode.FORBIDDEN, error_detail="outside of source.allow"),
        Item(item_id="b", uri=str(picture), objects=(MediaObject(uri=str(picture), name="b.png"),)),
    ]
    with ThreadPoolExecutor(1) as pool:
        forbidden, readable = read_items(items, lambda _name: False, load_config(None), pool)
    assert (forbidden.name, forbidden.problem) == (None, "forbidden: outside of source.allow")
    assert readable.frame is not None
    assert readable.problem == ""
