"""Exploration with a solver's help from a naive start, over as many seeds as there are.

    python benchmarks/explore.py collect RUN...   # a file a seed
    python benchmarks/explore.py tables           # docs/results.md

`collect` keeps what a run of `configs/explore.py` found in
`benchmarks/results/explore/seed_K.json`, accuracies of every problem in thousandths;
`tables` pools whichever seeds are there. Games without help are those of
`benchmarks/results/naive_pressure/`; that config plays them again, bit for bit. What
was tried on dev before, and is not in the code any more, is in `tried.json` there, with
the commit that has it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import naive_pressure
import numpy as np
import pressure
from compare_table import ROOT, one_line_each, pooled_row, replace_between, table
from seed_files import of_run, read, tables_wanted, write

from aprm_jax.evals.records import read_results

RESULTS = ROOT / "benchmarks/results/explore"
INFORMED = "informed_"  # begins the files of runs whose G knows the solver's mistakes
INFORMED_FIELDS = (
    "--config.stages=both:aprm,evaluate --config.evaluate.prms=both "
    "--config.game.generator_from=RUN/generator/model "
    "--config.evaluate.splits=test,longer --config.evaluate.attack_prms=both "
    "--config.evaluate.samples=8,16,32,64,128,256,512 "
    "--config.evaluate.solvers=RUN/foreign/model --config.evaluate.solver_splits=test"
)
INFORMED_ALONE = {"frozen": "prm_frozen", "alone": "aprm"}  # in pressure.py
FOOLED = ("robustness", "searched_fool_rate")
# Its games without help, as naive_pressure.py names them.
ALONE = {"frozen": "prm_frozen", "alone": "aprm_replay"}
TITLES = {
    "frozen": "frozen",
    "frozen_forced": "frozen, replies begun by the solver",
    "alone": "learning",
    "forced": "learning, replies begun by the solver",
    "both": "learning, begun, and paid for plausible errors",
}
GAPS = {
    "learning − frozen, without help": ("alone", "frozen"),
    "learning − frozen, replies begun": ("forced", "frozen_forced"),
    "begun and paid − frozen, replies begun": ("both", "frozen_forced"),
    "what begun replies add to the frozen one": ("frozen_forced", "frozen"),
    "what they add to the learning one": ("forced", "alone"),
    "what both add to it": ("both", "alone"),
}


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "explore", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found.

    One with a Generator of its own, `game.generator_from`, is of an informed start.
    """
    config = json.loads((run / "config.json").read_text())
    if config["game"]["generator_from"] != "generator":
        return _collect_informed(run, results)
    helped = [arm for arm in TITLES if arm not in ALONE]
    return naive_pressure.collect_arms(run, results, "explore", helped)


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    alone = {s["seed"]: s for s in read(naive_pressure.RESULTS)}
    whole = [_with_alone(s, alone[s["seed"]]) for s in seeds]
    tables = naive_pressure.render_arms(whole, TITLES, GAPS, "explore")
    informed = read(RESULTS, INFORMED)
    more = [_informed(informed)] if informed else []
    more.append(_tried(json.loads((RESULTS / "tried.json").read_text())))
    return "\n\n".join([tables, *more])


def _collect_informed(run: Path, results: Path) -> Path:
    config, found = of_run(run, "configs/explore.py:RUN")
    found["command"] += f" {INFORMED_FIELDS}"
    sizes = (config["evaluate"]["samples"][0], config["evaluate"]["samples"][-1])
    folder = run / "evaluate/per_problem"
    for place in pressure.PLACES:
        split, at, _ = place.partition("@")
        # The foreign solver's folder stands in the name of its file.
        [file] = folder.glob(f"{split}@*.npz" if at else f"{split}.npz")
        with np.load(file) as arrays:
            found[place] = {
                f"both@{n}": np.round(1000 * arrays[f"both.min@{n}"])
                .astype(int)
                .tolist()
                for n in sizes
            }
    records, _ = read_results(run / "evaluate/results.json", "Run it again.")
    [rate] = [r.value for r in records if (r.set, r.metric) == FOOLED]
    found["fooled"] = {"both": rate}
    return write(found, results, one_line_each(found), INFORMED)


def _informed(seeds: Sequence[dict[str, Any]]) -> str:
    """Where G starts from the solver's own mistakes, beside games of pressure.py."""
    before = {s["seed"]: s for s in read(pressure.RESULTS)}
    whole = [_with_pressure(s, before[s["seed"]]) for s in seeds]
    n = whole[0]["n"]

    def of(place: str, arm: str) -> np.ndarray:
        return np.array([s[place][arm] for s in whole]) / 1000

    rows = []
    for arm in INFORMED_ALONE | {"both": ""}:
        cells = [f"{100 * of(place, arm).mean():.1f}" for place in pressure.PLACES]
        rates = [100 * s["fooled"][arm] for s in whole]
        each = ", ".join(f"{rate:.0f}" for rate in rates)
        rows.append((TITLES[arm], [*cells, f"{np.mean(rates):.0f} ({each})"]))
    for title, theirs in (("the last − learning", "alone"), ("− frozen", "frozen")):
        gaps = [of(place, "both") - of(place, theirs) for place in pressure.PLACES]
        rows.append((title, [*map(_gap, gaps), ""]))
    places = [place.replace("@", ", ") for place in pressure.PLACES]
    header = ["G knows the solver's mistakes", *(f"{p}: {n}" for p in places)]
    names = ", ".join(str(s["seed"]) for s in seeds)
    return (
        table([*header, "fooled by the best of 64, %"], rows)
        + f"\n\nSeeds {names}; in brackets 95 % intervals over seeds and problems, or "
        "each seed. The games without help are those of [above](#under-pressure)."
    )


def _gap(differences: np.ndarray) -> str:
    row = pooled_row(differences)
    low, high = (f"{100 * row[end]:+.1f}" for end in ("low", "high"))
    return f"{100 * row['mean']:+.1f} ({low} to {high})"


def _with_pressure(seed: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A seed's results at the largest N with those of the games without help."""
    n = before["sizes"][-1]
    rates = {
        r["verifier"]: r["value"]
        for r in before["records"]
        if (r["set"], r["metric"]) == FOOLED
    }
    alone = {arm: rates[name] for arm, name in INFORMED_ALONE.items()}
    out = {"n": n, "fooled": alone | seed["fooled"]}
    for place in pressure.PLACES:
        rows = before["per_problem"][place]
        games = {arm: rows[f"{name}@{n}"] for arm, name in INFORMED_ALONE.items()}
        out[place] = games | {"both": seed[place][f"both@{n}"]}
    return out


def _tried(found: dict[str, Any]) -> str:
    """What was tried on some seeds, as Markdown."""
    seeds = [str(seed) for seed in found["seeds"]]
    rows = [
        (way, [f"{by_seed[s]:.1f}" if s in by_seed else "–" for s in seeds])
        for way, by_seed in found["percent"].items()
    ]
    header = [f"tried on {found['split']}, best of {found['n']}"]
    told = f"Commit {found['commit'][:7]}; `benchmarks/results/explore/tried.json`."
    return table([*header, *(f"seed {s}" for s in seeds)], rows) + f"\n\n{told}"


def _with_alone(seed: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A seed's results with the games that were played without help."""
    shares = {arm: before["illegal_contractions"][name] for arm, name in ALONE.items()}
    shares |= seed["illegal_contractions"]
    calls = {arm: before["oracle_calls"][name] for arm, name in ALONE.items()}
    calls |= seed["oracle_calls"]
    out = seed | {"illegal_contractions": shares, "oracle_calls": calls}
    for split in seed["splits"]:
        games = {
            f"{arm}@{n}": before[split][f"{name}@{n}"]
            for arm, name in ALONE.items()
            for n in seed["sizes"]
        }
        out[split] = games | seed[split]
    return out


if __name__ == "__main__":
    main()
