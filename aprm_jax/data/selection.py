"""Which solutions a prepared data set keeps, and in which split each one is."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Unpack

from aprm_jax.data.contamination import ContaminationIndex, Overlap
from aprm_jax.data.jsonl import DataError, Limits
from aprm_jax.data.labelled import (
    NEUTRAL,
    LabelledSolution,
    from_labels,
    question_id,
    question_place,
)
from aprm_jax.data.labelled_texts import split_source
from aprm_jax.data.readers import ProblemSource, read_problems, read_steps, sources
from aprm_jax.data.readers.base import MathProblem

TRAIN, DEV = "train", "dev"


@dataclasses.dataclass
class Dropped:
    """How many rows were left out, by reason."""

    bad: int = 0  # malformed; see the quarantine
    unlabelled: int = 0  # a row of step data without any label
    without_steps: int = 0  # a problem without a worked solution
    empty: int = 0  # a step is blank
    repeated: int = 0  # the same text with the same labels came before
    contaminated: int = 0  # the question overlaps an evaluation set
    too_many_steps: int = 0
    too_long: int = 0  # does not fit a row


def read_solutions(
    text: str,
    *,
    label: str,
    dropped: Dropped,
    label_cut: float = NEUTRAL,
    **limits: Unpack[Limits],
) -> list[LabelledSolution]:
    """Reads "READER:SOURCE": labelled solutions, or problems with worked ones.

    A worked solution is its author's, so its steps count as correct. Questions and
    steps stay as the data has them.

    Args:
      label: kind of the labels, see `labelled.as_kind`.
      dropped: counted up.
      label_cut: likewise.
      limits: what is done about bad rows.

    Raises:
      DataError: see `readers.read_steps`.
    """
    name, source = split_source(text, "prepare.sources")
    if isinstance(sources().get(name), ProblemSource):
        problems = read_problems(source, name, **limits)
        dropped.bad += problems.num_bad
        dropped.without_steps += sum(not p.steps for p in problems)
        found = [_worked(p) for p in problems if p.steps]
    else:
        rows = read_steps(source, name, label=label, label_cut=label_cut, **limits)
        dropped.bad += rows.num_bad
        dropped.unlabelled += rows.num_unlabelled
        dropped.repeated += rows.num_repeated
        found = list(rows)
    kept = [row for row in found if all(step.strip() for step in row.steps)]
    dropped.empty += len(found) - len(kept)
    return kept


def read_questions(text: str, **limits: Unpack[Limits]) -> list[str]:
    """The questions of an evaluation set, "READER:SOURCE", each once."""
    name, source = split_source(text, "prepare.against")
    if isinstance(sources().get(name), ProblemSource):
        rows = read_problems(source, name, **limits)
    else:
        rows = read_steps(source, name, **limits)
    return list(dict.fromkeys(row.question for row in rows))


def without_repeats(
    solutions: Iterable[LabelledSolution], dropped: Dropped
) -> list[LabelledSolution]:
    """Each text with the same labels once, whichever source it came from.

    White space tells no texts apart: sources lay the same solution out differently.
    The same text with other labels stays: people disagree, and a model is to learn
    their average.
    """
    seen: set[tuple] = set()
    kept = []
    for solution in solutions:
        # repr: NaN equals nothing, itself included.
        steps = tuple(" ".join(step.split()) for step in solution.steps)
        key = (question_id(solution.question), steps, repr(solution.labels))
        if key in seen:
            dropped.repeated += 1
            continue
        seen.add(key)
        kept.append(solution)
    return kept


def without_contamination(
    solutions: Iterable[LabelledSolution],
    index: ContaminationIndex,
    dropped: Dropped,
    *,
    refuse: bool,
) -> tuple[list[LabelledSolution], dict[str, Overlap]]:
    """The solutions whose questions overlap no evaluation set.

    Args:
      index: the evaluation sets; it learns what the questions of a source share.
      dropped: counted up.
      refuse: raise instead of dropping.

    Returns:
      The solutions that are kept, and what was found, by training question.

    Raises:
      DataError: a question overlaps, and `refuse` is set.
    """
    listed, asked = list(solutions), collections.defaultdict[tuple, list[str]](list)
    for solution in listed:
        asked[solution.source, solution.split].append(solution.question)
    for questions in asked.values():
        index.note_training(questions)
    checked: dict[str, Overlap | None] = {}
    kept = []
    for solution in listed:
        question = solution.question
        if question not in checked:
            checked[question] = index.find(question)
        overlap = checked[question]
        if overlap is None:
            kept.append(solution)
            continue
        if refuse:
            how = "is" if overlap.equal else f"shares {overlap.share:.0%} of"
            raise DataError(
                f"{solution.source}: the question {question[:120]!r} {how} a question "
                f"of {overlap.evaluation}: {overlap.question[:120]!r}. "
                "prepare.contaminated='drop' leaves such questions out"
            )
        dropped.contaminated += 1
    return kept, {q: o for q, o in checked.items() if o is not None}


def split_of(question: str, dev_share: float) -> str:
    """The split of a question: by a hash of its text, so that order changes nothing."""
    return DEV if question_place(question) < dev_share else TRAIN


def _worked(problem: MathProblem) -> LabelledSolution:
    return from_labels(
        problem.question,
        problem.steps,
        [1.0] * len(problem.steps),
        source=problem.source,
        split=problem.split,
        problem_id=problem.problem_id,
        category=problem.category,
    )
