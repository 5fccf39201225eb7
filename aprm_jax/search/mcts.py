"""MCTS*: Monte-Carlo tree search that a value guides, as in ReST-MCTS*."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from aprm_jax.search.methods import Expand, Policy
from aprm_jax.search.tree import ROOT, Tree


@dataclasses.dataclass(frozen=True)
class MCTS:
    """Zhang et al. 2024, ReST-MCTS* (arXiv 2406.03816), section 3.2.

    An iteration selects a leaf by V + c sqrt(2 ln N / n), draws its children, rolls on
    greedily from the best of them, V <- (1 - alpha) V + alpha max V of the roll, and
    makes the value of each node above the mean of its children's by their visits. It
    ends when it selects a whole solution whose value is `end`.

    Every iteration that draws takes as many rounds, so that searches side by side
    select at the same time. What a roll wrote is a candidate where it is whole.

    Attributes:
      iterations: at most.
      branch: children of a leaf.
      roll_steps: steps of a roll.
      roll_branch: samples of each, of which the best that is whole goes on.
      exploration: c; published 0.4 in evaluation, 0.5 in self-training.
      unvisited: what a child without a visit has in the place of its bonus.
      alpha: weight of the roll.
      end: the value of a whole solution that is good enough.
    """

    iterations: int = 50
    branch: int = 3
    roll_steps: int = 2
    roll_branch: int = 1
    exploration: float = 0.4
    unvisited: float = 1.0
    alpha: float = 0.5
    end: float = 0.9
    group: int = dataclasses.field(default=0, init=False)

    def search(self, tree: Tree) -> Policy:
        """See `Method.search`."""
        seen = _Statistics(self)
        for iteration in range(self.iterations):
            leaf = seen.select()
            if tree[leaf].finished and seen.value[leaf] >= self.end:
                return
            if tree.is_open(leaf):
                slots = range(self.branch)
                [found] = yield [Expand(leaf, slots, anew=iteration > 0)]
                if found:
                    seen.expand(tree, leaf, found)
                    child = seen.best(leaf)
                    best = yield from self._roll(tree, child)
                    seen.rolled(child, best)
                else:
                    yield from self._roll(tree, leaf)  # closed now: rounds to wait
            seen.propagate(tree, leaf)
            if not any(tree.is_open(n) for n in seen.leaves()):
                return  # all that is left are visits

    def _roll(self, tree: Tree, node: int):
        """Rolls on for as many rounds as always; the best value, None without one."""
        best = None
        for _ in range(self.roll_steps):
            if not tree.is_open(node):
                yield []
                continue
            [found] = yield [Expand(node, range(self.roll_branch))]
            if found:
                # What was cut off ends a roll only where nothing else was drawn.
                usable = [n for n in found if tree.is_usable(n)]
                node = tree.ranked(usable or found)[0]
                best = max(best or 0.0, tree[node].reward)
        return best


class _Statistics:
    """Values and visits of the nodes that were selected or expanded."""

    def __init__(self, method: MCTS):
        self._method = method
        self.value: dict[int, float] = {ROOT: 0.0}
        self._visits: Counter[int] = Counter()
        self._children: dict[int, list[int]] = {}

    def select(self) -> int:
        """The leaf that the best children lead to."""
        node = ROOT
        while node in self._children:
            node = self.best(node)
        return node

    def best(self, node: int) -> int:
        """The child with the highest bound; of equals the first drawn."""
        return max(self._children[node], key=lambda child: self._bound(node, child))

    def leaves(self) -> list[int]:
        """The nodes that may be selected."""
        return [node for node in self.value if node not in self._children]

    def expand(self, tree: Tree, leaf: int, found: list[int]) -> None:
        """Its children, and what the verifier says of them; what was cut off is 0."""
        self._children[leaf] = found
        for node in found:
            self.value[node] = tree[node].reward

    def rolled(self, child: int, best: float | None) -> None:
        """A visit; a solution that is whole, or goes no further, keeps its value."""
        if best is not None:
            alpha = self._method.alpha
            self.value[child] = (1 - alpha) * self.value[child] + alpha * best
        self._visits[child] += 1

    def propagate(self, tree: Tree, node: int) -> None:
        """Visits, and values as means, from a node up to the root."""
        for above in (*reversed(tree.path(node)), ROOT):
            self._visits[above] += 1
            children = self._children.get(above, [])
            visits = sum(self._visits[c] for c in children)
            if visits:
                total = sum(self.value[c] * self._visits[c] for c in children)
                self.value[above] = total / visits

    def _bound(self, node: int, child: int) -> float:
        visits, method = self._visits[child], self._method
        if not visits:
            return self.value[child] + method.unvisited
        bonus = math.sqrt(2 * math.log(self._visits[node]) / visits)
        return self.value[child] + method.exploration * bonus
