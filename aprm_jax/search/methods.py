"""Search methods: which nodes of a tree go on, how often, and which are given up.

A method is a pure policy. It yields what to expand and is sent the nodes that came of
it, for each expansion in turn, until it is done:

    method.search(tree)  ->  [Expand(node, slots), ...]  ->  [[child, ...], ...]  -> ...

The engine draws, merges equal siblings, scores, and counts; a method reads the tree.
Hypotheses have numbers (slots), which pick their randomness: with the same slots come
the same samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from aprm_jax.search.tree import ROOT, Tree


@dataclasses.dataclass(frozen=True)
class Expand:
    """A node that goes on.

    Attributes:
      node: which.
      slots: of its new children, one sample each.
      lane: of these.
      anew: whether its rows may have been left behind and its path is read again.
    """

    node: int
    slots: Sequence[int]
    lane: int = 0
    anew: bool = False


Policy = Generator[list[Expand], list[list[int]], None]


@runtime_checkable
class Method(Protocol):
    """See the methods below."""

    @property
    def group(self) -> int:
        """Slots of its smallest independent part, a search of its own; 0 = none."""
        ...

    def search(self, tree: Tree) -> Policy:
        """The policy on one tree."""
        ...


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """N independent solutions (Cobbe et al. 2021, arXiv 2110.14168)."""

    n: int
    group: int = dataclasses.field(default=1, init=False)

    def search(self, tree: Tree) -> Policy:
        """See `Method.search`; each hypothesis keeps its slot."""
        new = yield [Expand(ROOT, range(self.n))]
        while live := [n for n in _flat(new) if tree.is_open(n)]:
            new = yield [Expand(n, tuple(tree[n].slots)) for n in live]


@dataclasses.dataclass(frozen=True)
class Beam:
    """N partial solutions; the best N/M go on, each M times.

    Snell et al. 2024 (arXiv 2408.03314), section 5.2. A whole solution among the best
    keeps its place, and the search ends when all the best are whole.
    """

    n: int
    m: int
    group: int = dataclasses.field(default=0, init=False)

    def search(self, tree: Tree) -> Policy:
        """See `Method.search`."""
        yield [Expand(ROOT, range(self.n))]
        while True:
            kept = _best(tree, _leaves(tree), self.n // self.m)
            live = {n: held for n, held in kept.items() if tree.is_open(n)}
            if not live:
                return
            yield _expansions({n: held * self.m for n, held in live.items()})


@dataclasses.dataclass(frozen=True)
class DVTS:
    """Diverse verifier tree search: N/M subtrees, greedy in each, best of M a step.

    Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models".
    """

    n: int
    m: int

    @property
    def group(self) -> int:
        """Slots of a subtree."""
        return self.m

    def search(self, tree: Tree) -> Policy:
        """See `Method.search`; a subtree ends when its best is whole."""
        live = dict.fromkeys(range(self.n // self.m), ROOT)
        while live:
            new = yield [
                Expand(node, range(lane * self.m, (lane + 1) * self.m), lane)
                for lane, node in live.items()
            ]
            best = {
                lane: next(iter(_best(tree, nodes, 1)), None)
                for lane, nodes in zip(live, new, strict=True)
            }
            live = {
                lane: node
                for lane, node in best.items()
                if node is not None and tree.is_open(node)
            }


@dataclasses.dataclass(frozen=True)
class Rebase:
    """Reward-balanced search: children in proportion to softmax(reward / temperature).

    Wu et al. 2024 (arXiv 2408.00724). A leaf that ended costs 1 of the width.
    """

    width: int
    temperature: float = 0.2
    group: int = dataclasses.field(default=0, init=False)

    def search(self, tree: Tree) -> Policy:
        """See `Method.search`."""
        new = yield [Expand(ROOT, range(self.width))]
        ended = 0
        while True:
            nodes = list(dict.fromkeys(_flat(new)))
            live = tree.ranked(n for n in nodes if tree.is_open(n))
            ended += sum(len(tree[n].slots) for n in set(nodes) - set(live))
            if ended >= self.width or not live:
                return
            # What was not read cannot win by its score.
            read = [n for n in live if tree[n].order > -math.inf] or live
            counts = allocation(
                [tree[n].reward for n in read],
                [len(tree[n].slots) for n in read],
                self.width - ended,
                self.temperature,
            )
            chosen = dict.fromkeys(live, 0) | dict(zip(read, counts, strict=True))
            tree.drop([n for n, count in chosen.items() if not count])
            new = yield _expansions({n: c for n, c in chosen.items() if c})


def allocation(
    rewards: Sequence[float],
    copies: Sequence[int],
    width: int,
    temperature: float,
) -> list[int]:
    """How many children each node gets: of all together `width`.

    One copy after the other gets its softmax share of the width that is left, rounded
    up; shares are among those that have not had theirs.

    Args:
      rewards: of the nodes, best first.
      copies: equal samples that each stands for.
      width: children in all.
      temperature: of the softmax.
    """
    weights = np.exp((np.array(rewards) - max(rewards)) / temperature)
    rest, left = float(weights @ np.array(copies)), width
    out = []
    for weight, count in zip(weights.tolist(), copies, strict=True):
        given = 0
        for _ in range(count):
            # A hair below, so that rounding does not round an exact share up.
            share = left * min(1.0, weight / rest) if rest > 0 else left
            children = min(left, math.ceil(share - 1e-9))
            left, rest, given = left - children, rest - weight, given + children
        out.append(given)
    return out


def _flat(new: Iterable[Sequence[int]]) -> list[int]:
    return [node for nodes in new for node in nodes]


def _leaves(tree: Tree) -> list[int]:
    """The nodes that are at an end, or may go on."""
    return [
        i
        for i, n in enumerate(tree.nodes)
        if n.finished or (tree.is_open(i) and not n.children)
    ]


def _best(tree: Tree, nodes: Iterable[int], places: int) -> dict[int, int]:
    """The best nodes, and how many places each holds; the open rest is given up."""
    held: dict[int, int] = {}
    usable = [n for n in set(nodes) if tree.is_usable(n)]
    for node in tree.ranked(usable):
        taken = min(len(tree[node].slots), places)
        places -= taken
        if taken:
            held[node] = taken
        else:
            tree.drop([node])
    return held


def _expansions(children: dict[int, int]) -> list[Expand]:
    """So many children of each node, numbered through."""
    out, slot = [], 0
    for node, count in children.items():
        out.append(Expand(node, range(slot, slot + count)))
        slot += count
    return out
