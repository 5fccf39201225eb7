"""Solutions whose steps carry labels: what every reader of step data returns."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from aprm_jax.data.jsonl import Rows
from aprm_jax.data.question_tokens import question_tokens, split_tokens

LABEL_KINDS = ("hard", "soft", "three_class")
NEUTRAL = 0.5  # label of a step that people rated neither right nor wrong

# A word or number, or a sign, however little it says.
_WORD = re.compile(r"[^\W_]+|[-+*/=<>^]")
_INVISIBLE = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|[$]|\\text\b")


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """One solution and what is known of its steps. S steps.

    Attributes:
      question: the problem.
      steps: S texts; a step may hold several lines.
      labels: S values: 1 correct, 0 incorrect, between them a soft label (0.5 for a
        neutral rating); NaN where nothing is known.
      ratings: S ratings -1, 0 (neutral), +1; None where nobody rated.
      source: name of the data set.
      split: its split or file.
      problem_id: the data set's id of the question, else `question_id(question)`.
      category: kind of the row, where the data set tells kinds apart.
      finished: whether it goes up to its answer; None where the data does not say.
      ignored: labels in the data that point at no step.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    ratings: tuple[int | None, ...]
    source: str = ""
    split: str = ""
    problem_id: str = ""
    category: str = ""
    finished: bool | None = None
    ignored: int = 0

    def __post_init__(self):
        if not len(self.steps) == len(self.labels) == len(self.ratings):
            raise ValueError(
                f"{len(self.steps)} steps, {len(self.labels)} labels and "
                f"{len(self.ratings)} ratings"
            )

    @property
    def num_labelled(self) -> int:
        """How many steps have a label."""
        return sum(not math.isnan(label) for label in self.labels)


class Solutions(Rows[LabelledSolution]):
    """Labelled solutions, and how many others were left out, by reason."""

    num_unlabelled: int = 0  # no step has a label
    num_repeated: int = 0  # the same text with the same labels came before
    num_ignored: int = 0  # of those kept, solutions with labels that point at no step


def from_ratings(
    question: str, steps: Sequence[str], ratings: Sequence[int | None], **where: Any
) -> LabelledSolution:
    """A solution with people's ratings; its labels are 0, 0.5, 1 for -1, 0, +1."""
    labels = [math.nan if r is None else (r + 1) / 2 for r in ratings]
    return LabelledSolution(
        question, tuple(steps), tuple(labels), tuple(ratings), **where
    )


def from_labels(
    question: str, steps: Sequence[str], labels: Sequence[float], **where: Any
) -> LabelledSolution:
    """A solution with labels; the certain ones, 0 and 1, are ratings too."""
    ratings = [{0.0: -1, 1.0: 1}.get(label) for label in labels]
    return LabelledSolution(
        question, tuple(steps), tuple(labels), tuple(ratings), **where
    )


def from_first_error(
    question: str, steps: Sequence[str], first_error: int, **where: Any
) -> LabelledSolution:
    """A solution of which only the first error is known.

    Args:
      first_error: its 0-based index; -1 where there is none. Nothing is known of the
        steps behind it: they stay unlabelled.
    """
    if not -1 <= first_error < len(steps):
        raise ValueError(f"first error {first_error} of {len(steps)} steps")
    if first_error < 0:
        labels = [1.0] * len(steps)
    else:
        after = len(steps) - first_error - 1
        labels = [1.0] * first_error + [0.0] + [math.nan] * after
    return from_labels(question, steps, labels, **where)


def as_kind(
    solution: LabelledSolution, kind: str, cut: float = NEUTRAL
) -> LabelledSolution:
    """The solution with labels of one kind.

    Args:
      kind: "soft" leaves them as they are. "hard" makes them 1 from `cut` on, else 0.
        "three_class" rounds to 0, 0.5 and 1 and sets the ratings accordingly.
      cut: in (0, 1]. At a half, a neutral step counts as not incorrect, as PRM800K's
        authors count it.
    """
    if kind == "soft":
        return solution
    rounded: list[float] = []
    ratings: list[int | None] = []
    for label, rating in zip(solution.labels, solution.ratings, strict=True):
        if math.isnan(label):
            rounded.append(label)
            ratings.append(rating)
        elif kind == "hard":
            rounded.append(float(label >= cut))
            ratings.append(rating)
        else:
            third = 0 if label < 1 / 3 else 1 if label <= 2 / 3 else 2
            rounded.append(third / 2)
            ratings.append(third - 1)
    return dataclasses.replace(solution, labels=tuple(rounded), ratings=tuple(ratings))


def question_words(question: str) -> tuple[str, ...]:
    """A question's words, numbers and plain signs, without case, brackets and layout.

    Questions with the same words are alike, not the same: `(1 + 2) * 3` has the words
    of `1 + 2 * 3`. `question_tokens` tells these apart.
    """
    text = unicodedata.normalize("NFKC", question).casefold()
    return tuple(_WORD.findall(_INVISIBLE.sub(" ", text)))


@functools.lru_cache(maxsize=1 << 16)
def question_id(question: str) -> str:
    """An id that typographic variants of a question share: 16 hexadecimal digits."""
    return _hashed(question_tokens(question), question)


@functools.lru_cache(maxsize=1 << 16)
def split_id(question: str) -> str:
    """What a question's split is drawn by; those with one `question_id` share it."""
    return _hashed(split_tokens(question), question)


def question_place(question: str) -> float:
    """Where in [0, 1) a hash puts a question; those with the same words, together."""
    return int(_hashed(question_words(question), question), 16) / float(1 << 64)


def _hashed(tokens: tuple[str, ...], question: str) -> str:
    text = " ".join(tokens) or question
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
