"""Rotary scaling and fields that a family ignores, against torch's own."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pytest
from tiny_decoder import forward
from tiny_hf import hf_model, state

from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.config_writer import hf_config
from aprm_jax.hf.tables import params_from_tensors
from aprm_jax.models.architecture import DecoderConfig, RopeScaling
from aprm_jax.sampling.sampler import Sampler

T, ORIGINAL = 96, 40


def yarn(**changes: Any) -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        **changes,
    }


def longrope(pairs: int, **changes: Any) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 1000.0,
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [1.5 + 2.0 * i for i in range(pairs)],
        **changes,
    }


# Heads have eight numbers: four pairs, of which three rotate where 0.75 do.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "yarn": ("llama", {"rope_parameters": yarn()}),
    "yarn_betas": (
        "qwen2",
        {"rope_parameters": yarn(beta_fast=8.0, beta_slow=2.0, truncate=False)},
    ),
    "yarn_attention": ("qwen3", {"rope_parameters": yarn(attention_factor=1.3)}),
    "yarn_mscale": (
        "mistral",
        {
            "sliding_window": None,
            "rope_parameters": yarn(mscale=0.7, mscale_all_dim=1.4),
        },
    ),
    "yarn_at_the_top": (
        "llama",
        {
            "rope_parameters": None,
            "rope_theta": 5000.0,
            "rope_scaling": {
                "type": "yarn",
                "factor": 2.0,
                "original_max_position_embeddings": ORIGINAL,
            },
        },
    ),
    "yarn_without_length": (
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {
                k: v for k, v in yarn().items() if not k.startswith("original")
            },
        },
    ),
    "partial": ("phi3", {"partial_rotary_factor": 0.75}),
    "longrope": (
        "phi3",
        {
            "original_max_position_embeddings": ORIGINAL,
            "rope_parameters": longrope(4),
        },
    ),
    "longrope_partial": (
        "phi3",
        {
            "original_max_position_embeddings": ORIGINAL,
            "partial_rotary_factor": 0.75,
            "rope_parameters": None,
            "rope_theta": 10_000.0,
            "rope_scaling": {
                k: v
                for k, v in longrope(3, type="longrope").items()
                if k not in ("rope_type", "rope_theta")
            },
        },
    ),
    "longrope_attention": (
        "phi3",
        {
            "original_max_position_embeddings": ORIGINAL,
            "rope_parameters": longrope(4, attention_factor=1.1, factor=3.0),
        },
    ),
    "llama_window": ("llama", {"sliding_window": 8, "use_sliding_window": True}),
    "llama_layer_types": (
        "llama",
        {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mistral_bias": ("mistral", {"sliding_window": None, "attention_bias": True}),
    "phi3_layer_types": (
        "phi3",
        {"sliding_window": 8, "layer_types": ["full_attention"] * 2},
    ),
    "qwen2_window_not_used": (
        "qwen2",
        {"sliding_window": 8, "use_sliding_window": False},
    ),
    "qwen2_layer_types": (
        "qwen2",
        {
            "sliding_window": 8,
            "use_sliding_window": True,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "swish": ("llama", {"hidden_act": "swish"}),
    "gelu": ("llama", {"hidden_act": "gelu"}),
    "gelu_new": ("mistral", {"hidden_act": "gelu_new"}),
    "gelu_fast": ("qwen2", {"hidden_act": "gelu_fast"}),
    "gelu_python": ("phi3", {"hidden_act": "gelu_python"}),
    "relu": ("qwen3", {"hidden_act": "relu"}),
    "gemma_gelu": ("gemma2", {"hidden_activation": "gelu", "hidden_act": "silu"}),
    "llama_hidden_activation": ("llama", {"hidden_activation": "gelu"}),
}


def make_pair(family: str, changes: dict[str, Any]) -> tuple[Any, DecoderConfig, Any]:
    model = hf_model(family, tie_word_embeddings=False, **changes)
    import torch

    with (
        torch.no_grad()
    ):  # layers that outweigh the embedding, and attention that looks
        for key, value in model.named_parameters():
            if ".layers." in key and value.ndim == 2:
                value.mul_(4.0)
    written = json.loads(model.config.to_json_string())
    config = decoder_config({**written, "architectures": [type(model).__name__]})
    return model, config, params_from_tensors(config, family, state(model))


def torch_logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.float().numpy()


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_torch_on_both_sides_of_the_first_length(name):
    family, changes = CASES[name]
    model, config, params = make_pair(family, changes)
    tokens = np.random.default_rng(0).integers(3, 37, (1, T)).astype(np.int32)
    for length in (ORIGINAL, ORIGINAL + 1, T) if "rope" in name else (T,):
        row = tokens[:, :length]
        ours = forward(config, params, row)
        assert ours.std() > 0.5
        np.testing.assert_allclose(ours, torch_logits(model, row), atol=2e-4)
    # What is read is written, and read again as it was: by us and by transformers.
    written = hf_config(config, family, max_position_embeddings=512)
    assert decoder_config(written) == config
    theirs = type(model.config)(**written)
    assert decoder_config({**theirs.to_dict(), **_named(model)}) == config


def _named(model: Any) -> dict[str, Any]:
    return {"architectures": [type(model).__name__]}


@pytest.mark.parametrize("name", ["longrope", "longrope_partial", "yarn"])
def test_sampling_goes_on_as_whole_rows_do(name):
    """Before and behind the first length: as the whole row says, and torch."""
    family, changes = CASES[name]
    model, config, params = make_pair(family, changes)
    rng = np.random.default_rng(1)
    # The first passes the length while it is written, the others do not.
    prompts = [rng.integers(3, 37, size).tolist() for size in (30, 44, 5)]
    new = 24
    sampler = Sampler(
        config,
        stop_ids=(),
        pad_id=0,
        prompt_buckets=(48,),
        max_new_tokens=new,
        batch_buckets=(4,),
    )
    if config.switches_rope:
        with pytest.raises(ValueError, match=r"30 tokens with up to 24 .* the 40 from"):
            sampler.sample(params, prompts, jax.random.key(0), temperature=0.0)
        del prompts[0]
    drawn = sampler.sample(params, prompts, jax.random.key(0), temperature=0.0)
    import torch

    for prompt, ids, logprobs in zip(
        prompts, drawn.tokens, drawn.logprobs, strict=True
    ):
        whole = np.asarray([*prompt, *ids], np.int32)[None]
        for row in (0, ORIGINAL + 1 - 30, new - 1):
            read = whole[:, : len(prompt) + row]
            ours = np.asarray(forward(config, params, read))[0, -1]
            assert ours.argmax() == ids[row]
            np.testing.assert_allclose(
                logprobs[row], jax.nn.log_softmax(ours)[ids[row]], atol=1e-4
            )
        expected = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        np.testing.assert_array_equal(ids, expected[0, len(prompt) :].numpy())


def test_segments_of_a_row_have_lengths_of_their_own():
    model, config, params = make_pair(*CASES["longrope"])
    tokens = np.random.default_rng(0).integers(3, 37, (1, T)).astype(np.int32)
    segments = np.repeat([1, 2, 0], [60, 30, 6])[None].astype(np.int32)
    positions = np.concatenate([np.arange(60), np.arange(30), np.zeros(6)])
    ours = forward(config, params, tokens, positions[None].astype(np.int32), segments)
    for segment in (1, 2):
        inside = segments[0] == segment
        alone = torch_logits(model, tokens[:, inside])
        np.testing.assert_allclose(ours[:, inside], alone, atol=2e-4)


def test_scalings_survive_json():
    scaling = RopeScaling("longrope", 2.0, short_factor=(1.0,), long_factor=(2.0,))
    config = DecoderConfig(8, 4, 1, 1, 1, 4, 8, rope_scaling=scaling, rotary_dim=2)
    import dataclasses

    again = DecoderConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)
    assert not config.reads_branches
    with pytest.raises(ValueError, match="a factor for each of the 2 pairs"):
        dataclasses.replace(config, rotary_dim=None)
    with pytest.raises(ValueError, match="rotary_dim must be even"):
        dataclasses.replace(config, rotary_dim=6)
