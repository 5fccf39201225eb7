"""Tiny Hugging Face models of every family, made with transformers, and a tokenizer."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
_COMMON: dict[str, Any] = {
    "vocab_size": 37,  # odd, and more than the tokenizer's
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SPECIFIC: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
}


def hf_model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random float32 CausalLM of transformers; skips without torch."""
    torch = pytest.importorskip("torch")
    import transformers

    from aprm_jax.hf.architectures import FAMILIES as NAMES

    kind, prefix = NAMES[family]
    config = transformers.CONFIG_MAPPING[kind](
        **{**_COMMON, **_SPECIFIC.get(family, {}), **changes}
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save(model: Any, folder: Path, shard: str = "1GB") -> Path:
    """Writes it with the tokenizer of `tiny`."""
    model.save_pretrained(folder, max_shard_size=shard)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def state(model: Any) -> dict[str, np.ndarray]:
    """Its tensors, without tied copies."""
    tensors = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    return tensors


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs the code of a card beside the folder; the names of its score.py."""
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(
        r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL
    )
    monkeypatch.delitem(sys.modules, "score", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.path_importer_cache.pop(folder.name, None)  # of another test's folder
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue().strip()
    return vars(sys.modules["score"])
