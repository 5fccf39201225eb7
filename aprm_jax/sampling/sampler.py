"""The sampler: prompts in, samples with their log-probabilities out.

Prompts are sorted into length buckets and cut into chunks of a few batch sizes, so
that few programs are compiled and the second request compiles none. Equal prompts of a
chunk are read once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32

from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.models.positions import check_decodes
from aprm_jax.sampling.loop import decode
from aprm_jax.sampling.prefill import Prefilled, gather, prefill

BATCH_AXES = ("data", "fsdp")


@flax.struct.dataclass
class Samples:
    """What was drawn, in the order of the prompts.

    Attributes:
      tokens: drawn tokens, the stop token included, padding after it.
      logprobs: log-probability of each token under the distribution that it was drawn
        from (at temperature 0, of temperature 1); 0 after the stop.
      lengths: tokens drawn, the stop token included.
      stopped: whether a stop token was drawn before the room ran out.
    """

    tokens: Int32[np.ndarray, "N T"]
    logprobs: Float32[np.ndarray, "N T"]
    lengths: Int32[np.ndarray, " N"]
    stopped: Bool[np.ndarray, " N"]


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
      mesh: shards the rows over its "data" and "fsdp" axes.
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
        self.batch_buckets = tuple(batch_buckets)
        self.max_new_tokens = max_new_tokens
        self.pad_id = pad_id
        self._positions = positions or (lambda prompt: np.arange(len(prompt)))
        self._sharding = None
        if mesh is not None:
            axes = tuple(a for a in BATCH_AXES if a in mesh.shape)
            share = int(np.prod([mesh.shape[a] for a in axes]))
            rounded = {-(-size // share) * share for size in self.batch_buckets}
            self.batch_buckets = tuple(sorted(rounded))
            self._sharding = jax.sharding.NamedSharding(
                mesh, jax.sharding.PartitionSpec(axes)
            )
        self._config = decoder_config
        self._prefill = jax.jit(functools.partial(prefill, decoder_config))
        self._decode = jax.jit(
            functools.partial(
                _gather_and_decode,
                decoder_config,
                tuple(int(i) for i in stop_ids),
                int(pad_id),
                max_new_tokens,
                self._sharding,
            )
        )

    def sample(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: Key[Array, ""] | UInt32[Array, "2"],
        *,
        temperature: float = 1.0,
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
          draws: a number for each prompt that alone picks its randomness, from 0 to
            2^32 - 1; by default its place in the request.
          stored: is told of every few rows that are done, as (samples so far, their
            indices), while the device goes on with the next ones.

        Raises:
          ValueError: a prompt is empty or longer than the longest bucket.
        """
        if temperature < 0:
            raise ValueError(f"temperature must not be negative: {temperature}")
        self._check(prompts)
        n, width = len(prompts), self.max_new_tokens
        numbers = np.asarray(range(n) if draws is None else draws, np.uint32)
        out = Samples(
            tokens=np.full((n, width), self.pad_id, np.int32),
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.zeros(n, np.int32),
            stopped=np.zeros(n, bool),
        )
        running = []
        for bucket, chunk in self._chunks(prompts):
            drawn = self._run(params, prompts, bucket, chunk, numbers, key, temperature)
            running.append((chunk, drawn))
            # One chunk computes while another is stored; more would pile up caches.
            if len(running) == 2:
                done, of_done = running.pop(0)
                _store(out, done, of_done, stored)
        for chunk, drawn in running:
            _store(out, chunk, drawn, stored)
        return out

    @property
    def num_compiled(self) -> int:
        """Programs compiled so far; constant once every shape has been seen."""
        programs: tuple[Any, ...] = (self._prefill, self._decode)
        return sum(program._cache_size() for program in programs)

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.prompt_buckets[-1]:
                raise ValueError(
                    f"prompt {i} has {len(prompt)} tokens; the sampler takes 1 to "
                    f"{self.prompt_buckets[-1]} (the longest prompt bucket)"
                )
            check_decodes(self._config, len(prompt), self.max_new_tokens)

    def _chunks(self, prompts: Sequence[Sequence[int]]):
        """Yields (prompt bucket, row indices), equal prompts side by side."""
        first: dict[tuple[int, ...], int] = {}
        by_bucket: dict[int, list[tuple[int, int]]] = {}
        for i, prompt in enumerate(prompts):
            rank = first.setdefault(tuple(prompt), i)
            bucket = _round_up(len(prompt), self.prompt_buckets)
            by_bucket.setdefault(bucket, []).append((rank, i))
        most = self.batch_buckets[-1]
        for bucket, ranked in sorted(by_bucket.items()):
            rows = [i for _, i in sorted(ranked)]
            for start in range(0, len(rows), most):
                yield bucket, rows[start : start + most]

    def _run(self, params, prompts, bucket, chunk, numbers, key, temperature) -> Drawn:
        entries: dict[tuple[int, ...], int] = {}
        for i in chunk:
            entries.setdefault(tuple(prompts[i]), len(entries))
        size = _round_up(len(entries), self.batch_buckets)
        tokens = np.full((size, bucket), self.pad_id, np.int32)
        lengths = np.zeros(size, np.int32)
        positions = np.zeros((size, bucket), np.int32)
        for prompt, u in entries.items():
            tokens[u, : len(prompt)] = prompt
            positions[u, : len(prompt)] = self._positions(prompt)
            lengths[u] = len(prompt)
        size = _round_up(len(chunk), self.batch_buckets)
        source, rows = np.zeros(size, np.int32), np.zeros(size, np.uint32)
        source[: len(chunk)] = [entries[tuple(prompts[i])] for i in chunk]
        rows[: len(chunk)] = numbers[chunk]
        live = np.arange(size) < len(chunk)
        put = functools.partial(jax.device_put, device=self._sharding)
        prefilled = self._prefill(params, put(tokens), put(lengths), put(positions))
        return self._decode(
            params,
            prefilled,
            put(source),
            put(rows),
            put(live),
            key,
            np.float32(temperature),
        )


class Drawn(NamedTuple):
    """What a chunk brings back from the device."""

    tokens: Int32[Array, "B T"]
    logprobs: Float32[Array, "B T"]
    lengths: Int32[Array, " B"]
    stopped: Bool[Array, " B"]


def _gather_and_decode(
    config: DecoderConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    max_new_tokens: int,
    sharding: jax.sharding.NamedSharding | None,
    params: Any,
    prefilled: Prefilled,
    source: Int32[Array, " B"],
    rows: UInt32[Array, " B"],
    live: Bool[Array, " B"],
    key: Key[Array, ""] | UInt32[Array, "2"],
    temperature: Float32[Array, ""],
) -> Drawn:
    prompts = gather(prefilled, source)
    if sharding is not None:
        prompts = jax.lax.with_sharding_constraint(prompts, sharding)
    state = decode(
        config,
        stop_ids,
        pad_id,
        max_new_tokens,
        params,
        prompts,
        rows,
        live,
        key,
        temperature,
    )
    return Drawn(state.tokens, state.logprobs, state.lengths, state.stopped & live)


def _store(
    out: Samples,
    chunk: list[int],
    drawn: Drawn,
    stored: Callable[[Samples, Sequence[int]], None] | None,
) -> None:
    """Writes a chunk into its rows of the result; waits for the device."""
    host, n = jax.device_get(drawn), len(chunk)
    out.tokens[chunk] = host.tokens[:n]
    out.logprobs[chunk] = host.logprobs[:n]
    out.lengths[chunk] = host.lengths[:n]
    out.stopped[chunk] = host.stopped[:n]
    if stored is not None:
        stored(out, chunk)


def _round_up(size: int, buckets: tuple[int, ...]) -> int:
    return next(b for b in buckets if size <= b)
