"""Training rows for a PRM from solutions whose steps carry labels, and its update.

Data sets of step labels are trees: candidates beside a path share its beginning, and
the same step is rated more than once. Here every step of the tree is one step, with
one label, and every leaf of it is one row, whose steps are all read in one forward
pass. A step that lies in several rows shares its weight between them.

Axes: B rows, S steps, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32

from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.data.steps import StepBatch, StepBuilder, StepRow, pack
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
_STEP_ROOM = 32  # packed rows have room for a multiple of so many steps


@dataclasses.dataclass(frozen=True)
class LabelledRow:
    """A leaf of the tree of labelled solutions. S steps.

    Attributes:
      question: the problem.
      steps: S texts.
      labels: S labels in [0, 1], NaN where there is none.
      shared: in how many rows each step lies, this one included.
      first: whether this is the first row that a step lies in.
      problem_id: id of the question.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    shared: tuple[int, ...]
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
    counts = Counter(node for path in kept.values() for node in path)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    rows = []
    for leaf, path in kept.items():
        rows.append(
            LabelledRow(
                question=leaf[0],
                steps=leaf[1],
                labels=tuple(known.get(node, math.nan) for node in path),
                shared=tuple(counts[node] for node in path),
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


def cut_to_fit(
    solutions: Sequence[LabelledSolution], builder: StepBuilder, max_steps: int
) -> tuple[list[LabelledSolution], int]:
    """Solutions without the steps that do not fit a row, and how many labels went.

    Exact for the steps that stay: no step sees what comes after it.
    """
    out, lost = [], 0
    for s in solutions:
        size = steps_that_fit(builder, s.question, s.steps[:max_steps])
        lost += sum(not math.isnan(label) for label in s.labels[size:])
        if size == len(s.steps):
            out.append(s)
        elif size:
            out.append(
                dataclasses.replace(
                    s,
                    steps=s.steps[:size],
                    labels=s.labels[:size],
                    ratings=s.ratings[:size],
                )
            )
    return out, lost


def steps_that_fit(builder: StepBuilder, question: str, steps: Sequence[str]) -> int:
    """The most steps, from the first, that fit the longest bucket as one row."""
    if builder.fits(builder.solution(question, steps)) if steps else True:
        return len(steps)
    fits, fails = 0, len(steps)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if builder.fits(builder.solution(question, steps[:middle])):
            fits = middle
        else:
            fails = middle
    return fits


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


def step_weights(
    rows: Sequence[LabelledRow], classes: int, balance: bool
) -> list[Float32[np.ndarray, " _"]]:
    """A weight for each step: its share of the row, and of its class if `balance`.

    Raises:
      ValueError: one of the classes has no step at all.
    """
    shares = [1.0 / np.asarray(row.shared, np.float64) for row in rows]
    targets = [
        np.nan_to_num(class_targets(np.asarray(row.labels), classes)) for row in rows
    ]
    mass = sum(
        (np.einsum("s,sc->c", s, t) for s, t in zip(shares, targets, strict=True)),
        np.zeros(classes),
    )
    if not (mass > 0).all():
        names = ("wrong", "neutral", "right") if classes == 3 else ("wrong", "right")
        missing = [n for n, m in zip(names, mass, strict=True) if m <= 0]
        raise ValueError(f"no labelled step is {' or '.join(missing)}")
    per_class = mass.sum() / (classes * mass) if balance else np.ones(classes)
    return [
        (s * (t @ per_class)).astype(np.float32)
        for s, t in zip(shares, targets, strict=True)
    ]


def label_batch(
    rows: Sequence[StepRow],
    weights: Sequence[Float32[np.ndarray, " _"]],
    builder: StepBuilder,
    multiple: int,
) -> StepBatch:
    """Rows packed to the longest bucket; `label_mask` holds the weights.

    Args:
      rows: with labels, each no longer than the longest bucket.
      weights: one a step of each row; what is unlabelled gets none.
      builder: makes the batch.
      multiple: the number of packed rows is rounded up to a multiple of it.
    """
    length = builder.buckets[-1]
    packed = pack(rows, length)
    # The same lengths are packed alike: the weights travel as labels.
    carried = pack(
        [
            dataclasses.replace(row, labels=weight)
            for row, weight in zip(rows, weights, strict=True)
        ],
        length,
    )
    most = max(len(row.labels) for row in packed)
    shape = {
        "length": length,
        "max_steps": -(-most // _STEP_ROOM) * _STEP_ROOM,
        "batch_size": -(-len(packed) // multiple) * multiple,
    }
    batch = builder.collate(packed, **shape)
    weight = builder.collate(carried, **shape).labels
    mask = np.where(batch.label_mask > 0, weight, 0.0).astype(np.float32)
    return batch.replace(label_mask=mask)


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
