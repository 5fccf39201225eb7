"""Int8 weights beside NumPy's own rounding, and what a model says with them."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_decoder
from tiny_decoder import SMALL

from aprm_jax.data.rows import StepBatch
from aprm_jax.models import heads, quantised
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder

LARGE = dataclasses.replace(SMALL, vocab_size=ONE_HOT_VOCAB + 3)
# Axes that a channel sums over, by the end of a path; behind the layers' axis.
INPUTS = {
    r"embed/embedding": (1,),
    r"head/kernel": (0,),
    r"attention/[qkv]/kernel": (1,),
    r"attention/o/kernel": (1, 2),
    r"mlp/(gate|up|down)/kernel": (1,),
}


def _paths(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _inputs(path):
    return next((a for p, a in INPUTS.items() if re.search(f"(^|/){p}$", path)), None)


def _by_numpy(params):
    """The weights that int8 stands for, as floats."""

    def of(path, leaf):
        axes = _inputs(jax.tree_util.keystr(path, simple=True, separator="/"))
        if axes is None:
            return leaf
        wide = np.asarray(leaf, np.float32)
        scale = np.abs(wide).max(axes, keepdims=True) / np.float32(127)
        return jnp.asarray(np.round(wide / np.where(scale > 0, scale, 1)) * scale)

    return jax.tree_util.tree_map_with_path(of, params)


def _rows(config, rows=3, length=11):
    rng = np.random.default_rng(0)
    shape = rows, length
    steps = np.where(np.arange(length) < 4, -1, 0) * np.ones(shape, np.int32)
    one = np.ones((rows, 1), np.float32)
    return StepBatch(
        tokens=rng.integers(0, config.vocab_size, shape).astype(np.int32),
        positions=np.broadcast_to(np.arange(length, dtype=np.int32), shape),
        segment_ids=np.ones(shape, np.int32),
        step_ids=steps.astype(np.int32),
        labels=one,
        label_mask=one,
        step_mask=one,
    )


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_numpys_and_the_rest_is_as_it_was(tied):
    config = dataclasses.replace(SMALL, tie_embeddings=tied)
    params = jax.tree.map(lambda x: x, tiny_decoder.make_params(config))
    up = params["layers"]["mlp"]["up"]
    up["kernel"] = up["kernel"].at[..., 0].set(0.0)  # a channel of nothing
    value_head = {"kernel": jnp.ones((config.d_model, 1)), "bias": jnp.ones(1)}
    [model] = quantised.held({"backbone": params, "value_head": value_head})
    assert model["value_head"] is value_head
    found, meant = _paths(model["backbone"]), _paths(_by_numpy(params))
    kept = 0
    for path, leaf in _paths(params).items():
        axes = _inputs(path)
        if axes is None:
            assert found[path] is leaf
            continue
        kept += 1
        q, scale = found[path], np.expand_dims(found[path + "_scale"], axes)
        assert (q.dtype, scale.dtype, q.shape) == (np.int8, np.float32, leaf.shape)
        np.testing.assert_allclose(q * scale, meant[path], rtol=1e-6, atol=0)
        assert np.all(np.abs(q * scale - leaf) <= scale * 0.501)
    assert kept == 8 + (not tied)
    assert len(found) == len(_paths(params)) + kept
    shapes = jax.eval_shape(quantised.int8, {"backbone": params})["backbone"]
    assert {k: (x.shape, x.dtype) for k, x in _paths(shapes).items()} == {
        k: (x.shape, x.dtype) for k, x in found.items()
    }


@pytest.mark.parametrize(
    ("config", "tied"), [(SMALL, True), (LARGE, True), (LARGE, False)]
)
def test_a_model_says_what_its_rounded_weights_say(config, tied):
    """To rounding; and what the float ones say to 0.15 nats a token, 0.05 on average.

    Its weights are noise of many sizes to a channel: a trained model is nearer.
    """
    config = dataclasses.replace(config, tie_embeddings=tied)
    decoder, params = Decoder(config), tiny_decoder.make_params(config)
    [model], rows = quantised.held({"backbone": params}), _rows(config)
    own = {"scale": jnp.asarray(1.0), "bias": jnp.asarray(0.0)}

    @jax.jit
    def said(backbone):
        prm = {"backbone": backbone, "head": own}
        return (
            heads.token_logprobs(decoder, backbone, rows),
            heads.step_logits(decoder, prm, rows, "token"),
        )

    found, meant, full = map(said, (model["backbone"], _by_numpy(params), params))
    for one, other, reference in zip(found, meant, full, strict=True):
        assert np.abs(reference).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
        apart = np.abs(one - reference)
        assert 1e-4 < apart.max() < 0.15 and apart.mean() < 0.05


def test_in_bfloat16_rounded_weights_cost_no_more_than_the_products():
    """int8 is exact in bfloat16, and the scale is multiplied in float32."""
    config = dataclasses.replace(LARGE, dtype="bfloat16")
    params, rows = tiny_decoder.make_params(config), _rows(config)
    [model] = quantised.held({"backbone": params})

    @functools.partial(jax.jit, static_argnums=0)
    def said(config, backbone):
        return heads.token_logprobs(Decoder(config), backbone, rows)

    exact = said(dataclasses.replace(config, dtype="float32"), _by_numpy(params))
    here = np.abs(said(config, model["backbone"]) - exact).max()
    plain = np.abs(said(config, _by_numpy(params)) - exact).max()
    assert 0 < here < 2 * plain


def test_models_of_one_backbone_share_what_is_made_of_it():
    params = tiny_decoder.make_params(SMALL)
    one, other, judge = quantised.held(
        {"backbone": params}, {"backbone": params, "head": {}}, {}
    )
    same = jax.tree.map(lambda a, b: a is b, one["backbone"], other["backbone"])
    assert all(jax.tree.leaves(same)) and judge == {}
