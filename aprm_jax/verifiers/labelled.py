"""Training rows for a PRM from solutions whose steps carry labels, and its update.

Data sets of step labels are trees: candidates beside a path share its beginning, and
the same step is rated more than once. Here every step of a tree is one step with one
label, and is learned from in one place (`data/trees.py`); all steps of a row are read
in one forward pass.

Axes: B rows, S steps, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32

from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.data.steps import StepBatch, StepBuilder, StepRow
from aprm_jax.data.trees import Node
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.training.masked import masked_mean, mean_or_nan
from aprm_jax.training.mesh import pin
from aprm_jax.verifiers.objective import PrmObjective, prm_loss

THREE_CLASS = "three_class"
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
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    first: tuple[bool, ...]
    problem_id: str


def merge(
    solutions: Sequence[LabelledSolution], *, neutral: str = "correct", soft: bool
) -> list[LabelledRow]:
    """One row for each leaf; each step has the mean of its labels in all solutions.

    Args:
      solutions: may repeat, and may begin with each other.
      neutral: what a rating of 0 is: "correct", "incorrect", "ignore" (no label) or
        "class" (0.5).
      soft: whether a mean stays as it is. If not it is rounded, to 0 and 1 or, with
        neutral="class", to 0, 0.5 and 1; a step that is called right and wrong
        equally often then has no label.

    Returns:
      The rows in order of first appearance; those without any label are left out.
    """
    values: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for s in solutions:
        for k, (label, rating) in enumerate(zip(s.labels, s.ratings, strict=True)):
            value = NEUTRAL_VALUES[neutral] if rating == 0 else label
            if not math.isnan(value):
                values.setdefault((s.question, s.steps[: k + 1]), []).append(value)
    known = {
        node: _settled(float(np.mean(found)), neutral == "class", soft)
        for node, found in values.items()
    }
    inside = {
        (s.question, s.steps[:k]) for s in solutions for k in range(1, len(s.steps))
    }
    leaves: dict[tuple[str, tuple[str, ...]], str] = {}
    for s in solutions:
        if s.steps and (s.question, s.steps) not in inside:
            leaves.setdefault((s.question, s.steps), s.problem_id)
    nodes = {
        leaf: [(leaf[0], leaf[1][: k + 1]) for k in range(len(leaf[1]))]
        for leaf in leaves
    }
    kept = {
        leaf: path
        for leaf, path in nodes.items()
        if not all(math.isnan(known.get(node, math.nan)) for node in path)
    }
    seen: set[tuple[str, tuple[str, ...]]] = set()
    rows = []
    for leaf, path in kept.items():
        rows.append(
            LabelledRow(
                question=leaf[0],
                steps=leaf[1],
                labels=tuple(known.get(node, math.nan) for node in path),
                first=tuple(node not in seen for node in path),
                problem_id=leaves[leaf],
            )
        )
        seen.update(path)
    return rows


def _settled(mean: float, three: bool, soft: bool) -> float:
    if soft:
        return mean
    if three:
        return round(2 * mean) / 2
    return math.nan if mean == 0.5 else float(mean > 0.5)


def node_labels(rows: Sequence[LabelledRow]) -> dict[Node, float]:
    """The label of each step that has one."""
    return {
        (row.question, row.steps[: k + 1]): label
        for row in rows
        for k, label in enumerate(row.labels)
        if not math.isnan(label)
    }


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


def label_batch(
    rows: Sequence[StepRow],
    per_class: Float[np.ndarray, " C"],
    builder: StepBuilder,
    *,
    length: int,
    max_steps: int,
    batch_size: int,
) -> StepBatch:
    """Rows padded to one shape; `label_mask` holds the weights of `class_weights`."""
    batch = builder.collate(
        rows, length=length, max_steps=max_steps, batch_size=batch_size
    )
    weights = class_targets(batch.labels, len(per_class)) @ per_class
    weighted = (batch.label_mask * weights).astype(np.float32)
    return dataclasses.replace(batch, label_mask=weighted)


@flax.struct.dataclass
class LabelState:
    """Parameters and optimiser state of R."""

    prm: Any
    opt: Any


def labels_loss(
    params: Any,
    ref: Any,
    batch: StepBatch,
    decoder: Decoder,
    reading: str,
    objective: PrmObjective,
    key: Any,
) -> tuple[Float32[Array, ""], dict[str, Float32[Array, ""]]]:
    """Loss of R on labelled steps, weighted by `label_mask`, and its metrics.

    The three-class reading learns by cross-entropy alone.
    """
    labels, mask = jnp.asarray(batch.labels), jnp.asarray(batch.label_mask)
    if reading == THREE_CLASS:
        logprobs = heads.step_class_logprobs(decoder, params, batch)
        centres = jnp.linspace(0.0, 1.0, 3)[None, None]
        targets = jnp.clip(1.0 - 2.0 * jnp.abs(labels[..., None] - centres), 0.0)
        loss = -masked_mean(jnp.sum(targets * logprobs, axis=-1), mask)
        right = jnp.argmax(logprobs, axis=-1) == jnp.argmax(targets, axis=-1)
        metrics = {"loss": loss, "accuracy": masked_mean(right, mask)}
    else:
        logits = heads.step_logits(decoder, params, batch, reading)
        ref_logits = jnp.zeros_like(logits)
        if objective.beta > 0:
            ref_logits = heads.step_logits(decoder, ref, batch, reading)
        loss, metrics = prm_loss(logits, ref_logits, labels, mask, objective, key)
        right = (logits > 0) == (labels > 0.5)
        if objective.beta == 0:
            del metrics["kl"]  # of no reference: nothing was measured
    metrics["accuracy_correct"] = mean_or_nan(right, mask * (labels > 0.5))
    metrics["accuracy_incorrect"] = mean_or_nan(right, mask * (labels < 0.5))
    return loss, metrics


def make_label_update(
    decoder: Decoder,
    reading: str,
    objective: PrmObjective,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., tuple[LabelState, dict[str, Array]]]:
    """Compiles `update(state, ref, batch, key) -> (state, metrics)`; state donated.

    Where the loss or the gradient is not finite the old state comes back and
    `metrics["nonfinite"]` is 1. On a `mesh` the state stays where `training.mesh`
    puts it.
    """

    def update(state: LabelState, ref: Any, batch: StepBatch, key: Any):
        (loss, metrics), grad = jax.value_and_grad(labels_loss, has_aux=True)(
            state.prm, ref, batch, decoder, reading, objective, key
        )
        norm = optax.tree.norm(grad)
        updates, opt = tx.update(grad, state.opt, state.prm)
        after = LabelState(prm=optax.apply_updates(state.prm, updates), opt=opt)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, state)
        out = {f"prm/{name}": value for name, value in metrics.items()}
        out |= {"prm/grad_norm": norm, "nonfinite": 1.0 - finite.astype(jnp.float32)}
        return pin(mesh, after), out

    return jax.jit(update, donate_argnums=0)
