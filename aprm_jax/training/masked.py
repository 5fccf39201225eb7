"""Masked reductions in float32: the one home of every mean that leaves things out."""

from __future__ import annotations

import math
from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Shaped


@flax.struct.dataclass
class MeanMetric:
    """A mean that can be added up exactly, never a mean of means.

    Attributes:
      total: [] sum of the weighted values.
      weight: [] sum of the weights.
    """

    total: Float32[Array, ""]
    weight: Float32[Array, ""]

    @classmethod
    def of(cls, values: Any, weights: Any = None) -> MeanMetric:
        """From values and weights of equal shape; without weights each counts 1."""
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.ones_like(values) if weights is None else jnp.asarray(weights)
        weights = weights.astype(jnp.float32)
        return cls(masked_sum(values, weights), jnp.sum(weights))

    def __add__(self, other: MeanMetric) -> MeanMetric:
        return MeanMetric(self.total + other.total, self.weight + other.weight)

    def __neg__(self) -> MeanMetric:
        return MeanMetric(-self.total, self.weight)

    def mean(self) -> Float[Array, ""]:
        """The mean where it is computed; 0 where nothing was counted. For losses."""
        return self.total / jnp.maximum(self.weight, 1e-8)

    def shown(self) -> Float[Array, ""]:
        """The mean where it is computed; NaN where nothing was counted."""
        return jnp.where(self.weight > 0, self.mean(), jnp.nan)

    def compute(self) -> float:
        """The mean on the host; NaN where nothing was counted."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else math.nan


@flax.struct.dataclass
class SumMetric:
    """A count that adds up."""

    value: Float32[Array, ""]

    def __add__(self, other: SumMetric) -> SumMetric:
        return SumMetric(self.value + other.value)

    def shown(self) -> Float[Array, ""]:
        """The sum."""
        return self.value


@flax.struct.dataclass
class MaxMetric:
    """A maximum that can go on: the larger of two is their sum."""

    value: Float32[Array, ""]

    @classmethod
    def of(cls, values: Any, mask: Any) -> MaxMetric:
        """Of what is not masked out; 0 where everything is."""
        return cls(jnp.max(jnp.where(jnp.asarray(mask) > 0, values, 0.0)))

    def __add__(self, other: MaxMetric) -> MaxMetric:
        return MaxMetric(jnp.maximum(self.value, other.value))

    def shown(self) -> Float[Array, ""]:
        """The maximum."""
        return self.value


def masked_sum(
    values: Shaped[Array, "*s"], mask: Shaped[Array, "*s"]
) -> Float[Array, ""]:
    """Sum of `values * mask`; what is masked out may be NaN."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(jnp.where(mask != 0, values.astype(jnp.float32), 0.0) * mask)


def masked_mean(
    values: Shaped[Array, "*s"], mask: Shaped[Array, "*s"]
) -> Float[Array, ""]:
    """Mean weighted by `mask`; 0 where nothing is kept."""
    return MeanMetric.of(values, mask).mean()
