"""The decoder against torch's Llama, against itself packed, and step by step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import (
    CONFIGS,
    SMALL,
    arange_like,
    forward,
    make_params,
    random_tokens,
)

from aprm_jax.models.cache import read_on, read_prompts, split_layers
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder


def torch_logits(config, params, tokens):
    """Llama's own, with our parameters copied in."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
        )
    ).eval()
    p = jax.tree.map(np.asarray, params)
    tied = config.tie_embeddings
    state = {
        "model.embed_tokens.weight": p["embed"]["embedding"],
        "model.norm.weight": p["final_norm"]["scale"],
        "lm_head.weight": p["embed"]["embedding"] if tied else p["head"]["kernel"].T,
    }
    layers, d = p["layers"], config.d_model
    for i in range(config.num_layers):
        at = f"model.layers.{i}."
        state[at + "input_layernorm.weight"] = layers["attention_norm"]["scale"][i]
        state[at + "post_attention_layernorm.weight"] = layers["mlp_norm"]["scale"][i]
        for name in "qkv":
            kernel = layers["attention"][name]["kernel"][i]
            state[at + f"self_attn.{name}_proj.weight"] = kernel.reshape(d, -1).T
        out = layers["attention"]["o"]["kernel"][i]
        state[at + "self_attn.o_proj.weight"] = out.reshape(-1, d).T
        for name in ("gate", "up", "down"):
            kernel = layers["mlp"][name]["kernel"][i]
            state[at + f"mlp.{name}_proj.weight"] = kernel.T
    tensors = {k: torch.tensor(np.ascontiguousarray(v)) for k, v in state.items()}
    model.load_state_dict(tensors, strict=True)
    with torch.inference_mode():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_llama(name):
    config, tokens = CONFIGS[name], random_tokens((2, 11))
    params = make_params(config)
    expected = torch_logits(config, params, tokens)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(forward(config, params, tokens), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["grouped", "multi_head"])
def test_attention_kernels_agree(name):
    config, tokens = CONFIGS[name], jnp.asarray(random_tokens((2, 9)))
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1] * 9], jnp.int32)

    def loss(params, kind):
        decoder = Decoder(dataclasses.replace(config, attention=kind))
        variables = {"params": params}
        hidden = decoder.apply(variables, tokens, arange_like(tokens), segments)
        return jnp.mean(jnp.where(segments[..., None] > 0, hidden, 0.0) ** 3)

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    ours, grads = both(make_params(config), "einsum")
    theirs, their_grads = both(make_params(config), "dot_product_attention")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads, their_grads
    )


def test_packed_segments_equal_separate_rows_and_padding_is_inert():
    params = make_params(SMALL)
    first, second = random_tokens((1, 5), 1), random_tokens((1, 4), 2)
    packed = np.concatenate([first, second, np.full((1, 3), 7, np.int32)], axis=1)
    positions = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0]], np.int32)
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3], np.int32)
    together = forward(SMALL, params, packed, positions, segments)
    assert np.isfinite(together).all()
    alone = forward(SMALL, params, first)
    np.testing.assert_allclose(together[:, :5], alone, atol=1e-5)
    alone = forward(SMALL, params, second)
    np.testing.assert_allclose(together[:, 5:9], alone, atol=1e-5)
    packed[:, 9:] = 3
    again = forward(SMALL, params, packed, positions, segments)
    np.testing.assert_array_equal(again[:, :9], together[:, :9])


def test_later_tokens_do_not_reach_earlier_ones():
    params, tokens = make_params(SMALL), random_tokens((1, 8))
    before = forward(SMALL, params, tokens)
    tokens[0, 5] = (tokens[0, 5] + 1) % 37
    after = forward(SMALL, params, tokens)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5:] - after[:, 5:]).max(axis=-1).min() > 1e-3


@pytest.mark.parametrize("name", ["grouped", "multi_query_untied", "deep"])
@pytest.mark.parametrize("width", [1, 5])
def test_reading_on_from_a_cache_equals_one_forward_pass(name, width):
    """Rows of 4 and 2 tokens in their heads, then 5 more of each, `width` at once."""
    config, tokens = CONFIGS[name], random_tokens((2, 9))
    params = make_params(config)
    expected = forward(config, params, tokens)
    lengths, start = np.array([4, 2]), tokens[:, :4]
    inside = (np.arange(4)[None] < lengths[:, None]).astype(np.int32)
    read = jax.jit(read_prompts, static_argnums=0)
    hidden, cache = read(config, params, start, arange_like(start), inside, lengths - 1)
    heads_of = {"params": params}
    np.testing.assert_allclose(
        Decoder(config).apply(heads_of, hidden, method=Decoder.norm_logits),
        expected[[0, 1], lengths - 1],
        atol=1e-4,
    )
    cache, layers = cache.grow(5), split_layers(params, config.num_layers)
    slots = np.arange(9)[None]
    filled = np.where(
        slots < 4,
        np.where(slots < lengths[:, None], slots, -1),
        lengths[:, None] + slots - 4,
    ).astype(np.int32)
    on = jax.jit(read_on, static_argnums=0)
    for first in range(0, 5, width):
        places = (lengths[:, None] + first + np.arange(width)[None]).astype(np.int32)
        new = np.take_along_axis(tokens, places, axis=1)
        hidden, cache = on(
            config, params, layers, new, places, places, cache, 4 + first, filled
        )
        logits = Decoder(config).apply(heads_of, hidden, method=Decoder.norm_logits)
        for row in range(2):
            np.testing.assert_allclose(
                logits[row], expected[row, places[row]], atol=1e-4
            )


def gradient(config, params, tokens):
    """Of a loss that no symmetry makes zero."""

    def loss(params):
        hidden = Decoder(config).apply(
            {"params": params}, tokens, arange_like(tokens), jnp.ones_like(tokens)
        )
        return jnp.mean(hidden**3)

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("remat", ["dots", "names", "full"])
def test_rematerialised_gradients_are_the_same(remat):
    tokens, params = jnp.asarray(random_tokens((2, 6))), make_params(SMALL)
    plain = gradient(SMALL, params, tokens)
    again = gradient(dataclasses.replace(SMALL, remat=remat), params, tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)


def test_embedding_gradient_counts_repeated_tokens():
    """The one-hot product is the scatter-add that it stands in for."""
    big = dataclasses.replace(SMALL, vocab_size=ONE_HOT_VOCAB + 1)
    params, tokens = make_params(big), jnp.array([[3, 3, 5, 3]], jnp.int32)
    scattered = gradient(big, params, tokens)["embed"]["embedding"][:37]
    small = {**params, "embed": {"embedding": params["embed"]["embedding"][:37]}}
    product = gradient(SMALL, small, tokens)["embed"]["embedding"]
    np.testing.assert_allclose(product, scattered, atol=1e-5)
    assert np.abs(product[3]).max() > 1e-3
    assert not np.any(product[4])


def test_bfloat16_is_close_and_its_logits_are_float32():
    tokens, params = random_tokens((2, 8)), make_params(SMALL)
    low = dataclasses.replace(SMALL, dtype="bfloat16")
    logits = forward(low, params, tokens)
    assert logits.dtype == np.float32 and np.isfinite(logits).all()
    exact = forward(SMALL, params, tokens)
    assert np.corrcoef(logits.ravel(), exact.ravel())[0, 1] > 0.99
    stored = dataclasses.replace(low, param_dtype="bfloat16")
    fresh = make_params(stored)
    assert {str(x.dtype) for x in jax.tree.leaves(fresh)} == {"bfloat16"}
    assert np.isfinite(forward(stored, fresh, tokens)).all()


@pytest.mark.parametrize("tie", [True, False])
def test_first_loss_is_near_that_of_a_uniform_guess(tie):
    config = dataclasses.replace(SMALL, d_model=128, tie_embeddings=tie)
    ids = jnp.zeros((1, 4), jnp.int32)
    params = Decoder(config).init(jax.random.key(0), ids, ids, ids)["params"]
    tokens = random_tokens((8, 16))
    logprobs = jax.nn.log_softmax(forward(config, params, tokens)[:, :-1])
    loss = -np.take_along_axis(np.asarray(logprobs), tokens[:, 1:, None], -1).mean()
    assert abs(loss - np.log(37)) < 0.3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_kv_heads", 3, "multiple of num_kv_heads"),
        ("head_dim", 7, "even"),
        ("d_ff", 0, "positive"),
        ("dtype", "float16", "float32 or bfloat16"),
        ("attention", "flash", "attention must be auto"),
    ],
)
def test_impossible_configs_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **{field: value})
