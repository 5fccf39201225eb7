"""Where parameters live on 8 devices; the first argument says what is looked at."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from aprm_jax.config.groups import MeshConfig
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.training.checkpoints import Checkpointer
from aprm_jax.training.mesh import (
    MeshError,
    batch_sharding,
    batch_shards,
    init_sharded,
    make_mesh,
    param_shardings,
    path_name,
    shard_batch,
    shard_beside,
    to_sample,
)

assert jax.device_count() == 8
CONFIG = DecoderConfig(
    vocab_size=16,
    d_model=16,
    num_layers=1,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    d_ff=32,
    tie_embeddings=False,
)
MODEL = Decoder(CONFIG)
TOKENS = jax.random.randint(jax.random.key(1), (8, 12), 0, 16)
POSITIONS = jnp.broadcast_to(jnp.arange(12)[None], (8, 12))


def init(key):
    params = MODEL.init(key, TOKENS, POSITIONS, jnp.ones((8, 12), jnp.int32))["params"]
    state = {"backbone": params, "value_head": {"kernel": jnp.ones((16, 1))}}
    return {"params": state, "opt": optax.adam(1e-2).init(state), "step": 0}


def specs(mesh):
    tree = param_shardings(mesh, jax.eval_shape(init, jax.random.key(0)))
    return {
        path_name(path): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(tree)
    }


def table():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert mesh.axis_names == ("data", "fsdp", "tensor") and mesh.devices.size == 8
    found = specs(mesh)
    layers = "backbone/layers/"
    expected = {
        "backbone/embed/embedding": P("tensor", "fsdp"),
        "backbone/head/kernel": P("fsdp", "tensor"),
        layers + "attention/q/kernel": P(None, "fsdp", "tensor", None),
        layers + "attention/v/kernel": P(None, "fsdp", "tensor", None),
        layers + "attention/o/kernel": P(None, "tensor", None, "fsdp"),
        layers + "mlp/gate/kernel": P(None, "fsdp", "tensor"),
        layers + "mlp/down/kernel": P(None, "tensor", "fsdp"),
        layers + "mlp_norm/scale": P(),
        "backbone/final_norm/scale": P(),
        "value_head/kernel": P(),
    }
    for name, spec in expected.items():
        for tree in ("params/", "opt/0/mu/", "opt/0/nu/"):
            assert found[tree + name] == spec, (name, found[tree + name])
    assert found["opt/0/count"] == found["step"] == P()
    # Every kernel of the decoder is in the table.
    for name, spec in found.items():
        if name.endswith("kernel") and "backbone" in name:
            assert spec != P(), name

    # 4 KV heads on 8 devices: that axis alone falls back.
    found = specs(make_mesh(MeshConfig(data=1, tensor=8)))
    attention = "params/" + layers + "attention/"
    assert found[attention + "q/kernel"] == P(None, "fsdp", "tensor", None)
    assert found[attention + "k/kernel"] == P(None, "fsdp", None, None)
    prm = {"head": {"kernel": np.ones((16, 2))}}
    assert param_shardings(mesh, prm)["head"]["kernel"].spec == P()


def mismatches():
    def fails(words, make):
        try:
            make()
        except MeshError as error:
            for word in words:
                assert word in str(error), error
        else:
            raise AssertionError(words)

    assert make_mesh(MeshConfig()).shape == {"data": 8, "fsdp": 1, "tensor": 1}
    assert make_mesh(MeshConfig(1, -1, 2)).shape == {"data": 1, "fsdp": 4, "tensor": 2}
    assert make_mesh(MeshConfig(1), jax.devices()[:1]).devices.size == 1
    fails(["data=3", "8 cpu device"], lambda: make_mesh(MeshConfig(3)))
    fails(["tensor=3", "8 cpu device"], lambda: make_mesh(MeshConfig(-1, 1, 3)))
    fails(["tensor=16", "8 cpu device"], lambda: make_mesh(MeshConfig(-1, 1, 16)))
    fails(["one may be -1"], lambda: make_mesh(MeshConfig(-1, -1, 1)))
    fails(["at least 1"], lambda: make_mesh(MeshConfig(8, 0, 1)))
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert batch_shards(mesh) == 4
    batch = shard_batch(mesh, {"tokens": np.zeros((8, 3))})
    assert batch["tokens"].addressable_shards[0].data.shape == (2, 3)
    fails(["tokens", "= 4"], lambda: shard_batch(mesh, {"tokens": np.zeros((6, 3))}))


def loss(params, tokens, positions):
    apply = partial(MODEL.apply, {"params": params["backbone"]})
    hidden = apply(tokens, positions, jnp.ones_like(tokens))
    logits = apply(hidden, method=Decoder.logits)
    value = (hidden @ params["value_head"]["kernel"]).mean()
    return (
        value
        + optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], tokens[:, 1:]
        ).mean()
    )


@partial(jax.jit, donate_argnums=0)
def update(state, tokens, positions):
    grads = jax.grad(loss)(state["params"], tokens, positions)
    updates, opt = optax.adam(1e-2).update(grads, state["opt"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt": opt, "step": state["step"] + 1}


def train(mesh, state, steps):
    batch = shard_batch(mesh, (np.asarray(TOKENS), np.asarray(POSITIONS)))
    for _ in range(steps):
        state = update(state, *batch)
    return state


def same(left, right, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance),
        left["params"],
        right["params"],
    )


def results(folder):
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    first = init_sharded(one, init, jax.random.key(0))
    initial = jax.device_get(first)
    expected = jax.device_get(train(one, first, 5))
    assert (
        np.abs(expected["params"]["backbone"]["final_norm"]["scale"] - 1).max() > 1e-3
    )

    saved = Checkpointer(folder, keep_last=1)
    for sizes in [(8, 1, 1), (4, 1, 2), (2, 4, 1), (1, 2, 4), (1, 1, 8)]:
        mesh = make_mesh(MeshConfig(*sizes))
        shardings = param_shardings(mesh, initial)
        if sizes == (2, 4, 1):
            state = init_sharded(mesh, init, jax.random.key(0))
            same(state, initial, 1e-6)
        else:
            state = jax.device_put(initial, shardings)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
        if sizes == (2, 4, 1):
            saved.save(3, train(mesh, state, 3))
        elif sizes == (1, 2, 4):
            # Three steps on another mesh, and on from there.
            state = saved.restore(3, state)
            assert jax.tree.map(lambda x: x.sharding, state) == shardings
            same(train(mesh, state, 2), expected, 1e-4)
        else:
            same(train(mesh, state, 5), expected, 1e-4)
    restored = saved.restore(3, initial)
    restored = jax.device_put(restored, param_shardings(one, restored))
    same(train(one, restored, 2), expected, 1e-4)
    saved.close()


def scoring():
    batch = {"tokens": np.zeros((16, 4), np.int32)}
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    params = {"w": np.ones(3)}
    params = jax.device_put(params, param_shardings(mesh, params))
    placed = shard_beside(params, batch)
    assert placed["tokens"].sharding.is_equivalent_to(batch_sharding(mesh), 2)
    uneven = {"tokens": np.zeros((12, 4), np.int32)}
    assert shard_beside(params, uneven) is uneven
    assert shard_beside({"w": jax.numpy.ones(3)}, batch) is batch  # no mesh
    assert shard_beside({"w": np.ones(3)}, batch) is batch


def sampling():
    """A language head of its own lies split over the sampler's mesh, as in training."""
    train = make_mesh(MeshConfig(data=1, fsdp=8))
    model = {"backbone": init(jax.random.key(0))["params"]["backbone"]}
    there = jax.device_put(model, param_shardings(train, model))["backbone"]
    assert there["head"]["kernel"].sharding.spec == P("fsdp", "tensor")
    options = {"stop_ids": (5,), "pad_id": 0, "prompt_buckets": (6,)}
    made = [
        Sampler(CONFIG, max_new_tokens=5, batch_buckets=(8,), mesh=mesh, **options)
        for mesh in (train, to_sample(train, 8))
    ]
    prompts = [[7, 8, 9], [11], [12, 13]]
    kept, moved = (sampler._placed(there) for sampler in made)
    assert kept is there
    head = moved["head"]["kernel"]
    assert head.sharding.spec == P("fsdp", "tensor")
    assert head.addressable_shards[0].data.shape == (16, 16 // 8)
    found = [sampler.sample(there, prompts, jax.random.key(3)) for sampler in made]
    np.testing.assert_array_equal(found[0].tokens, found[1].tokens)
    np.testing.assert_allclose(found[0].logprobs, found[1].logprobs, atol=1e-4)


if __name__ == "__main__":
    chosen = {f.__name__: f for f in (table, mismatches, results, scoring, sampling)}
    chosen[sys.argv[1]](*sys.argv[2:])
