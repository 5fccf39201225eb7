"""The tree of one question's search: its nodes are steps, its root the question."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from aprm_jax.search.ledger import Ledger
from aprm_jax.solvers.protocol import Written

ROOT = 0


@dataclasses.dataclass
class Node:
    """A step, which equal samples after the same steps share.

    Attributes:
      parent: the node before it.
      text: the step; of the root, the question.
      depth: steps up to and with it.
      lane: the independent part of the search that it belongs to.
      closed: whether another step can follow.
      finished: whether it concludes a solution.
      slots: numbers of the hypotheses that drew it: its multiplicity is their count.
      drawn: tokens that each of them drew for it.
      rounds: of the search, in which each of them drew it.
      score: the verifier's, NaN where it was not read.
      order: of the solution up to it: higher is better; -inf where not all was read.
      reward: the same as a probability, or what stands for one.
      children: nodes that follow it.
      dropped: whether the method has given it up.
    """

    parent: int
    text: str
    depth: int = 0
    lane: int = 0
    closed: bool = True
    finished: bool = False
    slots: list[int] = dataclasses.field(default_factory=list)
    drawn: list[int] = dataclasses.field(default_factory=list)
    rounds: list[int] = dataclasses.field(default_factory=list)
    score: float = math.nan
    order: float = 0.0
    reward: float = 0.0
    children: list[int] = dataclasses.field(default_factory=list)
    dropped: bool = False


class Tree:
    """What is known of one question.

    Args:
      question: the root.
      max_steps: deeper nodes are not gone on from.

    Attributes:
      nodes: in the order in which they were drawn.
      ledger: what they cost.
      spent: tokens drawn by the end of each round.
    """

    def __init__(self, question: str, max_steps: int):
        self.nodes = [Node(-1, question)]
        self.ledger = Ledger()
        self.spent: list[int] = []
        self._max_steps = max_steps
        self._known: dict[tuple[int, int, str, bool, bool], int] = {}

    def __getitem__(self, node: int) -> Node:
        return self.nodes[node]

    @property
    def question(self) -> str:
        """The text of the root."""
        return self.nodes[ROOT].text

    @property
    def round(self) -> int:
        """The number of the round that is drawn now, from 0."""
        return len(self.spent)

    def add(self, parent: int, lane: int, slot: int, step: Written) -> int:
        """The node of a step that a hypothesis drew; an equal sibling if there is."""
        key = (parent, lane, step.text, step.closed, step.finished)
        node = self._known.setdefault(key, len(self.nodes))
        if node == len(self.nodes):
            before = self.nodes[parent]
            self.nodes.append(
                Node(
                    parent,
                    step.text,
                    before.depth + 1,
                    lane,
                    step.closed and before.depth + 1 < self._max_steps,
                    step.finished,
                )
            )
            before.children.append(node)
        self.nodes[node].slots.append(slot)
        self.nodes[node].drawn.append(len(step.tokens))
        self.nodes[node].rounds.append(self.round)
        return node

    def path(self, node: int) -> list[int]:
        """The nodes from the first step to `node`."""
        out = []
        while node != ROOT:
            out.append(node)
            node = self.nodes[node].parent
        return out[::-1]

    def steps(self, node: int) -> tuple[str, ...]:
        """The steps up to and with a node."""
        return tuple(self.nodes[n].text for n in self.path(node))

    def is_open(self, node: int) -> bool:
        """Whether a method may go on from it."""
        n = self.nodes[node]
        return n.closed and not n.finished and not n.dropped

    def is_usable(self, node: int) -> bool:
        """Whether it is whole, or may go on: nothing else is scored, or wins."""
        return self.nodes[node].finished or self.is_open(node)

    def finished(self) -> list[int]:
        """The whole solutions, dropped or not."""
        return [i for i, n in enumerate(self.nodes) if n.finished]

    def ranked(self, nodes: Iterable[int]) -> list[int]:
        """Best first; of equals the one whose first different step was drawn first.

        So a verifier that tells nothing apart chooses a plain sample, not a short one.
        """
        return sorted(nodes, key=lambda n: (-self.nodes[n].order, self.path(n)))

    def drop(self, nodes: Sequence[int]) -> None:
        """Gives nodes up; a whole solution stays a candidate."""
        for node in nodes:
            self.nodes[node].dropped = True
