"""Random models, of some ten thousand parameters or more, in Hugging Face's format.

For a cut of a run that wants a real backbone: the same files, the same code, no
download. A language model among them babbles short equations: random weights alone
never end a reply, and of a Generator that writes no step a game has nothing to reward.
What comes out of them means nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.bpe import train_bpe
from aprm_jax.data.prompts import GENERATOR_PROMPT, SOLVER_PROMPT, encode
from aprm_jax.hf import prm_layouts
from aprm_jax.hf.load import tokenizer_rows
from aprm_jax.hf.save import write_folder
from aprm_jax.models.architecture import DecoderConfig, RopeScaling
from aprm_jax.models.decoder import Decoder

_OPTIONS: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_theta": 5e5,
        "rope_scaling": RopeScaling("llama3", 8.0, original_length=64),
    },
    "mistral": {"layer_pattern": "l", "sliding_window": 64},
    "qwen2": {"attention_bias": "qkv", "rope_theta": 1e6},
    "qwen3": {"qk_norm": True, "rope_theta": 1e6},
}
_SIZES: dict[str, int] = {
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "d_ff": 64,
}
_CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# No digit stands on two sides: the last token alone then tells how a line goes on.
_LINES = [
    *map("".join, itertools.product("234", "+*", "56", "=", "789", ".")),
    *(f"#### {n}" for n in "789" * 4),
]
_HEADS = {"qwen2_prm": "ForProcessRewardModel", "trl": "ForTokenClassification"}


def write_tiny(
    folder: str | Path,
    family: str,
    texts: Iterable[str],
    *,
    layout: str | None = None,
    vocab_size: int = 512,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Path:
    """Writes a random model with a tokenizer of its own.

    Args:
      folder: is made; what is there is replaced.
      family: one of those in `_OPTIONS`.
      texts: what the tokenizer is trained on.
      layout: of an existing PRM, "qwen2_prm" or "trl"; None for a language model.
      vocab_size: of the tokenizer, at most.
      sizes: fields of `DecoderConfig` in place of those in `_SIZES`.
      seed: of the weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The prompts too, as often as a text counts: else a prompt is hundreds of tokens.
    instructions = [GENERATOR_PROMPT, SOLVER_PROMPT] * 8
    tokenizer = train_bpe([*texts, *instructions], vocab_size)
    if layout == "qwen2_prm":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    tokenizer.chat_template = _CHAT
    shape: dict[str, Any] = {**_SIZES, **(sizes or {}), **_OPTIONS[family]}
    config = DecoderConfig(
        # Rows to spare: a family's own tokenizer class may add tokens as it loads.
        vocab_size=-(-tokenizer_rows(tokenizer) // 8) * 8 + 8,
        tie_embeddings=False,
        **shape,
    )
    row = np.zeros((1, 8), np.int32)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), row, row, row + 1)
    # Around one where a norm multiplies, around zero elsewhere; nothing is compiled.
    params = jax.tree.map_with_path(
        lambda path, leaf: _normal(rng, leaf.shape) + float("scale" in str(path[-1])),
        shapes["params"],
    )
    if layout is None:
        _babble(params, tokenizer)
    head = prm_layouts.LAYOUTS[layout] if layout else None
    write_folder(
        folder,
        config,
        family,
        params,
        tokenizer,
        vocab_rows=config.vocab_size,
        max_shard_bytes=10_000_000,
        head=_HEADS[layout] if layout else "ForCausalLM",
        head_tensors=_head(rng, head, config) if head else None,
        fields={"max_position_embeddings": 4096, "eos_token_id": 2, "bos_token_id": 1},
    )
    return folder


def cut(
    config: ml_collections.ConfigDict, family: str, prm_layout: str | None = None
) -> None:
    """Puts random models of a family in the place of the backbones that a config names.

    They go beside the training texts, `domain.train`; one name stays one model. What is
    long is cut as in `config.run_local`, as far as a prompt in words still fits.

    Args:
      config: of a run on a few made-up problems.
      family: see `write_tiny`.
      prm_layout: of an existing PRM in the role `prm`, likewise.
    """
    train = Path(config.domain.train)
    texts = train.read_text(encoding="utf-8").splitlines()
    written: dict[str, str] = {}
    for seed, role in enumerate(("solver", "generator", "prm")):
        name = config[role].backbone
        if name and name not in written:
            layout = prm_layout if role == "prm" else None
            folder = (
                train.parent
                / "backbones"
                / "-".join(filter(None, (family, layout, str(seed))))
            )
            written[name] = str(
                write_tiny(folder, family, texts, layout=layout, seed=seed)
            )
        config[role].backbone = written.get(name, "")
    config.builder.buckets = (256,)  # a program each to compile; most of the time
    config.builder.max_new_tokens = 24
    config.sft.updates = 20
    config.sft.batch_size = 4
    config.prm.batch_size = 8
    config.evaluate.problems = 4
    config.evaluate.graded = 16
    config.evaluate.attack_prms = config.evaluate.attack_prms[-1:]
    for stage in config.overrides.values():
        if "builder" in stage:
            with stage.unlocked():
                del stage["builder"]


def _babble(params: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes a token be followed by those that follow it in `_LINES`, mostly.

    A prompt ends in a line break, a line in the end token. The embeddings become large
    beside what the random layers add to them, so that the decoder's output tells the
    last token, and the head is the table of what follows.
    """
    start, end = encode(tokenizer, "\n")[-1], tokenizer.eos_token_id
    embeddings, head = params["embed"]["embedding"], params["head"]
    table = np.zeros(embeddings.shape[:1] * 2)
    for line in _LINES:
        ids = [start, *encode(tokenizer, line), end]
        np.add.at(table, (ids[:-1], ids[1:]), 1.0)
    known = np.flatnonzero(table.any(axis=1))
    shares = table[known] / table[known].sum(axis=1, keepdims=True)
    embeddings *= 10.0
    rows = embeddings[known]
    rows = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True))  # the final norm's
    # Nothing is impossible: now and then a reply is no step at all.
    wanted = np.log(shares + 1e-4)
    head["kernel"] = np.linalg.lstsq(rows, wanted)[0].astype(np.float32)


def _head(
    rng: np.random.Generator, layout: prm_layouts.Layout, config: DecoderConfig
) -> dict[str, np.ndarray]:
    shapes = layout.shapes(config.d_model, config.vocab_size, ())
    return {name: _normal(rng, shape) for name, shape in shapes.items()}


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0.0, 0.1, shape).astype(np.float32)
