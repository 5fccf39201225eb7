"""The answer of a tree: which whole solution wins, now or at a smaller budget."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.select import groups, heaviest
from aprm_jax.search.tree import Tree
from aprm_jax.tasks.protocols import Grader
from aprm_jax.verifiers.protocol import Scale

Same = Callable[[str, str], bool]  # whether an answer agrees with another

PICKS = ("best", "vote", "majority")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A whole solution.

    Attributes:
      node: its last step.
      steps: its texts.
      answer: what it arrives at; None where there is none.
      group: node of the candidate that speaks for the answers that mean the same, see
        `select.groups`; None without an answer.
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
    found = [
        Candidate(
            node=node,
            steps=tree.steps(node),
            answer=answers[k],
            group=None,
            scores=tuple(stated[k]),
            order=orders[k],
            reward=rewards[k],
            slots=tuple(tree[node].slots),
            rounds=tuple(tree[node].rounds),
        )
        for k, node in enumerate(nodes)
    ]
    found = _grouped(found, grader.same_answer)
    return sorted(found, key=lambda c: (-c.order, tree.path(c.node)))


def _grouped(found: Sequence[Candidate], same: Same) -> list[Candidate]:
    """Candidates with the groups that they form among themselves, in their order."""
    drawn = sorted(found, key=lambda c: c.node)
    votes = [len(c.slots) for c in drawn]
    alike = groups([c.answer for c in drawn], same, votes)
    of = {
        c.node: None if place is None else drawn[place].node
        for c, place in zip(drawn, alike, strict=True)
    }
    return [dataclasses.replace(c, group=of[c.node]) for c in found]


def pick(found: Sequence[Candidate], how: str) -> Candidate | None:
    """The best candidate of the answer that wins; None where none can.

    Where none of them is scored, it is the one that speaks for the answer. What the
    verifier did not read to its end wins by no score, and what has no answer never.

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
    weights = [max(c.reward, 0.0) if how == "vote" else 1.0 for c in usable]
    votes = [w * len(c.slots) for w, c in zip(weights, usable, strict=True)]
    winner = heaviest([c.group for c in usable], votes)
    if winner is None:
        return None
    best = next(c for c in usable if c.group == winner)
    if not math.isnan(best.stated):
        return best
    return next((c for c in usable if c.node == winner), best)


def anytime(
    tree: Tree, found: Sequence[Candidate], how: str, group: int, same: Same
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
      same: whether an answer agrees with another; votes at a smaller budget know
        nothing of what was drawn later.

    Returns:
      Budgets, ascending: "slots" or "rounds", the "tokens" drawn, the "answer".
    """
    same = functools.cache(same)
    if group:
        drawn = 1 + max((s for n in tree.nodes for s in n.slots), default=0)
        total = max(group, drawn)  # where the question did not fit none was
        sizes = [group << k for k in range(total.bit_length()) if group << k < total]
        return [_with_slots(tree, found, how, n, same) for n in (*sizes, total)]
    rounds = sorted({r for c in found for r in c.rounds} | {len(tree.spent) - 1})
    return [
        {
            "rounds": r + 1,
            "tokens": tree.spent[r],
            "answer": _answer(_until(found, r), how, same),
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
    tree: Tree, found: Sequence[Candidate], how: str, n: int, same: Same
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
    return {"slots": n, "tokens": tokens, "answer": _answer(fewer, how, same)}


def _answer(found: Sequence[Candidate], how: str, same: Same) -> str | None:
    # The best is that of no group.
    best = pick(found if how == "best" else _grouped(found, same), how)
    return None if best is None else best.answer
