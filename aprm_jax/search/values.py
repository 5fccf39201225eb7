"""Values of a search tree's steps, as ReST-MCTS* infers them from the right answers.

Zhang et al. 2024 (arXiv 2406.03816), section 3. A node is a partial solution; nodes are
given by their parents, each before those that follow it, the question first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def reasoning_distances(
    parents: Sequence[int], right: Sequence[bool | None]
) -> list[float]:
    """The fewest steps from each node to a right answer in the tree; inf for none.

    Args:
      parents: index of the node before each; -1 of the question.
      right: of a whole solution whether its answer is right, of other nodes None.
    """
    distances = [0.0 if verdict else math.inf for verdict in right]
    for node in range(len(parents) - 1, 0, -1):
        above = parents[node]
        distances[above] = min(distances[above], distances[node] + 1)
    return distances


def value_labels(parents: Sequence[int], right: Sequence[bool | None]) -> list[float]:
    """The value of each node: V_k = max(0, V_{k-1} + (1 - V_{k-1}) r / (1 + m)).

    V of the question is 0. A step from which the tree arrives at a right answer has
    r = 1, and m is the distance that is left; so the shortest right solution rises in
    even steps to 1. Any other step has r = -1 and comes no nearer: its m is that of the
    node before it.

    Args:
      parents: see `reasoning_distances`.
      right: likewise.

    Returns:
      A value in [0, 1] for each node; NaN for one that no whole solution goes through,
      and for all where no answer is right: then nothing is known of distances.
    """
    distances = reasoning_distances(parents, right)
    if not parents or math.isinf(distances[0]):
        return [math.nan] * len(parents)
    values = [0.0]
    for node in range(1, len(parents)):
        above = parents[node]
        sign = 1 if distances[node] < math.inf else -1
        if sign < 0:  # below it nothing is right: those distances are not read again
            distances[node] = distances[above]
        before = values[above]
        values.append(max(0.0, before + sign * (1 - before) / (1 + distances[node])))
    known = _on_whole(parents, right)
    return [v if seen else math.nan for v, seen in zip(values, known, strict=True)]


def _on_whole(parents: Sequence[int], right: Sequence[bool | None]) -> list[bool]:
    """Whether a whole solution goes through each node, or ends there."""
    known = [verdict is not None for verdict in right]
    for node in range(len(parents) - 1, 0, -1):
        known[parents[node]] |= known[node]
    return known
