from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.results import receipts as receipts_module
from moderation.results.course import slowest_items, tell_course
from moderation.results.receipt_sums import MAX_SLOWEST, sum_receipts
from moderation.results.receipts import COPIES_WORKER, Receipt, commit_parts, read_receipts
from moderation.results.summary import summarise

COUNTS = st.dictionaries(
    st.sampled_from(["frames", "verdict:pass", "status:error", "error:corrupt"]), st.integers(0, 9)
)
SECONDS = st.floats(0, 100, allow_nan=False)


@st.composite
def made_receipts(draw: st.DrawFn) -> list[Receipt]:
    return [
        Receipt(
            shard_id=f"{number:032x}",
            rows_in=draw(st.integers(0, 300)),
            rows={},
            sha256={},
            counts=draw(COUNTS),
            seconds={"score": draw(SECONDS)},
            slowest={f"{number}-{place}": draw(SECONDS) for place in range(draw(st.integers(0, 5)))},
            committed_at=draw(SECONDS),
            worker=draw(st.sampled_from(["a/1", COPIES_WORKER])),
        )
        for number in range(draw(st.integers(0, 40)))
    ]


@given(made_receipts())
def test_sums_are_those_of_the_receipts_side_by_side(receipts: list[Receipt]) -> None:
    sums = sum_receipts(iter(receipts))
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.counts)
    assert (sums.items, sums.counts) == (sum(r.rows_in for r in receipts), counts)
    assert sums.seconds.get("score", 0.0) == pytest.approx(sum(r.seconds["score"] for r in receipts))
    assert summarise(sums, {}) == summarise(receipts, {})
    slow = sorted(((i, r.shard_id, s) for r in receipts for i, s in r.slowest.items()), key=lambda e: (-e[2], e[0]))
    assert slowest_items(sums) == slow[:MAX_SLOWEST]


@given(made_receipts())
def test_the_course_covers_every_dated_receipt_but_the_first(receipts: list[Receipt]) -> None:
    dated = sorted((r for r in receipts if r.committed_at and r.worker != COPIES_WORKER), key=lambda r: r.committed_at)
    bins = tell_course(receipts)
    if bins and all(a.committed_at < b.committed_at for a, b in pairwise(dated)):
        assert sum(b.items for b in bins) == sum(r.rows_in for r in dated[1:])
        assert sum(b.seconds for b in bins) == pytest.approx(dated[-1].committed_at - dated[0].committed_at)


def test_receipts_are_read_a_bounded_number_ahead(tmp_path_factory: pytest.TempPathFactory) -> None:
    out = str(tmp_path_factory.mktemp("out"))
    read: list[str] = []
    ids = [f"{number:032x}" for number in range(20_000)]

    def count_read(_out: str, shard_id: str) -> Receipt:
        read.append(shard_id)
        return Receipt(shard_id=shard_id, rows_in=1, rows={}, sha256={})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipts_module, "read_receipt", count_read)
        receipts = read_receipts(out, ids)
        first = [receipt.shard_id for receipt in islice(receipts, 10)]
        receipts.close()  # type: ignore[attr-defined] # a generator
    assert first == ids[:10]
    assert len(read) < len(ids) / 2


def test_the_id_of_a_receipt_is_the_text_that_was_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    out = str(tmp_path_factory.mktemp("out"))
    asked = "".join(["ab"] * 16)
    commit_parts(out, asked, items=0, parts={}, rows={"verdicts": 0}, format_="parquet", facts={})
    (receipt,) = read_receipts(out, [asked])
    assert receipt.shard_id is asked
