"""The answer of a tree: which whole solution wins, now or at a smaller budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.select import groups
from aprm_jax.search.tree import Tree
from aprm_jax.tasks.protocols import Grader
from aprm_jax.verifiers.protocol import Scale

PICKS = ("best", "vote", "majority")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A whole solution.

    Attributes:
      node: its last step.
      steps: its texts.
      answer: what it arrives at; None where there is none.
      group: number of the answers that mean the same; None without one.
      scores: P(correct) of its steps, as the verifier states it; () without one.
      order: higher is better; -inf where the verifier did not read all.
      reward: the same as a probability.
      slots: hypotheses that arrived at it; their number is its multiplicity.
      rounds: in which each of them did.
    """

    node: int
    steps: tuple[str, ...]
    answer: str | None
    group: int | None
    scores: tuple[float, ...]
    order: float
    reward: float
    slots: tuple[int, ...]
    rounds: tuple[int, ...]

    @property
    def stated(self) -> float:
        """The reward; NaN where there was no verifier, or it did not read all."""
        return self.reward if self.scores and self.order > -math.inf else math.nan


def candidates(
    tree: Tree, grader: Grader, scale: Scale | None, aggregation: Aggregation
) -> list[Candidate]:
    """The whole solutions of a tree, the best first.

    Args:
      tree: of a search.
      grader: reads and compares answers.
      scale: of the verifier's scores; None where there was no verifier.
      aggregation: what whole solutions are ordered by.
    """
    nodes = tree.finished()
    paths = [[tree[n].score for n in tree.path(node)] for node in nodes]
    orders = rewards = [0.0] * len(nodes)
    stated: list[list[float]] = [[] for _ in nodes]
    if scale is not None and nodes:
        orders, rewards = aggregation(scale, paths)
        stated = [scale.probability(path).tolist() for path in paths]
    answers = [grader.answer(tree.steps(node)) for node in nodes]
    alike = groups(answers, grader.same_answer)
    found = [
        Candidate(
            node=node,
            steps=tree.steps(node),
            answer=answers[k],
            group=alike[k],
            scores=tuple(stated[k]),
            order=orders[k],
            reward=rewards[k],
            slots=tuple(tree[node].slots),
            rounds=tuple(tree[node].rounds),
        )
        for k, node in enumerate(nodes)
    ]
    return sorted(found, key=lambda c: (-c.order, tree.path(c.node)))


def pick(found: Sequence[Candidate], how: str) -> Candidate | None:
    """The best candidate of the answer that wins; None where none can.

    What the verifier did not read to its end wins by no score, and what has no answer
    never.

    Args:
      found: the best first, as `candidates` gives them.
      how: "best", "vote" (the answer with the largest sum of rewards) or "majority".
    """
    if how not in PICKS:
        raise ValueError(f"pick {how!r} is none of {', '.join(PICKS)}")
    usable = [c for c in found if c.group is not None]
    if how != "majority":
        usable = [c for c in usable if c.order > -math.inf]
    if how == "best":
        return next(iter(usable), None)
    totals: dict[int | None, float] = {}
    for c in usable:
        weight = max(c.reward, 0.0) if how == "vote" else 1.0
        totals[c.group] = totals.get(c.group, 0.0) + weight * len(c.slots)
    winner = max(totals, key=lambda group: totals[group], default=None)
    return next((c for c in usable if c.group == winner), None)


def anytime(
    tree: Tree, found: Sequence[Candidate], how: str, group: int
) -> list[dict[str, Any]]:
    """What would have been answered at smaller budgets, from the same search.

    Of a method with independent parts: with 1, 2, 4, ... of them, exactly what a search
    with so few slots gives. Of another: had it stopped after a round; rounds in which
    no solution was concluded are left out.

    Args:
      tree: of the search.
      found: its candidates.
      how: see `pick`.
      group: see `Method.group`.

    Returns:
      Budgets, ascending: "slots" or "rounds", the "tokens" drawn, the "answer".
    """
    if group:
        total = 1 + max((s for n in tree.nodes for s in n.slots), default=0)
        sizes = [group << k for k in range(total.bit_length()) if group << k < total]
        return [_with_slots(tree, found, how, n) for n in (*sizes, total)]
    rounds = sorted({r for c in found for r in c.rounds} | {len(tree.spent) - 1})
    return [
        {
            "rounds": r + 1,
            "tokens": tree.spent[r],
            "answer": _answer(_until(found, r), how),
        }
        for r in rounds
        if r >= 0
    ]


def _until(found: Sequence[Candidate], last: int) -> list[Candidate]:
    """What had been drawn by the end of a round, as often as it was."""
    return [
        dataclasses.replace(c, slots=slots)
        for c in found
        if (
            slots := tuple(
                s for s, r in zip(c.slots, c.rounds, strict=True) if r <= last
            )
        )
    ]


def _with_slots(
    tree: Tree, found: Sequence[Candidate], how: str, n: int
) -> dict[str, Any]:
    fewer = [
        dataclasses.replace(c, slots=slots)
        for c in found
        if (slots := tuple(s for s in c.slots if s < n))
    ]
    tokens = sum(
        drawn
        for node in tree.nodes
        for slot, drawn in zip(node.slots, node.drawn, strict=True)
        if slot < n
    )
    return {"slots": n, "tokens": tokens, "answer": _answer(fewer, how)}


def _answer(found: Sequence[Candidate], how: str) -> str | None:
    best = pick(found, how)
    return None if best is None else best.answer
