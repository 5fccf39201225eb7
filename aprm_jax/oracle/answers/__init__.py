r"""Final answers: finds the one that a solution states, tells whether two agree.

    >>> extract("... so there are $\\boxed{\\frac{14}{3}}$ liters.")
    '\\frac{14}{3}'
    >>> same_answer("14/3", "4\\frac{2}{3}").equal
    True

The rules are those that public graders share: units and currency signs may be left out
but not contradicted (12 is 12 apples, and 12 apples are no 12 oranges; synonyms count
as other things, for a wrong answer that passes costs more), `10%` is 10 or 0.1, lists
have no order but tuples do, `x = 5` is 5, and a decimal agrees with what it is the
rounding of (from three digits on). Nothing here raises on any text, and nothing is
evaluated but by our own bounded parser.
"""

from aprm_jax.oracle.answers.equivalence import (
    AnswerVerdict,
    Kind,
    Outcome,
    Pool,
    grade,
    same_answer,
    within,
)
from aprm_jax.oracle.answers.extraction import Style, choice_letters, extract
from aprm_jax.oracle.answers.jee import jee_score

__all__ = [
    "AnswerVerdict",
    "Kind",
    "Outcome",
    "Pool",
    "Style",
    "choice_letters",
    "extract",
    "grade",
    "jee_score",
    "same_answer",
    "within",
]
