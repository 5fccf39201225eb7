"""The solver that a loaded model is, for whoever has no run's config."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

from aprm_jax.hf.builders import open_writer
from aprm_jax.models.io import ModelSpec
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.training.mesh import mesh_of

BATCH_ROWS = (16, 64, 256)  # that are compiled for


def solver_of(
    params: Any, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast
) -> LocalSolver:
    """A loaded model as a solver; its domain says what concludes a solution.

    Args:
      params: `{"backbone": ...}`; it samples on their devices.
      spec: of the model.
      tokenizer: likewise.
    """
    writer = open_writer(spec, tokenizer)
    sampler = Sampler(
        spec.decoder,
        stop_ids=writer.replies.stop_ids,
        pad_id=writer.pad_id,
        prompt_buckets=writer.buckets,
        max_new_tokens=spec.max_new_tokens or writer.buckets[0],
        batch_buckets=BATCH_ROWS,
        mesh=mesh_of(params),
        positions=writer.positions,
    )
    arithmetic = spec.domain.startswith("arithmetic")  # of either modulus
    grader = ArithmeticDomain(0) if arithmetic else AnswerGrader()
    return LocalSolver(sampler, params["backbone"], grader, writer)
