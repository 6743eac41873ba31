"""Groups around heads: no chain joins unrelated pictures, and the order of pairs makes no difference."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moderation.hashes.grouping import Edges, HeadGroups, group_by_heads

Pair = tuple[int, int, int, float]  # left, right, relation, distance


def edges(*pairs: Pair) -> Edges:
    left, right, relation, distance = zip(*pairs, strict=True) if pairs else ((), (), (), ())
    return Edges(
        left=np.array(left, np.int64),
        right=np.array(right, np.int64),
        relation=np.array(relation, np.int8),
        distance=np.array(distance, np.float32),
    )


def heads(nodes: int, *pairs: Pair) -> list[int]:
    found: HeadGroups = group_by_heads(nodes, edges(*pairs))
    heads_: list[int] = found.head.tolist()
    return heads_


def test_without_pairs_everything_is_alone() -> None:
    assert heads(3) == [0, 1, 2]


def test_a_chain_does_not_join_its_ends() -> None:
    # 1 is near 0, 2 is near 1, but 2 is not near 0.
    assert heads(3, (0, 1, 0, 9), (1, 2, 0, 9)) == [0, 0, 2]


def test_a_member_goes_to_its_nearest_head() -> None:
    assert heads(3, (0, 2, 0, 30), (1, 2, 0, 5)) == [0, 1, 1]


def test_the_surer_relation_counts_more_than_a_shorter_distance() -> None:
    found = group_by_heads(3, edges((0, 2, 0, 30), (1, 2, 1, 0.01)))
    assert found.head.tolist() == [0, 1, 0]
    assert found.relation.tolist() == [-1, -1, 0]
    assert found.distance.tolist() == [0, 0, 30]


def test_a_head_that_comes_later_takes_a_member_that_came_before_it() -> None:
    # 1 belongs to 0 or to 2 (which is a head, because it is not near 0) and is nearer to 2.
    assert heads(3, (0, 1, 0, 20), (1, 2, 0, 3)) == [0, 2, 2]


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.integers(0, 1), st.integers(0, 31))),
            st.randoms(),
        )
    )
)
def test_members_are_near_their_head_and_the_order_of_pairs_does_not_matter(
    drawn: tuple[int, list[tuple[int, int, int, int]], object],
) -> None:
    nodes, raw, chance = drawn
    pairs: dict[tuple[int, int], Pair] = {}
    for a, b, relation, distance in raw:
        if a != b:
            pairs[min(a, b), max(a, b)] = (min(a, b), max(a, b), relation, float(distance))
    found = heads(nodes, *pairs.values())
    for node, head in enumerate(found):
        assert found[head] == head
        assert head == node or (min(node, head), max(node, head)) in pairs
    # No two heads are near each other, or their groups would be one.
    tops = set(found)
    assert not [p for p in pairs if p[0] in tops and p[1] in tops]
    shuffled = list(pairs.values())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    assert heads(nodes, *shuffled) == found
