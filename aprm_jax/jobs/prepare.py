"""Reads data sets once, cleans, splits and tokenises them, and keeps the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config import Config, ConfigError
from aprm_jax.data import selection
from aprm_jax.data.contamination import ContaminationIndex
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import LabelledSolution, question_id
from aprm_jax.data.labelled_texts import split_source
from aprm_jax.data.prepared import (
    NAME,
    PreparedRow,
    builder_settings,
    read_metadata,
    write_prepared,
)
from aprm_jax.data.readers import sources
from aprm_jax.data.sources import source_path
from aprm_jax.data.steps import RowFormat
from aprm_jax.jobs.context import Context, log

_SHOWN = 20  # overlapping questions that the metadata lists
_MANY = 0.1  # of the solutions: so many lost are said


def run(context: Context) -> dict[str, float]:
    """Writes the stage's folder `prepared`, and returns its counts."""
    context = context.of("solver")  # whose ids sft learns from
    c = context.config.prepare
    dropped = selection.Dropped()
    found: list[LabelledSolution] = []
    for source in c.sources:
        rows = selection.read_solutions(
            source,
            label=c.label,
            label_cut=context.config.domain.label_cut,
            dropped=dropped,
            **context.limits,
        )
        log.info("%s: %d solutions of %s", context.stage, len(rows), source)
        found += rows
    found = selection.without_repeats(found, dropped)
    index = ContaminationIndex(c.ngram, c.max_overlap)
    for source in c.against:
        index.add(source, selection.read_questions(source, **context.limits))
    found, overlaps = selection.without_contamination(
        found, index, dropped, refuse=c.contaminated == "refuse"
    )
    for question, overlap in list(overlaps.items())[:3]:
        log.info(
            "%s: left out, %.0f %% in %s: %.80s",
            context.stage,
            100 * overlap.share,
            overlap.evaluation,
            question,
        )
    if not found:
        lost = (f"{n} {name}" for name, n in dataclasses.asdict(dropped).items() if n)
        raise DataError(
            f"prepare.sources: no solution of {', '.join(c.sources)} is left: "
            f"{', '.join(lost).replace('_', ' ')}"
        )
    splits: dict[str, list[LabelledSolution]] = {selection.TRAIN: [], selection.DEV: []}
    for solution in found:
        splits[selection.split_of(solution.question, c.dev_share)].append(solution)
    limits = _Limits(
        c.max_tokens or context.builder.buckets[-1], context.config.builder.max_steps
    )
    folder = context.directory / NAME

    def metadata() -> dict[str, Any]:
        return {
            "builder": builder_settings(context.builder),
            "sources": list(c.sources),
            "against": list(c.against),
            "label": c.label,
            "max_tokens": limits.tokens,
            "max_steps": limits.steps,
            "dropped": dataclasses.asdict(dropped),
            "contaminated": [
                {"question": question, **dataclasses.asdict(overlap)}
                for question, overlap in list(overlaps.items())[:_SHOWN]
            ],
        }

    try:
        write_prepared(
            folder,
            {
                name: _rows(context.builder, solutions, limits, dropped)
                for name, solutions in splits.items()
            },
            metadata,
            rows_per_file=c.rows_per_file,
        )
    finally:  # where nothing is left, it is why
        _warn_of_losses(context.stage, len(found), dropped)
    numbers = _numbers(read_metadata(folder))
    log.info(
        "%s: %s", context.stage, ", ".join(f"{k} {v:g}" for k, v in numbers.items())
    )
    return numbers


def _warn_of_losses(stage: str, count: int, dropped: selection.Dropped) -> None:
    """Says so where many solutions are too long for the rows."""
    lost = dropped.too_many_steps + dropped.too_long
    if lost > _MANY * count:
        log.warning(
            "%s: %d of %d solutions do not fit and are left out: %d have more than "
            "builder.max_steps steps, %d more tokens than prepare.max_tokens, or the "
            "longest of builder.buckets; raise them",
            *(stage, lost, count, dropped.too_many_steps, dropped.too_long),
        )


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """Readers and files that the config names exist.

    Raises:
      ConfigError, DataError: names the field and what would be right.
    """
    _check_sources(context.config)


def prepared_folder(context: Context) -> Path:
    """The folder that `sft.data` names: a stage of this run, or a folder."""
    source = context.config.sft.data
    stage = context.root / source / NAME
    return stage if stage.is_dir() else Path(source)


def _check_sources(c: Config) -> None:
    if c.domain.name == "arithmetic":
        raise ConfigError(
            "job=prepare tokenises text, and the embedded problems' tokenizer knows "
            "none: set domain.name to 'gsm8k' or 'labelled', and domain.train"
        )
    if not c.prepare.sources:
        raise ConfigError(
            "prepare.sources is empty: give READER:SOURCE, for example "
            "('gsm8k:data/gsm8k/train.jsonl',)"
        )
    for field in ("sources", "against"):
        for text in getattr(c.prepare, field):
            name, source = split_source(text, f"prepare.{field}")
            if name not in sources():
                raise DataError(
                    f"prepare.{field}: {text!r}: no reader is called {name!r}; there "
                    f"are {', '.join(sources())}"
                )
            path = source_path(source) if source else None
            if path is not None and not path.exists():
                raise DataError(f"prepare.{field}: {path}: no such file")


@dataclasses.dataclass(frozen=True)
class _Limits:
    tokens: int
    steps: int


def _rows(
    builder: RowFormat,
    solutions: Iterable[LabelledSolution],
    limits: _Limits,
    dropped: selection.Dropped,
) -> Iterator[PreparedRow]:
    """Rows of ids. What does not fit is counted, never cut: labels would go with it."""
    for solution in solutions:
        if len(solution.steps) > limits.steps:
            dropped.too_many_steps += 1
            continue
        row = builder.solution(solution.question, solution.steps, solution.labels)
        if len(row) > limits.tokens:
            dropped.too_long += 1
            continue
        yield PreparedRow(row, question_id(solution.question), solution.source)


def _numbers(metadata: dict[str, Any]) -> dict[str, float]:
    numbers = {
        f"{split}.{name}": float(count)
        for split, counts in metadata["splits"].items()
        for name, count in counts.items()
    }
    dropped = metadata["dropped"].items()
    return numbers | {f"dropped.{name}": float(n) for name, n in dropped if n}
