"""Questions with answers as a domain: anybody's own, or those of a data set's reader.

Answers may be numbers, formulas or words, and are compared by `oracle.answers`. Where a
problem has a solution, its lines are the steps, and the last step is `#### ANSWER`;
where it has none, that line is the only step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.problem import Problem
from aprm_jax.data.readers import ProblemSource, read_problems, sources
from aprm_jax.data.readers.base import MathProblem
from aprm_jax.oracle.steps.calculator import FINAL, is_final
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.tasks.text import TextDomain, hold_out

READER = "questions"


class QuestionsDomain(TextDomain):
    """Implements `Domain` on problems of one of `data.readers`.

    Args:
      train: "READER:SOURCE", or a source of the reader "questions".
      test: the same for the test problems; "" holds some of the others out.
      seed: see `TextDomain`.
      tokenizer: likewise.
      vocab_size: likewise.
      dev_count: questions held out as the dev split, and as the test split where it
        has no source of its own; see `drawing.held_out`.
      oracle: see `TextDomain`.
      quarantine_dir: where bad rows are recorded.
      max_bad_share: share of bad rows past which reading stops.

    Raises:
      DataError: a source cannot be used, or holds too few questions.
    """

    name = "questions"

    def __init__(
        self,
        *,
        train: str,
        test: str = "",
        seed: int = 0,
        tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
        vocab_size: int = 2048,
        dev_count: int = 0,
        oracle: TextOracle | None = None,
        quarantine_dir: str | Path | None = None,
        max_bad_share: float = 0.01,
    ):
        def read(text: str) -> list[Problem]:
            name, source = reader_of(text)
            rows = read_problems(
                source,
                name,
                quarantine_dir=quarantine_dir,
                max_bad_share=max_bad_share,
            )
            return _problems(rows, text)

        kept, dev = hold_out(read(train), dev_count, train)
        if test:
            tests: Sequence[Problem] = read(test)
            held = {question_id(p.question) for p in tests}
            kept = tuple(p for p in kept if question_id(p.question) not in held)
            if not kept:
                raise DataError(f"{train}: every question is one of {test}")
        else:
            kept, tests = hold_out(kept, dev_count, train)
        super().__init__(
            kept,
            {"dev": dev, "test": tuple(tests)},
            seed=seed,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            oracle=oracle,
        )


def reader_of(text: str) -> tuple[str, str]:
    """(reader, source) of "READER:SOURCE", or of a source alone."""
    name, colon, source = text.partition(":")
    if colon and isinstance(sources().get(name), ProblemSource):
        return name, source
    return READER, text


def _problems(rows: Iterable[MathProblem], source: str) -> list[Problem]:
    """The problems, each text once; a line about what is odd in them."""
    found: dict[tuple[str, tuple[str, ...]], Problem] = {}
    answers: dict[str, set[str]] = {}
    bare = repeated = 0
    for row in rows:
        steps = [step for step in row.steps if not is_final(step)]
        problem = Problem(row.question, (*steps, f"{FINAL} {row.answer}"), row.answer)
        name = question_id(row.question)
        answers.setdefault(name, set()).add(row.answer)
        if (name, problem.steps) in found:
            repeated += 1
            continue
        found[name, problem.steps] = problem
        bare += not steps
    several = sum(len(given) > 1 for given in answers.values())
    for count, what in (
        (repeated, "rows repeat another one and are left out"),
        (several, "questions are there with more than one answer"),
        (bare, "questions have no solution: their answer is their only step"),
    ):
        if count:
            logging.getLogger("aprm_jax").info("%s: %d %s", source, count, what)
    return list(found.values())
