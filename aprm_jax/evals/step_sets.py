"""Sets of labelled solutions that verifiers are measured on.

Three kinds, by the reader of their source: ProcessBench, Mr-Ben and MR-GSM8K locate the
first error, PRMBench plants errors of several categories, and any other set labels
single steps (PRM800K, Math-Shepherd, the step format). Each kind has an evaluator of
its own.

A verifier's scores of a set are one array a solution, as long as the solution; NaN
where a step was not scored, which is a miss wherever it counts.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from aprm_jax.data.labelled import NEUTRAL, LabelledSolution, question_id
from aprm_jax.evals.processbench import NO_ERROR
from aprm_jax.oracle.answers import Style, extract
from aprm_jax.verifiers.labelled import LabelledRow, merge

FIRST_ERROR, CATEGORIES, STEPS = "first_error", "categories", "steps"
_HEADING = re.compile(r"^#+ *(?:final +)?answer\b", re.IGNORECASE | re.MULTILINE)
PROCESSBENCH = "processbench"
_KINDS = {
    PROCESSBENCH: FIRST_ERROR,
    "mr_ben": FIRST_ERROR,
    "mr_gsm8k": FIRST_ERROR,
    "prmbench": CATEGORIES,
}


@dataclasses.dataclass(frozen=True)
class StepSet:
    """Solutions with what is known of their steps.

    Attributes:
      name: in summaries and file names.
      kind: "first_error", "categories" or "steps".
      rows: the solutions; labels are 0, 1 or NaN.
      categories: of each solution, "" where there are none.
      reader: of its source.
      origin: the split of the benchmark that all solutions are of; "" where they are
        of several, or of none that is known.
    """

    name: str
    kind: str
    rows: tuple[LabelledRow, ...]
    categories: tuple[str, ...]
    reader: str = ""
    origin: str = ""

    @property
    def ids(self) -> list[str]:
        """Names of the solutions: the set's and a number, counted from 0."""
        return [f"{self.name}-{k}" for k in range(len(self.rows))]

    @property
    def sizes(self) -> list[int]:
        """Numbers of steps."""
        return [len(row.steps) for row in self.rows]

    @property
    def pairs(self) -> list[tuple[str, tuple[str, ...]]]:
        """Question and steps of each solution."""
        return [(row.question, row.steps) for row in self.rows]

    @property
    def first_errors(self) -> list[int]:
        """0-based index of the first wrong step of each solution, -1 for none."""
        return [
            next((k for k, v in enumerate(row.labels) if v == 0), NO_ERROR)
            for row in self.rows
        ]


def step_set(
    name: str,
    reader: str,
    solutions: Sequence[LabelledSolution],
    neutral: str = "correct",
    cut: float = NEUTRAL,
) -> StepSet:
    """A set from what its reader gave; labels are right from `cut` on.

    Solutions of single-step sets are merged, so that each labelled step counts once;
    those of benchmarks stay as they are, a repeated id left out.
    """
    kind = _KINDS.get(reader, STEPS)
    if kind == STEPS:
        rows = merge(solutions, neutral=neutral, soft=False, cut=cut)
        return StepSet(name, kind, tuple(rows), ("",) * len(rows), reader)
    kept: dict[tuple[str, str], LabelledSolution] = {}
    for at, s in enumerate(solutions):
        # Two generators may share a ProcessBench question; an id is there once.
        key = (s.category, s.problem_id) if kind == CATEGORIES else ("", str(at))
        kept.setdefault(key, s)
    splits = {s.split for s in kept.values()}
    return StepSet(
        name,
        kind,
        tuple(benchmark_row(s) for s in kept.values()),
        tuple(s.category for s in kept.values()),
        reader,
        splits.pop() if len(splits) == 1 else "",
    )


def benchmark_row(solution: LabelledSolution) -> LabelledRow:
    """A solution of which every label counts."""
    return LabelledRow(
        solution.question,
        solution.steps,
        solution.labels,
        (True,) * len(solution.steps),
        solution.problem_id,
        finished=True,
    )


@dataclasses.dataclass(frozen=True)
class Judged:
    """The distinct labelled steps of a set with one verifier's scores. N steps.

    Attributes:
      scores: on the real line; NaN where unscored.
      labels: 1 correct, 0 incorrect.
      groups: number of the question that each belongs to.
    """

    scores: Float[np.ndarray, " N"]
    labels: Float[np.ndarray, " N"]
    groups: Int[np.ndarray, " N"]


def judged(
    rows: Sequence[LabelledRow], scores: Sequence[Shaped[np.ndarray, " _"]]
) -> Judged:
    """Pairs labels with scores, each step once."""
    # By what the question says: an id may be that of the row.
    ids = [question_id(row.question) for row in rows]
    groups = {name: k for k, name in enumerate(dict.fromkeys(ids))}
    found = [
        (float(values[k]), label, groups[name])
        for row, name, values in zip(rows, ids, scores, strict=True)
        for k, label in enumerate(row.labels)
        if not math.isnan(label) and row.first[k]
    ]
    table = np.array(found, np.float64).reshape(-1, 3)
    return Judged(table[:, 0], table[:, 1], table[:, 2].astype(np.int64))


def looks_whole(row: LabelledRow) -> bool:
    """Whether a solution goes up to its answer.

    That is what the data says; where it does not, whether the last step states an
    answer: a box, "#### 4", "the answer is 4", or PRM800K's heading "# Answer".
    """
    if row.finished is not None:
        return row.finished
    if not row.steps:
        return False
    last = row.steps[-1]
    styles: tuple[Style, ...] = ("boxed", "gsm8k", "phrase")
    return bool(_HEADING.search(last)) or any(extract(last, s) for s in styles)


def first_error_rows(
    rows: Sequence[LabelledRow], scores: Sequence[Shaped[np.ndarray, " _"]]
) -> tuple[list[Float[np.ndarray, " _"]], list[int]]:
    """Solutions of a single-step set as a benchmark of first errors has them.

    A row counts up to its first wrong step, if all steps before it are right: nothing
    behind it matters. One without a wrong step counts if all of its steps are right
    and it looks whole. An unfinished one will not do: the fewer steps, the higher the
    least score, so a threshold that suits beginnings rejects every whole solution.

    Returns:
      The scores of each such row, and its first error, -1 for none.
    """
    kept: list[np.ndarray] = []
    labels: list[int] = []
    for row, values in zip(rows, scores, strict=True):
        wrong = next((k for k, v in enumerate(row.labels) if v == 0), None)
        size = len(row.steps) if wrong is None else wrong + 1
        known = all(v == 1 for v in row.labels[: size - (wrong is not None)])
        if known and size and (wrong is not None or looks_whole(row)):
            kept.append(np.asarray(values[:size], np.float64))
            labels.append(NO_ERROR if wrong is None else wrong)
    return kept, labels
