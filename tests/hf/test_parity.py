"""Every family against torch's own: logits, padding, packing, generation, bfloat16."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import forward
from tiny_hf import hf_model, state

from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.tables import params_from_tensors, tensors_from_params
from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.sampling.sampler import Sampler

T, NEW = 128, 64
# Each option of a family where it shows: windows shorter than the rows, caps that bend
# the scores, rotary scales that reach these positions, heads that do not fill D.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "llama",
        {
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama_biases": (
        "llama",
        {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "mistral": ("mistral", {"sliding_window": 16}),
    "qwen2": (
        "qwen2",
        {
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 12, "tie_word_embeddings": False}),
    "gemma2": (
        "gemma2",
        {
            "sliding_window": 16,
            "query_pre_attn_scalar": 3,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3": (
        "gemma3",
        {
            "num_hidden_layers": 3,
            "sliding_window": 16,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {
                    "rope_type": "linear",
                    "factor": 4.0,
                    "rope_theta": 500.0,
                },
            },
        },
    ),
    "phi3": ("phi3", {"sliding_window": 24, "tie_word_embeddings": False}),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A torch model and ours with its weights."""

    model: Any
    family: str
    config: DecoderConfig
    params: Any


def make_pair(family: str, changes: dict[str, Any]) -> Pair:
    model = hf_model(family, **changes)
    _enliven(model)
    written = json.loads(model.config.to_json_string())
    config = decoder_config({**written, "architectures": [type(model).__name__]})
    return Pair(
        model, family, config, params_from_tensors(config, family, state(model))
    )


def _enliven(model) -> None:
    """Layers that outweigh the embedding: else greedy tokens repeat themselves."""
    import torch

    offset = 3.0 if "Gemma" in type(model).__name__ else 0.0
    with torch.no_grad():
        for key, value in model.named_parameters():
            if ".layers." in key and value.ndim == 2:
                value.mul_(4.0)
            elif "embed_tokens" in key:
                value.mul_(0.5)
            elif key == "model.norm.weight":
                value.copy_((value + 1) * 4 - 1 if offset else value * 4)
            elif "post_attention" in key or "post_feedforward" in key:
                value.add_(offset)


@pytest.fixture(scope="module", params=CASES)
def pair(request) -> Pair:
    return make_pair(*CASES[request.param])


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segments: full, right-padded, left-padded, packed."""
    tokens = np.random.default_rng(0).integers(3, 37, (4, T))
    segments, positions = np.ones_like(tokens), np.tile(np.arange(T), (4, 1))
    segments[1, 90:] = 0
    segments[2, :38] = 0
    positions[2] = np.maximum(np.arange(T) - 38, 0)
    segments[3] = np.repeat([1, 2, 0], [50, 60, 18])
    positions[3] = np.concatenate([np.arange(50), np.arange(60), np.zeros(18)])
    tokens[segments == 0] = 0
    whole = np.int32
    return tokens.astype(whole), positions.astype(whole), segments.astype(whole)


def torch_logits(model, tokens, positions, mask) -> np.ndarray:
    import torch

    with torch.inference_mode():
        output = model(
            torch.tensor(tokens, dtype=torch.long),
            position_ids=torch.tensor(positions, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
        )
    return output.logits.float().numpy()


def test_logits_equal_torch_padded_and_packed(pair):
    tokens, positions, segments = rows()
    ours = forward(pair.config, pair.params, tokens, positions, segments)
    assert ours.std() > 0.5
    padded = torch_logits(pair.model, tokens[:3], positions[:3], segments[:3])
    real = segments[:3] > 0
    np.testing.assert_allclose(ours[:3][real], padded[real], atol=1e-4)
    for segment in (1, 2):  # alone in its row
        inside = segments[3] == segment
        ids, alone = tokens[3:, inside], positions[3:, inside]
        expected = torch_logits(pair.model, ids, alone, np.ones_like(ids))
        np.testing.assert_allclose(ours[3, inside], expected[0], atol=1e-4)


def test_greedy_tokens_equal_generate(pair):
    import torch

    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, 37, size).tolist() for size in (30, 9)]
    sampler = Sampler(
        pair.config,
        stop_ids=(),
        pad_id=0,
        prompt_buckets=(32,),
        max_new_tokens=NEW,
        batch_buckets=(2,),
    )
    drawn = sampler.sample(pair.params, prompts, jax.random.key(0), temperature=0.0)
    left = torch.tensor([[0] * (30 - len(p)) + p for p in prompts])
    expected = pair.model.generate(
        left,
        attention_mask=(left > 0).long(),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert len(set(drawn.tokens[0].tolist())) > 5
    np.testing.assert_array_equal(drawn.tokens, expected[:, 30:].numpy())


def test_bfloat16_stays_near_float32(pair):
    tokens, positions, segments = rows()
    low = dataclasses.replace(pair.config, dtype="bfloat16", param_dtype="bfloat16")
    rounded = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), pair.params)
    real = segments > 0
    exact, near = (
        np.asarray(
            jax.nn.log_softmax(forward(config, params, tokens, positions, segments))
        )[real]
        for config, params in ((pair.config, pair.params), (low, rounded))
    )
    divergence = (np.exp(exact) * (exact - near)).sum(axis=-1)
    assert 0 < divergence.mean() < 1e-2


def test_weights_go_in_and_out_bit_for_bit(pair):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float32, ml_dtypes.bfloat16):
        tensors = {key: value.astype(dtype) for key, value in state(pair.model).items()}
        params = params_from_tensors(pair.config, pair.family, tensors)
        again = dict(tensors_from_params(pair.config, pair.family, params))
        assert again.keys() == tensors.keys()
        for key, value in tensors.items():
            assert again[key].dtype == value.dtype and again[key].shape == value.shape
            assert again[key].tobytes() == value.tobytes(), key


def test_layers_that_differ_run_under_the_scan_too():
    """Gemma 3's own pattern, more layers than are unrolled."""
    pair = make_pair("gemma3", {"num_hidden_layers": 6})
    assert pair.config.layer_pattern == "lllllg"
    tokens, positions, segments = rows()
    ours = forward(pair.config, pair.params, tokens, positions, segments)[:1]
    expected = torch_logits(pair.model, tokens[:1], positions[:1], segments[:1])
    np.testing.assert_allclose(ours, expected, atol=1e-4)
