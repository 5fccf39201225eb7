"""Whether training questions occur in evaluation sets: equal, or nearly so.

Equal means equal after normalisation (`question_tokens`). Nearly equal means that at
least a share of the training question's n-grams of words (`labelled.question_words`,
which has no brackets) stand in one evaluation question, or the other way round: a
question with a sentence added or left out is caught from either side.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from aprm_jax.data.labelled import question_words
from aprm_jax.data.question_tokens import question_tokens


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training question found in an evaluation set.

    Attributes:
      evaluation: name of the evaluation set.
      question: its question.
      share: share of common n-grams, of the shorter question's; 1 where equal.
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
        self._questions: list[tuple[str, str, int]] = []  # set, text, its n-grams
        self._equal: dict[tuple[str, ...], int] = {}
        self._holders: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)

    def add(self, name: str, questions: Iterable[str]) -> None:
        """Adds an evaluation set; a question that occurs twice counts once."""
        for question in questions:
            tokens = question_tokens(question)
            if not tokens or tokens in self._equal:
                continue
            index = len(self._questions)
            grams = self._grams(question_words(question))
            self._equal[tokens] = index
            self._questions.append((name, question, len(grams)))
            for gram in grams:
                self._holders[gram].append(index)

    def find(self, question: str) -> Overlap | None:
        """The evaluation question that overlaps most; None where none does."""
        tokens = question_tokens(question)
        if tokens in self._equal:
            name, text, _ = self._questions[self._equal[tokens]]
            return Overlap(name, text, 1.0, True)
        grams = self._grams(question_words(question))
        common = collections.Counter(
            index for gram in grams for index in self._holders.get(gram, ())
        )
        best: Overlap | None = None
        for index, count in sorted(common.items()):
            name, text, size = self._questions[index]
            share = count / min(size, len(grams))
            if share >= self.min_share and (best is None or share > best.share):
                best = Overlap(name, text, share, False)
        return best

    def _grams(self, tokens: Sequence[str]) -> set[tuple[str, ...]]:
        n = self.ngram
        return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
