"""The sets and files that an evaluation reads: labelled solutions, scores, outcomes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import ConfigError, nearest
from aprm_jax.data.gsm8k import ModelSolution, read_model_solutions
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import LabelledSolution, question_id
from aprm_jax.data.labelled_texts import read_labelled, split_source
from aprm_jax.data.readers import read_steps
from aprm_jax.evals import step_sets
from aprm_jax.evals.scores_file import read_scores
from aprm_jax.evals.step_sets import StepSet
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.records.evaluate import THRESHOLDS
from aprm_jax.tasks.labelled import LabelledDomain

CHANCE, POSITION, LIKELIHOOD = "chance", "position", "likelihood"
DEV = "dev"  # as THRESHOLDS, no name for a set
TEST = "test"  # questions of the training data that are held out to test on
PROCESSBENCH = "processbench"  # name of the set of `domain.processbench`


def dev_set(context: Context) -> StepSet:
    """The held-out questions of a labelled domain.

    Raises:
      DataError: they are a benchmark's.
    """
    domain = context.domain
    assert isinstance(domain, LabelledDomain)
    data = _held_out(context, DEV, domain.dev)
    if data.kind != step_sets.STEPS:
        raise DataError(
            f"domain.train: {data.reader} is a benchmark, not a set of step labels to "
            "train on and to choose thresholds from"
        )
    return data


def _held_out(context: Context, name: str, rows: Sequence[LabelledSolution]) -> StepSet:
    c = context.config
    reader, _ = split_source(c.domain.train, "domain.train")
    return step_sets.step_set(
        name, reader, rows, c.evaluate.neutral, c.domain.label_cut
    )


def evaluation_sets(context: Context) -> list[StepSet]:
    """A held-out test and those of `evaluate.sets`, or `domain.processbench`.

    Raises:
      DataError: a source cannot be used, or a set's name is taken.
    """
    c = context.config
    domain, held = context.domain, []
    if isinstance(domain, LabelledDomain) and domain.test:
        held = [_held_out(context, TEST, domain.test)]
        if not held[0].rows:
            raise DataError("domain.train: no step of the held-out test is labelled")
        if any(entry.partition("=")[0] == TEST for entry in c.evaluate.sets):
            raise DataError(
                f"evaluate.sets: {TEST!r} is held out of domain.train already "
                "(domain.dev_count=0)"
            )
    return held + list(
        _sets(
            tuple(c.evaluate.sets),
            c.domain.processbench if c.domain.name != "labelled" else "",
            c.evaluate.neutral,
            c.domain.label_cut,
            tuple(context.limits.items()),
        )
    )


@functools.lru_cache(maxsize=2)
def _sets(
    entries: tuple[str, ...],
    bench: str,
    neutral: str,
    cut: float,
    limits: tuple[tuple[str, Any], ...],
) -> tuple[StepSet, ...]:
    sets = []
    for entry in entries:
        name, _, source = entry.partition("=")
        if name in (DEV, THRESHOLDS):
            raise DataError(f"evaluate.sets: {name!r} is the domain's own dev split")
        reader, _ = split_source(source, "evaluate.sets")
        rows = read_labelled(source, unique=False, **dict(limits))
        made = step_sets.step_set(name, reader, rows, neutral, cut)
        if not made.rows:
            raise DataError(f"evaluate.sets: {entry}: no solution has a labelled step")
        sets.append(made)
    if bench:
        rows = read_steps(bench, "processbench", unique=False, **dict(limits))
        sets.append(step_sets.step_set(PROCESSBENCH, "processbench", rows))
    return tuple(sets)


def read_graded(context: Context) -> list[ModelSolution]:
    """The file `domain.model_solutions`, its first `evaluate.graded` solutions."""
    c = context.config.domain
    rows = read_model_solutions(
        c.model_solutions,
        strip_annotations=c.strip_annotations,
        **context.limits,
    )
    return rows[: context.config.evaluate.graded or None]


def given_scores(context: Context) -> dict[str, dict[str, list[np.ndarray]]]:
    """Verifier -> set -> probabilities of `evaluate.scores`.

    An entry is a folder with one `SET.jsonl` for each set that was scored, or a file if
    there is one set only.

    Raises:
      DataError: a file is missing or does not match its set, see `read_scores`.
    """
    c = context.config.evaluate
    if not c.scores:
        return {}
    sets = [dev_set(context), *evaluation_sets(context)]
    out: dict[str, dict[str, list[np.ndarray]]] = {}
    for entry in c.scores:
        name, _, where = entry.partition("=")
        if name in (CHANCE, POSITION, LIKELIHOOD, *c.prms):
            raise DataError(f"evaluate.scores: the name {name!r} is taken")
        path = Path(where)
        if path.is_file() and len(c.sets) == 1:
            files = {c.sets[0].partition("=")[0]: path}
        elif path.is_file():
            raise DataError(
                f"evaluate.scores: {path} is a file, but there are {len(c.sets)} sets: "
                "give a folder with a NAME.jsonl for each"
            )
        else:
            files = {s.name: path / f"{s.name}.jsonl" for s in sets}
            files = {key: file for key, file in files.items() if file.is_file()}
        if not files:
            names = ", ".join(f"{s.name}.jsonl" for s in sets)
            raise DataError(f"evaluate.scores: {path} has none of {names}")
        out[name] = {
            s.name: read_scores(files[s.name], s.ids, s.sizes)
            for s in sets
            if s.name in files
        }
    return out


def _warn_of_seen(name: str, count: int, where: str) -> None:
    if count:
        log.warning(
            "evaluate.sets: %d questions of %s are in %s: its figures say less",
            count,
            name,
            where,
        )


def check(context: Context) -> None:
    """Reads every set and every file of scores: nothing was compiled yet.

    Raises:
      ConfigError: the domain has no such split.
      DataError: one of them cannot be used, or there is nothing to measure on.
    """
    c = context.config
    if c.domain.name != "labelled" and c.domain.model_solutions:
        read_graded(context)
    domain = context.domain
    if not isinstance(domain, LabelledDomain):
        evaluation_sets(context)
        splits = list(domain.splits)
        for field in ("splits", "solver_splits") if c.evaluate.solvers else ("splits",):
            for split in getattr(c.evaluate, field):
                if split not in splits:
                    raise ConfigError(
                        f"evaluate.{field}: {domain.name} has no split {split!r}, "
                        f"only {', '.join(splits)}.{nearest(split, splits)}"
                    )
        return
    if not c.evaluate.sets and not domain.test:
        raise DataError(
            "evaluate.sets is empty: name what to measure on, for example "
            "test=prm800k:data/prm800k/phase1_test.jsonl.gz, or hold a test out with "
            "domain.dev_count=0"
        )
    known = {question_id(row.question) for row in domain.labelled}
    dev = {question_id(row.question) for row in domain.dev}
    for data in (dev_set(context), *evaluation_sets(context)):
        asked = {question_id(row.question) for row in data.rows}
        _warn_of_seen(data.name, len(asked & known), "the training data")
        if data.name != DEV:
            _warn_of_seen(data.name, len(asked & dev), "dev, which chooses thresholds")
    given_scores(context)
