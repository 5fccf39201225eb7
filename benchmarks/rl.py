"""RL by verifier and by progress, over as many seeds as there are.

    python benchmarks/rl.py collect RUN...   # a file a seed
    python benchmarks/rl.py tables           # docs/results.md

`collect` keeps what a run of `configs/rl_verifiers.py` found in
`benchmarks/results/rl/seed_K.json`, with `--config.rl.pay.unfinished=True` in
`rl_unfinished/`, and of `configs/rl_pav.py` in `rl_pav/`: of each arm the curves of KL,
the oracle's and the verifier's reward and dev accuracy, Pass@N before and after, and
the cost, that of its verifier's labels too. `tables` pools whichever seeds are there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, commit, replace_between, save_figure, table
from seed_files import PRMS, read, tables_wanted, write

from aprm_jax.config import Config, for_stage, frozen, jobs, stages
from aprm_jax.evals.records import RESULTS as RECORDS
from aprm_jax.evals.records import read_results
from aprm_jax.jobs import of_run
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import done_info, is_done

RESULTS = ROOT / "benchmarks/results"
FOLDERS = ("rl", "rl_unfinished", "rl_pav")  # of results
TITLES = {
    "orm": "ORM",
    **{k: v for k, v in PRMS.items() if k != "aprm_drawn"},
    "guarded": "**APRM**, guarded by the game",
    "pav": "PAV",
    "pav_prover": "PAV, another solver as the prover",
    "pav_restarted": "PAV, RL begun anew three times",
    "pav_refreshed": "PAV, refreshed at these times",
    "pav_hardened": "PAV, hardened by the game",
    "oracle": "the oracle",
    "outcome": "known answers",
    "implicit": "known answers and an implicit PRM that learns them",
}
CURVES = {
    "kl": "policy/kl_sequence",
    "oracle": "reward/oracle",
    "verifier": "reward/verifier",
    "tokens": "rl/tokens",
    "finished": "rl/finished",
    "dev": "dev/accuracy",
}
SUMS = ("rl/sampled_tokens", "rl/labels")
SEGMENT = re.compile(r"_\d+$")  # of an arm that several stages make, one after another
LABELLED = ("prm", "pav", "aprm")  # jobs that make a verifier
DEVS = 3  # evaluations on dev that an accuracy is the mean of
SMOOTH = 10  # rounds that a rate is the mean of
KLS = (2.0, 5.0)  # nats a solution, where the gap is compared
FALL = 0.05  # of what is right, below its peak: a policy has left what it learned


def main() -> None:
    figure = ROOT / "docs/rl.svg"
    args = tables_wanted(__doc__, collect, RESULTS, figure=figure)
    if args is None:
        return
    found = {name: read(args.results / name) for name in FOLDERS}
    if not any(found.values()):
        raise SystemExit(f"{args.results}: no seeds; collect some runs first")
    if found["rl"]:
        picture = "![Accuracy on dev, and what is paid less what is right](rl.svg)\n\n"
        replace_between(args.page, "rl", picture + render(found["rl"], "rl"))
        draw(found["rl"], args.figure)
    if open_ended := found["rl_unfinished"]:
        text = render(open_ended, "rl_unfinished")
        replace_between(args.page, "rl_unfinished", text)
    if found["rl_pav"]:
        replace_between(args.page, "rl_pav", render_pav(found["rl_pav"]))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a run found of the arms whose stages are complete."""
    config = frozen(of_run.get_config(str(run)))
    made = {
        SEGMENT.sub("", name.removeprefix("rl_")): _turns(config, name)
        for name, job in stages(config)
        if job == "rl" and for_stage(config, name).rl.pass_samples
    }
    arms = {
        arm: collect_arm(run, config, parts)
        for arm, parts in made.items()
        if all(is_done(run / part) for part in parts)
    }
    found = {
        "command": f"python -m aprm_jax.main --config=configs/{config.name}.py:RUN "
        f"--config.seed={config.seed}"
        + " --config.rl.pay.unfinished=True"
        * config.rl.pay.unfinished,
        "commit": commit(),
        "seed": config.seed,
        "problems": config.rl.pass_problems,
        "arms": arms,
    }
    name = "rl" if config.name == "rl_verifiers" else config.name
    if name == "rl" and config.rl.pay.unfinished:
        name = "rl_unfinished"
    return write(found, results / name, json.dumps(found) + "\n")


def _turns(config: Config, last: str) -> list[str]:
    """The stages of RL that go on from each other, up to an arm's last."""
    parts, known = [last], dict(stages(config))
    while known.get(before := for_stage(config, parts[0]).rl.solver_from) == "rl":
        parts.insert(0, before)
    return parts


def collect_arm(run: Path, config: Config, parts: Sequence[str]) -> dict[str, Any]:
    """An arm of one stage, or of several that go on from each other."""
    logs = [read_metrics(run / part) for part in parts]
    rows = [row for log in logs for row in log]
    curves = {
        name: [_rounded(row.get(metric, math.nan)) for row in rows]
        for name, metric in CURVES.items()
    }
    rewards = for_stage(config, parts[-1]).rl.rewards
    curves["paid"] = [
        _rounded(sum(row.get(f"reward/{name}", math.nan) for name in rewards))
        for row in rows
    ]
    # A later stage counts from where it starts, which is not where the arm does.
    curves["kl"][len(logs[0]) :] = [None] * (len(rows) - len(logs[0]))
    records, _ = read_results(run / parts[-1] / RECORDS, "")
    passed = {
        f"{r.split}/{r.part}/{r.metric}": _rounded(r.value)
        for r in records
        if r.part != "before" or len(parts) == 1
    }
    sums = {name: sum(row.get(name, 0.0) for row in rows) for name in SUMS}
    spent = [done_info(run / s)["spent"] for s in _verifiers(config, parts[-1])]
    return {
        "curves": curves,
        "pass": passed,
        "before": rows[0].get("dev/before"),
        "verifier_tokens": sum(s["sampled_tokens"] for s in spent),
        "verifier_oracle_calls": sum(s["oracle_calls"] for s in spent),
        **sums,
    }


def _verifiers(config: Config, stage: str) -> list[str]:
    """The stages of the run that made verifiers which a stage learned from."""
    known = dict(stages(config))

    def before(name: str) -> Iterator[str]:
        for _, source in jobs()[known[name]].sources(for_stage(config, name)):
            if source in known:
                yield source
                yield from before(source)

    return [s for s in dict.fromkeys(before(stage)) if known[s] in LABELLED]


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def smoothed(values: Sequence[float | None]) -> np.ndarray:
    """The mean of the last few rounds at each, without those that have none."""
    array = np.array([np.nan if v is None else v for v in values], float)
    out = np.full(len(array), np.nan)
    for i in range(len(array)):
        window = array[max(0, i + 1 - SMOOTH) : i + 1]
        if np.isfinite(window).any():
            out[i] = np.nanmean(window)
    return out


def time_to_fall(curves: Mapping[str, Sequence[float | None]]) -> int | None:
    """The round from which on what is right stays below its peak; None if none is.

    By `FALL` below the largest mean of ten rounds, to the end.
    """
    right = smoothed(curves["oracle"])
    right[: SMOOTH - 1] = np.nan  # means of fewer
    if not np.isfinite(right).any() or right[-1] >= np.nanmax(right) - FALL:
        return None
    peak = int(np.nanargmax(right))
    near = np.flatnonzero(right >= right[peak] - FALL)
    return int(near[-1]) + 2


def gap_at(curves: Mapping[str, Sequence[float | None]], kl: float) -> float:
    """Verifier's less oracle's reward where KL first is as large."""
    far = smoothed(curves["kl"])
    gap = smoothed(curves["verifier"]) - smoothed(curves["oracle"])
    beyond = np.flatnonzero(far >= kl)
    return float(gap[beyond[0]]) if len(beyond) else math.nan


def summary(arm: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """The numbers of one verifier and seed."""
    curves = arm["curves"]
    dev = [v for v in curves["dev"] if v is not None]
    fell = time_to_fall(curves)
    out = {
        "dev before": arm["before"] if arm["before"] is not None else math.nan,
        "dev after": dev[-1] if dev else math.nan,
        "dev best": max(dev, default=math.nan),
        "finished": float(smoothed(curves["finished"])[-1]),
        "KL": float(smoothed(curves["kl"])[-1]),
        "rounds to the fall": float(rounds if fell is None else fell),
        "fell": float(fell is not None),
    }
    out |= {f"gap at KL {kl:g}": gap_at(curves, kl) for kl in KLS}
    out["tokens of RL, 1000"] = arm["rl/sampled_tokens"] / 1000
    return out | {name: float(arm[name]) for name in SUMS}


def render(seeds: Sequence[Mapping[str, Any]], folder: str) -> str:
    """The table: a row a verifier, means over seeds and each."""
    seen = {name for seed in seeds for name in seed["arms"]}
    arms = [name for name in TITLES if name in seen]
    columns = {
        "dev before": 100.0,
        "dev after": 100.0,
        "dev best": 100.0,
        "finished": 100.0,
        "KL": 1.0,
        "rounds to the fall": 1.0,
        "fell": 100.0,
        **{f"gap at KL {kl:g}": 100.0 for kl in KLS},
        "tokens of RL, 1000": 1.0,
    }
    rows = []
    for name in arms:
        known = [seed["arms"][name] for seed in seeds if name in seed["arms"]]
        found = [summary(arm, len(arm["curves"]["kl"])) for arm in known]
        cells = [_cell([f[c] for f in found], scale) for c, scale in columns.items()]
        rows.append((f"{TITLES[name]} ({len(known)})", cells))
    passed = _pass_rows(seeds, arms)
    numbers = ", ".join(str(seed["seed"]) for seed in seeds)
    return "\n\n".join(
        [
            table(["R (seeds)", *columns], rows),
            *passed,
            f"Seeds {numbers}: means, in brackets each seed. Accuracies, gaps (the "
            "verifier's reward less the oracle's, where a seed's KL gets that far) "
            "and shares in %; KL in nats a solution; finished are solutions that came "
            "to an end, of the last ten rounds. A run fell where what is right stays "
            "five points below its peak; one that did not counts with all its rounds. "
            "What a verifier's labels cost is in the last table of the runs that "
            "trained it. "
            f"Made by `benchmarks/rl.py` from `benchmarks/results/{folder}/`.",
        ]
    )


def draw(seeds: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy, and the payment's lead over it, against rounds; a line a verifier."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    seen = {name for seed in seeds for name in seed["arms"]}
    ceilings = ("oracle", "outcome", "implicit")
    for k, name in enumerate(name for name in TITLES if name in seen):
        known = [seed["arms"][name] for seed in seeds if name in seed["arms"]]
        style = {"color": f"C{k}", "ls": ":" if name in ceilings else "-"}
        label = TITLES[name].replace("**", "")
        curves = [_dev_points(arm) for arm in known]
        accuracy = 100 * np.array([values for _, values in curves])
        left.plot(curves[0][0], accuracy.mean(axis=0), label=label, **style)
        low, high = accuracy.min(axis=0), accuracy.max(axis=0)
        left.fill_between(curves[0][0], low, high, color=f"C{k}", alpha=0.1, lw=0)
        if name not in ceilings:
            lead = 100 * np.mean([_lead(arm) for arm in known], axis=0)
            right.plot(np.arange(1, len(lead) + 1), lead, **style)
    left.set_ylabel("% solved, dev, one sample")
    right.set_ylabel("paid − right, points")
    right.axhline(0, color="grey", lw=0.5)
    for panel in (left, right):
        panel.set_xlabel("rounds of RL")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=5
    )
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    save_figure(figure, path)


def _dev_points(arm: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Rounds and dev accuracies, the one before RL first."""
    known = [(i + 1, v) for i, v in enumerate(arm["curves"]["dev"]) if v is not None]
    return [0, *(i for i, _ in known)], [arm["before"], *(v for _, v in known)]


def _lead(arm: Mapping[str, Any]) -> np.ndarray:
    return smoothed(arm["curves"]["paid"]) - smoothed(arm["curves"]["oracle"])


def dev_curve(arm: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Rounds, and the mean of the last few dev accuracies up to there."""
    known = [(i + 1, v) for i, v in enumerate(arm["curves"]["dev"]) if v is not None]
    rounds, accuracy = (np.array(x) for x in zip(*known, strict=True))
    steady = [accuracy[max(0, i + 1 - DEVS) : i + 1].mean() for i in range(len(known))]
    return rounds, np.array(steady)


def progress_summary(
    arm: Mapping[str, Any], orm: Mapping[str, Any]
) -> dict[str, float]:
    """The numbers of one arm and seed, beside the ORM's of the same seed."""
    rounds, accuracy = dev_curve(arm)
    of_orm = dev_curve(orm)[1]

    def until(target: float) -> float:
        there = np.flatnonzero(accuracy >= target)
        return float(rounds[there[0]] if len(there) else rounds[-1])

    gap = smoothed(arm["curves"]["verifier"]) - smoothed(arm["curves"]["oracle"])
    before = arm["before"]
    return {
        "dev before": math.nan if before is None else before,
        "dev at the end": float(accuracy[-1]),
        "dev best": float(accuracy.max()),
        "rounds to the ORM's end": until(of_orm[-1]),
        "to its best": until(of_orm.max()),
        "got there": float(accuracy.max() >= of_orm.max()),
        "gap at the end": float(gap[-1]),
        "tokens of RL, 1000": arm["rl/sampled_tokens"] / 1000,
        "of its verifier, 1000": arm["verifier_tokens"] / 1000,
    }


PERCENT = ("dev before", "dev at the end", "dev best", "got there", "gap at the end")


def render_pav(seeds: Sequence[Mapping[str, Any]]) -> str:
    """The tables of RL by progress: a row an arm, means over seeds and each."""
    seeds = [seed for seed in seeds if "orm" in seed["arms"]]
    seen = {name for seed in seeds for name in seed["arms"]}
    arms = [name for name in TITLES if name in seen]
    rows, columns = [], []
    for name in arms:
        known = [s["arms"] for s in seeds if name in s["arms"]]
        found = [progress_summary(a[name], a["orm"]) for a in known]
        columns = list(found[0])
        cells = [
            _cell([f[c] for f in found], 100.0 if c in PERCENT else 1.0)
            for c in columns
        ]
        rows.append((f"{TITLES[name]} ({len(known)})", cells))
    numbers = ", ".join(str(seed["seed"]) for seed in seeds)
    return "\n\n".join(
        [
            table(["R (seeds)", *columns], rows),
            *_pass_rows(seeds, arms),
            f"Means over seeds {numbers} and each. Accuracies on dev are "
            f"means of {DEVS} evaluations; the gap is the verifier's reward less the "
            f"oracle's, of the last {SMOOTH} rounds; both, and the share of runs that "
            "got as far as RL by the ORM at its best, in %. One that did not counts "
            "with all its rounds. Made by `benchmarks/rl.py` from "
            "`benchmarks/results/rl_pav/`.",
        ]
    )


def _pass_rows(seeds: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[str]:
    metrics = list(next(iter(seeds[0]["arms"].values()))["pass"])
    splits = list(dict.fromkeys(m.split("/")[0] for m in metrics))
    sizes = list(dict.fromkeys(m.split("/")[2] for m in metrics))
    out = []
    for split in splits:
        rows = []
        any_arm = [next(iter(seed["arms"].values()))["pass"] for seed in seeds]
        after = {
            TITLES[name]: [s["arms"][name]["pass"] for s in seeds if name in s["arms"]]
            for name in arms
        }
        for title, known in {"before RL": any_arm, **after}.items():
            when = "before" if title == "before RL" else "after"
            keys = [f"{split}/{when}/{size}" for size in sizes]
            cells = [
                _cell([k[key] for k in known if k.get(key) is not None], 100.0)
                for key in keys
            ]
            rows.append((title, cells))
        out.append(table([f"{split}", *sizes], rows))
    return out


def _cell(values: Sequence[float], scale: float) -> str:
    """The mean of those that are known, and each where there are several."""
    known = [scale * v for v in values if math.isfinite(v)]
    if not known:
        return "–"
    each = ", ".join(f"{v:.1f}" for v in known)
    return f"{np.mean(known):.1f}" + (f" ({each})" if len(known) > 1 else "")


if __name__ == "__main__":
    main()
