"""Grade-school word problems (GSM8K and data of its form) as a domain.

A step is a line of the human solution; the last one is `#### N`. The calculator
annotations `<<48/2=24>>` stay in the text: the solver writes them, the oracle reads
them. Data whose steps have none (ProcessBench) may be scored by a model that was
trained with `strip_annotations`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from aprm_jax.data.domain import Problem
from aprm_jax.data.jsonl import (
    RowError,
    Rows,
    read_rows,
    require_bool,
    require_dict,
    require_str,
)
from aprm_jax.data.sources import read_source, source_path
from aprm_jax.data.text_domain import TextDomain, hold_out, stated
from aprm_jax.oracle.steps.calculator import FINAL, final_answer, is_final
from aprm_jax.oracle.steps.claims import ANNOTATION
from aprm_jax.oracle.steps.literals import read_stated
from aprm_jax.oracle.steps.text import TextOracle

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@dataclasses.dataclass(frozen=True)
class ModelSolution:
    """A solution that some model wrote, with its outcome.

    Attributes:
      question: the problem.
      steps: its lines; a closing `A: N` is rewritten as `#### N`.
      is_correct: whether the final answer is right.
      model: who wrote it.
    """

    question: str
    steps: tuple[str, ...]
    is_correct: bool
    model: str


class Gsm8kDomain(TextDomain):
    """Implements `Domain` on question/answer rows of GSM8K's form.

    Args:
      train: path or name (see `data/sources.py`) of the training rows; the dev split
        is taken out of them.
      test: path or name of the test rows.
      seed: of the order in which training problems are drawn.
      tokenizer: a trained one, or a folder that holds one; None trains a BPE on the
        training text, the dev split left out.
      vocab_size: of the tokenizer to train.
      dev_count: questions held out of the training rows, chosen by a hash of what they
        say, so that neither order nor seed changes the choice; see `held_out`.
      strip_annotations: removes `<<...>>` from the steps. The oracle then reads bare
        equalities, and knows less.
      oracle: judges the steps; None reads calculator annotations and bare sums.
      quarantine_dir: where bad rows are recorded.
      max_bad_share: share of bad rows past which reading stops.
    """

    name = "gsm8k"

    def __init__(
        self,
        *,
        train: str,
        test: str,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
        vocab_size: int = 2048,
        dev_count: int = 500,
        strip_annotations: bool = False,
        oracle: TextOracle | None = None,
        quarantine_dir: str | Path | None = None,
        max_bad_share: float = 0.01,
    ):
        parse = functools.partial(parse_row, strip_annotations=strip_annotations)

        def read(source: str, split: str) -> Rows[Problem]:
            path = source_path(source)
            return read_source(
                source,
                split if path is None or path.is_dir() else "",
                parse,
                quarantine_dir=quarantine_dir,
                max_bad_share=max_bad_share,
            )

        rows, test_rows = read(train, "train"), read(test, "test")
        self.num_bad = rows.num_bad + test_rows.num_bad
        kept, dev = hold_out(rows, dev_count, train)
        super().__init__(
            kept,
            {"dev": dev, "test": tuple(test_rows)},
            seed=seed,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            oracle=oracle,
        )

    def answer(self, steps: Sequence[str]) -> str | None:
        """The number of the first `####` line; None without one."""
        for step in steps:
            if is_final(step):
                return _canonical(step)
        return None

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Equality as numbers: `1,080.0` equals `1080`."""
        if given is None:
            return False
        a, b = read_stated(given), read_stated(expected)
        if a is None or b is None:
            return given.strip() == expected.strip()
        return a.value == b.value


def parse_row(row: dict, *, strip_annotations: bool = False) -> Problem:
    """A problem from `{"question": str, "answer": str}`.

    Raises:
      RowError: a field is missing, or the solution does not end in `#### N`.
    """
    question = require_str(row, "question")
    steps = _lines(require_str(row, "answer"))
    if strip_annotations:
        steps = [strip(step) for step in steps]
    steps = [step for step in steps if step]
    if not is_final(steps[-1]):
        raise RowError(f"the solution does not end in {FINAL} and a number")
    answer = _canonical(steps[-1])
    if final_answer(steps[-1]) is None or answer is None:
        raise RowError(f"the answer is not a number: {steps[-1][:60]!a}")
    if any(is_final(step) for step in steps[:-1]):
        raise RowError(f"more than one line starts with {FINAL}")
    if len(steps) == 1:
        raise RowError("the solution has no step before its answer")
    return Problem(question, tuple(steps), answer)


def _lines(solution: str) -> list[str]:
    """The lines; white space at their ends belongs to the breaks between them."""
    return [line.strip() for line in solution.split("\n")]


def strip(step: str) -> str:
    """A step without its calculator annotations."""
    return ANNOTATION.sub("", step).strip()


def read_model_solutions(
    path: str | Path,
    *,
    models: Sequence[str] = MODELS,
    strip_annotations: bool = False,
    quarantine_dir: str | Path | None = None,
    max_bad_share: float = 0.01,
) -> list[ModelSolution]:
    """Reads `example_model_solutions.jsonl`: per line, solutions of several models.

    Solutions without a closing `A: N` (models that never finished) are kept as they
    are; their outcome is a fact too.
    """

    def parse(row: dict) -> list[ModelSolution]:
        question = require_str(row, "question")
        found = []
        for model in models:
            entry = require_dict(row, model)
            steps = _lines(require_str(entry, "solution"))
            if steps[-1].startswith("A:"):
                steps[-1] = f"{FINAL} {steps[-1].removeprefix('A:').strip()}"
            if strip_annotations:
                steps = [strip(step) for step in steps]
            kept = tuple(step for step in steps if step)
            outcome = require_bool(entry, "is_correct")
            found.append(ModelSolution(question, kept, outcome, model))
        return found

    rows: Rows[list[ModelSolution]] = read_rows(
        path, parse, quarantine_dir=quarantine_dir, max_bad_share=max_bad_share
    )
    return [solution for row in rows for solution in row]


def _canonical(step: str) -> str | None:
    """`#### 1,080` as `1080`; whatever stands there if it is no number."""
    text = stated(step)
    number = read_stated(text)
    if number is None:
        return text or None
    value: Fraction = number.value
    if value.denominator == 1:
        return str(value.numerator)
    return text.replace(",", "").lstrip("$€£ ").rstrip(".")
