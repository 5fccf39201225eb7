"""Results of an evaluation as records, and a view that is looked up, never parsed.

A record names what it measures in fields of its own, so that a verifier may be called
anything: a stage, or the folder of another run, dots and all.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.evals.intervals import Interval
from aprm_jax.files import atomic_write, damaged, read_sealed, sealed

RESULTS = "results.json"  # the file of an evaluation, and of a run


@dataclasses.dataclass(frozen=True)
class Record:
    """One number of an evaluation.

    Attributes:
      set: what was measured: "solver", "steps", "kinds", "first_error", "category",
        "outcome", "robustness", "difference".
      split: on which data: a split of the domain, or one of the named sets.
      verifier: whose scores; "" where no verifier took part.
      metric: name of the number, with the method in it where there are several.
      value: the number; NaN where it does not exist.
      low: end of the 95 % interval; NaN where there is none.
      high: likewise.
      part: a subset of the split (a kind of error, a category, a writer); "" for all.
    """

    set: str
    split: str
    verifier: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    part: str = ""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells records apart."""
        return self.set, self.split, self.verifier, self.part, self.metric

    def to_json(self) -> dict[str, Any]:
        """Its fields; what is NaN or empty is left out, but for the value (null)."""
        fields = dataclasses.asdict(self)
        kept = {
            k: v
            for k, v in fields.items()
            if k != "value" and v != "" and not (isinstance(v, float) and math.isnan(v))
        }
        value = fields["value"]
        return kept | {"value": value if math.isfinite(value) else None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`."""
        value = row["value"]
        return cls(
            row["set"],
            row.get("split", ""),
            row.get("verifier", ""),
            row["metric"],
            math.nan if value is None else value,
            row.get("low", math.nan),
            row.get("high", math.nan),
            row.get("part", ""),
        )


class Results:
    """Records by their fields.

    Args:
      records: no two with the same fields.
    """

    def __init__(self, records: Iterable[Record] = ()):
        self._by_key = {record.key: record for record in records}

    def __iter__(self) -> Iterator[Record]:
        return iter(self._by_key.values())

    def find(
        self, set: str, split: str, verifier: str, metric: str, part: str = ""
    ) -> Record | None:
        """The record with these fields, None where there is none."""
        return self._by_key.get((set, split, verifier, part, metric))

    def value(
        self, set: str, split: str, verifier: str, metric: str, part: str = ""
    ) -> float:
        """Its value, NaN where there is none."""
        record = self.find(set, split, verifier, metric, part)
        return math.nan if record is None else record.value

    def parts(self, set: str, split: str) -> list[str]:
        """The subsets of a split, in alphabetical order."""
        chosen = {r.part for r in self if (r.set, r.split) == (set, split) and r.part}
        return sorted(chosen)

    def splits(self, set: str) -> list[str]:
        """The splits of a set, in order of first appearance."""
        return list(dict.fromkeys(r.split for r in self if r.set == set))


def metric_records(
    set: str,
    split: str,
    verifier: str,
    values: Mapping[str, float | Interval],
    part: str = "",
) -> list[Record]:
    """A record for each metric; an `Interval` brings its ends."""
    made = []
    for metric, value in values.items():
        if isinstance(value, Interval):
            ends = (value.mean, value.low, value.high)
        else:
            ends = (float(value), math.nan, math.nan)
        made.append(Record(set, split, verifier, metric, *ends, part=part))
    return made


def by_name(results: Iterable[Record]) -> dict[str, float]:
    """Dotted names to numbers, for people: SET.SPLIT.VERIFIER.PART.METRIC.

    What is empty in a record is left out of the name; the ends of an interval are
    `.low` and `.high` behind it. What is not finite is left out. Nothing reads a name
    again: programs read the records.
    """
    out: dict[str, float] = {}
    for record in results:
        name = ".".join(field for field in record.key if field)
        ends = {name: record.value, f"{name}.low": record.low}
        ends[f"{name}.high"] = record.high
        out |= {key: value for key, value in ends.items() if math.isfinite(value)}
    return out


def ends_by_name(training: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Dotted names to the metrics at the ends of trainings: train.STAGE.METRIC."""
    return {
        f"train.{stage}.{metric.replace('/', '.')}": value
        for stage, metrics in training.items()
        for metric, value in metrics.items()
    }


def write_results(
    path: Path, results: Sequence[Record], more: Mapping[str, Any] | None = None
) -> None:
    """Writes a JSON object with its SHA-256: `records`, one a line, and what else.

    Raises:
      FileError: see `files.atomic_write`.
    """
    content = sealed({**(more or {}), "records": [r.to_json() for r in results]})
    lines = ",\n".join(f"  {json.dumps(row)}" for row in content.pop("records"))
    head = "".join(
        f" {json.dumps(name)}: {json.dumps(value, sort_keys=True)},\n"
        for name, value in content.items()
    )
    atomic_write(path, f'{{\n{head} "records": [\n{lines}\n ]\n}}\n')


def read_results(path: Path, remedy: str) -> tuple[list[Record], dict[str, Any]]:
    """The records of what `write_results` wrote, and what else there is.

    Args:
      path: the file.
      remedy: what to do where it is damaged; ends the message.

    Raises:
      DamagedFileError: it is missing, or not what was written.
    """
    content = read_sealed(path, remedy)
    try:
        return [Record.from_json(row) for row in content.pop("records")], content
    except (KeyError, TypeError, AttributeError):
        raise damaged(path, "has records of another form", remedy) from None
