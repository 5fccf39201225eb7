"""Kernels of the device beside the CPU's float32: attention, logits, sampling.

Differences are the norm of the difference over the norm of what the CPU says, of
log-probabilities over that of their distances from their mean: nearly all of each is
log V. The CPU computes attention by `einsum`, in float32, from the same numbers.

Axes: B rows, T tokens, N heads, K KV heads, H head size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gpu_setting import SEED, Setting

from aprm_jax.data.rows import StepBatch
from aprm_jax.hf.config import decoder_config
from aprm_jax.models import heads
from aprm_jax.models.architecture import DecoderConfig, attention_refusal
from aprm_jax.models.attention import WholeRows, attend, compiled_for
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.positions import causal_mask
from aprm_jax.sampling.sampler import Sampler

ROWS, LENGTH, LAYERS = 2, 256, 2  # what is compared: a CPU has to do it too
WRITTEN = 16
# Precision of products: their type, and what a product of two float32 is computed in,
# which by default may be less (TF32).
MODES = {
    "float32": ("float32", "highest"),
    "float32, as by default": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}
# Of each some roundings: 2^-24, 2^-11 (TF32) and 2^-8 of a number.
BOUNDS = {"float32": 2e-5, "float32, as by default": 4e-3, "bfloat16": 3e-2}
OWN = {"gpu": "cudnn", "tpu": "splash"}


def parity(setting: Setting) -> dict[str, Any]:
    """How far each kernel is off, and the names of those that are too far."""
    found = {
        "attention": _attention(setting),
        "logprobs": _by_mode(setting, _logprobs),
        "sampled": _by_mode(setting, _sampled),
    }
    return {**found, "bounds": BOUNDS, "too_far": too_far(found)}


def too_far(found: dict[str, Any], name: str = "") -> list[str]:
    """Where a difference, under the name of its mode, is beyond the mode's bound."""
    out = []
    for key, value in found.items():
        path = f"{name}/{key}" if name else key
        if isinstance(value, dict) and key not in MODES:
            out += too_far(value, path)
        elif isinstance(value, dict):
            # Not a number is beyond any bound.
            far = [what for what, x in value.items() if not x <= BOUNDS[key]]
            out += [f"{path}/{what}" for what in far]
    return out


@contextlib.contextmanager
def on_cpu() -> Iterator[Callable[[Any], Any]]:
    """What is traced within is the CPU's; gives what moves arrays there."""
    cpu = jax.devices("cpu")[0]
    with compiled_for("cpu"), jax.default_device(cpu):
        yield lambda tree: jax.device_put(tree, cpu)


def difference(found: Any, wanted: Any) -> float:
    """||found - wanted|| / ||wanted||, in float64."""
    a, b = (np.asarray(x, np.float64) for x in (found, wanted))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _config(setting: Setting, **changes: Any) -> DecoderConfig:
    full = decoder_config(setting.model)
    fields = {"num_layers": LAYERS, "attention": "einsum"}
    return dataclasses.replace(full, **(fields | changes))


def _kernels(dtype: str, config: DecoderConfig) -> list[str]:
    """Those that run here and can do it."""
    own = [OWN[p] for p in (jax.default_backend(),) if p in OWN]
    asked = dataclasses.replace(config, dtype=dtype)
    names = ["einsum", "dot_product_attention", *own]
    return [name for name in names if not attention_refusal(asked, name)]


def _rows() -> dict[str, tuple[np.ndarray, np.ndarray | None, int | None]]:
    """Segments, ends and window of rows: packed, within a window, and branching."""
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[:, LENGTH // 3 :] = 2
    segments[0, -LENGTH // 8 :] = 0  # padding
    one = np.ones_like(segments)
    ends = np.full_like(segments, LENGTH - 1)
    ends[:, LENGTH // 2 : 3 * LENGTH // 4] = 3 * LENGTH // 4 - 1
    return {
        "packed": (segments, None, None),
        "window": (segments, None, LENGTH // 4),
        "branching": (one, ends, None),
    }


def _attention(setting: Setting) -> dict[str, Any]:
    """{kind of row: {kernel: {mode: differences}}}, of outputs and gradients."""
    return {kind: _of_rows(setting, *rows) for kind, rows in _rows().items()}


def _of_rows(
    setting: Setting,
    segments: np.ndarray,
    ends: np.ndarray | None,
    window: int | None,
) -> dict[str, Any]:
    pattern = {"layer_pattern": "g" if window is None else "l"}
    base = _config(setting, sliding_window=window, **pattern)
    arrays = _random_heads(base)
    last = None if ends is None else jnp.asarray(ends)
    seen = causal_mask(jnp.asarray(segments), window, last)
    mask, inside = np.asarray(seen), segments > 0
    ids = segments if ends is None else None

    def outputs(config: DecoderConfig, place: Callable[[Any], Any]) -> Any:
        function = jax.jit(_with_gradients(config))
        found = function(*place((*arrays, mask, ids, inside)))
        return jax.device_get(found)

    with on_cpu() as place:
        wanted = outputs(base, place)
    found: dict[str, Any] = {}
    for mode, (dtype, precision) in MODES.items():
        for kernel in _kernels(dtype, base):
            config = dataclasses.replace(base, dtype=dtype, attention=kernel)
            with jax.default_matmul_precision(precision):
                pairs = zip(outputs(config, jax.device_put), wanted, strict=True)
                differ = [difference(*pair) for pair in pairs]
            names = ("output", "query", "key", "value")
            found.setdefault(kernel, {})[mode] = dict(zip(names, differ, strict=True))
    return found


def _random_heads(config: DecoderConfig) -> tuple[np.ndarray, ...]:
    """Query [B, N, T, H], key and value [B, K, T, H], and a cotangent like the query.

    Of numbers that bfloat16 has: what differs is what a kernel does with them.
    """
    rng = np.random.default_rng(SEED)
    n, k = config.num_heads, config.num_kv_heads
    shapes = [(ROWS, heads, LENGTH, config.head_dim) for heads in (n, k, k, n)]
    drawn = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return tuple(np.asarray(x.astype(jnp.bfloat16), np.float32) for x in drawn)


def _with_gradients(config: DecoderConfig) -> Callable[..., Any]:
    """Attention's output where there is text, and its gradients."""

    def function(query, key, value, back, mask, ids, inside):
        shown = inside[:, None, :, None]

        def output(query, key, value):
            q, k, v = (x.astype(config.dtype) for x in (query, key, value))
            mixed = attend(q, k, v, mask, config, WholeRows(ids))
            return jnp.where(shown, mixed.astype(jnp.float32), 0.0)

        out, pull = jax.vjp(output, query, key, value)
        return (out, *pull(back * shown))

    return function


def _by_mode(setting: Setting, compare: Callable[..., dict[str, float]]) -> Any:
    """{kernel: {mode: differences}} of a decoder of few layers."""
    found: dict[str, Any] = {}
    params = _random_params(_config(setting))
    for mode, (dtype, precision) in MODES.items():
        for kernel in _kernels(dtype, _config(setting)):
            config = _config(setting, dtype=dtype, attention=kernel)
            with jax.default_matmul_precision(precision):
                figures = compare(_config(setting), config, params)
            found.setdefault(kernel, {})[mode] = figures
    return found


def _random_params(config: DecoderConfig) -> Any:
    """Parameters on the host."""
    ids = np.ones((1, 8), np.int32)
    with on_cpu() as place:
        init = jax.jit(Decoder(config).init)
        made = init(place(jax.random.key(SEED)), *place((ids, ids, ids)))
    return jax.device_get(made)["params"]


def _batch(tokens: np.ndarray) -> StepBatch:
    """Rows without padding, of which all but the first half is read."""
    rows, length = tokens.shape
    at = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    step = np.where(at < length // 2, -1, 0).astype(np.int32)
    one = np.ones((rows, 1), np.float32)
    return StepBatch(tokens, at, np.ones_like(tokens), step, one, one, one)


def _reader(config: DecoderConfig) -> Callable[..., Any]:
    """Log-probabilities of the tokens of steps, as training reads them."""

    def read(params, batch):
        return heads.token_logprobs(Decoder(config), params, batch)

    return jax.jit(read)


def _logprobs(
    base: DecoderConfig, config: DecoderConfig, params: Any
) -> dict[str, float]:
    """How far log-probabilities of given tokens are off."""
    rng = np.random.default_rng(SEED)
    tokens = rng.integers(0, base.vocab_size, (ROWS, LENGTH), np.int32)
    batch = _batch(tokens)
    with on_cpu() as place:
        wanted = jax.device_get(_reader(base)(*place((params, batch))))
    found = jax.device_get(_reader(config)(*jax.device_put((params, batch))))
    read = batch.step_ids >= 0
    return {"logprobs": _centred(found[read], wanted[read])}


def _sampled(
    base: DecoderConfig, config: DecoderConfig, params: Any
) -> dict[str, float]:
    """How far the sampler's log-probabilities are off those of the same rows, read."""
    rng = np.random.default_rng(SEED)
    prompts = rng.integers(0, base.vocab_size, (ROWS, WRITTEN), np.int32)
    sampler = Sampler(
        config,
        stop_ids=(),
        pad_id=0,
        prompt_buckets=(WRITTEN,),
        max_new_tokens=WRITTEN,
        batch_buckets=(ROWS,),
    )
    drawn = sampler.sample(
        jax.device_put(params), prompts.tolist(), jax.random.key(SEED)
    )
    batch = _batch(np.concatenate([prompts, drawn.tokens], axis=1))
    with on_cpu() as place:
        wanted = jax.device_get(_reader(base)(*place((params, batch))))
    return {"logprobs": _centred(drawn.logprobs, wanted[:, WRITTEN:])}


def _centred(found: np.ndarray, wanted: np.ndarray) -> float:
    centre = wanted.mean()
    return difference(found - centre, wanted - centre)
