"""Turns finished `configs/prm800k.py` runs into the PRM800K table.

    python benchmarks/prm800k_table.py --command='…' RUN [RUN ...]

Runs differ in their seed alone. Writes `benchmarks/results/prm800k.json` and what
stands between the `prm800k` markers; given no runs, makes the tables from that file.
`--name=prm800k_game` does the same for runs of `configs/prm800k_game.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_table import ROOT, commit, replace_between, table, write_seeds

from aprm_jax.training.metrics import read_metrics

NAMES = {
    "chance": "chance",
    "position": "position of the step alone",
    "likelihood": "likelihood of the language model",
    "prm": "PRM on human labels",
    "prm_more": "the same and as many updates on more of them",
    "prm_frozen": "the same and a game, frozen Generator",
    "aprm": "the same and the game (**APRM**)",
}
_LAST = 20  # rounds of a game
_REPLIES = {
    "game/undecidable_rate": "undecidable",
    "game/success_rate": "fool R",
    "game/still_correct_rate": "still correct",
    "game/fool_rate": "of the wrong ones fool R",
}
_SETTINGS = ("sft", "prm", "evaluate", "model", "builder", "overrides")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--name", default="prm800k", help="of the JSON file")
    parser.add_argument("--command", default="", help="what made the runs")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    out = ROOT / f"benchmarks/results/{args.name}.json"
    if args.runs:
        results = {"command": args.command, "commit": commit(), **collect(args.runs)}
        write_seeds(out, results, json.dumps(results, indent=1) + "\n")
    replace_between(args.page, args.name, render(json.loads(out.read_text())))


def collect(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs found that differ in their seed alone."""
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    config = configs[0]
    for other, run in zip(configs, runs, strict=True):
        if any(other[name] != config[name] for name in _SETTINGS):
            raise SystemExit(f"{run} has other settings than {runs[0]}")
    given = [entry.partition("=")[0] for entry in config["evaluate"]["scores"]]
    return {
        "seeds": [other["seed"] for other in configs],
        "verifiers": [*list(NAMES)[:3], *config["evaluate"]["prms"], *given],
        "sets": [entry.partition("=")[0] for entry in config["evaluate"]["sets"]],
        "updates": {stage: config[stage]["updates"] for stage in ("sft", "prm")},
        "stage_seconds": [
            {
                path.parent.name: round(json.loads(path.read_text())["seconds"], 1)
                for path in sorted(run.glob("*/done.json"))
            }
            for run in runs
        ],
        "summaries": [
            json.loads((run / "evaluate/summary.json").read_text()) for run in runs
        ],
        **_games(runs),
    }


def _games(runs: Sequence[Path]) -> dict[str, Any]:
    """Of games, if there are: what became of replies, the mean of the last rounds."""
    games = {path.parent.parent.name for path in runs[0].glob("*/generator/model")}
    found = {
        name: [
            {metric: _last(rows, metric) for metric in _REPLIES}
            for run in runs
            for rows in [read_metrics(run / name)[-_LAST:]]
        ]
        for name in sorted(games, reverse=True)
    }
    return {"games": found} if found else {}


def _last(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    """The mean of a metric over rounds that have it; None where none has."""
    known = [row[metric] for row in rows if not math.isnan(row.get(metric, math.nan))]
    return round(statistics.mean(known), 4) if known else None


def render(results: dict) -> str:
    """Two kinds of tables as Markdown: single steps, then first errors."""
    summaries = results["summaries"]
    parts = []
    for name in results["sets"]:
        if f"steps.{name}.chance.auc" in summaries[0]:
            parts.append(_steps(results, name))
    located = [
        s for s in results["sets"] if f"first_error.{s}.chance.f1" in summaries[0]
    ]
    if located:
        parts.append(_first_errors(results, located))
    parts += _replies(results)
    seeds = results["seeds"]
    minutes = statistics.mean(sum(s.values()) / 60 for s in results["stage_seconds"])
    many = (
        "One seed; brackets are 95 % intervals over questions and rows"
        if len(seeds) == 1
        else f"{len(seeds)} seeds; brackets are the least and the greatest of them"
    )
    parts.append(
        f"{many}. {results['updates']['sft']} updates of the language model and "
        f"{results['updates']['prm']} of the PRM, {minutes:.0f} minutes a run in all. "
        "Made by `benchmarks/prm800k_table.py`."
    )
    return "\n\n".join(parts)


def _steps(results: dict, name: str) -> str:
    columns = {
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "ece": "ECE",
        "ece_calibrated": "ECE, calibrated",
    }
    summaries = results["summaries"]
    rows = []
    for verifier in results["verifiers"]:
        start = f"steps.{name}.{verifier}"
        cells = [_interval(summaries, f"{start}.auc")]
        cells += [_mean(summaries, f"{start}.{metric}") for metric in columns]
        rows.append((NAMES.get(verifier, verifier), cells))
    first = summaries[0]
    count = first[f"steps.{name}.chance.count"]
    share = first[f"steps.{name}.chance.incorrect_share"]
    start = f"steps.{name}.likelihood"
    unscored = first.get(f"{start}.unscored")
    lost = (
        f"The {first[f'{start}.left_out']:.0f} steps that do not fit a row are left "
        "out for the models."
        if unscored is None  # as the first results counted
        else f"The {unscored:.0f} steps that do not fit a row count as misses."
    )
    return (
        f"{table([name, 'AUC', *columns.values()], rows)}\n\n"
        f"{count:.0f} rated steps, {share:.0%} of them wrong; precision, recall and F1 "
        "are of catching wrong steps, at the threshold with the best balanced accuracy "
        f"on held-out training questions. {lost}"
    )


def _replies(results: dict) -> list[str]:
    """What became of a game's replies, in %, each seed."""
    if not (games := results.get("games")):
        return []
    rows = [
        (
            str(NAMES.get(name, name)),
            [
                ", ".join(
                    "–" if seed[metric] is None else f"{100 * seed[metric]:.0f}"
                    for seed in seeds
                )
                for metric in _REPLIES
            ],
        )
        for name, seeds in games.items()
    ]
    heads = [f"last {_LAST} rounds: replies, %", *_REPLIES.values()]
    return [table(heads, rows)]


# Columns of a table of first errors: heading -> metric; what no run has is left out.
_LOCATED = {
    "F1": "f1",
    "threshold": "threshold",
    "on erroneous": "error_accuracy",
    "on correct": "correct_accuracy",
    "F1 at 0.5": "f1@0.5",
    "F1 at 0.5, calibrated": "f1@platt",
    "the same as a threshold": "threshold@platt",
    "F1, tuned on gsm8k": "f1@gsm8k",
    "its threshold": "threshold@gsm8k",
    "best F1": "f1@hindsight",
    "best F1, in hindsight": "oracle_threshold_f1",  # as the first results say it
    "cut": "cut",
}


def _first_errors(results: dict, names: list[str]) -> str:
    parts = [_located(results, name) for name in names]
    means = _means(results, names)
    if means:
        parts.append(means)
    start = f"first_error.{names[0]}.chance"
    whole = " of PRM800K, on solutions that go up to their answer" * (
        f"{start}.f1@0.5" in results["summaries"][0]  # not so in the first results
    )
    parts.append(
        "The metric is ProcessBench's own, the harmonic mean of both accuracies. F1: "
        f"at the threshold that is best on held-out training questions{whole}; "
        "calibrated: Platt's fit on their steps; tuned on gsm8k: on the other splits "
        "alone. Best F1: at a threshold that the benchmark itself chooses, in "
        "hindsight; no result, but what there is to gain. Cut: solutions that do not "
        "fit a row; without an error found before, a miss."
    )
    return "\n\n".join(parts)


def _located(results: dict, name: str) -> str:
    """All verifiers on one split of ProcessBench."""
    summaries = results["summaries"]
    known = {
        heading: metric
        for heading, metric in _LOCATED.items()
        if any(
            _values(summaries, f"first_error.{name}.{v}.{metric}")
            for v in results["verifiers"]
        )
    }
    rows = []
    for verifier in results["verifiers"]:
        start = f"first_error.{name}.{verifier}"
        cells = [
            _HOW.get(metric, _mean)(summaries, f"{start}.{metric}")
            for metric in known.values()
        ]
        rows.append((NAMES.get(verifier, verifier), cells))
    return table([f"ProcessBench, {name}", *known], rows)


def _means(results: dict, names: list[str]) -> str:
    """The mean F1 over the splits that were measured."""
    split = "+".join(names)
    columns = {"F1": "f1", "F1 at 0.5": "f1@0.5", "F1 at 0.5, calibrated": "f1@platt"}
    rows = [
        (
            str(NAMES.get(verifier, verifier)),
            [
                _mean(results["summaries"], f"first_error.{split}.{verifier}.{metric}")
                for metric in columns.values()
            ],
        )
        for verifier in results["verifiers"]
    ]
    if all(cell == "–" for _, cells in rows for cell in cells):
        return ""
    return table([f"mean of {', '.join(names)}", *columns], rows)


def _values(summaries: list[dict], name: str) -> list[float]:
    return [s[name] for s in summaries if s.get(name) is not None]


def _interval(summaries: list[dict], name: str) -> str:
    """The mean, with a run's own interval or the range of several runs."""
    values = _values(summaries, name)
    if not values:
        return "–"
    low, high = min(values), max(values)
    if len(values) == 1:
        ends = (summaries[0].get(f"{name}.{end}") for end in ("low", "high"))
        low, high = (values[0] if end is None else end for end in ends)
    return f"{statistics.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def _mean(summaries: list[dict], name: str) -> str:
    values = _values(summaries, name)
    return f"{statistics.mean(values):.3f}" if values else "–"


def _count(summaries: list[dict], name: str) -> str:
    values = _values(summaries, name)
    return f"{statistics.mean(values):.0f}" if values else "–"


_HOW = {
    **dict.fromkeys(("f1", "f1@0.5", "f1@platt", "f1@gsm8k"), _interval),
    "cut": _count,
}


if __name__ == "__main__":
    main()
