"""Which photos of a model really hang together.

The global mapper reports photos with no observations as registered, and joins groups at wrong places and scales; photos that share at
least 15 points with others of their group never were wrong in 20 measured sets (research/sfm.md B6).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

MIN_SHARED_POINTS = 15
_POINTS_AT_A_TIME = 8192

Node = TypeVar("Node", bound=Hashable)


def connected_groups(nodes: Sequence[Node], edges: Iterable[tuple[Node, Node]]) -> list[list[Node]]:
    """Return the connected groups of a graph, largest first; within equal sizes and groups in the order of ``nodes``."""
    parent = {node: node for node in nodes}

    def root(node: Node) -> Node:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in edges:
        parent[root(first)] = root(second)
    groups: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        groups[root(node)].append(node)
    return sorted(groups.values(), key=len, reverse=True)


def shared_points(
    tracks: Sequence[Sequence[int]],
    n_images: int,
) -> npt.NDArray[np.int64]:
    """Return how many points each two images share, [M, M]; ``tracks`` lists the image indices that see each point."""
    counts = np.zeros((n_images, n_images))
    for start in range(0, len(tracks), _POINTS_AT_A_TIME):
        some = tracks[start : start + _POINTS_AT_A_TIME]
        seen = np.zeros((len(some), n_images), np.float32)
        rows = np.repeat(np.arange(len(some)), [len(track) for track in some])
        seen[rows, np.concatenate([np.asarray(track, np.int64) for track in some])] = 1.0
        counts += seen.T @ seen
    return counts.astype(np.int64)


def sound_groups(
    tracks: Sequence[Sequence[int]],
    n_images: int,
    least: int = MIN_SHARED_POINTS,
) -> list[list[int]]:
    """Return the groups of image indices joined by at least ``least`` shared points, largest first."""
    counts = shared_points(tracks, n_images)
    first, second = np.nonzero(np.triu(counts >= least, k=1))
    return connected_groups(range(n_images), zip(first.tolist(), second.tolist(), strict=True))
