"""Solutions with labelled steps as a domain: text to learn from, and no answers.

A language model learns the steps that nobody called wrong, a PRM learns the labels. A
game is played where a text oracle judges the steps that nobody labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.bpe import given_or_trained
from aprm_jax.data.drawing import Epochs, held_out
from aprm_jax.data.jsonl import DataError, Limits
from aprm_jax.data.labelled import NEUTRAL, LabelledSolution, question_id, split_id
from aprm_jax.data.labelled_texts import read_labelled, right_texts
from aprm_jax.data.problem import Problem
from aprm_jax.oracle.steps.text import KINDS, TextOracle
from aprm_jax.oracle.verdict import Label, Oracle, Verdict
from aprm_jax.tasks.rated import RATED_WRONG, Mistake, RatedOracle
from aprm_jax.tasks.word_corruption import WordCorruptor


class NoOracle:
    """Knows nothing of any step."""

    def judge(
        self, question: str, prefix: Sequence[str], original: str | None, candidate: str
    ) -> Verdict:
        """Undecidable."""
        return Verdict(Label.UNDECIDABLE, "no_oracle", "this domain has labels only")


class LabelledDomain:
    """Implements `Domain` on solutions of one of `data.readers`.

    Args:
      train: "READER:SOURCE"; the dev split is taken out of it.
      seed: of the order in which training texts are drawn.
      tokenizer: a trained one, or a folder that holds one; None trains a BPE on the
        training text, the dev split left out.
      vocab_size: of the tokenizer to train.
      dev_count: questions held out, chosen by a hash of the question; 0 for a share
        that goes with how many there are, and as much again to test on.
      oracle: judges the steps that nobody labelled; None knows nothing of any step.
      label_cut: labels below it are wrong, where right and wrong are all there is.
      limits: what is done about bad rows.

    Attributes:
      labelled: solutions to train on.
      dev: those of the held-out questions.
      test: those of questions held out to test on; () with a `dev_count`.
      held_out: `question_id` of all of these questions.
      texts: what a language model learns, see `right_texts`.
      mistakes: with an oracle, people's wrong steps, see `RatedOracle.mistakes`.
    """

    name = "labelled"
    splits = ("dev",)

    def __init__(
        self,
        *,
        train: str,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
        vocab_size: int = 2048,
        dev_count: int = 100,
        oracle: TextOracle | None = None,
        label_cut: float = NEUTRAL,
        **limits: Unpack[Limits],
    ):
        rows = read_labelled(train, **limits)
        # By what the question says: an id may be that of the row.
        ids = [split_id(row.question) for row in rows]
        dev = frozenset(held_out(ids, dev_count, train))
        test: frozenset[str] = frozenset()
        if not dev_count:
            test = frozenset(held_out((i for i in ids if i not in dev), 0, train))
        named = tuple(zip(ids, rows, strict=True))
        held = [row for i, row in named if i in dev | test]
        self.held_out = frozenset(question_id(row.question) for row in held)
        self.labelled = tuple(row for i, row in named if i not in dev | test)
        self.dev = tuple(row for i, row in named if i in dev)
        self.test = tuple(row for i, row in named if i in test)
        self.texts = right_texts(self.labelled, label_cut)
        self._cut = label_cut
        if not self.texts:
            raise DataError(f"{train}: no solution begins with a step that is right")
        self._train = Epochs(self.texts, seed)
        self.oracle: Oracle = NoOracle()
        self.kinds: tuple[str, ...] = ()
        self._corruptor: WordCorruptor | None = None
        self.mistakes: tuple[Mistake, ...] = ()
        if oracle:
            self.oracle = rated = RatedOracle(self.labelled, oracle, label_cut)
            self.kinds = (RATED_WRONG, *KINDS)
            self._corruptor = WordCorruptor()
            self.mistakes = tuple(rated.mistakes())
        self.tokenizer: PreTrainedTokenizerFast = given_or_trained(
            tokenizer, _lines(self.labelled), vocab_size
        )

    @property
    def num_train(self) -> int:
        """How many texts there are; one epoch."""
        return len(self.texts)

    def corpus(self, index: int) -> Problem:
        """The same as `train`."""
        return self.train(index)

    def train(self, index: int) -> Problem:
        """Text number `index`; each epoch is a permutation of its own."""
        return self._train[index]

    def problems(self, split: str, count: int) -> Sequence[Problem]:
        """The first `count` right texts of "dev"."""
        if split not in self.splits:
            raise ValueError(f"no split {split!r}; there is {', '.join(self.splits)}")
        return right_texts(self.dev, self._cut)[:count]

    def is_held_out(self, question: str) -> bool:
        """Whether a question is held out, however it is typed."""
        return question_id(question) in self.held_out

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> str | None:
        """See `Corruptor.corrupt`; None without an oracle that could judge it."""
        if self._corruptor is None:
            return None
        return self._corruptor.corrupt(rng, question, prefix, step)

    def is_final(self, step: str) -> bool:
        """False: these texts have no common way to conclude."""
        return False

    def answer(self, steps: Sequence[str]) -> None:
        """None: these texts have no common way to state an answer."""

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Equality as text."""
        return given is not None and given.strip() == expected.strip()


def _lines(solutions: Sequence[LabelledSolution]) -> list[str]:
    """Every distinct line, in order of first appearance."""
    return list(dict.fromkeys(t for s in solutions for t in (s.question, *s.steps)))
