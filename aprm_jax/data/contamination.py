"""Whether training questions occur in evaluation sets: equal, or nearly so.

Equal means equal after normalisation (`question_tokens`). Nearly equal means that at
least a share of the training question's n-grams of words (`labelled.question_words`,
which has no brackets) stand in one evaluation question, or the other way round: a
question with a sentence added or left out is caught from either side.

What many questions of a source share is its instruction ("Solve the following problem
step by step. ..."), and says nothing of the questions in it. So an n-gram that a tenth
of an evaluation set's questions hold, or half of those of a training set, and at least
five of them, is not counted, unless a question has no other. Of two questions in one
instruction the n-grams are left that reach into what is asked. Of a training set it is
the half: near copies of one evaluation question may well be a tenth of it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable

from aprm_jax.data.labelled import question_words
from aprm_jax.data.question_tokens import question_tokens

# Shares of the questions of an evaluation and of a training set, and how many of them
# at least, that hold what is an instruction's.
_EVALUATED, _TRAINED, _LEAST = 0.1, 0.5, 5

Gram = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training question found in an evaluation set.

    Attributes:
      evaluation: name of the evaluation set.
      question: its question.
      share: share of common n-grams, of the shorter question's, those of an
        instruction left out; 1 where equal.
      equal: whether the normalised questions are equal.
    """

    evaluation: str
    question: str
    share: float
    equal: bool


class ContaminationIndex:
    """Evaluation questions, indexed by their n-grams.

    Args:
      ngram: words of an n-gram. Questions shorter than that can only be equal.
      min_share: share of common n-grams from which on two questions overlap, of the
        question that has fewer of them.
    """

    def __init__(self, ngram: int = 10, min_share: float = 0.5):
        if ngram < 1 or not 0 < min_share <= 1:
            raise ValueError(f"ngram {ngram}, min_share {min_share}")
        self.ngram = ngram
        self.min_share = min_share
        self._questions: list[tuple[str, str, set[Gram]]] = []  # set, text, n-grams
        self._equal: dict[tuple[str, ...], int] = {}
        self._holders: dict[Gram, list[int]] = collections.defaultdict(list)
        self._instructions: set[Gram] = set()
        self._bare: set[int] = set()  # questions that have no other n-gram

    def add(self, name: str, questions: Iterable[str]) -> None:
        """Adds an evaluation set; a question that occurs twice counts once."""
        listed = list(questions)
        for question in listed:
            tokens = question_tokens(question)
            if not tokens or tokens in self._equal:
                continue
            index = len(self._questions)
            grams = self._grams(question)
            self._equal[tokens] = index
            self._questions.append((name, question, grams))
            for gram in grams:
                self._holders[gram].append(index)
        self._note_instructions(listed, _EVALUATED)

    def note_training(self, questions: Iterable[str]) -> None:
        """Learns what half of a training set's questions share; see the module.

        Args:
          questions: all of the set's; one that occurs twice counts once.
        """
        self._note_instructions(questions, _TRAINED)

    def _note_instructions(self, questions: Iterable[str], share: float) -> None:
        distinct = {question_tokens(q): q for q in questions}
        held = collections.Counter(
            gram
            for question in distinct.values()
            for gram in self._grams(question)
            if gram in self._holders
        )
        many = max(_LEAST, math.ceil(share * len(distinct)))
        self._instructions |= {gram for gram, count in held.items() if count >= many}
        self._bare = {
            index
            for index, (_, _, grams) in enumerate(self._questions)
            if grams <= self._instructions
        }

    def find(self, question: str) -> Overlap | None:
        """The evaluation question that overlaps most; None where none does."""
        tokens = question_tokens(question)
        if tokens in self._equal:
            name, text, _ = self._questions[self._equal[tokens]]
            return Overlap(name, text, 1.0, True)
        grams = self._grams(question)
        best: Overlap | None = None
        for index in self._alike(grams):
            name, text, others = self._questions[index]
            share = self._share(grams, others)
            if share >= self.min_share and (best is None or share > best.share):
                best = Overlap(name, text, share, False)
        return best

    def _alike(self, grams: set[Gram]) -> list[int]:
        """The evaluation questions with an n-gram in common that counts."""
        own = grams - self._instructions
        found = {i for gram in own or grams for i in self._holders.get(gram, ())}
        bare = (i for i in self._bare if self._questions[i][2] & grams)
        return sorted(found.union(bare))

    def _share(self, one: set[Gram], other: set[Gram]) -> float:
        """The share of n-grams that two questions have in common, of who has fewer."""
        asked = one - self._instructions, other - self._instructions
        if all(asked):
            one, other = asked
        return len(one & other) / min(len(one), len(other))

    def _grams(self, question: str) -> set[Gram]:
        n, words = self.ngram, question_words(question)
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
