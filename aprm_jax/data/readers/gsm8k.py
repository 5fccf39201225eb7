"""GSM8K (Cobbe et al., arXiv 2110.14168): word problems with people's solutions."""

from __future__ import annotations

from aprm_jax.data import gsm8k
from aprm_jax.data.readers.base import MathProblem, ProblemSource


def parse(row: dict) -> list[MathProblem]:
    """A problem; its steps are the solution's lines, `#### N` last."""
    problem = gsm8k.parse_row(row)
    return [
        MathProblem(
            problem.question,
            problem.answer,
            problem.steps,
        )
    ]


SOURCES = (
    ProblemSource(
        "gsm8k",
        parse,
        hub=("datasets:openai/gsm8k",),
        tfds="tfds:gsm8k",
    ),
)
