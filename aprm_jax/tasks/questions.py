"""Questions with answers as a domain: anybody's own, or those of a data set's reader.

Answers may be numbers, formulas or words, and are compared by `oracle.answers`. Where a
problem has a solution, its lines are the steps, and the last step is `#### ANSWER`;
where it has none, that line is the only step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Unpack

from aprm_jax.data.jsonl import Limits, Rows
from aprm_jax.data.labelled import question_id
from aprm_jax.data.problem import Problem
from aprm_jax.data.readers import ProblemSource, read_problems, sources
from aprm_jax.data.readers.base import MathProblem
from aprm_jax.data.readers.questions import parse_asked
from aprm_jax.data.sources import read_source
from aprm_jax.oracle.steps.calculator import FINAL, is_final
from aprm_jax.tasks.text import TextDomain

READER = "questions"


class QuestionsDomain(TextDomain):
    """Implements `Domain` on problems of one of `data.readers`.

    Its sources are "READER:SOURCE", or a source of the reader "questions".
    """

    name = "questions"

    def _read(self, source: str, split: str, limits: Limits) -> Sequence[Problem]:
        name, of_reader = reader_of(source)
        rows = read_problems(of_reader, name, **limits)
        self.num_bad += rows.num_bad
        return _problems(rows, source)


def reader_of(text: str) -> tuple[str, str]:
    """(reader, source) of "READER:SOURCE", or of a source alone."""
    name, colon, source = text.partition(":")
    if colon and isinstance(sources().get(name), ProblemSource):
        return name, source
    return READER, text


def read_asked(text: str, **limits: Unpack[Limits]) -> Rows[MathProblem]:
    """Questions that somebody wants answered; an answer of "" is none that is known.

    Args:
      text: "READER:SOURCE", or a source of questions whose answers may be missing.
      limits: what is done about bad rows.

    Raises:
      DataError: it cannot be used, or too many rows are bad.
    """
    name, source = reader_of(text)
    if name != READER:
        return read_problems(source, name, **limits)
    return read_source(source, "", parse_asked, **limits)


def _problems(rows: Iterable[MathProblem], source: str) -> list[Problem]:
    """The problems, each text once; a line about what is odd in them."""
    problems: dict[tuple[str, tuple[str, ...]], Problem] = {}
    answers: dict[str, set[str]] = {}
    bare = repeated = 0
    for row in rows:
        steps = [step for step in row.steps if not is_final(step)]
        stated = (*steps, f"{FINAL} {row.answer}")
        problem = Problem(row.question, stated, row.reference)
        name = question_id(row.question)
        answers.setdefault(name, set()).add(row.answer)
        if (name, problem.steps) in problems:
            repeated += 1
            continue
        problems[name, problem.steps] = problem
        bare += not steps
    several = sum(len(given) > 1 for given in answers.values())
    for count, what in (
        (repeated, "rows repeat another one and are left out"),
        (several, "questions are there with more than one answer"),
        (bare, "questions have no solution: their answer is their only step"),
    ):
        if count:
            logging.getLogger("aprm_jax").info("%s: %d %s", source, count, what)
    return list(problems.values())
