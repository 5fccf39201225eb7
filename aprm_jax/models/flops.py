"""What a forward pass costs, from the parameters and the lengths of rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from aprm_jax.models.architecture import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Compute:
    """What went through a model while something was trained.

    Attributes:
      trained_tokens: learned from, padding left out; again for each update.
      read_tokens: read or drawn besides: prompts, samples, what is scored, and rows
        that a reference reads.
      flops: of both, an estimate: an update costs three forward passes (Kaplan et al.
        2020, arXiv 2001.08361, section 2.1), whatever is computed again for memory.
    """

    trained_tokens: int = 0
    read_tokens: int = 0
    flops: int = 0

    @classmethod
    def of(cls, a_token: float, *, trained: int = 0, read: int = 0) -> Compute:
        """Of one model, whose forward pass costs `a_token`; see `forward_flops`."""
        return cls(trained, read, round(a_token * (3 * trained + read)))

    def __add__(self, other: Compute) -> Compute:
        return Compute(
            self.trained_tokens + other.trained_tokens,
            self.read_tokens + other.read_tokens,
            self.flops + other.flops,
        )

    def metrics(self, group: str) -> dict[str, float]:
        """Its fields for a step's metrics, as "GROUP/flops"."""
        fields = dataclasses.asdict(self)
        return {f"{group}/{name}": float(value) for name, value in fields.items()}


def forward_flops(backbone: Any, *, unembeds: bool) -> float:
    """Floating-point operations a token: two for each parameter that multiplies.

    The estimate of Kaplan et al. 2020 (arXiv 2001.08361, section 2.1), without the
    share of attention that grows with the context.

    Args:
      backbone: its parameters.
      unembeds: whether logits over the vocabulary are computed, as a solver does; a
        tied embedding multiplies there.
    """
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in backbone.items()}
    embedding, head = sizes.pop("embed"), sizes.pop("head", None)
    unembedding = (embedding if head is None else head) if unembeds else 0
    return 2.0 * (sum(sizes.values()) + unembedding)


def attention_flops(config: DecoderConfig, length: int, new: int) -> float:
    """Operations of attention beside `forward_flops`, of a row's last tokens.

    For each pair of a token and one that it sees, itself among them, 4 L N H: a product
    for the score and one for its share of the value, of H numbers in N heads and L
    layers. A window counts as if there were none.

    Args:
      config: the decoder's.
      length: tokens of the row, the last ones among them.
      new: how many are computed.
    """
    pairs = new * (length - new) + new * (new + 1) / 2
    return 4.0 * config.num_layers * config.num_heads * config.head_dim * pairs
