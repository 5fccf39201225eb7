"""Problems in plain text, whose solutions end in a line `#### ANSWER`, as a domain."""

from __future__ import annotations

import abc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from transformers import PreTrainedTokenizerFast

from aprm_jax.data.bpe import given_or_trained
from aprm_jax.data.drawing import Epochs, held_out
from aprm_jax.data.jsonl import DataError, Limits
from aprm_jax.data.labelled import question_id
from aprm_jax.data.problem import Problem
from aprm_jax.oracle.steps.calculator import KINDS, CalculatorOracle
from aprm_jax.oracle.steps.text import KINDS as TEXT_KINDS
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Oracle
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.tasks.word_corruption import WordCorruptor


class TextDomain(AnswerGrader, WordCorruptor, abc.ABC):
    """Problems in plain text, with what grades, corrupts and judges them.

    Args:
      train: where training problems are read from; those that `test` has are left out,
        and the dev split is taken out of the others.
      test: the same for the test problems, which nothing is trained on; "" holds some
        of the others out.
      seed: of the order in which training problems are drawn.
      tokenizer: a trained one, or a folder that holds one; None trains a BPE on the
        training text, the dev split left out.
      vocab_size: of the tokenizer to train.
      dev_count: questions held out as the dev split, and as the test split where it
        has no source of its own, chosen by a hash of what they say, so that neither
        order nor seed changes the choice; 0 for a share; see `drawing.held_out`.
      oracle: judges the steps; None reads calculator annotations and bare sums.
      limits: what is done about bad rows.

    Attributes:
      held_out: `question_id` of the questions of dev and test.

    Raises:
      DataError: a source cannot be used, or holds too few questions.
    """

    splits: tuple[str, ...] = ("dev", "test")
    num_bad = 0

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
        **limits: Unpack[Limits],
    ):
        found = self._read(train, "train", limits)
        if test:
            tests = tuple(self._read(test, "test", limits))
            # Before dev is chosen: thresholds come from it, and are no test's.
            kept, dev = hold_out(_others(found, tests, train, test), dev_count, train)
        else:
            kept, dev = hold_out(found, dev_count, train)
            kept, tests = hold_out(kept, dev_count, train)
        self._train = Epochs(kept, seed)
        self._evaluation = {"dev": dev, "test": tests}
        self.held_out = frozenset(question_id(p.question) for p in (*dev, *tests))
        self.oracle: Oracle = oracle or CalculatorOracle()
        self.kinds = KINDS if oracle is None else TEXT_KINDS
        self.tokenizer: PreTrainedTokenizerFast = given_or_trained(
            tokenizer, self.texts(), vocab_size
        )

    @abc.abstractmethod
    def _read(self, source: str, split: str, limits: Limits) -> Sequence[Problem]:
        """The problems of a source; counts bad rows in `num_bad`."""

    @property
    def num_train(self) -> int:
        """How many training problems there are; one epoch."""
        return len(self._train)

    def texts(self) -> list[str]:
        """Every line of the training text, for training a tokenizer."""
        return [text for p in self._train.items for text in (p.question, *p.steps)]

    def corpus(self, index: int) -> Problem:
        """The same as `train`: the authors are people, and right."""
        return self.train(index)

    def train(self, index: int) -> Problem:
        """Training problem number `index`; each epoch is a permutation of its own."""
        return self._train[index]

    def problems(self, split: str, count: int) -> Sequence[Problem]:
        """The first `count` problems of "dev" or "test"; all where there are fewer."""
        if split not in self._evaluation:
            raise ValueError(f"no split {split!r}; there are {', '.join(self.splits)}")
        return self._evaluation[split][:count]

    def is_held_out(self, question: str) -> bool:
        """Whether a question is one of dev or test, however it is typed."""
        return question_id(question) in self.held_out


def _others(
    problems: Sequence[Problem], tests: Sequence[Problem], train: str, test: str
) -> list[Problem]:
    """The problems whose questions are none of the tests', however they are typed.

    Raises:
      DataError: there is none.
    """
    held = {question_id(p.question) for p in tests}
    kept = [p for p in problems if question_id(p.question) not in held]
    if not kept:
        raise DataError(f"{train}: every question is one of {test}")
    if lost := len(problems) - len(kept):
        logging.getLogger("aprm_jax").warning(
            "%s: %d of %d problems are left out: their questions are in %s too, and "
            "neither training nor thresholds may see them",
            train,
            lost,
            len(problems),
            test,
        )
    return kept


def hold_out(
    problems: Sequence[Problem], count: int, source: str
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """(the others, the held-out ones), by question.

    However often a question occurs, and however it is typed, it is on one side only.

    Raises:
      DataError: see `drawing.held_out`.
    """
    ids = [question_id(p.question) for p in problems]
    first: dict[str, str] = {}  # of the wordings of a question, whatever their order
    for p, name in zip(problems, ids, strict=True):
        first[name] = min(first.get(name, p.question), p.question)
    held = held_out(first.values(), count, source)
    rank = {question_id(question): at for at, question in enumerate(held)}
    rest = tuple(p for p, name in zip(problems, ids, strict=True) if name not in rank)
    out = [(rank[n], p) for p, n in zip(problems, ids, strict=True) if n in rank]
    return rest, tuple(p for _, p in sorted(out, key=lambda pair: pair[0]))
