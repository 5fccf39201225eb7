"""What came of one question's search, as a program or a line of a file has it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from aprm_jax.search.engine import Engine
from aprm_jax.search.ledger import Ledger
from aprm_jax.search.pick import Candidate, anytime, candidates, pick
from aprm_jax.search.tree import ROOT, Tree
from aprm_jax.tasks.protocols import Grader


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One question's answer, and how it was come by.

    Attributes:
      question: the problem.
      answer: the one that won; None where no solution was whole, or none was read.
      solution: the steps of the best solution that arrives at it; () without one.
      scores: P(correct) of these steps, as the verifier states it; () without one.
      score: of the solution, as a probability; NaN where nobody says.
      why: what was in the way where there is no answer, else "".
      candidates: every whole solution, the best first.
      curve: what would have been answered at smaller budgets; see `pick.anytime`.
      ledger: what it cost.
      tree: all that was drawn.
    """

    question: str
    answer: str | None
    solution: tuple[str, ...]
    scores: tuple[float, ...]
    score: float
    why: str
    candidates: list[Candidate]
    curve: list[dict[str, Any]]
    ledger: Ledger
    tree: Tree = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """All but the tree; what is NaN is null."""
        return {
            "question": self.question,
            "answer": self.answer,
            "solution": list(self.solution) if self.answer is not None else None,
            "scores": listed(self.scores),
            "score": listed((self.score,))[0],
            "why": self.why,
            "candidates": [
                {
                    "answer": c.answer,
                    "group": c.group,
                    "score": listed((c.stated,))[0],
                    "count": len(c.slots),
                    "steps": list(c.steps),
                    "scores": listed(c.scores),
                }
                for c in self.candidates
            ],
            "curve": self.curve,
            "ledger": self.ledger.to_json(),
        }


def outcome(tree: Tree, engine: Engine, grader: Grader, how: str) -> Outcome:
    """The outcome of a tree.

    Args:
      tree: that `engine` made.
      engine: its verifier and method say what the scores and slots mean.
      grader: reads and compares answers.
      how: of `pick.PICKS`.
    """
    scale = engine.verifier.scale if engine.verifier else None
    found = candidates(tree, grader, scale, engine.aggregation)
    best = pick(found, how)
    return Outcome(
        question=tree.question,
        answer=best.answer if best else None,
        solution=best.steps if best else (),
        scores=best.scores if best else (),
        score=best.stated if best else math.nan,
        why="" if best else _why(tree, found),
        candidates=found,
        curve=anytime(tree, found, how, engine.method.group, grader.same_answer),
        ledger=tree.ledger,
        tree=tree,
    )


def tree_json(tree: Tree) -> list[dict[str, Any]]:
    """The nodes of a tree, for a figure: each before those that follow it."""
    return [
        {
            "parent": n.parent,
            "text": n.text,
            "score": None if math.isnan(n.score) else n.score,
            "reward": n.reward,
            "count": len(n.slots),
            "finished": n.finished,
            "dropped": n.dropped,
        }
        for n in tree.nodes
    ]


def listed(values: tuple[float, ...]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if math.isnan(value) else value for value in values]


def _why(tree: Tree, found: list[Candidate]) -> str:
    """What was in the way of an answer."""
    if any(c.group is not None for c in found):
        return "the verifier read no whole solution to its end"
    if found:
        return "no whole solution has an answer"
    if not tree[ROOT].children:
        return "the question does not fit the solver"
    return "no solution was concluded"
