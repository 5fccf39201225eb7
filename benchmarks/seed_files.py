"""Results of which every seed has a file, so that seeds may be run one by one.

`SCRIPT.py collect RUN...` writes the file of each run, `SCRIPT.py tables` pools
whichever are there. A file names the commit of the checkout that collects: it is to be
the one that made the run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare_table import ROOT, commit

# The PRMs of configs/pressure.py, as every table of them names them.
PRMS = {
    "prm_static": "static corruptions",
    "prm_monte_carlo": "Monte-Carlo labels",
    "prm_oracle": "exact labels of the solver's samples",
    "prm_frozen": "frozen Generator",
    "aprm": "**APRM**",
    "aprm_plain": "APRM without imitation",
    "aprm_drawn": "APRM without imitation, as drawn",
}


def tables_wanted(
    doc: str | None,
    collect: Callable[[Path, Path], Path],
    results: Path,
    **outputs: Path,
) -> argparse.Namespace | None:
    """Reads the command line, and collects the runs that it names.

    Args:
      doc: of the script.
      collect: writes what a run found into the folder of results; gives the file.
      results: that folder.
      **outputs: further files that an option names, with their defaults.

    Returns:
      The options where tables are asked for; None where runs were.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("action", choices=("collect", "tables"))
    parser.add_argument("runs", nargs="*", type=Path)
    files = {"results": results, "page": ROOT / "docs/results.md", **outputs}
    for name, default in files.items():
        parser.add_argument(f"--{name}", type=Path, default=default)
    args = parser.parse_args()
    if args.action == "tables":
        return args
    for run in args.runs:
        print(collect(run, args.results))
    return None


def of_run(run: Path, config: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a run, and what its file begins with.

    Args:
      run: its folder.
      config: as the command names it.
    """
    settings = json.loads((run / "config.json").read_text())
    seed = settings["seed"]
    command = f"python -m aprm_jax.main --config={config} --config.seed={seed}"
    return settings, {"command": command, "commit": commit(), "seed": seed}


def write(found: dict[str, Any], folder: Path, text: str, name: str = "") -> Path:
    """Writes a seed's file, unless that would lose an arm which is published."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}seed_{found['seed']}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    if lost := _named(before) - _named(found):
        raise SystemExit(
            f"{path} has {', '.join(sorted(lost))}, which this run lacks: it stays as "
            "it is. Let the run end, or delete it first."
        )
    path.write_text(text)
    return path


def _named(found: dict[str, Any]) -> set[str]:
    """What a file tells apart: the keys of its groups."""
    groups = {k: v for k, v in found.items() if isinstance(v, dict)}
    return {f"{group}/{name}" for group, names in groups.items() for name in names}


def read(folder: Path, name: str = "") -> list[dict[str, Any]]:
    """The files of all seeds that are there."""
    return [
        json.loads(p.read_text()) for p in sorted(folder.glob(f"{name}seed_*.json"))
    ]
