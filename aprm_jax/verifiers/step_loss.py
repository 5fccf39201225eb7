"""How R learns from labelled steps, whoever labelled them: its loss and its update.

Axes: B rows, S steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int32

from aprm_jax.data.rows import StepBatch
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import LoraConfig, materialise
from aprm_jax.training.learner import (
    LearnerState,
    Loss,
    Scalars,
    by_microbatch,
    guarded,
    learn,
)
from aprm_jax.training.masked import MeanMetric
from aprm_jax.training.mesh import on_mesh
from aprm_jax.verifiers.objective import PrmObjective, prm_loss

THREE_CLASS = "three_class"
SOURCES = ("clean", "fresh", "replayed")


@flax.struct.dataclass
class PrmBatch:
    """Labelled steps for R; `rows.label_mask` holds their weights."""

    rows: StepBatch
    # Index into SOURCES, where steps come from several.
    source: Int32[Array | np.ndarray, "B S"] | None = None


@flax.struct.dataclass
class PreparedSteps:
    """A batch beside what its loss needs of the fixed reference and of chance."""

    batch: PrmBatch
    ref_logits: Float32[Array, "B S"]
    draws: Float32[Array, "B S"]  # uniform in [0, 1)


def prepare_steps(
    decoder: Decoder,
    ref: Any,
    batch: PrmBatch,
    head: str,
    objective: PrmObjective,
    key: Any,
    microbatches: int = 1,
) -> PreparedSteps:
    """Reads the reference where the objective has a KL, and draws for its verdicts."""
    shape = batch.rows.labels.shape
    ref_logits = jnp.zeros(shape, jnp.float32)
    if objective.beta > 0 and head != THREE_CLASS:
        ref_logits = by_microbatch(
            lambda rows: heads.step_logits(decoder, ref, rows, head),
            batch.rows,
            microbatches,
        )
    return PreparedSteps(batch, ref_logits, jax.random.uniform(key, shape))


def step_loss(
    params: Any,
    prepared: PreparedSteps,
    decoder: Decoder,
    head: str,
    objective: PrmObjective,
) -> Loss:
    """Loss of R on labelled steps, and its metrics, accuracies by label and source.

    The three-class head learns by cross-entropy alone.
    """
    rows = prepared.batch.rows
    labels, mask = jnp.asarray(rows.labels), jnp.asarray(rows.label_mask)
    if head == THREE_CLASS:
        loss, metrics, right = _class_loss(params, rows, decoder)
    else:
        logits = heads.step_logits(decoder, params, rows, head)
        loss, metrics = prm_loss(
            logits, prepared.ref_logits, labels, mask, objective, prepared.draws
        )
        metrics, right = dict(metrics), (logits > 0) == (labels > 0.5)
        if objective.beta == 0:
            del metrics["kl"]  # of no reference: nothing was measured
    parts = {"correct": labels > 0.5, "incorrect": labels < 0.5}
    if prepared.batch.source is not None:
        source = jnp.asarray(prepared.batch.source)
        parts |= {name: source == index for index, name in enumerate(SOURCES)}
    for name, part in parts.items():
        metrics[f"accuracy_{name}"] = MeanMetric.of(right, mask * part)
    return loss, metrics


def _class_loss(params: Any, rows: StepBatch, decoder: Decoder):
    labels, mask = jnp.asarray(rows.labels), jnp.asarray(rows.label_mask)
    logprobs = heads.step_class_logprobs(decoder, params, rows)
    centres = jnp.linspace(0.0, 1.0, 3)[None, None]
    targets = jnp.clip(1.0 - 2.0 * jnp.abs(labels[..., None] - centres), 0.0)
    right = jnp.argmax(logprobs, axis=-1) == jnp.argmax(targets, axis=-1)
    loss = -MeanMetric.of(jnp.sum(targets * logprobs, axis=-1), mask)
    return loss, {"accuracy": MeanMetric.of(right, mask)}, right


def make_prm_update(
    decoder: Decoder,
    head: str,
    objective: PrmObjective,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    *,
    microbatches: int = 1,
    adapters: LoraConfig | None = None,
) -> Callable[..., tuple[LearnerState, Scalars]]:
    """Compiles `update(state, ref, batch, key) -> (state, metrics)`; state donated.

    R alone; see `training.learner.make_update` for the guard. With `adapters` the
    state is that of `lora.player`, and `ref` the base under it.
    """

    def update(state: LearnerState, ref: Any, batch: PrmBatch, key: Any):
        prepared = prepare_steps(
            decoder, ref, batch, head, objective, key, microbatches
        )

        def loss_fn(trained, part):
            params = materialise(ref, trained, adapters)
            return step_loss(params, part, decoder, head, objective)

        after, metrics, *worth = learn(tx, state, loss_fn, prepared, microbatches)
        kept, flag = guarded(mesh, state, after, *worth)
        return kept, {f"prm/{name}": x for name, x in metrics.items()} | flag

    return jax.jit(on_mesh(mesh, update), donate_argnums=0)
