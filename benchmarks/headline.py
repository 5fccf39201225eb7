"""Every figure of docs/results.md from one command, which says first what it costs.

    python benchmarks/headline.py --dry-run              # the list, and its CPU time
    python benchmarks/headline.py                        # all of it
    python benchmarks/headline.py --only=pressure,rl --seeds=0,1
    python benchmarks/headline.py --costs RUN...         # notes what those runs took

A figure (`figures.py`) is runs of one config, a seed each, and the script that makes
its table from them; a figure that starts from the models of another's runs names it,
and those run first. What is published is left out: a seed runs where its results lack
an arm of the config, and all seeds do where a table is pooled from their runs and lacks
one. No script writes over results of more seeds or arms than it has. A stage that has
ended is not run again, a run that was stopped goes on where it was, and a run that
fails ends the figure, not the others. Costs are those that earlier runs had
(`run_costs.py`); what nobody has measured is named. Runs are kept under --runs
(runs/headline).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from compare_table import ROOT, commit
from figures import (
    ALL,
    FIGURES,
    RESULTS,
    Figure,
    figure_of,
    lacking,
    published,
    read,
    stages_of,
)
from run_costs import WHOLE, Cost, Costs

FEW = 4  # stages or arms that are named one by one


class Plan:
    """What has to run for the figures that are wanted.

    Args:
      wanted: names of figures.
      seeds: of each; None for those that are published and as many as are wanted.
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
        """Those of a figure that have to run.

        A table that is pooled from runs needs those of all its seeds.
        """
        there = published(name, self._results)
        wanted = set(range(FIGURES[name].seeds)) | set(there)
        if self._seeds is not None:
            wanted = set(self._seeds)
        lack = [seed for seed in sorted(wanted) if self.lacking(name, seed)]
        if lack and FIGURES[name].pool:
            return sorted(wanted | set(there))
        return lack

    def lacking(self, name: str, seed: int) -> list[str]:
        """The arms of a seed that its results lack."""
        return lacking(name, seed, self._results)

    def runs_of(self, name: str) -> Iterator[tuple[str, int]]:
        """(figure, seed) in order, what they start from before them."""
        figure = FIGURES[name]
        if not figure.config or figure.own:
            return  # its script makes them
        chain = [name]
        while needs := FIGURES[chain[0]].needs:
            chain.insert(0, needs)
        for seed in self.seeds(name):
            yield from ((figure, seed) for figure in chain)

    def folder(self, name: str, seed: int) -> Path:
        """Of a run."""
        own = FIGURES[name].own.format(seed=seed)
        return self.runs / (own or f"{name}-{seed}")

    def stages(self, name: str, seed: int) -> tuple[list[str], list[str]]:
        """Of a run: those that are to run, and those that have ended."""
        todo: list[str] = []
        done: list[str] = []
        for stage in stages_of(name):
            ended = (self.folder(name, seed) / stage / "done.json").is_file()
            (done if ended else todo).append(stage)
        return todo, done

    def command(self, name: str, seed: int) -> list[str]:
        """What makes a run, or goes on with it."""
        figure = FIGURES[name]
        config = figure.config.format(needs=self.folder(figure.needs or name, seed))
        return [
            *("python", "-m", "aprm_jax.main", f"--config={config}"),
            *(f"--config.seed={seed}", *_fields(figure)),
            f"--workdir={self.folder(name, seed)}",
        ]

    def collect(self, name: str, seed: int) -> list[list[str]]:
        """What keeps a seed's results."""
        run = str(self.folder(name, seed))
        return _scripts(FIGURES[name].collect, run=run)

    def pool(self, name: str) -> list[list[str]]:
        """What makes results of all seeds; nothing where they are there."""
        seeds = self.seeds(name)
        return _scripts(
            FIGURES[name].pool * bool(seeds),
            runs=" ".join(shlex.quote(str(self.folder(name, s))) for s in seeds),
            seeds=" ".join(map(str, seeds)),
            folder=str(self.runs),
            command=shlex.quote(self._said(name, seeds)),
        )

    def tables(self, name: str) -> list[list[str]]:
        """What makes the table; nothing where there are no results."""
        figure = FIGURES[name]
        first = next(iter(published(name, self._results)), 0)
        there = read(name, first, self._results) is not None
        return _scripts(figure.tables * there)

    def _said(self, name: str, seeds: Sequence[int]) -> str:
        """The command of all seeds, as the results state it."""
        every = " ".join(map(str, seeds))
        return f"for seed in {every}: {said(name)} --workdir=runs/{name}-$seed"


def said(name: str) -> str:
    """The command of a figure's runs; of its script where that makes them."""
    figure = FIGURES[name]
    if not figure.config or figure.own:
        return f"python benchmarks/{figure.pool.format(folder='runs', seeds='SEEDS')}"
    config = figure.config.format(needs=f"runs/{figure.needs}-$seed")
    start = f"python -m aprm_jax.main --config={config} --config.seed=$seed"
    return " ".join((start, *_fields(figure)))


def _fields(figure: Figure) -> list[str]:
    return [f"--config.{name}={value}" for name, value in figure.fields.items()]


def _scripts(text: str, **places: str) -> list[list[str]]:
    """The command of one of a figure's scripts; none for ""."""
    if not text:
        return []
    script, *rest = shlex.split(text.format(**places))
    return [["python", f"benchmarks/{script}", *rest]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(FIGURES), help="names, by commas")
    parser.add_argument("--seeds", default="", help="numbers, by commas")
    parser.add_argument("--runs", type=Path, default=Path("runs/headline"))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--costs", type=Path, nargs="+", metavar="RUN")
    args = parser.parse_args()
    if args.costs:
        for run in args.costs:
            print(note_run(run.absolute(), Costs()))
        return
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in FIGURES]:
        parser.error(f"--only={','.join(unknown)}: figures are {', '.join(FIGURES)}")
    if args.seeds and not all(s.isdecimal() for s in args.seeds.split(",")):
        parser.error(f"--seeds={args.seeds}: give numbers by commas, such as 0,1,2")
    seeds = [int(s) for s in args.seeds.split(",")] if args.seeds else None
    plan = Plan(wanted, seeds, args.runs.absolute())
    print("\n".join(estimate(plan, Costs())), flush=True)
    if args.dry_run:
        return
    can = [name for name in wanted if not (plan.seeds(name) and missing(name))]
    failed = [name for name in can if not make(plan, name)]
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}; the same command goes on")


def missing(name: str) -> str:
    """Why a figure cannot be made here; "" if it can."""
    figure = FIGURES[name]
    if not figure.config and not figure.pool:
        return "its code is in the commit that its results name, and nowhere else"
    for variable in figure.data:
        folder = os.environ.get(variable, "")
        if not folder or not Path(folder).is_dir():
            return f"set {variable} to the folder of its data (see its config)"
    return ""


def estimate(plan: Plan, costs: Costs) -> Iterator[str]:
    """A line a figure: what is to run, what it lacks, and how long that took before."""
    total, unknown = 0.0, []
    before: set[tuple[str, int]] = set()
    for name in plan.wanted:
        head = f"{name:16} {FIGURES[name].shows}: "
        if not plan.seeds(name):
            yield head + "all there"
            continue
        if why := missing(name):
            yield f"{head}{_todo(plan, name)}: left out: {why}"
            continue
        found = _costs(plan, costs, name, before)
        seconds = sum(cost.seconds for _, cost in found)
        lost = list(dict.fromkeys(part for _, c in found for part in c.unknown))
        unknown += [name] * bool(lost)
        total += seconds
        yield f"{head}{_todo(plan, name)}: {_price(seconds, lost)}"
    rest = f", and what was not measured of {', '.join(unknown)}" if unknown else ""
    yield f"{total / 3600:.1f} CPU hours in all{rest}"


def _costs(
    plan: Plan, costs: Costs, name: str, before: set[tuple[str, int]]
) -> list[tuple[str, Cost]]:
    """Of the runs that a figure wants, but for those that one before it wants too."""
    figure = FIGURES[name]
    if not figure.config:
        whole = costs.of(name, WHOLE, ()) if costs.knows(name) else Cost(0.0, (name,))
        return [(name, whole)]
    runs = list(plan.runs_of(name)) or [(name, seed) for seed in plan.seeds(name)]
    runs = [run for run in dict.fromkeys(runs) if run not in before]
    before |= set(runs)
    found = []
    for run_of, seed in runs:
        todo, done = plan.stages(run_of, seed)
        if todo:
            found.append((run_of, costs.of(run_of, seed, todo, done)))
    return found


def _todo(plan: Plan, name: str) -> str:
    """The seeds that are to run, and what of them is published and lacks something."""
    seeds = plan.seeds(name)
    if not FIGURES[name].config:
        return "by its script"
    numbers = ", ".join(map(str, seeds))
    arms = [arm for seed in seeds for arm in plan.lacking(name, seed) if arm != ALL]
    lack = f" (published without {_some(list(dict.fromkeys(arms)))})" if arms else ""
    return f"seed{'s' * (len(seeds) > 1)} {numbers}{lack}"


def _price(seconds: float, unknown: Sequence[str]) -> str:
    if unknown and not seconds:
        return "not measured"
    hours = f"{seconds / 3600:.1f} CPU hours"
    if seconds < 360:  # half of what one digit shows
        hours = f"{seconds:.0f} CPU seconds"
    return f"{hours}, {_some(unknown)} not measured" if unknown else hours


def _some(names: Sequence[str]) -> str:
    more = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {more} more" if more > 0 else "")


def make(plan: Plan, name: str, call: Callable[[list[str]], int] | None = None) -> bool:
    """Runs what a figure wants; whether all of it succeeded."""
    call = call or _call
    for figure, seed in list(plan.runs_of(name)):
        if call(plan.command(figure, seed)):
            return False
        run = plan.folder(figure, seed)
        Costs().note(figure, seed, run, said(figure), commit())
        lacks = plan.lacking(figure, seed)
        if lacks and any(call(script) for script in plan.collect(figure, seed)):
            return False
    if pool := plan.pool(name):
        before = _spent()
        if any(call(script) for script in pool):
            return False
        _note_script(plan, name, _spent() - before)
    return not any(call(script) for script in plan.tables(name))


def _note_script(plan: Plan, name: str, seconds: float) -> None:
    """What a figure took whose script makes it, or the runs that this made."""
    figure = FIGURES[name]
    if not figure.config:
        Costs().note_whole(name, seconds, said(name), commit())
    for seed in plan.seeds(name) if figure.own else ():
        Costs().note(name, seed, plan.folder(name, seed), said(name), commit())


def _call(command: list[str]) -> int:
    print("+", shlex.join(command), flush=True)
    command = [sys.executable, *command[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _spent() -> float:
    """CPU seconds of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def note_run(run: Path, costs: Costs) -> str:
    """Notes what the ended stages of a run took; says of which figure it is."""
    name, seed = figure_of(run)
    if not name:
        return f"{run}: of no figure"
    costs.note(name, seed, run, said(name), commit_of(name, seed, run))
    return f"{run}: {name}, seed {seed}"


def commit_of(name: str, seed: int, run: Path, results: Path = RESULTS) -> str:
    """The commit of the published results, where they are this very run's; else ""."""
    figure, there = FIGURES[name], read(name, seed, results)
    if there is None or "{seed}" not in figure.results:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        [[_, *script]] = _scripts(figure.collect, run=str(run))
        command = [sys.executable, *script, f"--results={folder}"]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
        found = [json.loads(path.read_text()) for path in Path(folder).rglob("*.json")]
    if done.returncode or len(found) != 1:
        return ""  # not a whole run
    same = there | {"commit": ""} == found[0] | {"commit": ""}
    return there["commit"] if same else ""


if __name__ == "__main__":
    main()
