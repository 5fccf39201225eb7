"""What a forward pass costs, from the parameters alone."""

from __future__ import annotations

from typing import Any

import jax


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
