"""Adapters beside NumPy's matrices, and in the game."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_decoder
import tiny_game
from tiny_decoder import CONFIGS, SMALL

from aprm_jax.game import batches
from aprm_jax.game.ogda import ogda_adam
from aprm_jax.game.update import (
    GameState,
    References,
    generator_loss,
    make_update,
)
from aprm_jax.models import heads, lora
from aprm_jax.models.lora import LoraConfig
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.training import learner
from aprm_jax.training.timing import PhaseTimer

CONFIG = LoraConfig(rank=3, alpha=12.0)
SOME = LoraConfig(
    rank=2, alpha=5.0, targets=r"layers/(attention/(q|o)|mlp/down)/kernel"
)


def _random(params, config: LoraConfig, seed: int = 0) -> Any:
    """An adapter whose B is not zero."""
    adapter = lora.init_lora(jax.random.key(seed), params, config)
    leaves, tree = jax.tree.flatten(adapter)
    rng = np.random.default_rng(seed)
    noisy = [x + jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


def _by_numpy(params, adapter, config: LoraConfig) -> Any:
    """Every kernel W + alpha / r A B, entry by entry of the definition, in float64."""
    out = jax.tree.map(np.asarray, params)
    for block, modules in adapter["layers"].items():
        for name, ab in modules.items():
            kernel = np.array(out["layers"][block][name]["kernel"], np.float64)
            for layer in range(kernel.shape[0]):
                a, b = (np.float64(ab[k][layer]) for k in ("lora_a", "lora_b"))
                delta = np.einsum("ir,ro->io", a, b) * config.alpha / config.rank
                kernel[layer] += delta.reshape(kernel.shape[1:])
            out["layers"][block][name]["kernel"] = kernel.astype(np.float32)
    return out


@pytest.mark.parametrize(("name", "config"), [("grouped", CONFIG), ("deep", SOME)])
def test_adapters_act_as_their_product_on_the_kernel(name, config):
    """The scanned layers, the merge, and NumPy's merge give the same logits."""
    decoder = CONFIGS[name]
    params = tiny_decoder.make_params(decoder)
    adapter = _random(params, config)
    tokens = tiny_decoder.random_tokens((2, 9))
    adapted = lora.apply_lora(params, adapter, config)
    got = tiny_decoder.forward(decoder, adapted, tokens)
    by_hand = _by_numpy(params, adapter, config)
    want = tiny_decoder.forward(decoder, by_hand, tokens)
    np.testing.assert_allclose(got, want, atol=2e-4)
    assert np.abs(got - tiny_decoder.forward(decoder, params, tokens)).max() > 0.05
    merged = lora.merge(params, adapter, config)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), merged, by_hand
    )


def test_a_fresh_adapter_gives_exactly_the_bases_outputs():
    params = tiny_decoder.make_params(SMALL)
    adapter = lora.init_lora(jax.random.key(3), params, CONFIG)
    tokens = tiny_decoder.random_tokens((2, 9))
    adapted = lora.apply_lora(params, adapter, CONFIG)
    np.testing.assert_array_equal(
        tiny_decoder.forward(SMALL, adapted, tokens),
        tiny_decoder.forward(SMALL, params, tokens),
    )
    for path, a, _ in lora.modules(adapter):
        # Uniform up to 1 / sqrt(in): its spread is that over sqrt(3).
        bound = a.shape[1] ** -0.5
        assert np.abs(a).max() <= bound, path
        np.testing.assert_allclose(np.std(a), bound / 3**0.5, rtol=0.25)
    # The base's arrays are shared.
    assert (
        adapted["layers"]["mlp"]["up"]["kernel"]
        is params["layers"]["mlp"]["up"]["kernel"]
    )


def test_a_small_adapter_survives_bfloat16():
    """Merged into bfloat16 kernels, the same adapter would be rounded away."""
    decoder = dataclasses.replace(SMALL, dtype="bfloat16", param_dtype="bfloat16")
    params = tiny_decoder.make_params(decoder)
    adapter = _random(params, CONFIG)
    adapter = jax.tree.map(lambda x: x * 2e-3, adapter)
    merged = lora.merge(params, adapter, CONFIG)
    kernel, same = (
        np.asarray(tree["layers"]["mlp"]["up"]["kernel"]) for tree in (merged, params)
    )
    assert np.mean(kernel == same) > 0.99
    tokens = tiny_decoder.random_tokens((1, 6))

    def loss(adapter):
        adapted = lora.apply_lora(params, adapter, CONFIG)
        logits = tiny_decoder._forward(
            decoder,
            adapted,
            jnp.asarray(tokens),
            tiny_decoder.arange_like(tokens),
            jnp.ones_like(jnp.asarray(tokens)),
        )
        return jnp.sum(jnp.square(logits))

    gradient = jax.grad(loss)(adapter)
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) > 0


def test_gradients_are_the_merged_weights_by_the_chain_rule():
    """dA = s dW B^T and dB = s A^T dW, the base's own gradient being dW."""
    params = tiny_game.generator()["backbone"]
    adapter = _random(params, SOME)
    builder = tiny_game.builder()
    rows = builder.collate(
        [builder.step(p.question, p.prefix, p.step) for p in tiny_game.POINTS[:3]]
    )

    @jax.jit
    def loss(backbone):
        return jnp.sum(heads.token_logprobs(tiny_game.DECODER, backbone, rows))

    got = jax.grad(lambda x: loss(lora.apply_lora(params, x, SOME)))(adapter)
    by_merge = lora.merge(params, adapter, SOME)
    dense = jax.grad(loss)(by_merge)
    scale = SOME.alpha / SOME.rank
    for path, da, db in lora.modules(got):
        block, name = path.split("/")[1:]
        node = adapter["layers"][block][name]
        dw = np.float64(dense["layers"][block][name]["kernel"])
        dw = dw.reshape(da.shape[0], da.shape[1], db.shape[2])
        a, b = np.float64(node["lora_a"]), np.float64(node["lora_b"])
        want_a = scale * dw @ b.swapaxes(1, 2)
        want_b = scale * a.swapaxes(1, 2) @ dw
        np.testing.assert_allclose(da, want_a, atol=2e-4 * np.abs(want_a).max())
        np.testing.assert_allclose(db, want_b, atol=2e-4 * np.abs(want_b).max())
        assert np.abs(want_a).max() > 1e-3


def _batches():
    builder = tiny_game.builder()
    draws = []
    for reply, count in (("2 + 3", 2), ("2 + 2", 1), ("5 * 4", 1)):
        logprobs = -np.ones(len(builder.encode(reply)) + 1, np.float32)
        draws += [(0, tiny_game.reply(builder, reply, logprobs=logprobs))] * count
    found = tiny_game.verified(draws, (tiny_game.EASY,), builder)
    rng, p = np.random.default_rng(0), np.linspace(0.2, 0.8, 3, dtype=np.float32)
    generator = batches.generator_batch(
        found, p, tiny_game.TABLE, builder, rng, 4, width=10
    )
    clean = [builder.step(tiny_game.EASY.question, (), "2 + 2", 1.0)]
    wrong = [builder.step(tiny_game.EASY.question, (), "2 + 3", 0.0)]
    return generator, batches.prm_batch(clean, wrong, (), builder)


# Without a warm-up, whose first step is zero.
OPTIMISER = ogda_adam(1e-2, b1=0.0, b2=0.99, clip_norm=1.0)


@functools.cache
def _update():
    config = tiny_game.update_config(lora=SOME)
    return config, make_update(tiny_game.DECODER, config, OPTIMISER, OPTIMISER)


def _state(refs: References) -> GameState:
    generator, prm = (
        {"lora": _random(full["backbone"], SOME, seed), **_heads(full)}
        for seed, full in enumerate((refs.generator, refs.prm))
    )
    return GameState(*(learner.start(x, OPTIMISER) for x in (generator, prm)))


def _heads(full: Any) -> Any:
    rest = {name: tree for name, tree in full.items() if name != "backbone"}
    return jax.tree.map(lambda x: x + 0, rest)  # the state is donated


def test_a_joint_update_moves_adapters_and_heads_alone():
    """Both players' steps equal the optimiser's on gradients of merged weights."""
    config, update = _update()
    refs = References(tiny_game.generator(), tiny_game.prm())
    before = jax.tree.map(np.array, refs)
    state, generator_batch, prm_batch = _state(refs), *_batches()
    start = jax.tree.map(np.array, state)
    ref = read_replies(
        tiny_game.DECODER,
        refs.generator,
        generator_batch.rows,
        generator_batch.columns,
    ).logprobs

    @jax.jit
    def by_merging(trained):
        params = lora.merged(refs.generator, trained, SOME)
        loss, _ = generator_loss(
            params, ref, generator_batch, tiny_game.DECODER, config
        )
        return loss.mean()

    trained = state.generator.params
    gradient = jax.grad(by_merging)(trained)
    moves, _ = OPTIMISER.update(gradient, state.generator.opt, trained)
    expected = optax.apply_updates(trained, moves)
    key = jax.random.key_data(jax.random.key(1))
    state, metrics = update(state, refs, generator_batch, prm_batch, key)
    assert metrics["nonfinite"] == 0.0
    np.testing.assert_allclose(
        metrics["generator/grad_norm"], optax.tree.norm(gradient), rtol=1e-3
    )
    assert jax.tree.structure(state.generator.params) == jax.tree.structure(expected)
    # Adam turns the rounding of a tiny gradient into a visible step: most must agree.
    flat, want = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (state.generator.params, expected)
    )
    assert np.mean(np.abs(flat - want) < 2e-4) > 0.98
    for player in ("generator", "prm"):
        moved = jax.tree.map(
            lambda a, b: float(np.abs(a - b).max()),
            getattr(state, player).params["lora"],
            getattr(start, player).params["lora"],
        )
        assert min(jax.tree.leaves(moved)) > 1e-4
    jax.tree.map(np.testing.assert_array_equal, refs, before)


def test_optimiser_state_is_as_large_as_the_adapters():
    refs = References(tiny_game.generator(), tiny_game.prm())
    state = _state(refs)
    size = sum(x.size for x in jax.tree.leaves(state.generator.params))
    moments = sum(x.size for x in jax.tree.leaves(state.generator.opt))
    # Second moment and previous step, besides a few counters.
    assert 2 * size <= moments <= 2 * size + 8
    params = tiny_game.generator()["backbone"]
    full = sum(x.size for x in jax.tree.leaves(params))
    assert size < full / 4


def test_a_game_is_played_by_adapters_from_start_to_folder():
    place = tiny_game.arena()
    config = tiny_game.game_config(lora=SOME)
    base = tiny_game.generator(), tiny_game.prm()
    before = jax.tree.map(np.array, base)
    rounds = tiny_game.rounds(place, config)
    state = rounds.state
    full = tiny_game.rounds(place, tiny_game.game_config())
    output = rounds.step_fn(state, 0, PhaseTimer())
    # B is zero at the start: the first round draws and scores as the base does.
    bare = full.step_fn(full.state, 0, PhaseTimer()).metrics
    for name in ("game/incorrect_rate", "game/distinct_rate"):
        assert output.metrics[name] == bare[name]
    assert set(output.state.game.generator.params) == {"lora", "value_head"}
    second = rounds.step_fn(output.state, 1, PhaseTimer())
    assert second.metrics["generator/sampler_gap_max"] < 1e-3
    adapted, merged = (f(second.state) for f in (rounds.players, rounds.merged_players))
    batch = _batches()[1].rows
    read = jax.jit(heads.step_logits, static_argnums=(0, 3))
    np.testing.assert_allclose(
        read(tiny_game.DECODER, adapted[1], batch, "token"),
        read(tiny_game.DECODER, merged[1], batch, "token"),
        atol=1e-3,
    )
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    jax.tree.map(np.testing.assert_array_equal, base, before)


def test_full_parameters_are_the_identity():
    full = tiny_game.generator()
    assert lora.player(jax.random.key(0), full, None) is full
    assert lora.materialise(None, full, None) is full
    assert lora.merged(None, full, None) is full
    fields = SimpleNamespace(rank=0, alpha=1.0, targets="")
    assert LoraConfig.of(fields) is None
    fields.rank = 2
    assert LoraConfig.of(fields) == LoraConfig(2, 1.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rank": 0}, "lora.rank must be at least 1, not 0"),
        ({"alpha": 0.0}, "lora.alpha must be positive"),
        ({"targets": "layers/(q"}, "no regular expression: 'layers/.q'"),
    ],
)
def test_a_wrong_config_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        ("layers/attention/q_proj/kernel", "matches no parameter.*attention/q/kernel"),
        ("attention/q/kernel", "matches no parameter"),  # the whole path
        ("layers/.*", "matches layers/attention_norm/scale, which is no linear"),
        ("embed/embedding", "matches embed/embedding, which is no linear"),
    ],
)
def test_targets_that_are_no_kernels_are_refused(targets, match):
    params = tiny_decoder.make_params(SMALL)
    with pytest.raises(ValueError, match=match):
        lora.target_paths(params, LoraConfig(1, 1.0, targets))
