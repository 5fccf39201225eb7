"""Times training and sampling beside torch with transformers on the same architecture.

    python benchmarks/decoder.py [--quick]

One process, one machine, random weights. Ours has a CPU device to a core, as the
command makes them; torch has a thread to a core. The two sides take turns of a few
seconds, each pair of turns gives one ratio, and medians are reported. A side's first
turn compiles and is not counted; nor should a single step be, for the first ones after
the other side's turn find their memory gone. Writes `benchmarks/results/decoder.json`
and what stands between the `decoder` markers of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import torch
import transformers
from compare_table import ROOT, replace_between, table

from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.training.memory import keep_freed_memory
from aprm_jax.training.mesh import (
    MeshConfig,
    make_mesh,
    param_shardings,
    pin,
    shard_batch,
    split_cpu,
)

RESULTS = pathlib.Path(__file__).parent / "results" / "decoder.json"
CONFIG = DecoderConfig(
    vocab_size=64,
    d_model=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    d_ff=384,
)
TRAIN_SHAPES = ((64, 128), (64, 48))
PROMPT, NEW_TOKENS = 32, 14
SAMPLES_PER_PROMPT = 8
TURN_TOKENS = 65_536  # of a training turn, at least
TURN_ROWS = 2_048  # of a sampling turn

Turn = Callable[[], float]  # runs once, returns tokens per second


def torch_model(attention: str = "sdpa") -> transformers.LlamaForCausalLM:
    """Llama with the shape of `CONFIG`."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.d_model,
        intermediate_size=CONFIG.d_ff,
        num_hidden_layers=CONFIG.num_layers,
        num_attention_heads=CONFIG.num_heads,
        num_key_value_heads=CONFIG.num_kv_heads,
        head_dim=CONFIG.head_dim,
        max_position_embeddings=256,
        rms_norm_eps=CONFIG.norm_eps,
        tie_word_embeddings=CONFIG.tie_embeddings,
        attn_implementation=attention,  # pyright: ignore[reportCallIssue]
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    return transformers.LlamaForCausalLM(config).train()


def jax_params():
    """Our parameters; the model itself is a pure function."""
    ids = np.zeros((1, 8), np.int32)
    return Decoder(CONFIG).init(jax.random.key(0), ids, ids, ids)["params"]


def jax_training(batch: int, length: int, steps: int) -> Turn:
    """Forward, backward and Adam, compiled as one donated step."""
    decoder: Any = Decoder(CONFIG)
    optimiser, mesh = optax.adam(1e-3), make_mesh(MeshConfig())
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (batch, length))
    segments = np.ones((batch, length), np.int32)

    def loss_fn(params, tokens):
        variables = {"params": params}
        hidden = decoder.apply(variables, tokens, positions, segments)
        logits = decoder.apply(variables, hidden, method=Decoder.logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], tokens[:, 1:]
        )
        return losses.mean()

    @functools.partial(jax.jit, donate_argnums=(0,))
    def update(state, tokens):
        params, moments = state
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
        updates, moments = optimiser.update(grads, moments)
        return pin(mesh, (optax.apply_updates(params, updates), moments)), loss

    params = jax_params()
    start = (params, optimiser.init(params))
    state = [jax.device_put(start, param_shardings(mesh, start))]
    tokens = np.random.default_rng(0).integers(1, 64, (batch, length), np.int32)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            state[0], loss = update(state[0], shard_batch(mesh, tokens))
            # As the jobs, which look at every step's loss one step late, do not run
            # ahead: steps that are under way hold their memory all at once.
            loss.block_until_ready()
        jax.block_until_ready(state)
        return steps * batch * length / (time.perf_counter() - start)

    return turn


def torch_training(batch: int, length: int, steps: int, compiled: bool) -> Turn:
    """The same step in torch, with its fused Adam."""
    model = torch_model()
    forward = torch.compile(model) if compiled else model
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    ids = np.random.default_rng(0).integers(1, 64, (batch, length))
    tokens = torch.from_numpy(ids)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            forward(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimiser.step()
        return steps * batch * length / (time.perf_counter() - start)

    return turn


def prompts(rows: int, distinct: int) -> list[list[int]]:
    """`rows` prompts, equal ones side by side."""
    ids = np.random.default_rng(1).integers(1, 64, (distinct, PROMPT))
    return np.repeat(ids, rows // distinct, axis=0).tolist()


def jax_sampling(rows: int, distinct: int, steps: int) -> Turn:
    """Our sampler, end to end from lists to NumPy; nothing stops early."""
    mesh = make_mesh(MeshConfig())
    sampler = Sampler(
        CONFIG,
        stop_ids=(-1,),
        pad_id=0,
        prompt_buckets=(PROMPT,),
        max_new_tokens=NEW_TOKENS,
        batch_buckets=tuple(sorted({distinct, rows})),
        mesh=mesh,
    )
    params, ids = jax_params(), prompts(rows, distinct)
    params = jax.device_put(params, param_shardings(mesh, params))

    def turn() -> float:
        start = time.perf_counter()
        for i in range(steps):
            sampler.sample(params, ids, jax.random.key(i))
        return steps * rows * NEW_TOKENS / (time.perf_counter() - start)

    return turn


def torch_sampling(
    rows: int, distinct: int, steps: int, attention: str, cache: str, compiled: bool
) -> Turn:
    """`generate`, with log-probabilities out as ours has them."""
    model: Any = torch_model(attention).eval()
    if compiled:
        model.forward = torch.compile(model.forward)
    ids = torch.tensor(prompts(rows, distinct))[:: rows // distinct]
    options = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
        "num_return_sequences": rows // distinct,
        "return_dict_in_generate": True,
        "output_logits": True,
        "cache_implementation": cache,
    }

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            with torch.inference_mode():
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), **options
                )
                logits = torch.stack(out.logits, dim=1)
                new = out.sequences[:, PROMPT:, None]
                logits.log_softmax(-1).gather(-1, new)
        return steps * rows * NEW_TOKENS / (time.perf_counter() - start)

    return turn


def paired(ours: Turn, theirs: dict[str, Turn], pairs: int) -> dict:
    """Takes turns, after one turn each that compiles."""
    figures: dict[str, list[float]] = {"aprm_jax": []}
    failed = {}
    ours()
    for name, turn in list(theirs.items()):
        try:
            turn()
            figures[name] = []
        except Exception as error:  # a missing compiler is a result, not a crash
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    turns = {"aprm_jax": ours, **{n: t for n, t in theirs.items() if n in figures}}
    for i in range(pairs):
        order = list(turns) if i % 2 == 0 else list(turns)[::-1]
        for name in order:
            figures[name].append(turns[name]())
    report = {
        "tokens_per_second": {n: statistics.median(v) for n, v in figures.items()},
        "ratio": {
            n: statistics.median(
                a / b for a, b in zip(figures["aprm_jax"], v, strict=True)
            )
            for n, v in figures.items()
            if n != "aprm_jax"
        },
        "raw": figures,
        "failed": failed,
    }
    return report


def environment() -> dict:
    """What somebody needs to read the figures a year from now."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parent,
        check=False,
    ).stdout.strip()
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "numpy")
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": jax.device_count(),
        "load_before": os.getloadavg()[0],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "parameters": sum(x.size for x in jax.tree.leaves(jax_params())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--only", default="", help="substring of the workloads to run")
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile")
    args = parser.parse_args()
    keep_freed_memory()  # as the command does; torch has the good of it as well
    split_cpu(MeshConfig(), [batch for batch, _ in TRAIN_SHAPES])
    torch.set_num_threads(os.cpu_count() or 1)
    pairs, scale = (3, 1) if args.quick else (7, 2)
    modes = (False,) if args.no_compile else (False, True)
    workloads = {}
    for batch, length in TRAIN_SHAPES:
        steps = scale * -(-TURN_TOKENS // (batch * length))
        workloads[f"train {batch}x{length}"] = lambda b=batch, n=length, s=steps: (
            jax_training(b, n, s),
            {
                ("torch.compile" if c else "torch eager"): torch_training(b, n, s, c)
                for c in modes
            },
        )
    for rows, each in ((128, 1), (512, 1), (512, SAMPLES_PER_PROMPT)):
        steps = scale * TURN_ROWS // rows
        variants = {
            "generate sdpa": ("sdpa", "dynamic", False),
            "generate eager": ("eager", "dynamic", False),
        }
        if not args.no_compile and rows == 512:
            variants["generate static compiled"] = ("sdpa", "static", True)
        workloads[f"sample {rows} rows, {each} per prompt"] = (
            lambda r=rows, d=rows // each, s=steps, v=variants: (
                jax_sampling(r, d, s),
                {name: torch_sampling(r, d, s, *o) for name, o in v.items()},
            )
        )
    report = {"environment": environment(), "workloads": {}}
    for name, build in workloads.items():
        if args.only not in name:
            continue
        start = time.perf_counter()
        report["workloads"][name] = result = paired(*build(), pairs)  # pyright: ignore[reportCallIssue]
        print(f"{name} ({time.perf_counter() - start:.0f} s)")
        for side, rate in result["tokens_per_second"].items():
            ratio = result["ratio"].get(side)
            beside = f"   ours/this {ratio:.2f}" if ratio else ""
            print(f"  {side:26} {rate:10.0f} tokens/s{beside}")
        for side, why in result["failed"].items():
            print(f"  {side:26} failed: {why}")
    if not args.only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
        replace_between(ROOT / "docs/scaling.md", "decoder", render(report))
        print(f"wrote {RESULTS}")


def render(report: dict) -> str:
    """The table as Markdown."""
    rows = []
    for name, result in report["workloads"].items():
        rates, ratios = result["tokens_per_second"], result["ratio"]
        cells = [f"{rates['aprm_jax']:,.0f}"]
        cells.append(
            "; ".join(
                f"{side}: {rates[side]:,.0f} ({ratios[side]:.2f})" for side in ratios
            )
        )
        rows.append((name, cells))
    told = report["environment"]
    versions = ", ".join(
        f"{name} {told['versions'][name]}" for name in ("jax", "torch", "transformers")
    )
    return (
        table(["tokens a second, medians", "ours", "torch (ours / theirs)"], rows)
        + f"\n\n{told['parameters']:,} parameters, float32, {told['cores']} cores, "
        f"{versions}. Made by `benchmarks/decoder.py` (`{told['command']}`)."
    )


if __name__ == "__main__":
    main()
