"""The fields of a `config.json` as transformers' classes read them.

Defaults and the two spellings of rotary settings (transformers 5's `rope_parameters`,
and `rope_theta` beside `rope_scaling` at the top level) are its configuration classes'
affair, which hold no weights and need no torch. A field that changes logits and that
the decoder does not know is refused by name.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from aprm_jax.hf.architectures import FAMILIES, UnsupportedModelError

# transformers' names; the first one of ours is the one that is written.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
}
LAYER_TYPES = {"full_attention": "g", "sliding_attention": "l"}
# Fields that say that a model computes something which the decoder does not.
OPTIONS = (
    "quantization_config",
    "mlp_bias",
    "use_bidirectional_attention",
    "use_mrope",
    "dual_chunk_attention_config",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "per_layer_config",  # fields that differ from layer to layer
    "transformers_weights",  # another file of weights
)
# And those that say so where they are off: transformers takes null for false.
NEEDED = ("is_causal",)
# The fields of these families' classes in transformers that are read here, and those
# that change no logits. A newer transformers may have others: see `check_fields`.
READ = frozenset(
    (
        "architectures",
        "attention_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_parameters",
        "sliding_window",
        "tie_word_embeddings",
        "use_sliding_window",
        "vocab_size",
    )
)
INERT = frozenset(
    (
        "attention_dropout",  # of training, as the other two
        "embd_pdrop",
        "resid_pdrop",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",  # `prm_layouts` reads it
        "label2id",
        "problem_type",
        "initializer_range",
        "is_encoder_decoder",
        "output_hidden_states",
        "pretraining_tp",
        "return_dict",
        "tie_last_hidden_states",
        "transformers_version",
        "use_cache",
    )
)


def model_type_of(family: str, given: Mapping[str, Any]) -> str:
    """Whose class transformers reads a config with: its `AutoConfig` has one rule."""
    if family == "mistral" and "layer_types" in given:
        return "ministral"
    return FAMILIES[family][0]


def parsed(model_type: str, fields: Mapping[str, Any]) -> Any:
    """The fields as transformers reads them, its defaults filled in."""
    fields = {key: copy.deepcopy(value) for key, value in fields.items()}
    fields.pop("model_type", None)
    try:
        read = config_class(model_type)(**fields)
        # As its rotary functions do: now `original_max_position_embeddings` at the top
        # level is an attribute, and goes before the one in `rope_parameters`.
        read.standardize_rope_params()
        return read
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        message = " ".join(str(error).split())
        raise UnsupportedModelError(f"not a {model_type} config: {message}") from None


def config_class(model_type: str) -> Any:
    """Transformers' class of a model type."""
    # Imported late: it imports torch where that is installed, and only a model of
    # Hugging Face needs it.
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def check_options(*given: Mapping[str, Any]) -> None:
    """Refuses what makes a model compute something which the decoder does not."""
    for fields in given:
        for name in OPTIONS:
            if value := fields.get(name):
                raise UnsupportedModelError(f"{name}={short(value)} is not supported")
        for name in NEEDED:
            if not (value := fields.get(name, True)):
                raise UnsupportedModelError(f"{name}={value} is not supported")


def check_fields(read: Any, given: Mapping[str, Any]) -> None:
    """Refuses what is set of a field that only a newer transformers has."""
    for field in dataclasses.fields(read):
        known = field.name in READ | INERT or field.name in OPTIONS + NEEDED
        value = given.get(field.name, field.default)
        if not known and value != field.default:
            raise UnsupportedModelError(
                f"{field.name}={short(value)}: a field that this version of aprm_jax "
                f"does not know, and that transformers' {type(read).__name__} has"
            )


def short(value: Any) -> str:
    """A value as a message shows it, in at most 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
