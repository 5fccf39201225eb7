"""Tables with a row a verifier: whose rows there are, and which records fill them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aprm_jax.config import Config, for_stage, stages
from aprm_jax.config.addresses import is_address
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


_LIKELIHOOD = Verifier(LIKELIHOOD, "likelihood of the language model", NO_MODEL)


def verifiers(config: Config) -> list[Verifier]:
    """Whoever scores steps in a run, in the order of the tables' rows.

    Of a labelled domain: baselines, the run's PRMs, then what came from files. Else the
    likelihood and the PRMs, upper bounds last.
    """
    found = _verifiers(config)
    measured = config.evaluate.aggregations
    return [
        dataclasses.replace(v, aggregation=shown_aggregation(v.aggregation, measured))
        for v in found
    ]


def shown_aggregation(own: str, measured: Sequence[str]) -> str:
    """What a verifier is read by: its own way, else one that there are figures of."""
    return next(
        (how for how in (own, MAIN_AGGREGATION) if how in measured), measured[0]
    )


def _verifiers(config: Config) -> list[Verifier]:
    trained = _trained(config)
    # Of a server nobody asks the likelihood of others' text.
    has_likelihood = config.evaluate.solver not in ("", ENDPOINT)
    if config.domain.name == "labelled":
        files = [str(entry).partition("=")[0] for entry in config.evaluate.scores]
        return [
            Verifier(CHANCE, "chance", NO_MODEL),
            Verifier(POSITION, "position of the step", NO_MODEL),
            *([_LIKELIHOOD] if has_likelihood else []),
            *(dataclasses.replace(v, own=True) for v in trained),
            *(Verifier(name, name, GIVEN) for name in files),
        ]
    if has_likelihood:
        trained.append(Verifier(LIKELIHOOD, "likelihood of the solver", NO_TRAINING))
    order = (NO_TRAINING, TRAINED, UPPER_BOUND)
    return sorted(trained, key=lambda v: (order.index(v.group), v.own))


def _trained(config: Config) -> list[Verifier]:
    """`evaluate.prms`; no two names are equal."""
    jobs = dict(stages(config))
    trained = []
    for key in config.evaluate.prms:
        job, group = jobs.get(key), TRAINED
        stage = for_stage(config, key) if job else config
        if job == "aprm":
            name = "PRM, frozen Generator" if stage.game.freeze_generator else "APRM"
        elif job == "prm":
            name = _NEGATIVES[stage.prm.negatives]
            group = UPPER_BOUND if stage.prm.negatives == "oracle" else TRAINED
        elif job == "pav":
            name = "values (PAV)"
        else:
            name = "PRM, as published" if key == BACKBONE else f"PRM {_short(key)}"
            name = key if is_address(key) else name
        how, own = _stated_aggregation(config, key), name == "APRM"
        trained.append(Verifier(key, name, group, own=own, aggregation=how))
    shared = {v.name for v in trained if sum(v.name == w.name for w in trained) > 1}
    return [
        dataclasses.replace(v, name=f"{v.name}: {v.key}") if v.name in shared else v
        for v in trained
    ]


def _stated_aggregation(config: Config, key: str) -> str:
    """What a stage, or a model's folder, says that its scores are read by."""
    job = dict(stages(config)).get(key)
    if job is None:
        for path in (Path(key) / "model", Path(key)):
            if (path / SPEC_FILE).is_file():
                return str(read_object(path / SPEC_FILE).get("aggregation", "min"))
        return MAIN_AGGREGATION
    stage = for_stage(config, key)
    if job == "aprm" and stage.game.right_targets == "reference":
        return _stated_aggregation(config, stage.game.prm_from)  # it goes on from it
    # An ORM judges whole solutions, and a value is of all up to its step.
    last = job == "prm" and stage.prm.negatives in ("outcome", "values")
    return "last" if last or job == "pav" else "min"


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


def over(units: str, seeds: int) -> str:
    """What an interval of one run, or of the mean of several, is over."""
    return units if seeds == 1 else "seeds"


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
                of=v.key,
            )
            for v in verifiers(config)
        ],
        note=note,
    )
