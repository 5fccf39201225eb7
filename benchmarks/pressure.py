"""Accuracy against N of `configs/pressure.py`, over as many seeds as there are.

    python benchmarks/pressure.py collect RUN...   # a file a seed
    python benchmarks/pressure.py tables           # docs/results.md and the figure

`collect` keeps what a run found in `benchmarks/results/pressure/seed_K.json`, so that
seeds may be run one by one, on whatever machine: `tables` pools whichever are there.
Accuracies of every problem are kept in thousandths where pairs are compared. What the
training of each PRM asked for is in a file beside it, of runs without evaluation too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, pooled_row, replace_between, save_figure, table
from seed_files import PRMS, of_run, read, tables_wanted, write

from aprm_jax.evals.intervals import over_seeds
from aprm_jax.evals.records import read_results
from aprm_jax.training.metrics import FILE, read_metrics

RESULTS = ROOT / "benchmarks/results/pressure"
PLACES = {
    "test": "test",
    "longer": "longer",
    "test@foreign": "test, foreign solver",
}
GAMES = ("prm_frozen", "aprm", "aprm_plain", "aprm_drawn")
OURS = ("aprm", "aprm_plain", "aprm_drawn")  # in one colour
COMPARED = tuple(prm for prm in PRMS if prm != "aprm")
FOREIGN_N = 128
SPENT = "spent_"  # before the names of files of what training asked for
_KINDS = 3  # of wrong steps that a row names
COMMON = {"prm_warmup": "the start of every PRM", "generator": "the Generator's start"}


def main() -> None:
    figure = ROOT / "docs/pressure.svg"
    if args := tables_wanted(__doc__, collect, RESULTS, figure=figure):
        seeds = read(args.results)
        tables = render(seeds, read(args.results, SPENT))
        replace_between(args.page, "pressure", tables)
        draw(seeds, args.figure)


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a run found; of one without evaluation, what its training took."""
    config, found = of_run(run, "configs/pressure.py")
    spent = _spent(run, found, results)
    if not (run / "evaluate/per_problem").is_dir():
        return spent
    sizes = config["evaluate"]["samples"]
    found |= {
        "problems": config["evaluate"]["problems"],
        "sizes": sizes,
        "curves": {},
        "per_problem": {},
    }
    for place in PLACES:
        with np.load(run / "evaluate/per_problem" / f"{place}.npz") as arrays:
            rows = {name: np.asarray(arrays[name], float) for name in arrays.files}
        found["curves"][place] = {
            name: [round(float(rows[f"{name}@{n}"].mean()), 5) for n in sizes]
            for name in ("majority", "pass", *(f"{prm}.min" for prm in PRMS))
        }
        found["per_problem"][place] = {
            f"{prm}@{n}": np.round(1000 * rows[f"{prm}.min@{n}"]).astype(int).tolist()
            for prm in PRMS
            for n in dict.fromkeys((sizes[0], FOREIGN_N, sizes[-1]))
        }
    file = run / "evaluate/results.json"
    records, _ = read_results(file, "Run the evaluation again.")
    found["records"] = [
        record.to_json()
        for record in records
        if record.set in ("robustness", "winners", "pressure")
        or (record.set == "steps" and record.metric in ("auc", "ece", "ece_calibrated"))
    ]
    return write(found, results, "\n".join(_lines(found)) + "\n")


def _spent(run: Path, found: dict[str, Any], results: Path) -> Path:
    """Writes what each stage of training asked for."""
    stages = {
        stage: json.loads((run / stage / "done.json").read_text())["spent"]
        for stage in (*COMMON, *PRMS)
        if (run / stage / "done.json").exists()
    }
    written = {
        stage: _kinds(run / stage) for stage in GAMES if (run / stage / FILE).exists()
    }
    text = json.dumps(found | {"stages": stages, "written": written}, indent=1) + "\n"
    return write(found, results, text, SPENT)


def _kinds(stage: Path) -> dict[str, float]:
    """Of what a Generator's wrong steps were, in a mean over the rounds of its game."""
    rows = read_metrics(stage)
    prefix = "kind_share/"
    names = [name for name in rows[0] if name.startswith(prefix)]
    return {
        name.removeprefix(prefix): round(float(np.nanmean([r[name] for r in rows])), 4)
        for name in names
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """JSON with one curve or record a line: a change shows as one."""
    parts = []
    for name, value in found.items():
        text = json.dumps(value)
        if name == "records":
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        elif isinstance(value, dict):
            places = []
            for place, rows in value.items():
                inner = ",\n   ".join(
                    f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()
                )
                places.append(f"{json.dumps(place)}: {{\n   {inner}\n  }}")
            text = "{\n  " + ",\n  ".join(places) + "\n }"
        parts.append(f" {json.dumps(name)}: {text}")
    yield "{\n" + ",\n".join(parts) + "\n}"


def render(
    seeds: Sequence[dict[str, Any]], spent: Sequence[dict[str, Any]] = ()
) -> str:
    """The tables as Markdown."""
    sizes = seeds[0]["sizes"]
    if any((s["sizes"], s["problems"]) != (sizes, seeds[0]["problems"]) for s in seeds):
        raise ValueError("the seeds were not measured alike")
    n = sizes[-1]
    names = ", ".join(str(s["seed"]) for s in seeds)
    brackets = (
        "in brackets 95 % intervals over seeds and problems"
        if len(seeds) > 1
        else "in brackets 95 % intervals over problems"
    )
    return "\n\n".join(
        [
            "![Accuracy of best-of-N against N](pressure.svg)",
            _accuracies(seeds, sizes),
            _differences(seeds, n),
            _verifiers(seeds),
            _winners(seeds, spent, n),
            *([_costs(spent)] if spent else []),
            f"Seeds {names}; {seeds[0]['problems']} problems a split; accuracy in %, "
            f"differences in points, {brackets}, behind them each seed. Made by "
            "`benchmarks/pressure.py` from `benchmarks/results/pressure/`.",
        ]
    )


def _values(seeds: Sequence[dict[str, Any]], place: str, key: str) -> np.ndarray:
    """[seeds, problems] of one verifier at one N."""
    return np.array([s["per_problem"][place][key] for s in seeds]) / 1000


def _accuracies(seeds: Sequence[dict[str, Any]], sizes: Sequence[int]) -> str:
    rows = []
    for prm, title in PRMS.items():
        cells = []
        for place in PLACES:
            curve = np.array([s["curves"][place][f"{prm}.min"] for s in seeds])
            mean = 100 * curve.mean(axis=0)
            falls = 100 * (curve.max(axis=1) - curve[:, -1])
            cells += [
                f"{mean[0]:.1f}",
                f"{mean[-1]:.1f}",
                f"{sizes[int(mean.argmax())]}",
                f"{falls.mean():.1f} ({', '.join(f'{fall:.1f}' for fall in falls)})",
            ]
        rows.append((title, cells))
    header = ["PRM"]
    for title in PLACES.values():
        header += [f"{title}: {sizes[0]}", f"{sizes[-1]}", "best N", "fall by seed"]
    return table(header, rows)


def _differences(seeds: Sequence[dict[str, Any]], largest: int) -> str:
    rows = []
    for rival in COMPARED:
        cells = []
        for place in PLACES:
            n = FOREIGN_N if "@" in place else largest
            gap = _values(seeds, place, f"aprm@{n}") - _values(
                seeds, place, f"{rival}@{n}"
            )
            row = pooled_row(gap)
            each = ", ".join(f"{100 * v:+.1f}" for v in row["by_seed"])
            cells.append(
                f"{100 * row['mean']:+.1f} "
                f"({100 * row['low']:+.1f} to {100 * row['high']:+.1f}); {each}"
            )
        rows.append((f"APRM − {PRMS[rival]}", cells))
    header = [
        "difference",
        *(
            f"{title}, N = {FOREIGN_N if '@' in place else largest}"
            for place, title in PLACES.items()
        ),
    ]
    return table(header, rows)


def _verifiers(seeds: Sequence[dict[str, Any]]) -> str:
    """A fresh attacker's success, and calibration before and after dev chose it."""
    columns = {
        "fooled at first": ("robustness", "", "start_fool_rate"),
        "by a trained attacker": ("robustness", "", "fool_rate"),
        "by its best of 64": ("robustness", "", "searched_fool_rate"),
        "step AUC, test": ("steps", "test", "auc"),
        "ECE": ("steps", "test", "ece"),
        "ECE, calibrated on dev": ("steps", "test", "ece_calibrated"),
    }
    rows = []
    for prm, title in PRMS.items():
        cells = []
        for set_, split, metric in columns.values():
            found = [_record(s, set_, split, prm, metric) for s in seeds]
            known = [value for value in found if value is not None]
            share = 1 if metric == "auc" else 100
            form = ".3f" if metric == "auc" else ".1f"
            if len(known) < len(seeds):
                cells.append("–")
                continue
            error = over_seeds(np.array(known)).stderr
            spread = "" if np.isnan(error) else f" ± {share * error:{form}}"
            cells.append(f"{share * np.mean(known):{form}}{spread}")
        rows.append((title, cells))
    return table(["PRM", *columns], rows) + "\n\n± is the standard error over seeds."


def _winners(
    seeds: Sequence[dict[str, Any]], spent: Sequence[dict[str, Any]], largest: int
) -> str:
    """What the first wrong step is where the best of the most samples is wrong.

    And how much of what the PRM's Generator wrote in its game was of these kinds.
    """
    rows = []
    for place in ("test", "longer"):
        for prm, title in PRMS.items():
            counts = Counter[str]()
            for row in (row for seed in seeds for row in seed["records"]):
                found = tuple(
                    row.get(k) for k in ("set", "split", "verifier", "metric")
                )
                if found == ("winners", place, prm, "count"):
                    counts[row["part"]] += int(row["value"])
            written = [s["written"][prm] for s in spent if prm in s["written"]]
            kinds = [
                f"{kind.replace('_', ' ')} {count}" + _share_of(written, kind)
                for kind, count in counts.most_common(_KINDS)
            ]
            wrong = f"{counts.total()}"
            rows.append((f"{place}: {title}", [wrong, ", ".join(kinds)]))
    header = [
        f"best of {largest}",
        "wrong winners",
        f"the {_KINDS} commonest kinds of their first wrong step, and [of what the "
        "Generator wrote wrong, %]",
    ]
    return table(header, rows)


def _share_of(written: Sequence[dict[str, float]], kind: str) -> str:
    if not written:
        return ""
    return f" [{100 * np.mean([shares.get(kind, 0.0) for shares in written]):.1f}]"


def _costs(spent: Sequence[dict[str, Any]]) -> str:
    """What training asked for: verdicts of the oracle, and tokens sampled."""
    rows = []
    for stage, title in (COMMON | PRMS).items():
        found = [s["stages"][stage] for s in spent if stage in s["stages"]]
        if found:
            calls = [one["oracle_calls"] for one in found]
            tokens = [one["sampled_tokens"] for one in found]
            each = ", ".join(f"{count:,}" for count in calls)
            cells = [
                f"{np.mean(calls):,.0f} ({each})",
                f"{np.mean(tokens) / 1000:,.0f}",
            ]
            rows.append((title, cells))
    header = [
        "trained",
        "verdicts of the oracle (by seed)",
        "tokens sampled, thousands",
    ]
    return table(header, rows)


def _record(
    seed: dict[str, Any], set_: str, split: str, verifier: str, metric: str
) -> float | None:
    for row in seed["records"]:
        key = (row["set"], row.get("split", ""), row.get("verifier", ""), row["metric"])
        if key == (set_, split, verifier, metric) and not row.get("part"):
            return row["value"]
    return None


def draw(seeds: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a place, one line a PRM, the least and the most of the seeds."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(PLACES), figsize=(12, 4), sharey=False)
    sizes = seeds[0]["sizes"]
    lines = {f"{prm}.min": title.strip("*") for prm, title in PRMS.items()}
    lines |= {"pass": "any is right", "majority": "majority"}
    for panel, (place, title) in zip(panels, PLACES.items(), strict=True):
        for k, (name, label) in enumerate(lines.items()):
            curves = 100 * np.array([s["curves"][place][name] for s in seeds])
            prm, others = name.removesuffix(".min"), name in ("pass", "majority")
            own = OURS.index(prm) if prm in OURS else 0
            style = ":" if others else ("-", "-.", "--")[own]
            colour = "grey" if others else f"C{k - own}"
            panel.plot(sizes, curves.mean(axis=0), style, color=colour, label=label)
            if not others:
                low, high = curves.min(axis=0), curves.max(axis=0)
                panel.fill_between(sizes, low, high, color=colour, alpha=0.1, lw=0)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.set_xlabel("N")
        panel.set_title(title)
    panels[0].set_ylabel("% solved by best-of-N")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    save_figure(figure, path)


if __name__ == "__main__":
    main()
