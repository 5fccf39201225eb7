"""What a round of the game takes on an accelerator, in eight minutes at most.

    python benchmarks/gpu.py [--torch=PYTHON]      # goes on where it was stopped
    python benchmarks/gpu.py --only=game --again
    python benchmarks/gpu.py --table               # docs/scaling.md

    part           what of it
    parity         attention, log-probabilities and samples of every kernel that runs
                   here beside the CPU's float32
    decode         prompts read and replies written by the compiled steps alone, and
                   what share of the memory's bandwidth that is
    game           rounds of job=aprm: sample, score, update, by phase; MFU of the
                   joint update; memory
    torch_update   the same update by transformers and torch
    torch_score    the same rows scored
    torch_sample   the same replies by `generate`
    torch_static   likewise with a static cache, which it compiles for

Qwen2.5-1.5B's shape with random weights and random text: 8 prompts of 512 tokens, 8
replies of 512 tokens to each, which no stop ends. Products are bfloat16, parameters
float32, layers are computed again, and the optimiser's moments factored, in 8
microbatches: what fits 80 GB (`benchmarks/plan.py`). Functions and classes are those of
the jobs; left out is what an oracle and a tokenizer do. Without an accelerator, or with
`--tiny`, the same runs in float32 at a tiny size.

Each part is a process of its own, so that its peak of memory is its own, and ends with
a JSON file that is whole: benchmarks/results/gpu.json, at tiny size none but with
--out. A part that was measured with the same setting on the same device is passed over;
one that fails, that torch is missing for, or that no time is left for, does not keep
the others from running.
Seconds are medians of turns that wait for the device; the first turn, which compiles,
stands beside them and is not among them. Operations and bytes are those that the round
needs, by closed form (`models.flops`), at the makers' peaks (`training.chips`): what is
computed again, padded or copied counts as time alone. A chip whose peaks are not known
has no shares, nor has a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sides
from gpu_setting import SEED, TINY, TINY_MODEL, Setting
from sides import ROOT

RESULTS = ROOT / "benchmarks/results/gpu.json"
PAGE = ROOT / "docs/scaling.md"
OURS = ("parity", "decode", "game")
TORCH = ("torch_update", "torch_score", "torch_sample", "torch_static")
PARTS = (*OURS, *TORCH)
LEAST = 20  # seconds, with less no part is begun
_SHOWN = 3000  # characters of what a part that failed has said


def main() -> None:
    args = _parser().parse_args()
    if args.side:
        return sides.answer(_side, args.side, args.setting)
    if args.table:
        return _write_table()
    # A part ends with this process, or it would keep the device.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    end = time.monotonic() + 60 * args.minutes
    wanted = _checked(args.only)
    device = _child(args, "device", None, end)
    if "failed" in device:
        raise SystemExit(f"JAX finds no device:\n{device['failed']}")
    tiny = args.tiny or device["platform"] == "cpu"
    setting = make_setting(tiny)
    out = args.out or (None if tiny else RESULTS)
    print(plan_text(wanted, device, setting, out, args.minutes), flush=True)
    missing = measure(args, wanted, device, setting, out, end)
    if missing:
        raise SystemExit(f"not measured: {', '.join(missing)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--again", action="store_true", help="what is known as well")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, float32")
    parser.add_argument("--out", type=Path, help="the results' file")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts")
    parser.add_argument(
        "--torch", default=sys.executable, help="the Python that has it"
    )
    parser.add_argument("--table", action="store_true", help="docs/scaling.md, no run")
    for own in ("side", "setting"):  # of a child
        parser.add_argument(f"--{own}", default="", help=argparse.SUPPRESS)
    return parser


def _checked(only: str) -> list[str]:
    """The parts that are wanted.

    Raises:
      SystemExit: one is no part.
    """
    wanted = only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        raise SystemExit(f"--only={','.join(unknown)}: parts are {', '.join(PARTS)}")
    return wanted


def make_setting(tiny: bool) -> Setting:
    """What is measured, on an accelerator or at a tiny size."""
    from plan import QWEN

    if not tiny:
        return Setting(QWEN)
    return Setting(QWEN | TINY_MODEL, dtype="float32", repeats=3, **TINY)


def plan_text(
    wanted: list[str], device: Any, setting: Setting, out: Path | None, minutes: float
) -> str:
    """What will be done, before anything is."""
    model = setting.model
    shape = f"{model['num_hidden_layers']} layers of width {model['hidden_size']}"
    return (
        f"on {device['kind']} ({device['platform']}): {', '.join(wanted)}; at most "
        f"{minutes:g} minutes.\n{shape}, {setting.rows} rows of {setting.prompt} + "
        f"{setting.new} tokens, {setting.dtype}, {setting.repeats} turns.\n"
        f"Figures go to {out or 'the console alone'}."
    )


def measure(
    args: argparse.Namespace,
    wanted: list[str],
    device: Any,
    setting: Setting,
    out: Path | None,
    end: float,
) -> list[str]:
    """Measures the parts and keeps each; returns those that failed."""
    found = json.loads(out.read_text()) if out and out.is_file() else {}
    asked, missing = dataclasses.asdict(setting), []
    for name in wanted:
        if not args.again and is_known(found.get(name), asked, device):
            print(f"{name}: is in {out}; --again measures it again", flush=True)
            continue
        start = time.monotonic()
        told = _child(args, name, setting, end)
        if why := told.get("failed") or told.get("absent"):
            print(f"{name}: {why}", flush=True)
            missing += [name] * ("failed" in told)
            continue
        taken = time.monotonic() - start
        found[name] = told | _record(name, asked) | {"seconds_in_all": taken}
        if out:
            _write(out, found)
        print("\n".join(_lines(name, found[name])), flush=True)
    return missing


def _record(name: str, setting: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": f"python benchmarks/gpu.py --only={name}",
        "commit": _commit(),
        "seeds": [SEED],
        "setting": setting,
    }


def is_known(part: Any, setting: Any, device: Any) -> bool:
    """Whether a part was measured with this setting on such a device."""
    if part is None:
        return False
    # Torch and JAX give a GPU one name.
    return part["setting"] == setting and part["device"]["kind"] == device["kind"]


def _side(name: str, setting: str) -> dict[str, Any]:
    """In a child: the figures of a part."""
    shapes = Setting(**json.loads(setting)) if setting else None
    if name in TORCH:
        try:
            import gpu_torch as side
        except ImportError as error:
            return {"absent": f"passed over, {error}: name a Python by --torch"}
    else:
        import gpu_parts as side
    return side.device() if shapes is None else side.measured(name, shapes)


def _child(
    args: argparse.Namespace, name: str, setting: Setting | None, end: float
) -> dict[str, Any]:
    """What a process of its own says of a part, or "failed" or "absent" and why."""
    left = end - time.monotonic()
    if left < LEAST:
        return {"failed": "no time is left; the same command goes on with it"}
    python = args.torch if name in TORCH else sys.executable
    options = [f"--side={name}"]
    if setting is not None:
        options += [f"--setting={json.dumps(dataclasses.asdict(setting))}"]
    try:
        done = subprocess.run(
            [python, __file__, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=left,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"was stopped after {left:.0f} seconds: no time is left"}
    except OSError as error:
        return {"failed": str(error)}
    if done.returncode:
        return {"failed": f"failed:\n{done.stderr[-_SHOWN:]}"}
    return json.loads(done.stdout)


def _environment() -> dict[str, str]:
    """Of a child: nothing is fetched, and nearly all memory may be used."""
    ours = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93", **os.environ, **ours}


def _commit() -> str:
    from compare_table import commit  # which torch's Python cannot import

    try:
        return commit()
    except OSError:  # a machine with a GPU may have no git
        return ""


def _write(path: Path, found: dict[str, Any]) -> None:
    from aprm_jax.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(found, indent=1) + "\n")


def _write_table() -> None:
    from compare_table import replace_between

    replace_between(PAGE, "gpu", render(json.loads(RESULTS.read_text())))


def render(found: dict[str, Any]) -> str:
    """The figures as Markdown, parts in their order."""
    from compare_table import table

    parts = [(name, found[name]) for name in PARTS if name in found]
    rows = [row for name, part in parts for row in figures(name, part)]
    versions = {k: v for _, p in parts for k, v in p["device"]["versions"].items()}
    setting = parts[0][1]["setting"]
    where = dict.fromkeys(part["device"]["kind"] for _, part in parts)
    return (
        f"{table(['figure', 'median', 'least to most'], rows)}\n\n"
        f"{', '.join(where)}; {setting['groups']} prompts of {setting['prompt']} "
        f"tokens, {setting['group_size']} replies of {setting['new']} to each, "
        f"{setting['dtype']}; {', '.join(f'{k} {v}' for k, v in versions.items())}. "
        "Made by `benchmarks/gpu.py`."
    )


def figures(name: str, part: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """A part's figures: what, how much, and its spread where it has one."""
    rows = {"parity": _of_parity, "decode": _of_decode, "game": _of_game}
    made = rows.get(name, _of_torch)(part)
    peak = part["peak_bytes"]
    size = "not told" if peak is None else f"{peak / 1e9:,.3g} GB"
    named = [(f"{name}: {what}", cells) for what, cells in made]
    return [*named, (f"{name}: peak memory", [size, ""])]


def _of_parity(part: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The worst difference of each precision."""
    worst: dict[str, float] = {}

    def look(tree: Any) -> None:
        for key, value in tree.items():
            if key in part["bounds"]:
                worst[key] = max(worst.get(key, 0.0), *value.values())
            elif isinstance(value, dict):
                look(value)

    look({key: part[key] for key in ("attention", "logprobs", "sampled")})
    rows = [
        (f"worst difference, {mode}", [f"{x:.1e}", f"bound {part['bounds'][mode]:.0e}"])
        for mode, x in worst.items()
    ]
    far = ", ".join(part["too_far"]) or "none"
    return [*rows, ("beyond its bound", [far, ""])]


def _of_decode(part: dict[str, Any]) -> list[tuple[str, list[str]]]:
    rows = []
    for kind in ("float32", "bfloat16"):
        told, what = part[kind], f"{kind} parameters"
        rows += [
            (f"prompts read, {what}", _seconds(told["prefill"])),
            (f"replies written, {what}", _seconds(told["decode"])),
            (f"tokens a second, {what}", [f"{told['tokens_a_second']:,.0f}", ""]),
            (f"share of bandwidth, {what}", [_share(told["bandwidth_share"]), ""]),
        ]
    return rows


def _of_game(part: dict[str, Any]) -> list[tuple[str, list[str]]]:
    rows = [(name, _seconds(part["phases"][name])) for name in part["phases"]]
    compiled = part["compiled_update"]
    return [
        *rows,
        ("the update compiled in", [f"{compiled['seconds']:,.1f} s", ""]),
        ("and needs, by its compiler", [f"{compiled['bytes'] / 1e9:,.3g} GB", ""]),
        ("MFU of the update", [_share(part["update_mfu"]), ""]),
        ("MFU of scoring", [_share(part["score_mfu"]), ""]),
    ]


def _of_torch(part: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [("seconds", _seconds(part["seconds"]))]


def _seconds(of: dict[str, Any]) -> list[str]:
    return [f"{of['median']:,.4g} s", f"{of['least']:,.4g} to {of['most']:,.4g} s"]


def _share(value: float | None) -> str:
    return "no peak is known" if value is None else f"{value:.0%}"


def _lines(name: str, part: dict[str, Any]) -> list[str]:
    return [
        " | ".join([what, *filter(None, cells)]) for what, cells in figures(name, part)
    ]


if __name__ == "__main__":
    main()
