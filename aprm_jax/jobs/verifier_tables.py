"""Tables with a row a verifier: whose rows there are, and which records fill them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aprm_jax.config import Config, for_stage, stages
from aprm_jax.evals.records import Record, Results
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.step_data import CHANCE, LIKELIHOOD, POSITION
from aprm_jax.models.io import SPEC_FILE, read_object
from aprm_jax.report.contents import Cell, Column, Row, Table

NO_TRAINING, TRAINED, UPPER_BOUND = "No training", "PRM", "Upper bound"
NO_MODEL, GIVEN = "No model", "Scores from a file"
MAIN_AGGREGATION = "min"
OWN = "{how}"  # in the metric of a figure: each verifier's own aggregation
_NEGATIVES = {
    "static": "PRM, static corruptions",
    "monte_carlo": "PRM, Monte-Carlo labels",
    "oracle": "PRM, oracle labels",
    "labels": "PRM, labels of the data",
    "outcome": "ORM, answers of the solver's samples",
    "values": "value model, search trees (ReST-MCTS*)",
}


@dataclasses.dataclass(frozen=True)
class Verifier:
    """What a table says of a stage that trained a PRM, or of something beside it.

    Attributes:
      key: its name in the records.
      name: for people.
      group: heading that it stands under.
      own: whether it is APRM.
      aggregation: of its step scores, in tables that show one alone.
    """

    key: str
    name: str
    group: str
    own: bool = False
    aggregation: str = MAIN_AGGREGATION


def verifiers(config: Config) -> list[Verifier]:
    """Whoever scores steps in a run, in the order of the tables' rows.

    Of a labelled domain: baselines, the run's PRMs, then what came from files. Else the
    likelihood and the PRMs, upper bounds last.
    """
    trained = _trained(config)
    if config.domain.name == "labelled":
        files = [str(entry).partition("=")[0] for entry in config.evaluate.scores]
        return [
            Verifier(CHANCE, "chance", NO_MODEL),
            Verifier(POSITION, "position of the step", NO_MODEL),
            Verifier(LIKELIHOOD, "likelihood of the language model", NO_MODEL),
            *(dataclasses.replace(v, own=True) for v in trained),
            *(Verifier(name, name, GIVEN) for name in files),
        ]
    if config.evaluate.solver not in ("", ENDPOINT):
        trained.append(Verifier(LIKELIHOOD, "likelihood of the solver", NO_TRAINING))
    order = (NO_TRAINING, TRAINED, UPPER_BOUND)
    return sorted(trained, key=lambda v: (order.index(v.group), v.own))


def _trained(config: Config) -> list[Verifier]:
    """`evaluate.prms`; no two names are equal."""
    jobs = dict(stages(config))
    trained = []
    for key in config.evaluate.prms:
        job = jobs.get(key)
        stage = for_stage(config, key) if job else config
        if job == "aprm" and stage.game.freeze_generator:
            trained.append(Verifier(key, "PRM, frozen Generator", TRAINED))
        elif job == "aprm":
            trained.append(Verifier(key, "APRM", TRAINED, own=True))
        elif job == "prm":
            negatives = stage.prm.negatives
            group = UPPER_BOUND if negatives == "oracle" else TRAINED
            # An ORM judges whole solutions, and a value is of all up to its step.
            how = "last" if negatives in ("outcome", "values") else MAIN_AGGREGATION
            name, how = _NEGATIVES[negatives], _measured(config, how)
            trained.append(Verifier(key, name, group, aggregation=how))
        elif job == "pav":
            last = "last" in config.evaluate.aggregations
            how = "last" if last else MAIN_AGGREGATION
            trained.append(Verifier(key, "values (PAV)", TRAINED, aggregation=how))
        else:
            name = "PRM, as published" if key == BACKBONE else f"PRM {_short(key)}"
            how = _measured(config, _stated_aggregation(key))
            trained.append(Verifier(key, name, TRAINED, aggregation=how))
    shared = {v.name for v in trained if sum(v.name == w.name for w in trained) > 1}
    return [
        dataclasses.replace(v, name=f"{v.name}: {v.key}") if v.name in shared else v
        for v in trained
    ]


def _measured(config: Config, how: str) -> str:
    """A verifier's own aggregation, where there are figures of it."""
    return how if how in config.evaluate.aggregations else MAIN_AGGREGATION


def _stated_aggregation(folder: str) -> str:
    """What a model's folder says that it is read by."""
    for path in (Path(folder) / "model", Path(folder)):
        if (path / SPEC_FILE).is_file():
            return str(read_object(path / SPEC_FILE).get("aggregation", "min"))
    return MAIN_AGGREGATION


def _short(folder: str) -> str:
    """RUN/STAGE of a model's folder that is no stage of this run."""
    parts = [part for part in Path(folder).parts if part != "model"]
    return "/".join(parts[-2:])


class Figure(NamedTuple):
    """A column of a table with a row a verifier: which record stands in it.

    `OWN` in the metric is the aggregation that the verifier is read by.
    """

    column: Column
    set: str
    split: str
    metric: str
    part: str = ""


def cell(record: Record | None) -> Cell | None:
    """A number with its interval, None where it was not measured."""
    if record is None or math.isnan(record.value):
        return None
    return Cell(record.value, record.low, record.high)


def by_verifier(
    config: Config,
    results: Results,
    title: str,
    figures: Sequence[Figure],
    note: str = "",
) -> Table:
    """A row a verifier."""
    labelled = config.domain.name == "labelled"
    return Table(
        title=title,
        columns=[figure.column for figure in figures],
        corner="Scores by" if labelled else "",
        rows=[
            Row(
                v.name,
                [
                    cell(results.find(f.set, f.split, v.key, metric, f.part))
                    for f in figures
                    for metric in [f.metric.replace(OWN, v.aggregation)]
                ],
                group=v.group if labelled else "",
                own=v.own,
                reference=v.group == UPPER_BOUND,
                note="" if v.group in (NO_MODEL, GIVEN) else v.key,
            )
            for v in verifiers(config)
        ],
        note=note,
    )
