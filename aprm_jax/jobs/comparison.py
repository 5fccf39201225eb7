"""Several runs side by side: their tables and curves on one page, seeds pooled.

A table of the page has a row a run for each row of the runs' own tables, a chart a line
a run. Runs whose configs differ in the seed alone are one: their mean, with Student's
interval over seeds. Where the data files of such runs differ they stay apart.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import Config, flat, frozen, jobs, stages
from aprm_jax.evals.intervals import over_seeds
from aprm_jax.evals.pressure import zero_counts
from aprm_jax.evals.records import RESULTS, Record, Results, read_results
from aprm_jax.files import atomic_write, to_json
from aprm_jax.jobs import changes, charts, of_run, tables
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.data_record import Record as DataRecord
from aprm_jax.jobs.data_record import other_files, read_record
from aprm_jax.report.contents import (
    Chart,
    Column,
    ReportData,
    Row,
    Series,
    Table,
    Timing,
)
from aprm_jax.report.page import write_report
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import differences

PAGE, NUMBERS = "comparison.html", "comparison.json"
# What may differ between runs that are one but for the seed.
_FREE = ("seed", *(set(changes.FREE) - {"stages", "overrides"}))
_LONGEST_NAME = 40


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it is compared, or several of different seeds.

    Attributes:
      name: of its folders, on the page.
      folders: as they were given.
      config: of the first of them.
      seeds: one a folder.
      records: of several, the means.
      seconds: stage -> its time.
      lines: (group, title, name) of a curve -> its chart and itself.
      data: what its data files were; {} where nobody knows.
      apart: why it is not one with another run of the same config; "" elsewhere.
    """

    name: str
    folders: tuple[str, ...]
    config: Config
    seeds: tuple[int, ...]
    records: tuple[Record, ...]
    seconds: Mapping[str, float]
    lines: Mapping[tuple[str, str, str], tuple[Chart, Series]]
    data: DataRecord = dataclasses.field(default_factory=dict)
    apart: str = ""


def check(context: Context, earlier: object = None) -> list[Run]:
    """The runs of `report.runs`, one by one.

    Raises:
      JobError: a folder that is no run, has no results, or those of an older version.
      DamagedFileError: see `read_results` and `data_record.read_record`.
    """
    return [_read(folder) for folder in context.config.report.runs]


def write(context: Context) -> None:
    """Writes both files into the workdir."""
    runs = _pooled(check(context))
    table = _main_of(runs)
    write_report(
        context.root / PAGE,
        ReportData(
            title=context.config.report.title or f"{len(runs)} runs side by side",
            subtitle="Rows and lines are runs; several seeds of one are their mean, "
            "in tables with 95 % intervals over seeds, in charts between the least and "
            "the greatest.",
            facts=[(run.name, _said(run)) for run in runs],
            main_table=table,
            tables=_more_tables(runs),
            pressure=_by_run(runs, pressure=True),
            bands="95 % over problems of one run; of several seeds from the least to "
            "the greatest",
            charts=_by_run(runs, pressure=False),
            timings=[Timing(run.name, run.seconds) for run in runs],
            config=_differing(runs),
        ),
    )
    numbers = {
        run.name: {
            "folders": run.folders,
            "seeds": run.seeds,
            "records": [record.to_json() for record in run.records],
        }
        for run in runs
    }
    atomic_write(context.root / NUMBERS, to_json(numbers))
    rows = [dataclasses.replace(r, name=f"{r.group}: {r.name}") for r in table.rows]
    if rows:  # else nothing was evaluated
        log.info("\n%s\n", tables.as_text(dataclasses.replace(table, rows=rows)))
    log.info("comparison: %s", context.root / PAGE)


def _read(entry: str) -> Run:
    folder = Path(entry)
    if not folder.is_dir():
        raise JobError(f"report.runs: {entry}: no such folder")
    if not (folder / of_run.FILE).is_file():
        raise JobError(
            f"report.runs: {entry}: no run, it has no {of_run.FILE}: name the folder "
            "that --workdir was"
        )
    anew = f"aprm-jax --workdir={entry} --config.job=report"
    if not (folder / RESULTS).is_file():
        older = (folder / "summary.json").is_file()
        what = f"the results of an older version, without {RESULTS}" * older
        raise JobError(
            f"report.runs: {entry}: {what or 'no results yet'}. Make them with {anew}"
        )
    records, more = read_results(folder / RESULTS, f"Make it anew with {anew}.")
    config = frozen(of_run.get_config(entry))
    return Run(
        entry,
        (entry,),
        config,
        (config.seed,),
        tuple(records),
        more.get("seconds", {}),
        _lines(folder, config, Results(records)),
        read_record(folder),
    )


def _lines(
    folder: Path, config: Config, results: Results
) -> dict[tuple[str, str, str], tuple[Chart, Series]]:
    trained = [(name, job) for name, job in stages(config) if jobs()[job].length]
    trained.sort(key=lambda stage: stage[1] != "aprm")  # the game first
    drawn = charts.pressure(_as_measured(config), results)
    for name, _ in trained:
        if rows := read_metrics(folder / name):
            drawn += charts.curves(config, name, rows)
    return {(c.group, c.title, s.name): (c, s) for c in drawn for s in c.series}


# --- Seeds


def _pooled(runs: Sequence[Run]) -> list[Run]:
    """One of all that differ in their seed alone, by the place of the first."""
    groups: list[list[Run]] = []
    for run in runs:
        apart = ""
        for group in groups:
            known = {other.seeds for other in group}
            if run.seeds in known or not _same_but_seed(group[0], run):
                continue
            if not (changed := _other_data(group, run)):
                group.append(run)
                break
            apart = apart or changed
        else:
            groups.append([dataclasses.replace(run, apart=apart)])
            if apart:
                log.warning("report.runs: %s: %s", run.name, apart)
    names = _names([[run.name for run in group] for group in groups])
    return [_pool(name, group) for name, group in zip(names, groups, strict=True)]


def _same_but_seed(first: Run, second: Run) -> bool:
    return not differences(flat(first.config), flat(second.config), _FREE)


def _other_data(group: Sequence[Run], run: Run) -> str:
    """Which data files set a run apart from those of a group; "" for none."""
    for other in group:
        if names := [name for name, *_ in other_files(other.data, run.data)]:
            return f"other data than {other.name}: {', '.join(names)}"
    return ""


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """The last folder of each path, or the path where two have the same."""
    last = Counter(Path(name).name for group in groups for name in group)
    names = []
    for group in groups:
        short = [Path(n).name if last[Path(n).name] == 1 else n for n in group]
        name = ", ".join(short)
        if len(name) > _LONGEST_NAME and len(short) > 1:
            name = f"{short[0]} and {len(short) - 1} more seeds"
        names.append(name)
    return names


def _pool(name: str, group: Sequence[Run]) -> Run:
    if len(group) == 1:
        return dataclasses.replace(group[0], name=name)
    everything = [record for run in group for record in run.records]
    by_key = [
        {
            record.key: record
            for record in (*run.records, *zero_counts(run.records, everything))
        }
        for run in group
    ]
    kept = [key for key in by_key[0] if all(key in records for records in by_key)]
    stages_ = [s for s in group[0].seconds if all(s in run.seconds for run in group)]
    lines = [key for key in group[0].lines if all(key in run.lines for run in group)]
    return dataclasses.replace(
        group[0],
        name=name,
        folders=tuple(folder for run in group for folder in run.folders),
        seeds=tuple(seed for run in group for seed in run.seeds),
        records=tuple(_mean([records[key] for records in by_key]) for key in kept),
        seconds={s: sum(run.seconds[s] for run in group) / len(group) for s in stages_},
        lines={
            key: (group[0].lines[key][0], _mean_line([r.lines[key][1] for r in group]))
            for key in lines
        },
        data={source: files for run in group for source, files in run.data.items()},
    )


def _mean(records: Sequence[Record]) -> Record:
    """Over seeds; NaN where one of them has no such number."""
    values = np.array([record.value for record in records])
    if np.isnan(values).any():
        ends = (math.nan,) * 3
    else:
        interval = over_seeds(values)
        ends = interval.mean, interval.low, interval.high
    return dataclasses.replace(records[0], value=ends[0], low=ends[1], high=ends[2])


def _mean_line(lines: Sequence[Series]) -> Series:
    """The mean where every seed has a point, between the least and the greatest."""
    points = [dict(zip(s.x, s.y, strict=True)) for s in lines]
    x = [value for value in points[0] if all(value in seed for seed in points)]
    y = np.array([[seed[value] for value in x] for seed in points], np.float64)
    return Series(lines[0].name, x, y.mean(axis=0), y.min(axis=0), y.max(axis=0))


# --- Tables


def _main_of(runs: Sequence[Run]) -> Table:
    return _side_by_side([(run.name, _main_table(run)) for run in runs])


def _main_table(run: Run) -> Table:
    config, seeds = _as_measured(run.config), len(run.seeds)
    return tables.main_table(config, Results(run.records), seeds)


def _as_measured(config: Config) -> Config:
    """Of the evaluation that a run's report shows."""
    names = [name for name, job in stages(config) if job == "evaluate"]
    return tables.as_measured(config, names[0]) if names else config


def _more_tables(runs: Sequence[Run]) -> list[Table]:
    """Those that more than one run has."""
    by_title: dict[str, list[tuple[str, Table]]] = {}
    for run in runs:
        config, results = _as_measured(run.config), Results(run.records)
        for table in tables.more_tables(config, results, {}, len(run.seeds)):
            by_title.setdefault(table.title, []).append((run.name, table))
    return [_side_by_side(found) for found in by_title.values() if len(found) > 1]


def _side_by_side(named: Sequence[tuple[str, Table]]) -> Table:
    """One table of the runs' own: each of their rows is a group with a row a run."""
    titles = list(dict.fromkeys(table.title for _, table in named))
    columns = list(dict.fromkeys(key for _, t in named for key in _keys(t.columns)))
    rows: dict[tuple[str, str], list[Row]] = {}
    for name, table in named:
        for row in table.rows:
            cells = dict(zip(_keys(table.columns), row.cells, strict=True))
            heading = f"{row.name} ({row.note})" if row.note else row.name
            rows.setdefault((row.group, heading), []).append(
                Row(
                    name,
                    [cells.get(key) for key in columns],
                    group=heading,
                    reference=row.reference,
                )
            )
    note = _of_each(named, "note")
    return Table(
        title=titles[0] if len(titles) == 1 else "The main tables of the runs.",
        columns=[column for _, column in columns],
        rows=[row for group in rows.values() for row in group if any(row.cells)],
        corner="Run",
        note=" ".join(
            filter(None, [_of_each(named, "title") if len(titles) > 1 else "", note])
        ),
    )


def _of_each(named: Sequence[tuple[str, Table]], field: str) -> str:
    """What all tables say in a field, or by which of them it is said."""
    by_text: dict[str, list[str]] = {}
    for name, table in named:
        by_text.setdefault(getattr(table, field), []).append(name)
    if len(by_text) == 1:
        return next(iter(by_text))
    return " ".join(f"{'; '.join(names)}: {said}" for said, names in by_text.items())


def _keys(columns: Iterable[Column]) -> list[tuple[str, Column]]:
    """Each column with the last one before it whose name no other has.

    Of the columns "a", "threshold", "b", "threshold" the last two belong together.
    """
    columns = list(columns)
    count = Counter(column.name for column in columns)
    keys, anchor = [], ""
    for column in columns:
        anchor = column.name if count[column.name] == 1 else anchor
        keys.append((anchor, column))
    return keys


# --- Charts and words


def _by_run(runs: Sequence[Run], *, pressure: bool) -> list[Chart]:
    """A chart of each line that more than one run has, with a line a run."""
    drawn = []
    for key in dict.fromkeys(key for run in runs for key in run.lines):
        found = [run.lines.get(key) for run in runs]
        known = [chart for pair in found if pair for chart in [pair[0]]]
        if len(known) < 2 or known[0].doubling is not pressure:
            continue
        series = [
            # One without points keeps its colour's place.
            dataclasses.replace(pair[1] if pair else Series("", (), ()), name=run.name)
            for pair, run in zip(found, runs, strict=True)
        ]
        title = ": ".join(filter(None, key[1:]))
        drawn.append(dataclasses.replace(known[0], title=title, series=series))
    return sorted(drawn, key=lambda chart: _first(drawn, chart.group))


def _first(drawn: Sequence[Chart], group: str) -> int:
    """Charts of one group stand together."""
    return next(k for k, chart in enumerate(drawn) if chart.group == group)


def _said(run: Run) -> str:
    seeds = ", ".join(map(str, run.seeds))
    said = f"seed{'s' * (len(run.seeds) > 1)} {seeds} ({', '.join(run.folders)})"
    return f"{said}; {run.apart}" if run.apart else said


def _differing(runs: Sequence[Run]) -> str:
    """In what the runs differ, as JSON: field, or data file -> run -> value."""
    values = _other_fields(runs) | _other_files(runs)
    return json.dumps(values, indent=2) if values else ""


def _other_fields(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """The fields in which the configs differ -> run -> value."""
    first, *rest = (flat(run.config) for run in runs)
    changed = [
        {name: (there, now) for name, there, now in differences(first, tree, _FREE)}
        for tree in (first, *rest)
    ]
    there = {name: pair[0] for fields in changed for name, pair in fields.items()}
    return {
        name: {
            run.name: fields[name][1] if name in fields else there[name]
            for run, fields in zip(runs, changed, strict=True)
        }
        for name in sorted(there)
    }


def _other_files(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """The files that runs have under the same name with other contents -> run -> it."""
    out: dict[str, dict[str, Any]] = {}
    for first, second in itertools.combinations(runs, 2):
        for name, there, here in other_files(first.data, second.data):
            out.setdefault(name, {}).update({first.name: there, second.name: here})
    return out
