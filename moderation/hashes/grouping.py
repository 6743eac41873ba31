"""Groups around a head: every member is near the head itself, so a chain of look-alikes never joins unrelated ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderation.hashes.search import I64
from moderation.types import F32

I8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Which nodes are near. left < right: int64 [M]; relation: int8 [M], the smaller counts more; distance: float32."""

    left: I64
    right: I64
    relation: I8
    distance: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGroups:
    """The head of each node (the node itself where it has no other), their relation and distance.

    head: int64 [N]; relation: int8 [N], -1 for heads; distance: float32 [N], 0 for heads.
    """

    head: I64
    relation: I8
    distance: F32


def group_by_heads(nodes: int, edges: Edges) -> HeadGroups:
    """Group nodes 0 to N-1, sorted so that the preferred heads come first.

    In that order a node becomes a head unless an earlier head is near it. Every other node then goes to its nearest
    head (by relation, then distance, then order). A node that is near a member but not its head becomes a head itself
    or goes to another one. The result depends on the pairs alone, not on their order.
    """
    head = np.arange(nodes, dtype=np.int64)
    relation = np.full(nodes, -1, np.int8)
    distance = np.zeros(nodes, np.float32)
    if not len(edges.left):
        return HeadGroups(head=head, relation=relation, distance=distance)
    is_head = ~_covered(nodes, edges)
    # Edges between a head and a node that is none, whichever of them comes first.
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
    """bool [N]: which nodes are near an earlier head."""
    order = np.lexsort((edges.right, edges.left))
    left, right = edges.left[order], edges.right[order]
    starts = np.flatnonzero(np.append(True, left[1:] != left[:-1]))
    ends = np.append(starts[1:], len(left))
    covered = np.zeros(nodes, dtype=bool)
    # A loop, because whether a node is a head depends on all before it. A microsecond for each node that has a pair.
    for node, start, end in zip(left[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        if not covered[node]:
            covered[right[start:end]] = True
    return covered
