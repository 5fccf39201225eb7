"""Scores of many solutions' steps: equal rows once, few shapes, input order out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.rows import StepBatch, StepRow
from aprm_jax.data.steps import RowFormat
from aprm_jax.data.trees import STEP_TOKENS, tree_rows
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.training import hosts
from aprm_jax.training.mesh import mesh_of, on_mesh, shard_beside

StepScorer = Callable[[Any, StepBatch], Any]

BATCH_SIZES, MAX_TOKENS = (16, 128), 1 << 15
_CHEAP_TOKENS = 1 << 12  # a batch of so many, padding included, is not worth splitting


class Scorer:
    """Scores the steps of solutions with a compiled function of (params, batch).

    Args:
      step_scores: gives float32 [B, S]; see `prm_scorer`, `likelihood_scorer`.
      builder: makes the rows.
      max_steps: S, most steps of a solution.
      batch_sizes: numbers of rows that are compiled for, ascending.
      max_tokens: most tokens of a batch, where that leaves the least batch size;
        attention's memory grows with the square of a row's length.

    Attributes:
      tokens_read: of all rows so far, padding left out.
    """

    def __init__(
        self,
        step_scores: StepScorer,
        builder: RowFormat,
        *,
        max_steps: int,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        max_tokens: int = MAX_TOKENS,
    ):
        self._score = step_scores
        self._placed: dict[Any, StepScorer] = {}  # by mesh
        self.builder = builder
        self._max_steps = max_steps
        self._batch_sizes = tuple(batch_sizes)
        self._max_tokens = max_tokens
        self.tokens_read = 0

    def _on(self, mesh: jax.sharding.Mesh | None) -> StepScorer:
        """The scores, with activations where the parameters' mesh has them."""
        if mesh is None or mesh.size == 1:
            return self._score
        if mesh not in self._placed:
            self._placed[mesh] = jax.jit(on_mesh(mesh, self._score))
        return self._placed[mesh]

    def solutions(
        self, params: Any, solutions: Sequence[tuple[str, Sequence[str]]]
    ) -> list[Float32[np.ndarray, " S"]]:
        """One float32 score for each step of each (question, steps).

        Raises:
          TooLongError: a solution does not fit the longest bucket.
        """
        if self.builder.window is None:
            rows = {
                (q, tuple(s)): self.builder.solution(q, s) for q, s in solutions if s
            }
            scored = self.rows(params, rows)
            empty = np.zeros(0, np.float32)
            return [scored[(q, tuple(s))] if s else empty for q, s in solutions]
        # A windowed step depends on what it sees alone: score each such pair once.
        window = self.builder.window
        keys = [
            [(tuple([q, *s[:k]][-window:]), s[k]) for k in range(len(s))]
            for q, s in solutions
        ]
        steps = {}
        for key in {key for row in keys for key in row}:
            lines, step = key
            steps[key] = self.builder.step(lines[0], lines[1:], step)
        scored = self.rows(params, steps)
        return [np.array([scored[key][0] for key in row], np.float32) for row in keys]

    def trees(
        self,
        params: Any,
        solutions: Sequence[tuple[str, tuple[str, ...]]],
        *,
        branch: bool = True,
    ) -> list[Float32[np.ndarray, " _"]]:
        """As `solutions`, but what several of them share is read once.

        Args:
          solutions: (question, steps) of each.
          branch: see `trees.tree_rows`.

        Returns:
          Scores of the steps of each solution, up to the last one that fits a row.
        """
        tree = PrefixTree()
        paths = [tree.add(question, steps) for question, steps in solutions]
        length = self.builder.buckets[-1]
        most = max(self._max_steps, length // STEP_TOKENS)
        found = tree_rows(
            self.builder, tree, length=length, max_steps=most, branch=branch
        )
        scored = self.rows(params, dict(enumerate(t.row for t in found)), most)
        known = {
            node: score
            for k, tree_row in enumerate(found)
            for node, score in zip(tree_row.nodes, scored[k], strict=True)
        }
        fitting = (itertools.takewhile(known.__contains__, path) for path in paths)
        return [np.array([known[node] for node in fit], np.float32) for fit in fitting]

    def rows(
        self, params: Any, rows: dict[Any, StepRow], max_steps: int = 0
    ) -> dict[Hashable, Float32[np.ndarray, " S"]]:
        """Scores of keyed rows, in batches of one length bucket each.

        `max_steps` of a row are compiled for; by default those of a solution.
        """
        most = max_steps or self._max_steps
        by_bucket: dict[int, list[Any]] = {}
        # Sorted by content, not by dict order: a set's order changes between runs.
        for key in sorted(rows, key=lambda k: rows[k].tokens.tobytes()):
            by_bucket.setdefault(self.builder.bucket(len(rows[key])), []).append(key)
        self.tokens_read += sum(len(row) for row in rows.values())
        pending = []
        for length, keys in sorted(by_bucket.items()):
            while keys:
                size = self._batch_size(len(keys), length)
                part, keys = keys[:size], keys[size:]
                widest = max(len(rows[k].labels) for k in part)
                batch = self.builder.collate(
                    [rows[k] for k in part],
                    length=length,
                    max_steps=1 if widest == 1 else max(widest, most),
                    batch_size=size,
                )
                placed = shard_beside(params, batch)
                scores = self._on(mesh_of(params))(params, placed)
                pending.append((part, scores))
        return self._fetched(pending, rows)

    def _batch_size(self, left: int, length: int) -> int:
        """Rows of the next batch where so many are left, padding included."""
        sizes = batch_sizes(length, self._batch_sizes, self._max_tokens)
        whole = next((b for b in sizes if left <= b), sizes[-1])
        if whole * length <= _CHEAP_TOKENS:
            return whole
        # Rather a few smaller batches than one that is mostly padding.
        smaller = (b for b in sizes if b < whole and 2 * b * -(-left // b) <= whole)
        return max(smaller, default=whole)

    def _fetched(
        self, pending: Sequence[tuple[list[Any], Any]], rows: dict[Any, StepRow]
    ) -> dict[Hashable, Float32[np.ndarray, " S"]]:
        out = {}
        for part, scores in pending:
            values = np.asarray(hosts.fetch(scores), np.float32)
            for i, key in enumerate(part):
                out[key] = values[i, : len(rows[key].labels)]
        return out


def batch_sizes(
    length: int, sizes: Sequence[int] = BATCH_SIZES, max_tokens: int = MAX_TOKENS
) -> list[int]:
    """Numbers of rows of so many tokens that are scored at once; the least always."""
    return [b for b in sizes if b * length <= max_tokens] or [sizes[0]]


def prm_scorer(decoder: Decoder, head: str) -> StepScorer:
    """Log-odds that each step is correct under a PRM.

    Log-odds, because probabilities of float32 saturate at 1 and best-of-n would tie.
    """

    def score(params, batch):
        return heads.step_logits(decoder, params, batch, head)

    return jax.jit(score)


def likelihood_scorer(decoder: Decoder) -> StepScorer:
    """The least token log-probability of each step under a solver's LM."""

    def score(params, batch):
        logprobs = heads.token_logprobs(decoder, params["backbone"], batch)
        steps = jnp.arange(batch.labels.shape[1])
        member = jnp.asarray(batch.step_ids)[:, None, :] == steps[None, :, None]
        return jnp.min(jnp.where(member, logprobs[:, None, :], 0.0), axis=-1)

    return jax.jit(score)
