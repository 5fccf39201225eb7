"""Solutions with labelled steps as a domain: text to learn from, and no oracle.

Human labels stand in for the oracle: a language model learns the steps that nobody
called wrong, a PRM learns the labels. Nothing can be corrupted or sampled here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.bpe import given_or_trained
from aprm_jax.data.domain import Problem
from aprm_jax.data.drawing import Epochs, held_out
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import NEUTRAL, LabelledSolution, Solutions, question_id
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.readers import read_steps
from aprm_jax.oracle.verdict import Label, Oracle, Verdict


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
      quarantine_dir: where bad rows are recorded.
      max_bad_share: share of bad rows past which reading stops.
      label_cut: labels below it are wrong, where right and wrong are all there is.

    Attributes:
      labelled: solutions to train on.
      dev: those of the held-out questions.
      test: those of questions held out to test on; () with a `dev_count`.
      held_out: `question_id` of all of these questions.
      texts: what a language model learns, see `right_texts`.
    """

    name = "labelled"
    kinds = ()
    splits = ("dev",)

    def __init__(
        self,
        *,
        train: str,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
        vocab_size: int = 2048,
        dev_count: int = 100,
        quarantine_dir: str | Path | None = None,
        max_bad_share: float = 0.01,
        label_cut: float = NEUTRAL,
    ):
        rows = read_labelled(
            train, quarantine_dir=quarantine_dir, max_bad_share=max_bad_share
        )
        # By what the question says: an id may be that of the row.
        ids = [question_id(row.question) for row in rows]
        dev = frozenset(held_out(ids, dev_count, train))
        test: frozenset[str] = frozenset()
        if not dev_count:
            test = frozenset(held_out((i for i in ids if i not in dev), 0, train))
        self.held_out = dev | test
        named = tuple(zip(ids, rows, strict=True))
        self.labelled = tuple(row for i, row in named if i not in self.held_out)
        self.dev = tuple(row for i, row in named if i in dev)
        self.test = tuple(row for i, row in named if i in test)
        self.texts = right_texts(self.labelled, label_cut)
        self._cut = label_cut
        if not self.texts:
            raise DataError(f"{train}: no solution begins with a step that is right")
        self._train = Epochs(self.texts, seed)
        self.oracle: Oracle = NoOracle()
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

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> None:
        """None: nothing here could tell whether the result is wrong."""

    def is_final(self, step: str) -> bool:
        """False: these texts have no common way to conclude."""
        return False

    def answer(self, steps: Sequence[str]) -> None:
        """None: these texts have no common way to state an answer."""

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Equality as text."""
        return given is not None and given.strip() == expected.strip()


def split_source(text: str, field: str) -> tuple[str, str]:
    """ "READER:SOURCE" as (reader, source); the source may be "" for the hub's name.

    Raises:
      DataError: there is no colon.
    """
    reader, colon, source = text.partition(":")
    if not colon or not reader:
        raise DataError(
            f"{field}: {text!r} must be READER:SOURCE, for example "
            "prm800k:data/prm800k/phase1_train.jsonl.gz"
        )
    return reader, source


def read_labelled(
    text: str,
    *,
    unique: bool = True,
    quarantine_dir: str | Path | None = None,
    max_bad_share: float = 0.01,
) -> Solutions:
    """Reads "READER:SOURCE"; questions and steps stay as the data has them.

    Whoever scores a solution gives the text as it is, so that is what is learned and
    measured: what a layout cannot hold is the step builder's business alone.

    Raises:
      DataError: see `readers.read_steps`; or no solution has a label.
    """
    reader, source = split_source(text, "labelled solutions")
    rows = read_steps(
        source,
        reader,
        unique=unique,
        quarantine_dir=quarantine_dir,
        max_bad_share=max_bad_share,
    )
    if not rows:
        raise DataError(f"{text}: no solution has a labelled step")
    rows[:] = [
        row
        if row.problem_id
        else dataclasses.replace(row, problem_id=question_id(row.question))
        for row in rows
    ]
    return rows


def right_texts(
    solutions: Sequence[LabelledSolution], cut: float = NEUTRAL
) -> tuple[Problem, ...]:
    """The longest texts without a wrong step, none of them a beginning of another.

    A step is taken where its label, in whichever row, is at least `cut`, or where it
    has none but a row goes on behind it.
    """
    tree = PrefixTree()
    paths = [tree.add(s.question, s.steps) for s in solutions]
    wrong = {
        node
        for s, path in zip(solutions, paths, strict=True)
        for node, label in zip(path, s.labels, strict=True)
        if label < cut
    }
    found: dict[int, Problem] = {}
    inside: set[int] = set()
    for s, path in zip(solutions, paths, strict=True):
        right = list(itertools.takewhile(lambda node: node not in wrong, path))
        if right:
            text = Problem(s.question, s.steps[: len(right)], "")
            found.setdefault(right[-1], text)
            inside.update(right[:-1])
    return tuple(text for node, text in found.items() if node not in inside)


def _lines(solutions: Sequence[LabelledSolution]) -> list[str]:
    """Every distinct line, in order of first appearance."""
    return list(dict.fromkeys(t for s in solutions for t in (s.question, *s.steps)))
