"""The sampler: prompts in, samples with their log-probabilities out.

Prompts are sorted into length buckets and cut into chunks of a few batch sizes, so
that few programs are compiled and the second request compiles none. Equal prompts of a
chunk are read once; where they are drawn from often, equal beginnings of replies too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int32, Key, UInt32

from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.models.positions import check_decodes
from aprm_jax.sampling.drawing import Samples
from aprm_jax.sampling.merged import sample_merged
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.programs import Programs, round_up
from aprm_jax.sampling.session import Session
from aprm_jax.sampling.stops import Stops
from aprm_jax.training import hosts
from aprm_jax.training.mesh import backbone_shardings, mesh_of

__all__ = ["Sampler", "Samples"]

# Replies repeat where the vocabulary is small and a prompt is drawn from this often:
# measured at 64 draws, the programs to compile cost more than they save.
_SMALL_VOCABULARY, _MERGED_FROM = 1 << 10, 128
_MERGED_ROWS = 16  # so many times the rows of a chunk are merged at once


class Sampler:
    """Samples from one architecture; parameters are passed to every call.

    Args:
      decoder_config: the architecture.
      stop_ids: tokens that end a sample.
      pad_id: stands after a sample's end.
      prompt_buckets: prompt lengths that are compiled for, ascending.
      max_new_tokens: T, room for a sample and its stop token.
      batch_buckets: numbers of rows that are compiled for, ascending; the last one is
        the most that run at once.
      mesh: shards the rows over its "data" and "fsdp" axes. Parameters that are on
        another one are moved to it, once a request.
      positions: the position of each token of a prompt, as the step builder gives it;
        by default they count from 0. New tokens count on from the last one.
    """

    def __init__(
        self,
        decoder_config: DecoderConfig,
        *,
        stop_ids: tuple[int, ...],
        pad_id: int,
        prompt_buckets: Sequence[int],
        max_new_tokens: int,
        batch_buckets: Sequence[int] = (16, 64, 256),
        mesh: jax.sharding.Mesh | None = None,
        positions: Callable[[Sequence[int]], Int32[np.ndarray, " T"]] | None = None,
    ):
        for name, sizes in (("prompt", prompt_buckets), ("batch", batch_buckets)):
            if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
                raise ValueError(f"{name}_buckets must ascend from 1 or more: {sizes}")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
        self.prompt_buckets = tuple(prompt_buckets)
        self.max_new_tokens = max_new_tokens
        self.pad_id, self._mesh = pad_id, mesh
        self._positions = positions or (lambda prompt: np.arange(len(prompt)))
        self.config = decoder_config
        self.stops = Stops(tuple(int(i) for i in stop_ids))
        self._programs = Programs(
            decoder_config, pad_id=pad_id, mesh=mesh, batch_buckets=batch_buckets
        )
        # Rows that go on become fewer and fewer: each power of two, however many.
        self._session_programs = Programs(decoder_config, pad_id=pad_id, mesh=mesh)
        self.batch_buckets = self._programs.batch_buckets
        largest = _MERGED_ROWS * self.batch_buckets[-1]
        self._merged_programs = Programs(
            decoder_config,
            pad_id=pad_id,
            mesh=mesh,
            batch_buckets=[largest >> k for k in (6, 4, 2, 0)],
        )

    def sample(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: Key[Array, ""] | UInt32[Array, "2"],
        *,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
        draws: Sequence[int] | None = None,
        stored: Callable[[Samples, Sequence[int]], None] | None = None,
    ) -> Samples:
        """One sample for each prompt; equal prompts are read once.

        What row i gets depends on (key, draws[i]), its prompt and the parameters, not
        on the other rows, nor on the number of devices but for rounding.

        Args:
          params: the backbone's parameters.
          prompts: N lists of ids, none empty.
          key: of the whole request.
          temperature: divides the logits; 0 takes the most likely token.
          truncation: which tokens may be drawn; None for all.
          draws: a number for each prompt that alone picks its randomness, from 0 to
            2^32 - 1; by default its place in the request.
          stored: is told of every few rows that are done, as (samples so far, their
            indices), while the device goes on with the next ones.

        Raises:
          ValueError: a prompt is empty or longer than the longest bucket.
        """
        self._check(prompts)
        params = self._placed(params)
        options = {"temperature": temperature, "truncation": truncation}
        n, width = len(prompts), self.max_new_tokens
        numbers = np.asarray(range(n) if draws is None else draws, np.uint32)
        out = Samples(
            tokens=np.full((n, width), self.pad_id, np.int32),
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.zeros(n, np.int32),
            stopped=np.zeros(n, bool),
        )
        merged, rest = self._parted(prompts)
        for chunk in merged:
            found = self._merged(params, prompts, chunk, numbers, key, **options)
            _copied(out, chunk, found, stored)
        running = []
        for bucket, chunk in self._chunks(prompts, rest):
            drawn = self._launch(
                params, prompts, bucket, chunk, numbers, key, **options
            )
            running.append((chunk, drawn))
            # One chunk computes while another is stored; more would pile up caches.
            if len(running) == 2:
                done, of_done = running.pop(0)
                _copied(out, done, of_done.fetch(), stored)
        for chunk, drawn in running:
            _copied(out, chunk, drawn.fetch(), stored)
        return out

    def session(self, params: Any, prompts: Sequence[Sequence[int]]) -> Session:
        """Rows that go on from their cache, padded to a power of two of them.

        Args:
          params: the backbone's parameters.
          prompts: as of `sample`.

        Raises:
          ValueError: as of `sample`.
        """
        self._check(prompts)
        programs, params = self._session_programs, self._placed(params)
        return Session(programs, params, prompts, positions=self._positions)

    @property
    def num_compiled(self) -> int:
        """See `Programs.num_compiled`: sessions, and what is merged, share them."""
        return self._programs.num_compiled

    @property
    def tokens_read(self) -> int:
        """Of prompts so far, and of rows that went on; what was drawn left out."""
        programs = (self._programs, self._session_programs, self._merged_programs)
        return sum(p.tokens_read for p in programs)

    def _placed(self, params: Any) -> Any:
        if self._mesh is None or mesh_of(params) in (None, self._mesh):
            return params
        return hosts.place(params, backbone_shardings(self._mesh, params))

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.prompt_buckets[-1]:
                raise ValueError(
                    f"prompt {i} has {len(prompt)} tokens; the sampler takes 1 to "
                    f"{self.prompt_buckets[-1]} (the longest prompt bucket)"
                )
            check_decodes(self.config, len(prompt), self.max_new_tokens)

    def _parted(
        self, prompts: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[int]]:
        """Chunks of draws that are merged, and what is drawn row by row."""
        rows: dict[tuple[int, ...], list[int]] = {}
        for i, prompt in enumerate(prompts):
            rows.setdefault(tuple(prompt), []).append(i)
        few = self.config.vocab_size <= _SMALL_VOCABULARY
        often = [row for row in rows.values() if few and len(row) >= _MERGED_FROM]
        rest = sorted({*range(len(prompts))}.difference(*often))
        most, merged = self._merged_programs.batch_buckets[-1], [[]]
        for row in often:
            for start in range(0, len(row), most):
                part = row[start : start + most]
                if len(merged[-1]) + len(part) > most:
                    merged.append([])
                merged[-1] += part
        return [chunk for chunk in merged if chunk], rest

    def _chunks(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]):
        """Yields (prompt bucket, indices of these rows), equal prompts side by side."""
        first: dict[tuple[int, ...], int] = {}
        by_bucket: dict[int, list[tuple[int, int]]] = {}
        for i in rows:
            rank = first.setdefault(tuple(prompts[i]), i)
            bucket = round_up(len(prompts[i]), self.prompt_buckets)
            by_bucket.setdefault(bucket, []).append((rank, i))
        most = self.batch_buckets[-1]
        for bucket, ranked in sorted(by_bucket.items()):
            alike = [i for _, i in sorted(ranked)]
            for start in range(0, len(alike), most):
                yield bucket, alike[start : start + most]

    def _merged(self, params, prompts, chunk, numbers, key, **options) -> Samples:
        first: dict[tuple[int, ...], int] = {}
        rows = [first.setdefault(tuple(prompts[i]), len(first)) for i in chunk]
        session = Session(
            self._merged_programs, params, list(first), positions=self._positions
        )
        return sample_merged(
            session,
            np.array(rows),
            key,
            stop_ids=self.stops.ids,
            pad_id=self.pad_id,
            max_new_tokens=self.max_new_tokens,
            draws=numbers[chunk],
            **options,
        )

    def _launch(self, params, prompts, bucket, chunk, numbers, key, **options):
        session = Session(
            self._programs,
            params,
            [prompts[i] for i in chunk],
            positions=self._positions,
            slots=bucket,
        )
        return session.launch(
            key,
            stops=self.stops,
            max_new_tokens=self.max_new_tokens,
            draws=numbers[chunk].tolist(),
            **options,
        )


def _copied(
    out: Samples,
    chunk: list[int],
    found: Samples,
    stored: Callable[[Samples, Sequence[int]], None] | None,
) -> None:
    """Writes a chunk into its rows of the result."""
    out.tokens[chunk] = found.tokens
    out.logprobs[chunk] = found.logprobs
    out.lengths[chunk] = found.lengths
    out.stopped[chunk] = found.stopped
    if stored is not None:
        stored(out, chunk)
