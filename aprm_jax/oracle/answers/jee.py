"""The published marks of JEEBench for answers to its questions."""

from __future__ import annotations

import re
from typing import Literal, get_args

from aprm_jax.oracle.answers.equivalence import same_answer
from aprm_jax.oracle.answers.extraction import choice_letters

JeeKind = Literal["MCQ", "MCQ(multiple)", "Integer", "Numeric"]


def jee_score(given: str | None, expected: str, kind: JeeKind) -> float:
    """The mark of an answer to a JEEBench question, by its published rules.

    One option: 1 for the right one. Several: 1 for all of them, else 0.25 for each
    chosen one if no wrong one is chosen. Numbers: 1 within 0.01. No negative marks.
    Source: dair-iitd/jeebench, compute_metrics.py.

    Args:
      given: an answer or a solution; None scores 0.
      expected: the key: `B`, `ACD`, `7` or `0.75`.
      kind: the question's type, as the data set calls it.

    Raises:
      ValueError: an unknown kind, or a key that does not fit it.
    """
    if kind not in get_args(JeeKind):
        raise ValueError(f"kind is {kind!r}; known are {', '.join(get_args(JeeKind))}")
    if kind in ("Integer", "Numeric"):
        if not re.fullmatch(r"\s*[-+]?[0-9]*\.?[0-9]+\s*", expected):
            raise ValueError(f"the key of a {kind} question is {expected!r}, no number")
        return float(same_answer(given, expected, kind="number", tolerance=0.01).equal)
    if not re.fullmatch("[A-D]+", expected) or (kind == "MCQ" and len(expected) > 1):
        raise ValueError(f"the key of a {kind} question is {expected!r}, no option")
    letters = choice_letters(given, several=True) if given else None
    chosen, right = set(letters or ""), set(expected)
    if chosen == right:
        return 1.0
    return 0.25 * len(chosen) if kind == "MCQ(multiple)" and chosen <= right else 0.0
