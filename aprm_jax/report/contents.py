"""What a report shows, as plain data: the job that reads a workdir fills it in.

Rates, accuracies and scores are fractions (0.732); the page prints percent. Text may
come from a model and may hold anything: the page escapes all of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

Style = Literal["percent", "points", "number", "count"]
Numbers = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number with its 95 % interval, where there is one."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclasses.dataclass(frozen=True)
class Column:
    """A table's column.

    Attributes:
      name: heading.
      style: "percent" of a fraction, "points" (a signed difference of fractions),
        "number" or "count".
      best: which extreme is set in bold: "max", "min" or none.
      share: of "number": whether it lies between 0 and 1, as "percent" always does.
    """

    name: str
    style: Style = "percent"
    best: Literal["max", "min", ""] = "max"
    share: bool = dataclasses.field(default=False, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Row:
    """A table's row.

    Attributes:
      name: heading.
      cells: one a column; None or a NaN value where nothing was measured.
      group: rows of one group stand under its heading.
      own: our method: highlighted.
      reference: an upper bound or the like: never set in bold as the best.
      note: small print under the name.
      opens: whether the page may open with it, where it is our own.
      of: whose it is, where several rows are of one verifier.
    """

    name: str
    cells: Sequence[Cell | float | None]
    group: str = ""
    own: bool = False
    reference: bool = False
    note: str = ""
    opens: bool = True
    of: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with one heading column."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    corner: str = ""
    note: str = ""


_CUT = "Intervals of shares are cut at what is possible, 0 and 100 %."


def printed(table: Table) -> Table:
    """A table as people see it: intervals of shares end where shares do.

    Student's over seeds are symmetric and go beyond. Files keep them whole; a table
    that lost an end says so in its note.
    """
    rows = [
        dataclasses.replace(row, cells=list(map(_within, row.cells, table.columns)))
        if len(row.cells) == len(table.columns)
        else row
        for row in table.rows
    ]
    pairs = zip(rows, table.rows, strict=True)
    if all(list(map(id, new.cells)) == list(map(id, old.cells)) for new, old in pairs):
        return table
    return dataclasses.replace(table, rows=rows, note=f"{table.note} {_CUT}".strip())


def _within(cell: Cell | float | None, column: Column) -> Cell | float | None:
    """The same object where nothing is cut."""
    share = column.style == "percent" or column.share
    if not share or not isinstance(cell, Cell) or math.isnan(cell.value):
        return cell
    # A NaN end is less than nothing, and stays.
    low = 0.0 if cell.low < 0 else cell.low
    high = 1.0 if cell.high > 1 else cell.high
    if (low, high) == (cell.low, cell.high) or math.isnan(cell.low):
        return cell
    return Cell(cell.value, low, high)


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart; NaN in `y` is a gap. `low`, `high`: an optional band.

    `straight`: it is known between its points too, as a line to compare with is.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    straight: bool = dataclasses.field(default=False, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines on common axes. Charts of one `group` stand under its heading.

    `doubling`: x is drawn by its logarithm, with a tick at each point.
    """

    title: str
    series: Sequence[Series]
    x_label: str = "iteration"
    style: Literal["percent", "number"] = "percent"
    group: str = ""
    note: str = ""
    doubling: bool = False


@dataclasses.dataclass(frozen=True)
class Progression:
    """The progression of negatives: what G makes against what R can judge.

    Attributes:
      x: iterations.
      shares: kind of error → its share of G's wrong steps at each x.
      accuracy: kind of error → R's accuracy on it at each x, NaN where there was none.
      note: caption.
    """

    x: Numbers
    shares: Mapping[str, Numbers]
    accuracy: Mapping[str, Numbers]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """One sampled perturbation.

    Attributes:
      iteration: when.
      question: the problem.
      previous: the line before the step; "" for a first step.
      original: the correct step.
      perturbed: what G made of it.
      kind: the oracle's kind.
      score: R's probability of "correct".
      incorrect: the oracle's verdict; None for undecidable.
    """

    iteration: int
    question: str
    previous: str
    original: str
    perturbed: str
    kind: str
    score: float
    incorrect: bool | None = True


@dataclasses.dataclass(frozen=True)
class ScoredStep:
    """A step with its score; `correct` is the oracle's verdict where there is one."""

    text: str
    score: float
    correct: bool | None = None
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution whose steps were scored.

    Attributes:
      question: what it solves.
      steps: its steps.
      answer: what it arrives at; None where it states none.
      expected: the right answer; None where its steps alone are judged, by labels.
      correct: whether the answer is right, or no step wrong.
      split: where the question is from.
      method: what chose or scored it.
    """

    question: str
    steps: Sequence[ScoredStep]
    answer: str | None
    expected: str | None
    correct: bool
    split: str = ""
    method: str = ""


@dataclasses.dataclass(frozen=True)
class Branch:
    """A step of a search tree, and what followed it.

    Attributes:
      text: the step.
      score: what the search ordered by, as a probability; NaN where it was not read.
      count: samples that it stands for.
      finished: whether it concludes a solution.
      dropped: whether the search gave it up.
      won: whether it is a step of the solution that was chosen.
      children: the best first.
      left_out: further children, that the page has no room for.
    """

    text: str
    score: float
    count: int
    finished: bool
    dropped: bool
    won: bool
    children: Sequence[Branch] = ()
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class SearchTree:
    """The search for one question's answer.

    Attributes:
      question: the root.
      branches: its first steps, the best first.
      answer: the one chosen; None for none.
      expected: the right one; None where nobody says.
      correct: whether they are the same; None where nobody says.
      why: what decided, or what was in the way.
      method: what searched with what.
      left_out: as of a branch.
    """

    question: str
    branches: Sequence[Branch]
    answer: str | None
    expected: str | None
    correct: bool | None
    why: str
    method: str
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where a job's wall time went: phase → seconds."""

    job: str
    phases: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything on the page; an empty field leaves its section out.

    Attributes:
      title: the page's title.
      subtitle: one line under it.
      headline: the result in one sentence; derived from `main_table` where empty.
      facts: (label, value) pairs under the headline: seeds, device, commit.
      main_table: rows methods, columns splits.
      tables: all further tables.
      pressure: accuracy of best-of-n against n.
      bands: what those of `pressure` are.
      charts: training curves.
      progression: the progression of negatives.
      perturbations: samples over time.
      solutions: scored solutions.
      trees: of searches.
      timings: one a job.
      summary: dotted name → number, all of `summary.json`.
      config: the config as text.
    """

    title: str
    subtitle: str = ""
    headline: str = ""
    facts: Sequence[tuple[str, str]] = ()
    main_table: Table | None = None
    tables: Sequence[Table] = ()
    pressure: Sequence[Chart] = ()
    bands: str = "95 % over problems"
    charts: Sequence[Chart] = ()
    progression: Progression | None = None
    perturbations: Sequence[Perturbation] = ()
    solutions: Sequence[Solution] = ()
    trees: Sequence[SearchTree] = ()
    timings: Sequence[Timing] = ()
    summary: Mapping[str, float] = dataclasses.field(default_factory=dict)
    config: str = ""
