"""What steps at real sizes need on real topologies, by `job=plan`; no chip is needed.

    pip install 'jax[tpu]'                   # libtpu, which compiles
    python benchmarks/plan.py [game_lora sft_full]   # compiles; all rows by default
    python benchmarks/plan.py --weak=4   # rows grow with 4 virtual devices: run too
    python benchmarks/plan.py --again    # times of earlier rows, for what chips are now
    python benchmarks/plan.py --table    # docs/scaling.md

64 rows of 1,024 tokens in bfloat16, layers computed again. Each row is added to
`benchmarks/results/plan.json` as soon as it is known.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, commit, replace_between, table

RESULTS = ROOT / "benchmarks/results/plan.json"
PAGE = ROOT / "docs/scaling.md"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}
SMALL = LLAMA | {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
MODELS = {"Llama-3.1-8B": LLAMA, "Qwen2.5-1.5B": QWEN, "small": SMALL}
WEAK_TOKENS, WEAK_UPDATES = 128, 5
SLICE = 256  # chips of the largest v5e slice


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a step of a job, a model, chips, and what else is set."""

    title: str
    job: str
    model: str
    topology: str
    step: str = "update"
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


ADAPTERS = {"lora.rank": 16, "model.param_dtype": "bfloat16"}
# Four rows a chip of 64: weights travel as often for four times the tokens.
MANY = {
    "game.generator_rows": 256,
    "game.prm_clean": 96,
    "game.prm_fresh": 96,
    "game.prm_replay": 64,
}
ROWS = {
    "sft_full": Row("SFT, full", "sft", "Llama-3.1-8B", "v5e:8x8"),
    "game_lora": Row(
        "joint game, LoRA", "aprm", "Llama-3.1-8B", "v5e:4x4", fields=ADAPTERS
    ),
    "game_full": Row("joint game, full", "aprm", "Llama-3.1-8B", "v5e:8x8"),
    "game_full_256": Row(
        "joint game, full, 256 rows", "aprm", "Llama-3.1-8B", "v5e:8x8", fields=MANY
    ),
    "game_full_small": Row("joint game, full", "aprm", "Qwen2.5-1.5B", "v5e:4x4"),
    "prm_lora": Row(
        "PRM, LoRA",
        "aprm",
        "Llama-3.1-8B",
        "v5e:4x4",
        fields={**ADAPTERS, "game.freeze_generator": True},
    ),
    "decode_fsdp": Row(
        "decode, fsdp", "aprm", "Llama-3.1-8B", "v5e:4x4", "decode", ADAPTERS
    ),
    "decode_tensor": Row(
        "decode, tensor 8",
        "aprm",
        "Llama-3.1-8B",
        "v5e:4x4",
        "decode",
        {**ADAPTERS, "mesh.sample_tensor": 8},
    ),
    "game_h100": Row("joint game, full", "aprm", "Qwen2.5-1.5B", "gpu:h100x1"),
    "game_h100_small": Row(
        "joint game, full, 8 microbatches, factored moments",
        "aprm",
        "Qwen2.5-1.5B",
        "gpu:h100x1",
        fields={"game.microbatches": 8, "game.moments": "factored"},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="ROW")
    parser.add_argument("--weak", type=int, metavar="N")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        replace_between(PAGE, "plan", render(json.loads(RESULTS.read_text())))
        return
    if args.again:
        known = json.loads(RESULTS.read_text())
        for name in ROWS:
            if name in known and _earlier(known[name]):
                known[name] |= reckoned(known[name])
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.weak:
        keep(f"weak_{args.weak}", weak(args.weak), f"--weak {args.weak}")
        return
    for name in args.rows or ROWS:
        keep(name, planned(ROWS[name]), name)


def planned(row: Row) -> dict[str, Any]:
    """The row's step, compiled."""
    from aprm_jax.jobs import plan

    with _made(row) as (context, topology, _):
        found = list(plan.plans(context.config, context, topology))
    return plan.as_json(row.title, topology, found)


def _earlier(planned: Mapping[str, Any]) -> bool:
    """Whether a row was compiled when all links of a chip were thought to be there."""
    return "links" not in planned or "times_as_of" in planned


def reckoned(planned: Mapping[str, Any]) -> dict[str, Any]:
    """Room and times of a row that was compiled, for the chips as they are known now.

    What the compiler and the trace said stays: memory, operations, bytes, fusions.
    """
    from aprm_jax.training.chips import Topology
    from aprm_jax.training.forecast import Forecast

    topology, [step] = Topology.of(planned["topology"]), planned["steps"]
    fields = [field.name for field in dataclasses.fields(Forecast)]
    told = Forecast(**{"beside": 0.0, **{k: step[k] for k in fields if k in step}})
    sent = sum(sum(kinds.values()) for kinds in told.links.values())
    seconds = told.seconds | {
        "memory": told.hbm_bytes / topology.chip.bandwidth,
        "links": sent / topology.speed(range(topology.size)) if sent else 0.0,
    }
    told = dataclasses.replace(told, room=topology.room, seconds=seconds)
    return {
        "chip": dataclasses.asdict(topology.chip),
        "links": topology.links,
        "memory_share": topology.share,
        "steps": [step | told.as_json(topology.chip)],
        "times_as_of": commit(),
    }


@contextlib.contextmanager
def _made(row: Row) -> Iterator[tuple[Any, Any, Any]]:
    """A row's context, topology and mesh; its model's folder is there within."""
    from aprm_jax.config import default_config, with_fields
    from aprm_jax.jobs.context import Context
    from aprm_jax.training.chips import Topology
    from aprm_jax.training.mesh import MeshConfig, make_mesh

    topology = Topology.of(row.topology)
    topology.prepare()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, row.model)
        model.mkdir()
        (model / "config.json").write_text(json.dumps(MODELS[row.model]))
        fields = {
            "name": row.title,
            "stages": (f"stage:{row.job}",),
            "plan.topology": row.topology,
            "plan.tries": 0,
            "plan.steps": (row.step,),
            "builder.line_stride": 0,
            "builder.buckets": (1024,),
            "builder.max_new_tokens": 512,
            "model.dtype": "bfloat16",
            "model.remat": "full",
            "sft.batch_size": 64,
            "game.generator_rows": 64,
            "game.prm_clean": 24,
            "game.prm_fresh": 24,
            "game.prm_replay": 16,
            "game.generator_from": "backbone",
            "game.prm_from": "backbone",
            "prm.head": "two_class",
            "mesh.data": 1,
            "mesh.fsdp": topology.size,
            **{f"{r}.backbone": str(model) for r in ("solver", "generator", "prm")},
            **row.fields,
        }
        c = with_fields(default_config(), fields)
        sizes = MeshConfig(c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
        mesh = make_mesh(sizes, topology.devices())
        yield Context(c, Path(folder), "stage"), topology, mesh


def _programs(context: Any, row: Row, mesh: Any) -> list[Any]:
    from aprm_jax.jobs import plan_steps

    return plan_steps.programs(context, row.job, mesh)


def weak(devices: int) -> dict[str, Any]:
    """The joint update of a small model on virtual devices, 8 rows each: run too."""
    import jax

    from aprm_jax.training.forecast import forecast

    fields = {"game.generator_rows": 8 * devices, "builder.buckets": (WEAK_TOKENS,)}
    counts = {"prm_clean": 3, "prm_fresh": 3, "prm_replay": 2}
    fields |= {f"game.{name}": count * devices for name, count in counts.items()}
    fields |= {"builder.max_new_tokens": WEAK_TOKENS // 2, "model.dtype": "float32"}
    row = Row("weak", "aprm", "small", f"gpu:h100x{devices}", fields=fields)
    with _made(row) as (context, topology, mesh):
        programs = _programs(context, row, mesh)
        program = next(one for one in programs if one.name == row.step)
        told = forecast(program, topology, mesh)
        compiled = program.function.lower(*program.args).compile()
    args = jax.tree.map(_zeros, program.args)
    state, _ = jax.block_until_ready(compiled(*args))
    before = time.process_time()
    for _ in range(WEAK_UPDATES):
        state, _ = jax.block_until_ready(compiled(state, *args[1:]))
    seconds = (time.process_time() - before) / WEAK_UPDATES
    tokens = 16 * devices * WEAK_TOKENS
    return {
        "devices": devices,
        "tokens": tokens,
        "flops_per_token": told.flops * devices / tokens,
        "cpu_seconds_per_token": seconds / tokens,
        "parameters": sum(x.size for x in jax.tree.leaves(program.args[0].prm.params)),
        "peak": told.peak,
        "links": told.links,
    }


def _zeros(shape: Any) -> Any:
    import jax

    zeros = np.zeros(shape.shape, shape.dtype)
    place = getattr(shape, "sharding", None)
    return zeros if place is None else jax.device_put(zeros, place)


def keep(name: str, told: dict[str, Any], arguments: str) -> None:
    """Adds a row to the results."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    versions = {name: _version(name) for name in ("jax", "jaxlib", "libtpu")}
    made = {
        "command": f"python benchmarks/plan.py {arguments}",
        "commit": commit(),
        "versions": versions,
    }
    known[name] = told | made
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # libtpu, where GPUs alone were planned for


def render(known: Mapping[str, Any]) -> str:
    """The tables of the page."""
    lines = []
    for name, row in ROWS.items():
        if name in known:
            [step] = known[name]["steps"]
            cells = [row.topology, _memory(step), _wire(step), *_speed(step)]
            lines.append((f"{row.title}, {row.model}", cells))
    head = ["step", "chips", "GiB a chip", "GB sent a chip", "time at least", "MFU"]
    first = next(known[name] for name in ROWS if name in known)
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if v)
    return (
        table(head, lines)
        + "\n\n64 rows of 1,024 tokens (decode: 64 rows, 1,024 read and 512 written), "
        "bfloat16 products, `model.remat='full'`, one mesh axis, fsdp, where no other "
        "is named. MFU at most, without and with collectives hidden; "
        f"{versions}. {_commits(known)}\n\n{_weak_text(known)}{_pod_text(known)}"
        "Made by `benchmarks/plan.py`."
    )


def _commits(known: Mapping[str, Any]) -> str:
    """Which commits compiled what, where times are of a later one."""
    earlier = [name for name in ROWS if "times_as_of" in known.get(name, {})]
    if not earlier:
        return ""
    made = {known[name]["commit"][:7]: [] for name in earlier}
    for name in earlier:
        made[known[name]["commit"][:7]].append(ROWS[name].title)
    told = "; ".join(f"{', '.join(rows)} by {what}" for what, rows in made.items())
    return f"Compiled earlier, and their times reckoned again for the links: {told}."


def _weak_text(known: Mapping[str, Any]) -> str:
    """Cost of a token by number of devices, each with as many rows."""
    lines = []
    if not _weak_rows(known):
        return ""
    for one in sorted(_weak_rows(known), key=lambda one: one["devices"]):
        sent = sum(sum(kinds.values()) for kinds in one["links"].values())
        lines.append(
            (
                f"{one['devices']}",
                [
                    f"{one['flops_per_token'] / 1e6:,.2f}",
                    f"{one['peak'] / 1e6:,.0f}",
                    f"{sent / 1e6:,.1f}",
                    f"{1e6 * one['cpu_seconds_per_token']:,.0f}",
                ],
            )
        )
    head = ["devices", "MFLOP a token", "MB a device", "MB sent a device", "CPU µs"]
    small = _weak_rows(known)[0]["parameters"]
    return (
        "The cost of a token as devices grow and each keeps its 16 rows of "
        f"{WEAK_TOKENS} tokens: the joint update of two players of {small / 1e6:,.1f} "
        "million parameters under fsdp, counted in the compiled program, and the "
        "processor's time of a token, measured on virtual devices of 2 cores.\n\n"
        f"{table(head, lines)}\n\n"
    )


def _pod_text(known: Mapping[str, Any]) -> str:
    """What grows on paper, from a planned row, up to 256 hosts of four chips."""
    if "game_full" not in known:
        return ""
    [step] = known["game_full"]["steps"]
    chips, holds = known["game_full"]["chips"], step["holds"]
    sent = sum(sum(kinds.values()) for kinds in step["links"].values())
    state = sum(size for what, size in holds.items() if what != "batch") * chips
    lines = []
    for count in (chips, SLICE, 4 * SLICE):
        shards, slices = min(count, SLICE), max(1, count // SLICE)
        ring = sent * (1 - 1 / shards) / (1 - 1 / chips)
        # Float32 parameters of both players are twice their gradients' bytes.
        between = (1 - 1 / slices) * holds["parameters"] * chips / shards
        sizes = (state / shards, ring, between)
        lines.append((f"{count:,}", [f"{size / 1e9:,.2f}" for size in sizes]))
    head = ["chips", "GB of state a chip", "GB sent a chip", "GB sent between slices"]
    return (
        "On paper, two full 8B players on more chips with a row each: fsdp over a "
        f"slice of up to {SLICE} chips, `mesh.data` over slices. What a chip holds "
        "falls, what it sends within its slice is the same to two per cent, and only "
        "gradients, a share of them each, cross between slices.\n\n"
        f"{table(head, lines)}\n\n"
    )


def _weak_rows(known: Mapping[str, Any]) -> list[Any]:
    return [one for name, one in known.items() if name.startswith("weak_")]


def _memory(step: Mapping[str, Any]) -> str:
    if step["peak"] is None:
        return "does not fit"
    size = f"{step['peak'] / 2**30:,.1f} of {step['room'] / 2**30:,.1f}"
    return size if step["fits"] else f"{size}: does not fit"


def _wire(step: Mapping[str, Any]) -> str:
    if step["refusal"]:
        return "–"
    return f"{sum(sum(k.values()) for k in step['links'].values()) / 1e9:,.1f}"


def _speed(step: Mapping[str, Any]) -> list[str]:
    if not step["fits"]:
        return ["–", "–"]
    seconds = dict(step["seconds"])
    if "fusions" not in seconds:  # nothing is known but products: no MFU of a step
        return [f"{1e3 * seconds['compute']:,.0f} ms (products alone)", "–"]
    links = seconds.pop("links", 0.0)
    hidden = step["time"] / (max(seconds.values()) + links)
    return [
        f"{1e3 * step['time']:,.0f} ms ({step['bound']})",
        f"{step['mfu'] * hidden:.0%} to {step['mfu']:.0%}",
    ]


if __name__ == "__main__":
    main()
