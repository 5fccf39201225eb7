"""What RL stages came to, as tables of the report: Pass@N, and what stopped them."""

from __future__ import annotations

from pathlib import Path

from aprm_jax.config import Config, stages
from aprm_jax.evals.records import RESULTS, Results, read_results
from aprm_jax.jobs.rl import AFTER, BEFORE, SET
from aprm_jax.report.contents import Cell, Column, Row, Table
from aprm_jax.training.workdir import done_info, is_done


def rl_tables(config: Config, root: Path) -> list[Table]:
    """A table for each complete RL stage.

    Raises:
      DamagedFileError: its results are not what was written.
    """
    found = []
    for stage, job in stages(config):
        if job == "rl" and is_done(root / stage):
            table = _table(root / stage)
            found += [table] if table.rows else []
    return found


def _table(folder: Path) -> Table:
    remedy = f"Delete {folder / 'done.json'} and run the same command again."
    records, _ = read_results(folder / RESULTS, remedy)
    results = Results(records)
    metrics = list(dict.fromkeys(record.metric for record in records))
    rows = []
    for split in results.splits(SET):
        for when, name in ((BEFORE, "before RL"), (AFTER, "after")):
            cells = [results.find(SET, split, "", m, when) for m in metrics]
            values = [c and Cell(c.value, c.low, c.high) for c in cells]
            rows.append(Row(name, values, group=split, own=when == AFTER))
    return Table(
        f"{folder.name}: share of problems that one of N samples solves",
        [Column(metric.replace("pass@", "N = ")) for metric in metrics],
        rows,
        corner="solver",
        note=_note(done_info(folder)),
    )


def _note(info: dict) -> str:
    best, alarm = "", info.get("alarm", "")
    if "best_dev" in info:
        best = (
            f"Best on dev after {info['best_round']} rounds: {info['best_dev']:.1%}. "
        )
    if alarm:
        return f"{best}Stopped by rl.alarm.{alarm}; the best checkpoint was kept."
    return f"{best}No alarm stopped it."
