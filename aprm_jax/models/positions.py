"""Where tokens stand and what they see: rotary angles and masks, by kind of layer.

Axes: B batch, T target/query, S source/key, H head size, L layers.
"""

from __future__ import annotations

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from aprm_jax.models import cpu_kernels
from aprm_jax.models.architecture import DecoderConfig, RopeScaling

Rotation = tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]]


def rotation(
    positions: Int32[Array, "B T"],
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    lengths: Int32[Array, "B T"] | None = None,
) -> Rotation:
    """Cosine and sine of the rotary angles (Su et al., arXiv:2104.09864).

    Args:
      positions: of the tokens.
      head_dim: how many numbers rotate, twice the angles.
      theta: base of the wavelengths.
      scaling: how they are stretched.
      lengths: of the sequence that each token stands in, for "longrope"; default: up to
        the token itself.
    """
    exponent = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    periods = theta ** exponent[None, None]
    if scaling is not None:
        lengths = positions + 1 if lengths is None else lengths
        periods = _stretched(periods, theta, scaling, lengths)
    angles = positions[..., None].astype(jnp.float32) / periods
    cos_sin = jnp.cos(angles), jnp.sin(angles)
    if scaling is not None and scaling.attention_factor != 1.0:
        cos_sin = tuple(x * scaling.attention_factor for x in cos_sin)
    return cpu_kernels.kept(*cos_sin)  # XLA would recompute them in every layer


def _stretched(
    periods: Float32[Array, "1 1 half"],
    theta: float,
    scaling: RopeScaling,
    lengths: Int32[Array, "B T"],
) -> Float32[Array, "..."]:
    """Periods (wavelengths over 2 pi) after scaling."""
    if scaling.kind == "linear":
        return periods * scaling.factor
    if scaling.kind == "longrope":
        short, long = (
            periods * jnp.asarray(factors, jnp.float32)[None, None]
            for factors in (scaling.short_factor, scaling.long_factor)
        )
        return jnp.where(lengths[..., None] > scaling.original_length, long, short)
    if scaling.kind == "yarn":
        share = _yarn_share(periods.shape[-1], theta, scaling)
    else:
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        turns = scaling.original_length / (2 * math.pi * periods)
        share = jnp.clip((turns - low) / (high - low), 0.0, 1.0)  # is not stretched
    return periods / ((1 - share) / scaling.factor + share)


def _yarn_share(half: int, theta: float, scaling: RopeScaling) -> Any:
    """Of each pair, how far it is left as it is (YaRN, arXiv:2309.00071, eq. 22).

    The ramp runs over the index of the pair, as in transformers, not over its turns.
    """

    def pair(turns: float) -> float:
        """The pair that makes so many turns within the original length."""
        wavelength = scaling.original_length / turns
        return half * math.log(wavelength / (2 * math.pi)) / math.log(theta)

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    width = high - low or 0.001
    index = jnp.arange(half, dtype=jnp.float32)[None, None]
    return 1 - jnp.clip((index - low) / width, 0.0, 1.0)


def causal_mask(
    segment_ids: Int32[Array, "B T"],
    window: int | None = None,
    ends: Int32[Array, "B T"] | None = None,
) -> Bool[Array, "B T T"]:
    """Which columns a token sees: those of its segment up to itself.

    With a window only the last `window` columns, its own included; a segment's tokens
    stand side by side, so these are that many tokens. With `ends` only those columns
    whose end is not before the token: of a tree in preorder, what leads to it.
    """
    index = jnp.arange(segment_ids.shape[1])
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    distance = index[:, None] - index[None, :]
    near = distance >= 0
    if window is not None:
        near &= distance < window
    if ends is not None:
        same &= index[None, :, None] <= ends[:, None, :]
    return same & near[None]


@flax.struct.dataclass
class AttentionContext:
    """What the layers of a decoder see: one of each, or two where layers differ.

    Attributes:
      rotations: of layers that see everything, then of those with a window.
      masks: [B, T, S] of the same.
      segment_ids: of whole rows that do not branch, which kernels read in a mask's
        place; None elsewhere.
    """

    rotations: tuple[Rotation, ...]
    masks: tuple[Bool[Array, "B T S"], ...]
    segment_ids: Int32[Array, "B T"] | None = None

    def of(self, local: Any) -> tuple[Any, Any]:
        """Rotation and mask of a layer; `local` may be traced, None where all agree."""
        return _pick(self.rotations, local), _pick(self.masks, local)


def attention_context(
    config: DecoderConfig,
    positions: Int32[Array, "B T"],
    segment_ids: Int32[Array, "B T"],
    ends: Int32[Array, "B T"] | None = None,
) -> AttentionContext:
    """What the tokens of whole rows see; for `ends` see `causal_mask`.

    Raises:
      ValueError: the rows branch, and a layer has a window: columns are no distances;
        or the angles depend on a row's length, and it has several.
    """
    kinds = _kinds(config)
    if ends is not None and not config.reads_branches:
        raise ValueError(
            "a decoder with a sliding window or longrope cannot read rows that branch"
        )
    masks = tuple(
        causal_mask(segment_ids, config.sliding_window if local else None, ends)
        for local in kinds
    )
    lengths = None
    if config.switches_rope:
        lengths = _lengths(positions, segment_ids)
    plain = segment_ids if ends is None else None
    rotations = _rotations(config, positions, kinds, lengths)
    return AttentionContext(rotations, masks, plain)


def _lengths(
    positions: Int32[Array, "B T"], segment_ids: Int32[Array, "B T"]
) -> Int32[Array, "B T"]:
    """Of each token, how long its segment is."""

    def of_row(place, segment):
        longest = jnp.zeros(place.shape[0] + 1, jnp.int32)
        return longest.at[segment].max(place + 1, mode="drop")[segment]

    return jax.vmap(of_row)(positions, segment_ids)


def decodes(config: DecoderConfig, prompt: int, new: int) -> bool:
    """Whether a cache goes on as a whole row is read; see `check_decodes`."""
    if not config.switches_rope or config.rope_scaling is None:
        return True
    length = config.rope_scaling.original_length
    return not prompt <= length < prompt + new - 1  # the last one written is not read


def check_decodes(config: DecoderConfig, prompt: int, new: int) -> None:
    """Raises ValueError where a cache would not go on as a whole row is read.

    Past longrope's first length all of a row changes, what is cached of it included:
    a row must stay on one side of it while it is written.

    Args:
      config: of the decoder.
      prompt: how many tokens are read at once.
      new: how many are written at most.
    """
    if not decodes(config, prompt, new):
        assert config.rope_scaling is not None
        length = config.rope_scaling.original_length
        raise ValueError(
            f"a prompt of {prompt} tokens with up to {new} new ones passes the "
            f"{length} from which longrope reads a row in another way: take "
            f"prompts and max_new_tokens that stay within {length} tokens, or "
            "prompts that are longer"
        )


def cache_context(
    config: DecoderConfig,
    positions: Int32[Array, "B T"],
    places: Int32[Array, "B T"],
    filled: Int32[Array, "B S"],
) -> AttentionContext:
    """What tokens see of a cache that holds their rows, themselves included.

    Args:
      config: the decoder's.
      positions: of the tokens.
      places: how many tokens of its row stand before each.
      filled: the place in its row of the token in each slot; -1 where it is empty.
    """
    distance = places[:, :, None] - filled[:, None, :]
    visible = (filled[:, None, :] >= 0) & (distance >= 0)
    windows = [config.sliding_window if local else None for local in _kinds(config)]
    masks = (visible if w is None else visible & (distance < w) for w in windows)
    return AttentionContext(_rotations(config, positions, _kinds(config)), tuple(masks))


def layer_kinds(config: DecoderConfig) -> Bool[Array, " L"] | None:
    """Which layers have a window, to scan over; None where all agree."""
    return jnp.asarray(config.local_layers) if config.mixes_layers else None


def _kinds(config: DecoderConfig) -> tuple[bool, ...]:
    return tuple(sorted(set(config.local_layers)))


def _rotary(config: DecoderConfig) -> int:
    return config.rotary_dim or config.head_dim


def _rotations(
    config: DecoderConfig,
    positions: Int32[Array, "B T"],
    kinds: tuple[bool, ...],
    lengths: Int32[Array, "B T"] | None = None,
) -> tuple[Rotation, ...]:
    dim, local_theta = _rotary(config), config.local_rope_theta
    scaled = rotation(positions, dim, config.rope_theta, config.rope_scaling, lengths)
    if local_theta is None:
        return (scaled,)
    own = rotation(positions, dim, local_theta)
    return tuple(own if local else scaled for local in kinds)


def _pick(options: tuple[Any, ...], local: Any) -> Any:
    if len(options) == 1:
        return options[0]
    if isinstance(local, bool):
        return options[local]
    return jax.tree.map(lambda full, near: jnp.where(local, near, full), *options)
