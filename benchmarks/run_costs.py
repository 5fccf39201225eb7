"""What runs of the figures cost: CPU seconds of every stage, on all cores.

Kept in `benchmarks/results/costs.json` by figure, stage and seed, as the `done.json` of
finished stages has them: `headline.py` notes those of its own runs, and of other runs
of the same configs with `--costs RUN...`. A whole seed has a number of its own where no
run of it is there any more, or where a script runs no stages. A stage that was stopped
on the way counts from where it went on.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import RESULTS, stages_of

PATH = RESULTS / "costs.json"
WHOLE = "all"  # the seed of a script that makes all of them


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a run that is not there, or not whole.

    Attributes:
      seconds: of a CPU, as far as somebody measured it.
      unknown: the stages that nobody did.
    """

    seconds: float = 0.0
    unknown: tuple[str, ...] = ()


class Costs:
    """The costs that are known.

    Args:
      path: of the file; the published one by default.
    """

    def __init__(self, path: Path | None = None):
        self._path = path = path or PATH
        self._found: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._found = json.loads(path.read_text())

    def of(
        self, name: str, seed: int | str, todo: Sequence[str], done: Sequence[str] = ()
    ) -> Cost:
        """What the rest of a run takes: what it took before, or others of its seeds.

        Args:
          name: of the figure.
          seed: of the run.
          todo: its stages that are to run.
          done: those that have run.
        """
        known = {stage: self._stage(name, seed, stage) for stage in (*todo, *done)}
        unknown = tuple(stage for stage in todo if known[stage] is None)
        seconds = sum(known[stage] or 0.0 for stage in todo)
        whole = _mean(self._found.get(name, {}).get("seeds", {}), seed)
        if (unknown or not todo) and whole is not None:
            rest = whole - sum(known[stage] or 0.0 for stage in done)
            return Cost(max(seconds, rest))
        return Cost(seconds, unknown)

    def _stage(self, name: str, seed: int | str, stage: str) -> float | None:
        return _mean(self._found.get(name, {}).get("stages", {}).get(stage, {}), seed)

    def knows(self, name: str) -> bool:
        """Whether anything of a figure was measured."""
        return name in self._found

    def note(self, name: str, seed: int, run: Path, command: str, commit: str) -> None:
        """Adds the stages of a run that have ended.

        Args:
          name: of the figure.
          seed: of the run.
          run: its folder.
          command: what makes such runs.
          commit: what the code was; "" where nobody knows.
        """
        figure = self._figure(name, command)
        for stage in stages_of(name):
            path = run / stage / "done.json"
            if path.is_file():
                seconds = round(json.loads(path.read_text())["cpu_seconds"], 1)
                figure["stages"].setdefault(stage, {})[str(seed)] = seconds
        figure["commits"].pop(str(seed), None)
        if commit:
            figure["commits"][str(seed)] = commit
        self._write()

    def note_whole(self, name: str, seconds: float, command: str, commit: str) -> None:
        """Adds what a script took that makes a figure by itself."""
        figure = self._figure(name, command)
        figure["seeds"][WHOLE] = round(seconds, 1)
        figure["commits"][WHOLE] = commit
        self._write()

    def _figure(self, name: str, command: str) -> dict[str, Any]:
        figure = self._found.setdefault(name, {})
        figure["command"] = command
        for part in ("commits", "seeds", "stages"):
            figure.setdefault(part, {})
        return figure

    def _write(self) -> None:
        self._path.write_text(_text(dict(sorted(self._found.items()))) + "\n")


def _mean(by_seed: Mapping[str, float], seed: int | str) -> float | None:
    """The seed's own number, else the mean of the others; None where there is none."""
    if not by_seed:
        return None
    return by_seed.get(str(seed), statistics.mean(by_seed.values()))


def _text(value: Any, depth: int = 0) -> str:
    """JSON with a stage's seeds on one line: a change shows as one."""
    if depth == 3 or not isinstance(value, dict) or not value:
        return json.dumps(value)
    rows = [f"{json.dumps(k)}: {_text(v, depth + 1)}" for k, v in value.items()]
    pad = " " * (depth + 1)
    return "{\n" + ",\n".join(pad + row for row in rows) + "\n" + " " * depth + "}"
