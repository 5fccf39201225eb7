"""Training rows for a PRM from solutions whose steps carry labels.

Data sets of step labels are trees: candidates beside a path share its beginning, and
the same step is rated more than once. Here every step of a tree is one step with one
label, and is learned from in one place (`data/trees.py`); all steps of a row are read
in one forward pass.

Axes: B rows, S steps, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.data.labelled import NEUTRAL, LabelledSolution
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.rows import StepBatch, StepRow
from aprm_jax.data.steps import RowFormat

NEUTRAL_VALUES: Mapping[str, float] = {
    "correct": 1.0,
    "incorrect": 0.0,
    "ignore": math.nan,
    "class": 0.5,
}


@dataclasses.dataclass(frozen=True)
class LabelledRow:
    """A leaf of the tree of labelled solutions. S steps.

    Attributes:
      question: the problem.
      steps: S texts.
      labels: S labels in [0, 1], NaN where there is none.
      first: whether this is the first row that a step lies in.
      problem_id: id of the question.
      finished: whether the solution goes up to its answer; None where nobody says.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    first: tuple[bool, ...]
    problem_id: str
    finished: bool | None = None


def merge(
    solutions: Sequence[LabelledSolution],
    *,
    neutral: str = "correct",
    soft: bool,
    cut: float = NEUTRAL,
) -> list[LabelledRow]:
    """One row for each leaf; each step has the mean of its labels in all solutions.

    Args:
      solutions: may repeat, and may begin with each other.
      neutral: what a rating of 0 is: "correct", "incorrect", "ignore" (no label) or
        "class" (0.5).
      soft: whether a mean stays as it is. If not it is rounded: to 1 from `cut` on and
        else to 0, and with neutral="class" to 0, 0.5 and 1. A step whose labels
        disagree and come out at `cut` then has no label.
      cut: in (0, 1].

    Returns:
      The rows in order of first appearance; those without any label are left out.
    """
    tree = PrefixTree()
    paths = [tree.add(s.question, s.steps) for s in solutions]
    values: dict[int, list[float]] = {}
    for s, path in zip(solutions, paths, strict=True):
        for node, label, rating in zip(path, s.labels, s.ratings, strict=True):
            value = NEUTRAL_VALUES[neutral] if rating == 0 else label
            if not math.isnan(value):
                values.setdefault(node, []).append(value)
    three = neutral == "class"
    known = {n: _settled(found, three, soft, cut) for n, found in values.items()}
    finished: dict[int, bool] = {}
    for s, path in zip(solutions, paths, strict=True):
        if path and s.finished is not None:
            finished[path[-1]] = s.finished or finished.get(path[-1], False)
    rows: list[LabelledRow] = []
    seen: set[int] = set()
    leaves: set[int] = set()
    for s, path in zip(solutions, paths, strict=True):
        if not path or tree.children[path[-1]] or path[-1] in leaves:
            continue
        leaves.add(path[-1])
        labels = tuple(known.get(node, math.nan) for node in path)
        if all(map(math.isnan, labels)):
            continue
        first = tuple(node not in seen for node in path)
        whole = finished.get(path[-1])
        rows.append(
            LabelledRow(s.question, s.steps, labels, first, s.problem_id, whole)
        )
        seen.update(path)
    return rows


def _settled(found: Sequence[float], three: bool, soft: bool, cut: float) -> float:
    """The label of a step from its labels in all solutions."""
    mean = float(np.mean(found))
    if soft:
        return mean
    if three:
        return round(2 * mean) / 2
    if mean == cut and min(found) < max(found):
        return math.nan
    return float(mean >= cut)


def prefix_tree(rows: Sequence[LabelledRow]) -> tuple[PrefixTree, dict[int, float]]:
    """The rows as one tree, and the label of each node that has one."""
    tree = PrefixTree()
    known = {
        node: label
        for row in rows
        for node, label in zip(
            tree.add(row.question, row.steps), row.labels, strict=True
        )
        if not math.isnan(label)
    }
    return tree, known


def class_targets(
    labels: Float[np.ndarray, "*s"], classes: int
) -> Float[np.ndarray, "*s c"]:
    """Labels in [0, 1] as distributions over 2 or 3 classes, wrong to right.

    With three, 0.5 is the middle one, and a label between two classes belongs to both
    in linear proportion.
    """
    centres = np.linspace(0.0, 1.0, classes)
    distance = np.abs(np.asarray(labels, np.float64)[..., None] - centres)
    return np.clip(1.0 - distance * (classes - 1), 0.0, None)


def class_weights(
    labels: Float[np.ndarray, " N"], classes: int, balance: bool
) -> Float[np.ndarray, " C"]:
    """The weight of a step of each class: 1, or what gives all classes the same sum.

    Args:
      labels: of all steps that are learned from.
      classes: 2 or 3.
      balance: the mean weight of a step is 1 all the same.

    Raises:
      ValueError: one of the classes has no step at all.
    """
    mass = class_targets(labels, classes).sum(axis=0)
    if not (mass > 0).all():
        names = ("wrong", "neutral", "right") if classes == 3 else ("wrong", "right")
        missing = [n for n, m in zip(names, mass, strict=True) if m <= 0]
        raise ValueError(f"no labelled step is {' or '.join(missing)}")
    return mass.sum() / (classes * mass) if balance else np.ones(classes)


def by_half(labels: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """1 for labels of a half and above, else 0: the classes that PAV balances."""
    return (np.asarray(labels) >= 0.5).astype(np.float64)


def label_batch(
    rows: Sequence[StepRow],
    per_class: Float[np.ndarray, " C"],
    builder: RowFormat,
    *,
    length: int,
    max_steps: int,
    batch_size: int,
    halves: bool = False,
) -> StepBatch:
    """Rows padded to one shape; `label_mask` holds the weights of `class_weights`.

    With `halves` a label's weight is that of the class of its half, see `by_half`.
    """
    batch = builder.collate(
        rows, length=length, max_steps=max_steps, batch_size=batch_size
    )
    labels = by_half(batch.labels) if halves else batch.labels
    weights = class_targets(labels, len(per_class)) @ per_class
    weighted = (batch.label_mask * weights).astype(np.float32)
    return dataclasses.replace(batch, label_mask=weighted)
