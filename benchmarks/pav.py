"""Search by progress (PAV) beside Q and an ORM, and what its labels must cost.

This file is also the config of both runs, so a run that was stopped goes on. The first
searches with the models of a finished configs/rl_pav.py run, or trains its own without
one; the second makes its own:

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=benchmarks/pav.py:search:runs/rl_pav-$seed \\
        --config.seed=$seed --workdir=runs/pav-search-$seed
      python -m aprm_jax.main --config=benchmarks/pav.py:labels --config.seed=$seed \\
        --workdir=runs/pav-labels-$seed
      python benchmarks/pav.py collect runs/pav-search-$seed runs/pav-labels-$seed
    done
    python benchmarks/pav.py tables       # docs/results.md

`search`: beams of B = 4 to 128 that expand each step three times, by the effective
reward of the best of four, by that of another prover (a solver of other authors), by
that of a PAV that the game has hardened (of a finished run alone), by Q alone;
best-of-N by an ORM; and alpha from 0 to 1. `labels`: rollouts against
completions at equal budgets, first pits against prefixes at random. `:search-tiny` and
`:labels-tiny` are cuts of minutes that train all they need. `collect` keeps a file a
run in `benchmarks/results/pav/`; `tables` pools the seeds that are there. A part of the
searches is run by `--config.stages`.

Hardware: one CPU core, no GPU. Time of `search`: 20 minutes a seed without beams of 8,
32 and 128, of `labels` 43; scores: docs/results.md, "Progress as reward".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import (
    check_arg,
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/pav"
BEAMS = (4, 8, 16, 32, 64, 128)
EXPANSIONS = 3
HYPOTHESES = 1000  # at once: their caches take a GB a model
SWEPT = 16  # the beam that alpha is swept with
ALPHAS = tuple(range(11))  # in tenths
SPLITS = ("test", "longer", "larger", "worded")
EFFECTIVE = {"search.aggregation": "effective"}
RANKED = {
    "bok": {"search.verifiers": ("pav",), **EFFECTIVE},
    "prover": {
        "search.verifiers": ("pav",),
        "search.prover_values": "pav_prover",
        **EFFECTIVE,
    },
    "hardened": {"search.verifiers": ("pav_hardened",), **EFFECTIVE},
    "value": {"search.verifiers": ("pav",)},
    "orm": {"search.verifiers": ("orm",), "search.method": "best_of_n"},
}
TITLES = {
    "bok": "PAV, best of 4",
    "prover": "PAV, another prover",
    "hardened": "PAV, hardened",
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
    whole, _, run = arg.partition(":")
    check_arg(whole, ("search", "search-tiny", "labels", "labels-tiny"))
    part, _, tiny = whole.partition("-")
    c = read_config_file(ROOT / f"configs/{'pressure' if run else 'pav'}.py")
    c.name = f"pav_{part}"
    c.search.splits = SPLITS if part == "search" else SPLITS[:2]
    c.search.trees, c.search.problems = 0, 50 if part == "search" else 100
    if part == "labels":
        trained, searches = _label_stages(c, TINY if tiny else tuple(LABELS))
    else:
        ranked = {k: v for k, v in RANKED.items() if run or k != "hardened"}
        wide = ((2, 4), (0, 5)) if tiny else (BEAMS, ALPHAS)
        searches = _searches(ranked, *wide)
        trained = () if run else _trained_for_search(c)
        if run:
            _search_with(c, run, searches)
    set_stages(c, (*trained, *(f"{name}:search" for name in searches)))
    for name, fields in searches.items():
        override(c, name, fields)
    if tiny:
        run_local(c)
        c.builder.max_steps, c.search.problems, c.search.bootstrap = 4, 3, 50
        c.search.splits = SPLITS[:1]
    return c


def _search_with(c: Any, run: str, searches: dict[str, dict[str, Any]]) -> None:
    """Names the models of a finished run of configs/rl_pav.py."""
    models = finished_models(run, "pav", "pav_prover", "pav_hardened", "orm")
    c.search.solver = json.loads((Path(run) / "config.json").read_text())["rl"][
        "solver_from"
    ]
    for fields in searches.values():
        verifiers = fields["search.verifiers"]
        fields["search.verifiers"] = tuple(models[name] for name in verifiers)
        if prover := fields.get("search.prover_values"):
            fields["search.prover_values"] = models[prover]


def _trained_for_search(c: Any) -> tuple[str, ...]:
    c.stages = (*c.stages, "prover:sft", "pav_prover:pav")
    override(c, "prover", {"domain.authors": "second", "sft.init_from": ""})
    override(c, "pav_prover", {"pav.prover": "prover", "builder.window": 0})
    return ("solver:sft", "prover:sft", "orm:prm", "pav:pav", "pav_prover:pav")


def _searches(
    ranked: dict[str, dict[str, Any]], beams: Sequence[int], alphas: Sequence[int]
) -> dict[str, dict[str, Any]]:
    found = {
        f"{name}_{beam}": fields | _width(beam, fields)
        for name, fields in ranked.items()
        for beam in beams
    }
    swept = min(SWEPT, max(beams))
    return found | {
        f"alpha_{a}": RANKED["bok"] | _width(swept, {}) | {"search.alpha": a / 10}
        for a in alphas
    }


def _label_stages(c: Any, names: Sequence[str]):
    c.stages = (*c.stages, *(f"{name}:pav" for name in names))
    for name in names:
        override(c, name, LABELS[name] | {"builder.window": 0})
    searches = {
        f"{how}_{name}": {"search.verifiers": (name,), **fields, **_width(8, fields)}
        for name in names
        for how, fields in (("value", {}), ("bok", EFFECTIVE))
    }
    return ("solver:sft", *(f"{name}:pav" for name in names)), searches


def _width(beam: int, fields: dict[str, Any]) -> dict[str, Any]:
    """As many hypotheses as a beam expands, or N of best-of-N."""
    most = EXPANSIONS * beam
    width = {"search.n": most, "search.batch": max(1, HYPOTHESES // most)}
    if fields.get("search.method") == "best_of_n":
        return width
    return width | {"search.m": EXPANSIONS}


def main() -> None:
    from compare_table import replace_between
    from seed_files import tables_wanted

    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "pav", render(args.results))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found, with what its labels cost."""
    import searches

    part = json.loads((run / "config.json").read_text())["name"].removeprefix("pav_")
    labels = {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(run.glob("*/summary.json"))
        if (path.parent / "labels.jsonl").exists()
    }
    config = f"benchmarks/pav.py:{part}" + (":RUN" if part == "search" else "")
    return searches.collect(run, config, results, f"{part}_", labels=labels)


def render(results: Path) -> str:
    """All tables of whatever has been collected, as Markdown."""
    from searches import footnote
    from seed_files import read

    parts = []
    for part, tables in (("search", _search_tables), ("labels", _label_table)):
        if seeds := read(results, f"{part}_"):
            files = f"pav/{part}_seed_*.json"
            parts += [*tables(seeds), footnote(seeds, "pav.py", files)]
    return "\n\n".join(parts)


def _search_tables(seeds: Sequence[dict[str, Any]]) -> list[str]:
    from compare_table import table
    from searches import cell, names

    found, splits = names(seeds)
    beams = sorted({int(n.rpartition("_")[2]) for n in found if n.startswith("value_")})
    out = []
    for split in splits:
        rows = [
            (f"B = {b}", [cell(seeds, f"{name}_{b}", split) for name in RANKED])
            for b in beams
        ]
        out.append(table([f"{split}: beam", *TITLES.values()], rows))
    alphas = sorted(int(n.partition("_")[2]) for n in found if "alpha_" in n)
    rows = [
        (f"{a / 10:g}", [cell(seeds, f"alpha_{a}", split) for split in splits])
        for a in alphas
    ]
    out.append(table([f"alpha, B = {min(SWEPT, max(beams))}", *splits], rows))
    return out


def _label_table(seeds: Sequence[dict[str, Any]]) -> list[str]:
    from compare_table import table
    from searches import cell, names

    _, splits = names(seeds)
    ways = [(how, split) for split in splits for how in ("value", "bok")]
    rows = []
    for name in (name for name in LABELS if name in seeds[0]["labels"]):
        spent = [s["labels"][name]["labels"] for s in seeds]
        cost = [f"{np.mean([x[k] for x in spent]):,.0f}" for k in ("tokens", "labels")]
        cells = [cell(seeds, f"{how}_{name}", split) for how, split in ways]
        rows.append((name.replace("_", " "), [*cost, *cells]))
    header = [f"{split}, {TITLES[how]}" for how, split in ways]
    return [table(["labels", "tokens drawn", "values", *header], rows)]


if __name__ == "__main__":
    main()
