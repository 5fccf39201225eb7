"""Loads a checkpoint of several files beside transformers, and weighs both.

    python benchmarks/load.py [--gigabytes=2.2]

Writes random bfloat16 weights of a Llama into a temporary folder, then loads them in
processes of their own, one after the other: here onto 8 fake CPU devices and onto one,
and with `transformers.from_pretrained`, which maps the files and reads nothing, so also
with a copy of each weight after it. Memory is the process's peak resident set less
what it had before loading. Writes `benchmarks/results/load.json` and what stands
between the `load` markers of docs/huggingface.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
from compare_table import ROOT, commit, replace_between, table

from aprm_jax.hf.config_writer import hf_config
from aprm_jax.hf.safetensors_io import write_sharded
from aprm_jax.hf.tables import entries
from aprm_jax.models.architecture import DecoderConfig

RESULTS = ROOT / "benchmarks" / "results" / "load.json"
SHARD = 500_000_000  # bytes
CONFIG = DecoderConfig(
    vocab_size=64_000,
    d_model=2048,
    num_layers=1,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    d_ff=5632,
    tie_embeddings=False,
    dtype="bfloat16",
    param_dtype="bfloat16",
)

# What a child does: sets up, notes its memory, loads, and says what it took. The peak
# is reset before loading (Linux), so imports do not count.
CHILD = """
import json, pathlib, resource, sys, time, warnings
folder, how = sys.argv[1:]

def status(name):
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(text.split(name + ":")[1].split()[0])

if how.startswith("transformers"):
    import torch, transformers
    transformers.utils.logging.disable_progress_bar()
    def load():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16
        )
        if how == "transformers_read":
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
        return model
    transformers.LlamaForCausalLM
    transformers.LlamaConfig
else:
    import jax
    from aprm_jax.hf.load import load_params, read_architecture
    from aprm_jax.hf.safetensors_io import Checkpoint
    from aprm_jax.training.mesh import MeshConfig, make_mesh
    mesh = make_mesh(MeshConfig(data=1, fsdp=4 if how == "8" else 1, tensor=-1))
    config, family = read_architecture(
        folder, dtype="bfloat16", param_dtype="bfloat16"
    )
    def load():
        with Checkpoint.open(folder) as checkpoint:
            return load_params(checkpoint, config, family, mesh)
    jax.device_put(0.0).block_until_ready()
before = status("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")
wall, cpu = time.perf_counter(), time.process_time()
model = load()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = status("VmHWM") - before
held = status("VmRSS") - before
result = {"peak_bytes": peak, "held_bytes": held, "seconds": wall, "cpu_seconds": cpu}
if how.startswith("transformers"):
    result["parameter_bytes"] = sum(p.nbytes for p in model.parameters())
else:
    leaves = jax.tree.leaves(model)
    shards = [s.data for leaf in leaves for s in leaf.addressable_shards]
    result["parameter_bytes"] = sum(leaf.nbytes for leaf in leaves)
    result["shard_bytes"] = sum(s.nbytes for s in shards)
    result["devices"] = len(jax.devices())
print(json.dumps(result))
"""


def write_checkpoint(folder: pathlib.Path, gigabytes: float) -> dict[str, int]:
    """Random weights of at least that size, in files of `SHARD` bytes."""
    one = sum(int(np.prod(entry.shape)) for entry in entries(CONFIG, "llama"))
    wide = dataclasses.replace(CONFIG, num_layers=2)
    layer = sum(int(np.prod(entry.shape)) for entry in entries(wide, "llama")) - one
    more = gigabytes * 1e9 / 2 - one
    config = dataclasses.replace(CONFIG, num_layers=1 + max(1, -int(-more // layer)))
    rng = np.random.default_rng(0)
    table = entries(config, "llama")
    noise = (rng.standard_normal(1 << 20) * 0.02).astype(ml_dtypes.bfloat16)
    sizes = {entry.key: int(np.prod(entry.shape)) * 2 for entry in table}

    def tensors():
        for entry in table:
            # Random numbers repeated: bytes are bytes to a loader.
            start = int(rng.integers(1 << 19))
            yield entry.key, np.resize(noise[start:], entry.shape)

    names = write_sharded(folder, tensors(), SHARD)
    text = json.dumps(hf_config(config, "llama"))
    (folder / "config.json").write_text(text)
    return {
        "bytes": sum(sizes.values()),
        "files": sum(name.endswith(".safetensors") for name in names),
        "tensors": len(table),
        "largest_tensor_bytes": max(sizes.values()),
    }


def run(folder: str, how: str) -> dict[str, float]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    if how == "8":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, folder, how],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{how}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument(
        "--page", type=pathlib.Path, default=ROOT / "docs/huggingface.md"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written = write_checkpoint(pathlib.Path(folder), arguments.gigabytes)
        names = {"8": "ours_8_devices", "1": "ours_1_device"}
        # All find the files in the page cache: they were just written.
        for how in ("8", "1", "transformers_read", "transformers"):
            found = run(folder, how)
            written[names.get(how, how)] = found  # pyright: ignore[reportArgumentType]
    largest = written["largest_tensor_bytes"]
    for name in names.values():
        ours: dict = written[name]  # pyright: ignore[reportAssignmentType]
        over = ours["peak_bytes"] - ours["shard_bytes"]
        ours["over_own_shards_in_largest_tensors"] = round(over / largest, 3)
    versions = ("jax", "numpy", "torch", "transformers", "safetensors")
    report = {
        "command": f"python benchmarks/load.py --gigabytes={arguments.gigabytes}",
        "commit": commit(),
        "versions": {name: importlib.metadata.version(name) for name in versions},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "checkpoint": {k: v for k, v in written.items() if isinstance(v, int)},
        **{k: v for k, v in written.items() if isinstance(v, dict)},
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    replace_between(arguments.readme, "load", render(report))


def render(report: dict) -> str:
    """The README's table."""
    made, rows = report["checkpoint"], []
    titles = {
        "ours_8_devices": "aprm_jax, 8 virtual devices",
        "ours_1_device": "aprm_jax, 1 device",
        "transformers_read": "transformers, `from_pretrained`, each weight copied",
        "transformers": "transformers, `from_pretrained` (maps the files)",
    }
    for name, title in titles.items():
        found = report[name]
        held = found.get("shard_bytes", found["parameter_bytes"])
        over = found["peak_bytes"] - held
        figures = [found["peak_bytes"], held, over]
        times = [f"{found[key]:.1f} s" for key in ("seconds", "cpu_seconds")]
        rows.append((title, times + [f"{size / 1e9:.2f} GB" for size in figures]))
    head = ["", "time", "CPU time", "peak memory", "parameters", "above them"]
    return (
        f"{table(head, rows)}\n\n"
        f"A random bfloat16 Llama of {made['bytes'] / 1e9:.2f} GB in {made['files']} "
        f"files, its largest tensor {made['largest_tensor_bytes'] / 1e9:.2f} GB, on "
        f"{report['machine']}, from the page cache, one after the other "
        "(`benchmarks/load.py`). Memory is the process's peak above what it had before "
        "loading; parameters that several devices hold count once for each."
    )


if __name__ == "__main__":
    main()
