"""Groups round a head: every member is near its head itself, so that no chain of look-alikes joins two strangers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.hashes.search import I64
from moderation.types import F32

I8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What is near what. left < right: int64 [M]; relation: int8 [M], a smaller one counts more; distance: float32."""

    left: I64
    right: I64
    relation: I8
    distance: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGroups:
    """The head of each node (itself, if it has none), by which relation and how far.

    head: int64 [N]; relation: int8 [N], -1 for heads; distance: float32 [N], 0 for heads.
    """

    head: I64
    relation: I8
    distance: F32


def group_by_heads(nodes: int, edges: Edges) -> HeadGroups:
    """Nodes 0 to N-1, those that should rather be heads first.

    In that order a node becomes a head unless an earlier head is near it; then every other goes to its nearest head (by
    relation, distance, order). What is near a member but not its head is a head itself, or goes to another. Depends on
    the pairs alone, not on their order.
    """
    head = np.arange(nodes, dtype=np.int64)
    relation = np.full(nodes, -1, np.int8)
    distance = np.zeros(nodes, np.float32)
    if not len(edges.left):
        return HeadGroups(head=head, relation=relation, distance=distance)
    is_head = ~_covered(nodes, edges)
    # An edge between a head and another, whichever of them comes first.
    downwards = is_head[edges.left] & ~is_head[edges.right]
    upwards = ~is_head[edges.left] & is_head[edges.right]
    top = np.concatenate([edges.left[downwards], edges.right[upwards]])
    member = np.concatenate([edges.right[downwards], edges.left[upwards]])
    kind = np.concatenate([edges.relation[downwards], edges.relation[upwards]])
    far = np.concatenate([edges.distance[downwards], edges.distance[upwards]])
    order = np.lexsort((top, far, kind, member))
    first = np.ones(len(order), dtype=bool)
    first[1:] = member[order[1:]] != member[order[:-1]]
    best = order[first]
    head[member[best]], relation[member[best]], distance[member[best]] = top[best], kind[best], far[best]
    return HeadGroups(head=head, relation=relation, distance=distance)


def _covered(nodes: int, edges: Edges) -> npt.NDArray[np.bool_]:
    """Which nodes have an earlier head beside them."""
    order = np.lexsort((edges.right, edges.left))
    left, right = edges.left[order], edges.right[order]
    starts = np.flatnonzero(np.append(True, left[1:] != left[:-1]))
    ends = np.append(starts[1:], len(left))
    covered = np.zeros(nodes, dtype=bool)
    # One after the other: whether a node is a head depends on all before it. A microsecond for each that has a pair.
    for node, start, end in zip(left[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        if not covered[node]:
            covered[right[start:end]] = True
    return covered
