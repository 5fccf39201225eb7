"""The compiled functions that all sessions with one architecture share.

Every shape is one of a few, so that few programs are compiled: numbers of rows and of
slots are rounded up to buckets. What gathers rows is a program of its own, without a
layer in it: the large ones do not depend on the shapes that rows had before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from aprm_jax.models.attention import platform
from aprm_jax.models.cache import placed
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.models.placement import ROW_AXES, by_rows
from aprm_jax.sampling.loop import (
    Draws,
    LoopConfig,
    LoopState,
    begin,
    go_on,
    narrowed,
)
from aprm_jax.sampling.methods import draw, row_uniforms
from aprm_jax.sampling.rows import (
    Given,
    Rows,
    Selection,
    extend,
    gather,
    prefill,
    put_back,
    taken,
)
from aprm_jax.training import hosts
from aprm_jax.training.mesh import on_mesh

# (backbone, head, state before each token, state of it, token) to scores [B, T].
TokenScorer = Callable[[Any, Any, Array, Array, Array], Array]


class Programs:
    """What sessions run on the device.

    Args:
      config: the architecture.
      pad_id: stands where a row has no token.
      mesh: shards the rows over its "data" and "fsdp" axes, and the heads of caches
        over "tensor".
      batch_buckets: numbers of rows that are compiled for, ascending; by default the
        powers of two.
      scorer: of tokens that a session reads; see `heads.token_scores`.
      shared: with all others of the same architecture, mesh and scorer; not where they
        are traced for another platform than this one.

    Attributes:
      tokens_read: by all sessions so far; what was drawn left out.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        pad_id: int,
        mesh: jax.sharding.Mesh | None = None,
        batch_buckets: Sequence[int] | None = None,
        scorer: TokenScorer | None = None,
        shared: bool = True,
    ):
        self.config, self.pad_id, self.tokens_read = config, int(pad_id), 0
        self.sharding, self._share = None, 1
        if mesh is not None:
            axes = tuple(a for a in ROW_AXES if a in mesh.shape)
            self._share = int(np.prod([mesh.shape[a] for a in axes]))
            spec = jax.sharding.PartitionSpec(axes)
            self.sharding = jax.sharding.NamedSharding(mesh, spec)
        sizes = {-(-size // self._share) * self._share for size in batch_buckets or ()}
        self.batch_buckets = tuple(sorted(sizes))

        found = (_jitted if shared else _jitted.__wrapped__)(
            config, mesh, scorer, platform()
        )
        self.prefill, self.gather, self.draw, self.read = found[:4]
        self.sample, self.resume = found[4:6]
        self.narrow, self.take, self.put_back = found[6:]
        # Elsewhere a few rows cost what many do, and to move them waits for the host.
        self.narrows = platform() == "cpu" and mesh is None
        self._known = self._compiled()

    def rows(self, count: int) -> int:
        """The number of rows that `count` are padded to."""
        if self.batch_buckets:
            return round_up(count, self.batch_buckets)
        return -(-power_of_two(count) // self._share) * self._share

    def put(self, tree: Any) -> Any:
        """Arrays of rows on the device, rows over the mesh."""
        return hosts.place(tree, self.sharding)

    @property
    def num_compiled(self) -> int:
        """Programs compiled since these were made, whoever of those that share them
        it was for; constant once every shape has been seen.
        """
        return self._compiled() - self._known

    def _compiled(self) -> int:
        heavy = (self.prefill, self.sample, self.resume, self.draw, self.read)
        moving = (self.gather, self.narrow, self.take, self.put_back)
        programs: tuple[Any, ...] = (*heavy, *moving)
        return sum(program._cache_size() for program in programs)


@functools.lru_cache(maxsize=32)
def _jitted(
    config: DecoderConfig,
    mesh: jax.sharding.Mesh | None,
    scorer: TokenScorer | None,
    platform: str,
) -> tuple[Callable[..., Any], ...]:
    """The functions by all that they depend on: a process traces each once.

    A run of many searches would else pay for it in each: a third of their time.
    """
    del platform  # attention's kernel is chosen by it

    def bound(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        return on_mesh(mesh, functools.partial(function, *args))

    return (
        jax.jit(bound(prefill, config)),
        jax.jit(bound(_gather), static_argnums=(2, 3, 4)),
        jax.jit(bound(_draw, config), static_argnums=5),
        jax.jit(bound(_read, config, scorer), static_argnums=3, donate_argnums=2),
        jax.jit(bound(_sample, config), static_argnums=(0, 3), donate_argnums=2),
        jax.jit(bound(go_on, config), static_argnums=(0, 2), donate_argnums=3),
        jax.jit(bound(narrowed)),
        jax.jit(bound(taken)),
        jax.jit(bound(put_back), static_argnums=3, donate_argnums=0),
    )


def power_of_two(size: int) -> int:
    """The least power of two that is not below a positive size."""
    return 1 << (size - 1).bit_length()


def round_up(size: int, buckets: Sequence[int]) -> int:
    """The least bucket that holds a size."""
    return next(b for b in buckets if size <= b)


def _gather(
    rows: Rows,
    selected: Selection,
    old_heads: int,
    heads: int,
    room: int,
) -> Rows:
    gathered = gather(rows, selected, old_heads, heads, room)
    return Rows(by_rows(gathered.residual), placed(gathered.cache))


def _sample(
    config: DecoderConfig,
    loop: LoopConfig,
    params: Any,
    rows: Rows,
    heads: int,
    lengths: Int32[Array, " B"],
    position: Int32[Array, " B"],
    unread: Int32[Array, " B"] | None,
    live: Bool[Array, " B"],
    draws: Draws,
    until: Int32[Array, ""],
    fewest: Int32[Array, ""],
) -> LoopState:
    state = begin(
        config, loop, params, rows, heads, lengths, position, unread, live, draws
    )
    return go_on(config, loop, params, heads, state, draws, until, fewest)


def _draw(
    config: DecoderConfig,
    params: Any,
    residual: Float32[Array, "G D"],
    sources: Int32[Array, " N"],
    draws: Draws,
    step: Int32[Array, ""],
    steps: int,
) -> tuple[Int32[Array, " N"], Float32[Array, " N"]]:
    """A token of each draw; `sources` are rows of `residual`."""
    decoder: Any = Decoder(config)
    logits = decoder.apply({"params": params}, residual, method=Decoder.norm_logits)
    uniforms = row_uniforms(draws.key, draws.rows, steps)[:, step]
    temperature = jnp.asarray(draws.temperature)
    return draw(logits[sources], uniforms, temperature, draws.rules)


def _read(
    config: DecoderConfig,
    scorer: TokenScorer | None,
    params: Any,
    head: Any,
    rows: Rows,
    heads: int,
    lengths: Int32[Array, " B"],
    before: Int32[Array, ""],
    given: Given,
) -> tuple[Rows, Float32[Array, "B T"] | None]:
    rows, states = extend(config, params, rows, heads, lengths, given, before)
    if scorer is None:
        return rows, None
    return rows, scorer(
        params, head, states[:, :-1], states[:, 1:], jnp.asarray(given.tokens)
    )
