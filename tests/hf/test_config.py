"""config.json in and out: both spellings, defaults, and refusals by name."""

from __future__ import annotations

import dataclasses
import json

import pytest
import transformers

from aprm_jax.hf.architectures import FAMILIES, UnsupportedModelError, family_of
from aprm_jax.hf.config import decoder_config, read_config
from aprm_jax.hf.config_writer import hf_config
from aprm_jax.models.architecture import DecoderConfig, RopeScaling

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 37,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
GEMMA3 = {
    **LLAMA,
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 12,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 16,
    "tie_word_embeddings": True,
}


def of_family(family: str, **changes) -> dict:
    kind, prefix = FAMILIES[family]
    named = {"architectures": [f"{prefix}ForCausalLM"], "model_type": kind}
    return {**LLAMA, **named, **changes}


def test_a_plain_llama_has_no_options():
    assert decoder_config(LLAMA) == DecoderConfig(
        vocab_size=37,
        d_model=32,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        d_ff=48,
        norm_eps=1e-5,
        tie_embeddings=False,
    )


def test_old_and_new_rope_fields_read_the_same():
    old = {**LLAMA, "rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE}
    new = {**LLAMA, "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 5e5}}
    read = decoder_config(old)
    assert read == decoder_config(new)
    assert read.rope_theta == 5e5
    assert read.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
    older = {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert decoder_config(older).rope_scaling == RopeScaling("linear", 2.0)


def test_gemma_3_has_two_rotary_bases_in_both_spellings():
    old = {
        **GEMMA3,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
    }
    new = {
        **GEMMA3,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "linear",
                "factor": 8.0,
                "rope_theta": 1e6,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }
    read = decoder_config(old)
    assert read == decoder_config(new)
    assert (read.rope_theta, read.local_rope_theta) == (1e6, 1e4)
    assert (read.layer_pattern, read.sliding_window) == ("lllllg", 16)


@pytest.mark.parametrize(
    ("config", "pattern", "window"),
    [
        (of_family("mistral", sliding_window=16), "l", 16),
        (of_family("mistral", sliding_window=None), "g", None),
        (of_family("qwen2", sliding_window=16, max_window_layers=1), "g", None),
        (
            of_family(
                "qwen2", sliding_window=16, max_window_layers=3, use_sliding_window=True
            ),
            "gggl",
            16,
        ),
        (of_family("gemma2", sliding_window=16, head_dim=8), "lg", 16),
        (of_family("phi3", sliding_window=16), "l", 16),
    ],
)
def test_windows_are_per_layer(config, pattern, window):
    read = decoder_config(config)
    assert (read.layer_pattern, read.sliding_window) == (pattern, window)


@pytest.mark.parametrize(
    "architecture",
    ["Qwen2ForProcessRewardModel", "Qwen2ForPrmModel", "Qwen2ForTokenClassification"],
)
def test_models_without_a_language_head_come_out_tied(architecture):
    config = of_family(
        "qwen2",
        architectures=[architecture],
        auto_map={"AutoModel": "modeling.Own"},
    )
    assert family_of(config) == "qwen2"
    read = decoder_config(config)
    assert read.tie_embeddings and read.attention_bias == "qkv"


def test_the_text_model_inside_gemma_3_with_images():
    text = {key: value for key, value in GEMMA3.items() if key != "architectures"}
    both = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {"hidden_size": 8},
    }
    assert family_of(both) == "gemma3"
    assert decoder_config(both) == decoder_config(GEMMA3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_reads_back_in_transformers_and_here(family, tmp_path):
    gemma = {"head_dim": 8, "query_pre_attn_scalar": 24, "sliding_window": 16}
    changes = {
        "llama": {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE},
        "mistral": {"sliding_window": 16, "head_dim": 12},
        "qwen2": {
            "sliding_window": 16,
            "max_window_layers": 3,
            "use_sliding_window": True,
        },
        "qwen3": {"head_dim": 12, "attention_bias": True},
        "gemma2": {**gemma, "final_logit_softcapping": 20.0},
        "gemma3": {**gemma, "num_hidden_layers": 12},
        "phi3": {"sliding_window": 16},
    }[family]
    config = decoder_config(of_family(family, **changes), param_dtype="bfloat16")
    written = hf_config(config, family, eos_token_id=7, max_position_embeddings=512)
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert decoder_config(read_config(tmp_path), param_dtype="bfloat16") == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).model_type == FAMILIES[family][0]
    assert theirs.eos_token_id == 7 and theirs.vocab_size == 37
    assert str(theirs.dtype).endswith("bfloat16")
    assert decoder_config(theirs.to_dict(), param_dtype="bfloat16") == config


def test_a_family_that_cannot_say_an_option_is_named():
    config = dataclasses.replace(decoder_config(LLAMA), qk_norm=True)
    with pytest.raises(UnsupportedModelError, match="llama config cannot say qk_norm"):
        hf_config(config, "llama")
    assert hf_config(config, "qwen3")["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "'MixtralForCausalLM'"),
        ({"architectures": ["XForCausalLM"], "auto_map": {}}, "code of its own"),
        ({"architectures": [], "model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": "qwen2_moe"}, "model_type 'qwen2_moe'"),
        ({"hidden_act": "relu2"}, "activation 'relu2'"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"num_local_experts": 8}, "num_local_experts=8"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        (
            {
                "rope_parameters": {
                    "rope_type": "dynamic",
                    "factor": 4.0,
                    "rope_theta": 1e4,
                }
            },
            "rope type 'dynamic'",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_key_value_heads": 3}, "multiple of num_kv_heads"),
    ],
)
def test_what_we_cannot_run_is_refused_by_name(changes, message):
    with pytest.raises(UnsupportedModelError, match=message):
        decoder_config({**LLAMA, **changes})


def test_gemmas_options_that_change_the_mask_are_refused():
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention"):
        decoder_config({**GEMMA3, "use_bidirectional_attention": True})
    with pytest.raises(UnsupportedModelError, match="'chunked_attention'"):
        decoder_config({**GEMMA3, "layer_types": ["chunked_attention"] * 12})


def test_a_directory_without_a_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file; a Hugg"):
        read_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such directory"):
        read_config(tmp_path / "absent")
    for text, message in (("{", "not JSON"), ("[]", "a JSON list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_config(tmp_path)
