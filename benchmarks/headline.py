"""Every figure of docs/results.md from one command, which says first what it costs.

    python benchmarks/headline.py --dry-run              # the list, and its CPU time
    python benchmarks/headline.py                        # all of it
    python benchmarks/headline.py --only=pressure,rl --seeds=0,1

A figure is runs of one config, a seed each, and the script that makes its table from
them; a figure that starts from the models of another's runs names it, and those run
first. A seed whose results are in `benchmarks/results/` already is passed over, a run
that was stopped goes on where it was, and a run that fails ends the figure, not the
others. What a seed cost goes into `benchmarks/results/costs.json`, which the next
estimate reads. Runs are kept under --runs (runs/headline).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from compare_table import ROOT, one_line_each

RESULTS = ROOT / "benchmarks/results"
COSTS = RESULTS / "costs.json"


@dataclasses.dataclass(frozen=True)
class Figure:
    """Runs of one config and the table that is made from them.

    Attributes:
      shows: what, in a few words.
      config: of a run; "{needs}" is the run of the same seed that it starts from.
      tables: makes the table; "{runs}" are the runs, "{command}" what made one.
      seeds: how many are published.
      results: what a seed leaves, "{seed}" its number; "" where seeds are pooled.
      collect: writes that, from "{run}".
      needs: the figure whose models its runs start from.
      data: environment variable of a folder that must exist, "" for none.
    """

    shows: str
    config: str = ""
    tables: str = ""
    seeds: int = 5
    results: str = ""
    collect: str = ""
    needs: str = ""
    data: str = ""


_POOLED = "{script} --command={{command}} {{runs}}"
FIGURES = {
    "quickstart": Figure(
        "README: APRM beside static corruptions, foreign solver",
        tables="quickstart.py --runs={folder} --seeds 0 1 2",
    ),
    "pressure": Figure(
        "accuracy against N, all PRMs alike mined; attackers",
        config="configs/pressure.py",
        collect="pressure.py collect {run}",
        results="pressure/seed_{seed}.json",
        tables="pressure.py tables",
    ),
    "attack": Figure(
        "robustness of the same PRMs: a red team with oracle calls to spend",
        config="configs/attack.py:{needs}",
        collect="attack.py collect {run}",
        results="attack/seed_{seed}.json",
        tables="attack.py tables",
        needs="pressure",
    ),
    "search_pressure": Figure(
        "the same PRMs under tree search; accuracy against FLOPs",
        config="configs/search_pressure.py:{needs}",
        collect="search_pressure.py collect {run}",
        results="search_pressure/seed_{seed}.json",
        tables="search_pressure.py tables",
        seeds=3,
        needs="pressure",
    ),
    "rl": Figure(
        "RL by verifier: which is deceived, and when",
        config="configs/rl_verifiers.py:{needs}",
        collect="rl.py collect {run}",
        results="rl/seed_{seed}.json",
        tables="rl.py tables",
        needs="pressure",
    ),
    "rl_pav": Figure(
        "RL by progress: PAV refreshed, hardened, another prover, an ORM",
        config="configs/rl_pav.py:{needs}",
        collect="rl.py collect {run}",
        results="rl_pav/seed_{seed}.json",
        tables="rl.py tables",
        needs="pressure",
    ),
    "pav": Figure(
        "search by progress beside Q and an ORM; alpha",
        config="benchmarks/pav.py:search:{needs}",
        collect="pav.py collect {run}",
        results="pav/search_seed_{seed}.json",
        tables="pav.py tables",
        seeds=3,
        needs="rl_pav",
    ),
    "pav_labels": Figure(
        "rollouts against completions at equal budgets",
        config="benchmarks/pav.py:labels",
        collect="pav.py collect {run}",
        results="pav/labels_seed_{seed}.json",
        tables="pav.py tables",
    ),
    "didactic": Figure(
        "the planted subsequence, provers of gamma 2 to 100",
        tables="didactic.py run; didactic.py tables",
    ),
    "compare": Figure(
        "every baseline with its published settings",
        config="configs/compare.py",
        tables=_POOLED.format(script="compare_table.py"),
        seeds=3,
    ),
    "naive_generator": Figure(
        "learning against frozen G from a naive start",
        config="configs/naive_generator.py:{needs}",
        tables=_POOLED.format(script="compare_table.py --name=naive_generator"),
        seeds=3,
        needs="compare",
    ),
    "naive_pressure": Figure(
        "the same under pressure, with hard rows and imitation",
        config="configs/naive_pressure.py:{needs}",
        collect="naive_pressure.py collect {run}",
        results="naive_pressure/seed_{seed}.json",
        tables="naive_pressure.py tables",
        seeds=3,
        needs="pressure",
    ),
    "ablation": Figure(
        "APRM with one thing changed at a time",
        config="configs/ablation.py:{needs}",
        tables=_POOLED.format(script="ablation_table.py"),
        seeds=3,
        needs="compare",
    ),
    "prm800k": Figure(
        "human step labels: accuracy, precision, recall, F1; ProcessBench",
        config="configs/prm800k.py",
        tables=_POOLED.format(script="prm800k_table.py"),
        seeds=3,
        data="APRM_PRM800K_DIR",
    ),
    "smollm2": Figure(
        "a pretrained language model: R on human labels, then G against it",
        tables="smollm2.py --workdir={folder} --publish; smollm2_table.py",
        data="APRM_GSM8K_DIR",
    ),
    "gsm8k": Figure(
        "the game on GSM8K's steps",
        config="configs/gsm8k.py:drawn",
        tables=_POOLED.format(script="gsm8k_table.py"),
        seeds=1,
        data="APRM_GSM8K_DIR",
    ),
}


class Plan:
    """What has to run for the figures that are wanted.

    Args:
      wanted: names of figures.
      seeds: of each; None for as many as are published.
      runs: the folder of the runs.
      results: of what is measured already.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        seeds: Sequence[int] | None,
        runs: Path,
        results: Path = RESULTS,
    ):
        self.wanted, self.runs, self._results = list(wanted), runs, results
        self._seeds = seeds

    def seeds(self, name: str) -> list[int]:
        """Those of a figure whose results are not there yet."""
        figure = FIGURES[name]
        if not figure.config:
            return []  # its script knows
        return [s for s in self._every(figure) if not self._measured(figure, s)]

    def _every(self, figure: Figure) -> Sequence[int]:
        return range(figure.seeds) if self._seeds is None else self._seeds

    def _measured(self, figure: Figure, seed: int) -> bool:
        path = self._results / figure.results.format(seed=seed)
        return bool(figure.results) and path.is_file()

    def runs_of(self, name: str) -> Iterator[tuple[str, int]]:
        """(figure, seed) in order, what they start from before them."""
        chain = [name]
        while needs := FIGURES[chain[0]].needs:
            chain.insert(0, needs)
        for seed in self.seeds(name):
            yield from ((figure, seed) for figure in chain)

    def folder(self, name: str, seed: int) -> Path:
        """Of a run."""
        return self.runs / f"{name}-{seed}"

    def command(self, name: str, seed: int) -> list[str]:
        """What makes a run, or goes on with it."""
        figure = FIGURES[name]
        config = figure.config.format(needs=self.folder(figure.needs, seed))
        return [
            *("python", "-m", "aprm_jax.main", f"--config={config}"),
            *(f"--config.seed={seed}", f"--workdir={self.folder(name, seed)}"),
        ]

    def scripts(self, name: str, seed: int | None = None) -> list[list[str]]:
        """What keeps a seed's results or, without one, makes the figure's table."""
        figure = FIGURES[name]
        text = figure.tables if seed is None else figure.collect
        places = {
            "runs": " ".join(str(self.folder(name, s)) for s in self._every(figure)),
            "run": "" if seed is None else str(self.folder(name, seed)),
            "folder": str(self.runs / name),
            "command": shlex.quote(self._said(name)),
        }
        return [
            ["python", f"benchmarks/{script}", *rest]
            for part in text.split("; ")
            if part
            for script, *rest in [shlex.split(part.format(**places))]
        ]

    def _said(self, name: str) -> str:
        """The command of all seeds, as the results state it."""
        figure = FIGURES[name]
        every = self._every(figure)
        config = figure.config.format(needs=f"runs/{figure.needs}-$seed")
        return (
            f"for seed in {' '.join(map(str, every))}: python -m aprm_jax.main "
            f"--config={config} --config.seed=$seed --workdir=runs/{name}-$seed"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help="names, by commas")
    parser.add_argument("--seeds", default="", help="numbers, by commas")
    parser.add_argument("--runs", type=Path, default=Path("runs/headline"))
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in FIGURES]:
        parser.error(f"--only={','.join(unknown)}: figures are {', '.join(FIGURES)}")
    if args.seeds and not all(s.isdecimal() for s in args.seeds.split(",")):
        parser.error(f"--seeds={args.seeds}: give numbers by commas, such as 0,1,2")
    seeds = [int(s) for s in args.seeds.split(",")] if args.seeds else None
    plan = Plan(wanted, seeds, args.runs.absolute())
    print("\n".join(estimate(plan, _costs())), flush=True)
    if args.dry_run:
        return
    failed = [name for name in wanted if not missing(name) and not make(plan, name)]
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}; the same command goes on")


def missing(name: str) -> str:
    """Why a figure cannot be made here; "" if it can."""
    variable = FIGURES[name].data
    folder = os.environ.get(variable, "")
    if not variable or (folder and Path(folder).is_dir()):
        return ""
    return f"set {variable} to the folder of its data (see its config)"


def estimate(plan: Plan, costs: dict[str, dict[str, float]]) -> Iterator[str]:
    """A line a figure: what is to run, and how long that took before."""
    total, unknown = 0.0, False
    before: set[tuple[str, int]] = set()
    for name in plan.wanted:
        seeds = plan.seeds(name)
        head = f"{name:16} {FIGURES[name].shows}: "
        if why := missing(name):
            yield head + f"left out: {why}"
            continue
        if not FIGURES[name].config:
            yield head + "its own script goes on where it was"
            unknown = True
            continue
        runs = [run for run in plan.runs_of(name) if run not in before]
        before |= set(runs)  # another figure may start from them too
        hours = [_hours(costs, *run) for run in runs]
        known = [h for h in hours if h is not None]
        unknown |= len(known) < len(hours)
        total += sum(known)
        cost = f"{sum(known):.1f} CPU hours" if len(known) == len(hours) else "unknown"
        todo = f"seeds {', '.join(map(str, seeds))}: {cost}" if seeds else "all there"
        yield head + todo
    yield f"{total:.1f} CPU hours in all" + (" and what is not known" * unknown)


def _hours(costs: dict[str, dict[str, float]], name: str, seed: int) -> float | None:
    """What a seed took, or others did on average."""
    seen = costs.get(name, {})
    if not seen:
        return None
    return seen.get(str(seed), statistics.mean(seen.values())) / 3600


def make(plan: Plan, name: str, call: Callable[[list[str]], int] | None = None) -> bool:
    """Runs what a figure wants; whether all of it succeeded."""
    call = call or _call
    for figure, seed in plan.runs_of(name):
        if call(plan.command(figure, seed)):
            return False
        _note_cost(figure, seed, plan.folder(figure, seed))
        new = seed in plan.seeds(figure)
        if new and any(call(script) for script in plan.scripts(figure, seed)):
            return False
    return not any(call(script) for script in plan.scripts(name))


def _call(command: list[str]) -> int:
    print("+", shlex.join(command), flush=True)
    command = [sys.executable, *command[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _costs() -> dict[str, dict[str, float]]:
    return json.loads(COSTS.read_text()) if COSTS.is_file() else {}


def _note_cost(name: str, seed: int, run: Path) -> None:
    """CPU seconds of a run's stages, on all cores."""
    done = [json.loads(path.read_text()) for path in run.glob("*/done.json")]
    costs = _costs()
    spent = sum(stage["cpu_seconds"] for stage in done)
    costs.setdefault(name, {})[str(seed)] = round(spent, 1)
    COSTS.write_text(one_line_each(dict(sorted(costs.items()))))


if __name__ == "__main__":
    main()
