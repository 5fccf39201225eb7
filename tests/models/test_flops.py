"""What a forward pass costs, counted product by product."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from tiny_decoder import SMALL, make_params

from aprm_jax.models.flops import attention_flops, forward_flops


def test_attention_costs_two_products_a_pair_and_head():
    config = dataclasses.replace(SMALL, num_layers=3)
    length, new, count = 7, 3, 0
    for token in range(length - new, length):
        for _seen in range(token + 1):
            # A score and a share of the value, H products and as many sums each.
            count += 3 * config.num_heads * 2 * 2 * config.head_dim
    assert attention_flops(config, length, new) == count
    assert attention_flops(config, 9, 0) == 0
    parts = attention_flops(config, 4, 4) + attention_flops(config, 9, 5)
    assert parts == attention_flops(config, 9, 9)


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_costs_two_operations_for_each_number_that_multiplies(tied):
    config = dataclasses.replace(SMALL, tie_embeddings=tied)
    backbone = make_params(config)
    layers = sum(x.size for x in jax.tree.leaves(backbone["layers"]))
    table = config.vocab_size * config.d_model
    final = config.d_model  # the scale of the last norm
    assert forward_flops(backbone, unembeds=False) == 2 * (layers + final)
    assert forward_flops(backbone, unembeds=True) == 2 * (layers + final + table)
