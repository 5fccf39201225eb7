"""Published models, abstractly: as many parameters as torch and the cards say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from aprm_jax.hf.architectures import FAMILIES, family_of
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.tables import entries, parameter_shapes
from aprm_jax.models.decoder import Decoder

# The fields of each model's config.json and the number of weights in its checkpoint;
# of Gemma 3 the text model's alone.
PUBLISHED = json.loads((Path(__file__).parent / "published_configs.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_decoder_has_the_published_number_of_parameters(name):
    published = PUBLISHED[name]
    config = decoder_config(published["config"])
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    made = jax.eval_shape(Decoder(config).init, jax.random.key(0), ids, ids, ids)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(made["params"])]
    assert sum(sizes) == published["parameters"]
    assert sum(map(math.prod, parameter_shapes(config).values())) == sum(sizes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_name_torchs_tensors(name):
    torch = pytest.importorskip("torch")
    import transformers

    published = PUBLISHED[name]
    fields = published["config"].get("text_config", published["config"])
    family = family_of(published["config"])
    # Two layers of each are enough for names, and a module is made for each.
    kind, prefix = FAMILIES[family]
    fields = {key: value for key, value in fields.items() if key != "model_type"}
    ours = decoder_config({**published["config"], **_two_layers(published["config"])})
    theirs = transformers.CONFIG_MAPPING[kind](**{**fields, "num_hidden_layers": 2})
    with torch.device("meta"):
        model = getattr(transformers, f"{prefix}ForCausalLM")(theirs)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if ours.tie_embeddings:
        del shapes["lm_head.weight"]
    assert {entry.key: entry.shape for entry in entries(ours, family)} == shapes
    layer = sum(
        math.prod(shape) for key, shape in shapes.items() if ".layers.0." in key
    )
    both = sum(map(math.prod, shapes.values()))
    layers = decoder_config(published["config"]).num_layers
    assert both + (layers - 2) * layer == published["parameters"]


def _two_layers(config):
    if "text_config" in config:
        return {"text_config": {**config["text_config"], "num_hidden_layers": 2}}
    return {"num_hidden_layers": 2}
