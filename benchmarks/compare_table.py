"""Pools several seeds of `configs/compare.py` into the tables.

    python benchmarks/compare_table.py --command='…' RUN_SEED_0 RUN_SEED_1 RUN_SEED_2

reads each run's `evaluate/` folder, writes `benchmarks/results/compare.json` with every
figure, and replaces what stands between the `results` markers of docs/results.md, and
the `compute` ones (`compute.py`, which draws docs/compute.svg as well). Nothing in
those tables is typed; given no runs, it makes them from that file, and a file of more
seeds than it is given stays. `--name=naive_generator` does the same for the runs of
another config: its JSON, its markers.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import for_stage, jobs, stages
from aprm_jax.evals.intervals import Interval, over_seeds, pooled
from aprm_jax.evals.records import Record, by_name
from aprm_jax.jobs import of_run
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import done_info

ROOT = Path(__file__).resolve().parent.parent
TITLES = {
    "sample": "one sample",
    "greedy": "greedy",
    "majority@{n}": "majority of {n}",
    "likelihood.{how}@{n}": "solver's own likelihood",
    "prm_static.{how}@{n}": "PRM, static corruptions",
    "orm.last@{n}": "ORM, at the last step",
    "orm.vote_last@{n}": "majority of {n}, weighted by the ORM",
    "prm_monte_carlo.{how}@{n}": "PRM, Monte-Carlo labels",
    "prm_monte_carlo.vote_{how}@{n}": "majority of {n}, weighted by Monte-Carlo labels",
    "rest_value_2.last@{n}": "ReST-MCTS*, value model of two rounds",
    "rest_value_2.vote_last@{n}": "majority of {n}, weighted by these values",
    "prm_frozen.{how}@{n}": "PRM, frozen Generator",
    "aprm.{how}@{n}": "**APRM**",
    "aprm.vote_{how}@{n}": "majority of {n}, weighted by APRM",
    "prm_oracle.{how}@{n}": "PRM, exact labels of the solver's samples",
    "pass@{n}": "pass@{n}",
}
RIVALS = {
    "majority": "majority@{n}",
    "likelihood": "likelihood.{how}@{n}",
    "static": "prm_static.{how}@{n}",
    "Monte-Carlo": "prm_monte_carlo.{how}@{n}",
    "Monte-Carlo, votes": "prm_monte_carlo.vote_{how}@{n}",
    "ORM": "orm.last@{n}",
    "ORM, votes": "orm.vote_last@{n}",
    "ReST-MCTS*": "rest_value_2.last@{n}",
    "frozen Generator": "prm_frozen.{how}@{n}",
    "oracle labels": "prm_oracle.{how}@{n}",
}
SOLVER = "solver"  # the stage that all rows share
COUNTED = ("sft", "prm", "aprm", "search")  # jobs that say what they compute
LAST = 50  # rounds of a game that its end is the mean of
CUT = " (of shares cut at 0 and 100)"  # see `share_ends`
HARD = "illegal_contraction"  # the solver's most frequent error
PAPER_RIVALS = (
    "majority",
    "likelihood",
    "static",
    "Monte-Carlo",
    "Monte-Carlo, votes",
    "ORM",
    "ORM, votes",
    "ReST-MCTS*",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--command", default="", help="what made the runs")
    parser.add_argument("--aggregation", default="min")
    parser.add_argument("--name", default="compare", help="of the JSON file")
    parser.add_argument(
        "--by-seed", action="store_true", help="one size, and a row a seed"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/compute.svg")
    args = parser.parse_args()
    out = ROOT / f"benchmarks/results/{args.name}.json"
    if args.runs:
        results = collect(args.runs, args.aggregation)
        results["command"] = args.command
        results["commit"] = commit()
        write_seeds(out, results, one_line_each(results))
    results = json.loads(out.read_text())
    marker = "results" if args.name == "compare" else args.name
    replace_between(args.page, marker, render(results, out.name, args.by_seed))
    if args.name == "compare":
        import compute  # which needs this one

        replace_between(args.page, "compute", compute.render(results))
        compute.draw(results, args.figure)


def one_line_each(results: dict) -> str:
    """JSON with one figure a line: short, and a change shows as one."""
    parts = []
    for name, value in results.items():
        text = json.dumps(value)
        if isinstance(value, dict) and value:
            rows = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            text = "{\n" + ",\n".join(rows) + "\n }"
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_seeds(path: Path, results: dict[str, Any], text: str) -> None:
    """Writes pooled results, unless that would lose a seed that is published.

    Args:
      path: of the file.
      results: with their "seeds".
      text: what they are written as.
    """
    before = json.loads(path.read_text())["seeds"] if path.is_file() else []
    if lost := set(before) - set(results["seeds"]):
        raise SystemExit(
            f"{path} has seeds {_list(lost)}, which these runs lack: it stays as it "
            "is. Give the runs of all seeds, or delete it first."
        )
    path.write_text(text)


def _list(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def collect(runs: Sequence[Path], how: str) -> dict:
    """Every figure of the tables, with intervals over seeds and problems."""
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    splits = list(configs[0]["evaluate"]["splits"])
    sizes = list(configs[0]["evaluate"]["samples"])
    out: dict = {
        "seeds": [c["seed"] for c in configs],
        "problems": configs[0]["evaluate"]["problems"],
        "splits": splits,
        "sizes": sizes,
        "aggregation": how,
        "accuracy": {},
        "difference": {},
        "best_rival": {},
    }
    for split in splits:
        arrays = [
            np.load(run / "evaluate/per_problem" / f"{split}.npz") for run in runs
        ]
        names = [n for n in arrays[0].files if all(n in a.files for a in arrays)]
        values = {n: np.stack([np.asarray(a[n], float) for a in arrays]) for n in names}
        for name in names:
            out["accuracy"][f"{split}/{name}"] = pooled_row(values[name])
        for n in sizes:
            ours = values[f"aprm.{how}@{n}"]
            means = {}
            for rival, pattern in RIVALS.items():
                name = pattern.format(how=how, n=n)
                if name in values:
                    out["difference"][f"{split}/{rival}@{n}"] = pooled_row(
                        ours - values[name]
                    )
                    means[rival] = float(values[name].mean())
            best = max((r for r in PAPER_RIVALS if r in means), key=lambda r: means[r])
            out["best_rival"][f"{split}@{n}"] = best
    rows = dict.fromkeys([SOLVER, *(name.partition(".")[0] for name in TITLES)])
    out["spent"] = {
        stage: mean_costs([costs_of(run, stage) for run in runs])
        for stage in rows
        if all((run / stage / "done.json").exists() for run in runs)
    }
    out["stage_costs"] = {
        stage: mean_costs([own_costs(run, stage) for run in runs])
        for stage in (text.partition(":")[0] for text in configs[0]["stages"])
        if all((run / stage / "done.json").exists() for run in runs)
    }
    summaries = [_summary(run) for run in runs]
    out["summary"] = {}
    for key in summaries[0]:
        found = [s[key] for s in summaries if _is_number(s.get(key))]
        if len(found) == len(runs):
            out["summary"][key] = interval_row(over_seeds(np.array(found)), found)
    out["hard_kind_share"] = {
        stage: [last_rounds(run / stage, f"kind_share/{HARD}") for run in runs]
        for stage in ("prm_frozen", "aprm")
    }
    return out


def last_rounds(stage: Path, metric: str) -> float | None:
    """The mean of a game's metric at its end; None where it was never logged."""
    rows = read_metrics(stage)[-LAST:]
    values = [row[metric] for row in rows if metric in row]
    return float(np.mean(values)) if values else None


def _summary(run: Path) -> dict[str, float]:
    """The verifiers' figures, also of a run that has not reached its last attack."""
    parts = sorted((run / "evaluate/parts").glob("*.json"))
    rows = [row for path in parts for row in json.loads(path.read_text())["records"]]
    return by_name(
        record
        for record in map(Record.from_json, rows)
        if record.set in ("robustness", "steps")
        or (record.set == "kinds" and record.metric in ("auc", "count"))
    )


def costs_of(run: Path, stage: str) -> dict[str, float] | None:
    """What a stage took with all that it starts from; None of an older run.

    The solver, which every row has, is left out but for its own.
    """
    config, total = of_run.get_config(str(run)), Counter[str]()
    for name in _needed(config, stage):
        if name == SOLVER != stage:
            continue
        if (own := own_costs(run, name)) is None:
            return None
        total.update(own)
    return dict(total)


def own_costs(run: Path, stage: str) -> dict[str, float] | None:
    """What a stage took by itself; None of an older run, or where nobody counts it.

    Returns:
      The fields of `Spent`; "seconds" and "cpu_seconds", compilation among them; and
      "updates", of a verifier.
    """
    config, info = of_run.get_config(str(run)), done_info(run / stage)
    settings, job = for_stage(config, stage), dict(stages(config))[stage]
    if job not in COUNTED or "flops" not in info.get("spent", {}):
        return None
    group = {"prm": settings.prm, "aprm": settings.game}.get(job)
    times = {k: info[k] for k in ("seconds", "cpu_seconds")}
    return info["spent"] | times | {"updates": group.updates if group else 0}


def _needed(config: Any, stage: str) -> list[str]:
    """A stage and all that it starts from."""
    job_of, found = dict(stages(config)), [stage]
    for name in found:  # which grows
        for _, source in jobs()[job_of[name]].sources(for_stage(config, name)):
            before = source.partition("/")[0]
            if before in job_of and before not in found:
                found.append(before)
    return found


def mean_costs(found: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    """The mean over seeds; None where one is not known."""
    known = [costs for costs in found if costs is not None]
    if len(known) < len(found):
        return None
    return {name: float(np.mean([k[name] for k in known])) for name in known[0]}


def render(results: dict, file: str, by_seed: bool) -> str:
    """The tables as Markdown."""
    how = results["aggregation"]
    parts = []
    for n in results["sizes"][: 1 if by_seed else None]:
        parts += [_accuracy_table(results, how, n), _difference_table(results, n)]
    parts += [_verifier_table(results), _kind_table(results)]
    if by_seed:
        parts.append(_seed_table(results, results["sizes"][0]))
    seeds = ", ".join(map(str, results["seeds"]))
    brackets = f"95 % intervals over seeds and problems{CUT}"
    if len(results["seeds"]) < 3:
        brackets = "each seed's figure (too few for an interval)"
    parts.append(
        f"Seeds {seeds}; {results['problems']} problems a split; accuracy in %, "
        f"differences in points, in brackets {brackets}. Made by "
        f"`benchmarks/compare_table.py` from `benchmarks/results/{file}` "
        f"(`{results['command']}`)."
    )
    return "\n\n".join(parts)


def _accuracy_table(results: dict, how: str, n: int) -> str:
    rows = []
    for pattern, title in TITLES.items():
        name = pattern.format(how=how, n=n)
        cells = [results["accuracy"].get(f"{s}/{name}") for s in results["splits"]]
        if all(cells):
            spent = _spent_cells(results, name.partition(".")[0])
            rows.append((title.format(n=n), [*map(_percent, cells), *spent]))
    header = [f"best of {n}", *results["splits"]]
    if results.get("spent"):
        header += ["updates", "oracle calls", "sampled tokens"]
    return table(header, rows)


def _spent_cells(results: dict, stage: str) -> list[str]:
    """Updates of a row's verifiers, and what they asked for; – where there are none."""
    if not results.get("spent"):
        return []
    spent = results["spent"].get(stage)
    if spent is None:
        return ["–"] * 3
    counts = [spent[name] / 1000 for name in ("oracle_calls", "sampled_tokens")]
    return [f"{spent['updates']:,.0f}", *(f"{count:,.1f} k" for count in counts)]


def _difference_table(results: dict, n: int) -> str:
    rows = []
    for rival in RIVALS:
        keys = [f"{s}/{rival}@{n}" for s in results["splits"]]
        if not all(k in results["difference"] for k in keys):
            continue
        cells = []
        for split, key in zip(results["splits"], keys, strict=True):
            cell = _points(results["difference"][key])
            best = results["best_rival"][f"{split}@{n}"] == rival
            cells.append(f"**{cell}**" if best else cell)
        rows.append((f"APRM − {rival}", cells))
    text = table([f"best of {n}", *results["splits"]], rows)
    rivals = [r for r in PAPER_RIVALS if f"APRM − {r}" in dict(rows)]
    return f"{text}\n\nBold: the strongest of {', '.join(rivals)} on that split."


def _verifiers() -> list[str]:
    return list(dict.fromkeys(p.split(".")[0] for p in TITLES if "." in p))


def _verifier_table(results: dict) -> str:
    prms, splits = _verifiers(), results["splits"]
    rows = []
    for prm in prms:
        aucs = [results["summary"].get(f"steps.{s}.{prm}.auc") for s in splits]
        if not all(aucs):
            continue
        fooled = results["summary"].get(f"robustness.{prm}.fool_rate")
        start = results["summary"].get(f"robustness.{prm}.start_fool_rate")
        cells = [f"{c['mean']:.3f} ± {c['stderr']:.3f}" for c in aucs if c]
        cells.append(_rate(start))
        cells.append(_rate(fooled))
        rows.append((prm, cells))
    header = [
        "verifier",
        *(f"step AUC, {s}" for s in splits),
        "fooled at first",
        "fooled by a trained attacker",
    ]
    return table(header, rows) + "\n\n± is the standard error over seeds."


def _kind_table(results: dict) -> str:
    """AUC by kind of error, of the kinds that the solver makes often enough."""
    split = results["splits"][0]
    found, prms = results["summary"], _verifiers()
    prms = [p for p in prms if f"steps.{split}.{p}.auc" in found]
    counts = {
        key.split(".")[3]: row["mean"]
        for key, row in found.items()
        if key.startswith(f"kinds.{split}.aprm.") and key.endswith(".count")
    }
    rows = []
    for kind in sorted(counts, key=lambda k: -counts[k]):
        aucs = [found.get(f"kinds.{split}.{prm}.{kind}.auc") for prm in prms]
        if counts[kind] >= 20 and all(aucs):
            cells = [f"{c['mean']:.3f}" for c in aucs if c]
            rows.append((kind.replace("_", " "), [f"{counts[kind]:.0f}", *cells]))
    header = [f"step AUC, {split}, by kind of error", "steps a seed", *prms]
    return table(header, rows)


def _seed_table(results: dict, n: int) -> str:
    """What each seed's game found of the hardest kind, and what that was worth."""
    split, kind = results["splits"][0], HARD.replace("_", " ")
    gain = results["difference"][f"{split}/frozen Generator@{n}"]["by_seed"]
    aucs = [
        results["summary"][f"kinds.{split}.{prm}.{HARD}.auc"]["by_seed"]
        for prm in ("prm_frozen", "aprm")
    ]
    shares = [results["hard_kind_share"][stage] for stage in ("prm_frozen", "aprm")]
    rows = []
    for i in sorted(range(len(gain)), key=lambda i: -gain[i]):
        cells = [f"{100 * gain[i]:+.1f}"]
        cells += [f"{100 * (share[i] or 0):.1f} %" for share in shares]
        cells += [f"{auc[i]:.3f}" for auc in aucs]
        rows.append((str(results["seeds"][i]), cells))
    header = [
        "seed",
        f"APRM − frozen, {split}, best of {n}",
        f"{kind}s among the frozen G's errors",
        "among the learning G's, at the end",
        "AUC on them, frozen",
        "AUC on them, APRM",
    ]
    return table(header, rows)


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join([title, *cells]) + " |" for title, cells in rows]
    return "\n".join(lines)


def _percent(c: dict) -> str:
    if len(c["by_seed"]) < 3:
        return f"{100 * c['mean']:.1f} ({_each(c, '.1f')})"
    return f"{100 * c['mean']:.1f} {share_ends(c, '.1f')}"


def share_ends(c: dict, form: str) -> str:
    """A share's interval in %, cut at what is possible: Student's goes beyond."""
    low, high = 100 * max(c["low"], 0.0), 100 * min(c["high"], 1.0)
    return f"({low:{form}}–{high:{form}})"


def _each(c: dict, form: str) -> str:
    """Every seed's figure: an interval over one or two of them would say nothing."""
    return ", ".join(f"{100 * value:{form}}" for value in c["by_seed"])


def _points(c: dict) -> str:
    if len(c["by_seed"]) < 3:
        return f"{100 * c['mean']:+.1f} ({_each(c, '+.1f')})"
    return f"{100 * c['mean']:+.1f} ({100 * c['low']:+.1f} to {100 * c['high']:+.1f})"


def _rate(c: dict | None) -> str:
    return "–" if c is None else f"{100 * c['mean']:.1f} ± {100 * c['stderr']:.1f} %"


def pooled_row(values: np.ndarray) -> dict:
    return interval_row(pooled(values), [float(v) for v in values.mean(axis=1)])


def interval_row(interval: Interval, by_seed: Sequence[float]) -> dict:
    clean: Callable[[float], float | None] = lambda x: None if math.isnan(x) else x  # noqa: E731
    return {
        "mean": interval.mean,
        "low": clean(interval.low),
        "high": clean(interval.high),
        "stderr": clean(interval.stderr),
        "by_seed": [round(v, 6) for v in by_seed],
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def commit() -> str:
    out = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return out.stdout.strip()


def save_figure(figure: Any, path: Path) -> None:
    """Writes a picture of matplotlib: the same bytes for the same figures."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "aprm_jax"}):
        figure.savefig(path, metadata={"Date": None})


def replace_between(path: Path, name: str, text: str) -> None:
    """Replaces what stands between two HTML comments of a Markdown file.

    Raises:
      ValueError: the file lacks the markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(old):
        raise ValueError(f"{path}: no {begin} … {end}")
    new = pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old, count=1)
    path.write_text(new)


if __name__ == "__main__":
    main()
