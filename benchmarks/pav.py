"""Search by progress (PAV) beside Q and an ORM, and what its labels must cost.

This file is also the config of both runs, so a run that was stopped goes on:

    for seed in 0 1 2 3 4; do for part in search labels; do
      python -m aprm_jax.main --config=benchmarks/pav.py:$part --config.seed=$seed \\
        --workdir=runs/pav-$part-$seed
      python benchmarks/pav.py collect runs/pav-$part-$seed
    done; done
    python benchmarks/pav.py tables       # docs/results.md

`search`: beams of B = 4 to 128 that expand each step three times, by the effective
reward of the best of four, by that of another prover (a solver of other authors), by Q
alone; best-of-N by an ORM; and alpha from 0 to 1. `labels`: rollouts against
completions at equal budgets, first pits against prefixes at random. `:search-tiny` and
`:labels-tiny` are cuts of minutes. `collect` keeps a file a run in
`benchmarks/results/pav/`; `tables` pools the seeds that are there.

Hardware: 2 CPU cores, no GPU. Time and scores: not measured yet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/pav"
BEAMS = (4, 8, 16, 32, 64, 128)
EXPANSIONS = 3
SWEPT = 16  # the beam that alpha is swept with
ALPHAS = tuple(range(11))  # in tenths
SPLITS = ("test", "longer", "larger", "worded")
LEDGER = ("decoded", "prefilled", "verifier_tokens", "flops")
EFFECTIVE = {"search.aggregation": "effective"}
RANKED = {
    "bok": {"search.verifiers": ("pav",), **EFFECTIVE},
    "prover": {
        "search.verifiers": ("pav",),
        "search.prover_values": "pav_prover",
        **EFFECTIVE,
    },
    "value": {"search.verifiers": ("pav",)},
    "orm": {"search.verifiers": ("orm",), "search.method": "best_of_n"},
}
TITLES = {
    "bok": "PAV, best of 4",
    "prover": "PAV, another prover",
    "value": "Q alone",
    "orm": "best-of-N, ORM",
}
# Name -> rollouts and completions a question, at two budgets; then what is completed.
LABELS = {
    f"cov{cov}_mc{mc}": {"pav.n_cov": cov, "pav.n_mc": mc}
    for cov, mc in ((2, 8), (4, 4), (8, 2), (2, 32), (8, 8), (32, 2))
} | {
    "first_pit": {"pav.n_cov": 8, "pav.n_mc": 8, "pav.sampling": "first_pit"},
    "random": {"pav.n_cov": 8, "pav.n_mc": 8, "pav.prefixes": 4},
}
TINY = ("cov4_mc4", "random")  # so poor a solver meets no first pit


def get_config(arg: str = ""):
    """The config of a run; `arg` is its part, and `-tiny` a cut of it."""
    check_arg(arg, ("search", "search-tiny", "labels", "labels-tiny"))
    part, _, tiny = arg.partition("-")
    c = read_config_file(ROOT / "configs/pav.py")
    c.name = f"pav_{part}"
    c.search.splits = SPLITS if part == "search" else SPLITS[:2]
    c.search.trees, c.search.batch = 0, 50
    if part == "search":
        sizes = ((2, 4), (0, 5)) if tiny else (BEAMS, ALPHAS)
        trained, searches = _search_stages(c, *sizes)
    else:
        trained, searches = _label_stages(c, TINY if tiny else tuple(LABELS))
    set_stages(c, (*trained, *(f"{name}:search" for name in searches)))
    for name, fields in searches.items():
        override(c, name, fields)
    if tiny:
        run_local(c)
        c.builder.max_steps, c.search.problems, c.search.bootstrap = 4, 3, 50
        c.search.splits = SPLITS[:1]
    return c


def _search_stages(c: Any, beams: Sequence[int], alphas: Sequence[int]):
    c.stages = (*c.stages, "prover:sft", "pav_prover:pav")
    override(c, "prover", {"domain.authors": "second", "sft.init_from": ""})
    override(c, "pav_prover", {"pav.prover": "prover"})
    searches = {
        f"{name}_{beam}": fields | _width(beam, fields)
        for name, fields in RANKED.items()
        for beam in beams
    }
    swept = min(SWEPT, max(beams))
    searches |= {
        f"alpha_{a}": RANKED["bok"] | _width(swept, {}) | {"search.alpha": a / 10}
        for a in alphas
    }
    trained = ("solver:sft", "prover:sft", "orm:prm", "pav:pav", "pav_prover:pav")
    return trained, searches


def _label_stages(c: Any, names: Sequence[str]):
    c.stages = (*c.stages, *(f"{name}:pav" for name in names))
    for name in names:
        override(c, name, LABELS[name])
    searches = {
        f"{how}_{name}": {"search.verifiers": (name,), **fields, **_width(8, fields)}
        for name in names
        for how, fields in (("value", {}), ("bok", EFFECTIVE))
    }
    return ("solver:sft", *(f"{name}:pav" for name in names)), searches


def _width(beam: int, fields: dict[str, Any]) -> dict[str, Any]:
    """As many hypotheses as a beam expands, or N of best-of-N."""
    if fields.get("search.method") == "best_of_n":
        return {"search.n": EXPANSIONS * beam}
    return {"search.n": EXPANSIONS * beam, "search.m": EXPANSIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("collect", "tables"))
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.action == "collect":
        for run in args.runs:
            collect(run, args.results)
        return
    from compare_table import replace_between

    replace_between(args.page, "pav", render(args.results))


def collect(run: Path, results: Path) -> None:
    """Writes what a finished run found: who was right, and what it cost."""
    from compare_table import commit, one_line_each

    config = json.loads((run / "config.json").read_text())
    part = config["name"].removeprefix("pav_")
    found: dict[str, Any] = {
        "command": f"python -m aprm_jax.main --config=benchmarks/pav.py:{part} "
        f"--config.seed={config['seed']}",
        "commit": commit(),
        "seed": config["seed"],
        "problems": config["search"]["problems"],
        "labels": {
            path.parent.name: json.loads(path.read_text())
            for path in sorted(run.glob("*/summary.json"))
            if (path.parent / "labels.jsonl").exists()
        },
        "searches": {},
    }
    for path in sorted(run.glob("*/solutions.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        by_split: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_split.setdefault(row["split"], []).append(row)
        for split, of_split in by_split.items():
            found["searches"][f"{path.parent.name}/{split}"] = {
                "correct": [int(row["correct"]) for row in of_split],
                **{
                    k: round(float(np.mean([r["ledger"][k] for r in of_split])))
                    for k in LEDGER
                },
            }
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{part}_seed_{found['seed']}.json").write_text(one_line_each(found))


def render(results: Path) -> str:
    """All tables of whatever has been collected, as Markdown."""
    parts = []
    for part, tables in (("search", _search_tables), ("labels", _label_table)):
        paths = sorted(results.glob(f"{part}_seed_*.json"))
        seeds = [json.loads(path.read_text()) for path in paths]
        if not seeds:
            continue
        parts += tables(seeds)
        numbers = ", ".join(str(s["seed"]) for s in seeds)
        parts.append(
            f"% solved; seeds {numbers}, {seeds[0]['problems']} problems a split; in "
            "brackets 95 % intervals over problems and seeds, behind them millions of "
            "operations a problem. Made by `benchmarks/pav.py` from "
            f"`benchmarks/results/pav/{part}_seed_*.json`."
        )
    return "\n\n".join(parts)


def _search_tables(seeds: Sequence[dict[str, Any]]) -> list[str]:
    from compare_table import table

    names = sorted({key.partition("/")[0] for s in seeds for key in s["searches"]})
    splits = list(dict.fromkeys(k.partition("/")[2] for k in seeds[0]["searches"]))
    beams = sorted({int(n.rpartition("_")[2]) for n in names if n.startswith("value_")})
    out = []
    for split in splits:
        rows = [
            (f"B = {b}", [_cell(seeds, f"{name}_{b}/{split}") for name in RANKED])
            for b in beams
        ]
        out.append(table([f"{split}: beam", *TITLES.values()], rows))
    alphas = sorted(int(n.partition("_")[2]) for n in names if "alpha_" in n)
    rows = [
        (f"{a / 10:g}", [_cell(seeds, f"alpha_{a}/{split}") for split in splits])
        for a in alphas
    ]
    out.append(table([f"alpha, B = {min(SWEPT, max(beams))}", *splits], rows))
    return out


def _label_table(seeds: Sequence[dict[str, Any]]) -> list[str]:
    from compare_table import table

    splits = list(dict.fromkeys(k.partition("/")[2] for k in seeds[0]["searches"]))
    ways = [(how, split) for split in splits for how in ("value", "bok")]
    rows = []
    for name in seeds[0]["labels"]:
        spent = [s["labels"][name]["labels"] for s in seeds]
        cost = [f"{np.mean([x[k] for x in spent]):,.0f}" for k in ("tokens", "labels")]
        cells = [_cell(seeds, f"{how}_{name}/{split}") for how, split in ways]
        rows.append((name.replace("_", " "), [*cost, *cells]))
    header = [f"{split}, {TITLES[how]}" for how, split in ways]
    return [table(["labels", "tokens drawn", "values", *header], rows)]


def _cell(seeds: Sequence[dict[str, Any]], key: str) -> str:
    from compare_table import pooled_row

    found = [s["searches"][key] for s in seeds if key in s["searches"]]
    if len(found) < len(seeds):
        return "–"
    row = pooled_row(np.array([f["correct"] for f in found], float))
    cost = np.mean([f["flops"] for f in found]) / 1e6
    spread = f"({100 * row['low']:.0f}–{100 * row['high']:.0f})"
    return f"{100 * row['mean']:.1f} {spread}; {cost:,.0f}"


if __name__ == "__main__":
    main()
