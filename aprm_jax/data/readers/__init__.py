"""Readers of published data sets: one small module each, found by `SOURCES` in it.

    read_problems("datasets:openai/gsm8k", "gsm8k", split="test")
    read_steps("data/phase1_train.jsonl.gz", "prm800k")

To add a data set, add a module here whose `SOURCES` lists `ProblemSource` or
`StepSource` values.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import logging
import pkgutil
from typing import Any, TypeVar, Unpack

from aprm_jax.data.jsonl import DataError, Limits, Rows
from aprm_jax.data.labelled import (
    LABEL_KINDS,
    NEUTRAL,
    LabelledSolution,
    Solutions,
    as_kind,
    question_id,
)
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    Source,
    StepSource,
)
from aprm_jax.data.sources import read_source, source_path

__all__ = [
    "MathProblem",
    "ProblemSource",
    "Source",
    "StepSource",
    "read_problems",
    "read_steps",
    "sources",
]

T = TypeVar("T", MathProblem, LabelledSolution)


@functools.cache
def sources() -> dict[str, Source]:
    """Every known data set by name."""
    found: dict[str, Source] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for source in getattr(loaded, "SOURCES", ()):
            if source.name in found:
                raise ValueError(f"two readers are called {source.name!r}")
            found[source.name] = source
    return dict(sorted(found.items()))


def read_problems(
    source: str, name: str, *, split: str = "", **limits: Unpack[Limits]
) -> Rows[MathProblem]:
    """Reads the problems of a data set.

    Args:
      source: a file, a folder of files, or a name (see `data/sources.py`); "" for the
        data set's own name on the Hugging Face hub.
      name: of the data set, one of `sources()`.
      split: of the source; "" for a named data set's usual one, and for all of a path.
      limits: what is done about bad rows.

    Raises:
      DataError: there is no such reader or source, or too many rows are bad.
    """
    reader = _reader(name, ProblemSource, "problems")
    return _read(reader, source, split, limits)


def read_steps(
    source: str,
    name: str,
    *,
    split: str = "",
    label: str = "soft",
    label_cut: float = NEUTRAL,
    unique: bool = True,
    **limits: Unpack[Limits],
) -> Solutions:
    """Reads solutions with labelled steps.

    Args:
      source: see `read_problems`.
      name: of the data set, one of `sources()`.
      split: see `read_problems`.
      label: kind of the labels, see `labelled.as_kind`. "soft" is what the data set
        says, a neutral rating as 0.5.
      label_cut: of the kind "hard", likewise.
      unique: leaves out a solution whose text and labels came before.
      limits: what is done about bad rows.

    Returns:
      The solutions that have a label at all; the others are counted.
    """
    if label not in LABEL_KINDS:
        raise ValueError(f"label must be one of {LABEL_KINDS}, not {label!r}")
    reader = _reader(name, StepSource, "labelled steps")
    read = _read(reader, source, split, limits)
    kept = Solutions()
    kept.num_bad = read.num_bad
    seen: set[Any] = set()
    for solution in read:
        if not solution.num_labelled:
            kept.num_unlabelled += 1
            continue
        # repr: NaN equals nothing, itself included.
        key = (solution.question, solution.steps, repr(solution.labels))
        if unique and key in seen:
            kept.num_repeated += 1
            continue
        seen.add(key)
        kept.num_ignored += solution.ignored > 0
        kept.append(as_kind(solution, label, label_cut))
    if kept.num_ignored:
        logging.warning(
            "%s: %d solutions have labels of steps that they do not have: ignored",
            source or name,
            kept.num_ignored,
        )
    return kept


def _reader(name: str, kind: type[Source[T]], what: str) -> Source[T]:
    known = [n for n, source in sources().items() if isinstance(source, kind)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"no reader of {what} is called {name!r}; there are "
            f"{', '.join(known)}.{hint}"
        )
    return sources()[name]


def _read(reader: Source[T], source: str, split: str, limits: Limits) -> Rows[T]:
    """The items of all rows, with what their rows do not say of where they are from."""
    if not source:
        if not reader.hub:
            raise DataError(f"{reader.name} has no name on the hub: give a path")
        source = reader.hub[0]
    rows = read_source(source, split, reader.parse, usual_split=reader.split, **limits)
    path = source_path(source)
    where = split or (reader.split if path is None else path.name.partition(".")[0])
    items: Rows[T] = Rows(
        dataclasses.replace(
            item,
            source=item.source or reader.name,
            split=item.split or where,
            problem_id=item.problem_id or question_id(item.question),
        )
        for row in rows
        for item in row
    )
    if reader.check is not None:
        reader.check(source, items)
    items.num_bad = rows.num_bad
    return items
