"""A file of rows in, one of rows out: in order, resumable, one batch held at a time.

What `job=score` and `job=select` share. All that is cheap is looked at first: the input
is read once to its end, its bad rows put aside, and the rows that an earlier start has
written are compared with it; only then is a model loaded.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from aprm_jax.config import Config
from aprm_jax.config.fields import ConfigError, nearest
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.stream import Parsed, stream_rows
from aprm_jax.files import parse_json
from aprm_jax.hf.locate import load_any
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.inputs import Writes
from aprm_jax.jobs.kept_rows import (
    Progress,
    appending,
    check_made_by,
    claimed,
    read_back,
)
from aprm_jax.oracle.steps.calculator import CalculatorOracle
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.tasks.arithmetic import ArithmeticConfig, ArithmeticDomain
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.verifiers.named import (
    ADDRESS,
    check_name,
    fingerprint_of,
    open_verifier,
    split_name,
)
from aprm_jax.verifiers.protocol import Verifier
from aprm_jax.verifiers.served import ServedVerifier, open_served


@runtime_checkable
class _Row(Protocol):
    @property
    def line(self) -> int: ...

    @property
    def key(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


@dataclasses.dataclass(frozen=True)
class RowJob(Generic[Row]):
    """What a job makes of each row of a file.

    Attributes:
      context: of the stage.
      group: the job's settings: input, output, verifiers, combine, batch and its own.
      own: names of those of its own that change what is written.
      parse: a row of an object and its line; raises `RowError`.
      made: what is written of each row, in order, lazily; `line` and `key` are in it.
      whole: whether what was written of a row is all of it.
      count: what a written row adds to the summary.
    """

    context: Context
    group: str
    own: tuple[str, ...]
    parse: Callable[[dict, int], Row]
    made: Callable[[Iterable[Row], Verifier], Iterator[dict[str, Any]]]
    whole: Callable[[Row, dict[str, Any]], bool]
    count: Callable[[dict[str, Any]], Mapping[str, int]]

    @property
    def config(self) -> Any:
        """The job's own settings."""
        return getattr(self.context.config, self.group)

    @property
    def output(self) -> Path:
        """The file of rows that is written."""
        return row_writes(self.context, self.group).output

    def run(self) -> dict[str, Any]:
        """Writes what is missing, and returns what to keep of the stage.

        Raises:
          DataError: the input cannot be used, or too many of its rows are bad.
          JobError: the output is of other rows or of other settings, or is written by
            another process; or the input has changed meanwhile.
        """
        with claimed(self.output, f"{self.group}.output"):
            return self._run()

    def _run(self) -> dict[str, Any]:
        total, bad = self._looked_through()
        read = Parsed(self.config.input, stream_rows(self.config.input), self.parse)
        rows = iter(read)
        self._check_settings()
        tally: Counter[str] = Counter(rows=total, bad=bad)
        done = read_back(
            self.output,
            lambda line, n: self._take(line, next(rows, None), n, tally),
            total,
        )
        if done < total:
            self._write(rows, tally, done, total)
            self._check_unchanged((total, bad), (read.num_good, read.num_bad))
        log.info("%s: %s; %s", self.context.stage, self.output, _listed(tally))
        elsewhere = [self.output] if self.config.output else []
        return {**tally, "output": str(self.output), "elsewhere": elsewhere}

    def _looked_through(self) -> tuple[int, int]:
        """How many rows are good and how many bad; nothing was loaded yet."""
        bad_file = _bad_file(self.output)
        source = self.config.input
        rows = Parsed(source, stream_rows(source), self.parse, bad_file)
        for _ in rows:
            pass
        rows.check_share(self.context.config.domain.max_bad_share)
        if rows.num_bad:
            log.warning("%s: %d bad rows; see %s", source, rows.num_bad, bad_file)
        return rows.num_good, rows.num_bad

    def _check_unchanged(self, first: tuple[int, int], now: tuple[int, int]) -> None:
        """The rows that were written are those that were looked through before."""
        if now != first:
            raise JobError(
                f"{self.config.input} has changed while it was read: it had {first[0]} "
                f"good rows and {first[1]} bad ones, and then {now[0]} and {now[1]}. "
                f"Delete {self.output} and run the same command again"
            )

    def _check_settings(self) -> None:
        """Nothing that is there was made otherwise; what it was made by is kept."""
        names = [located(self.context, name) for name in self.config.verifiers]
        made_by = {
            "verifiers": {name: fingerprint_of(name) for name in names},
            **{name: getattr(self.config, name) for name in ("combine", *self.own)},
        }
        if "oracle" in names:
            made_by["oracle"] = judged_in(self.context)
        if getattr(self.config, "answers", "") == "domain":
            made_by["grader"] = judged_in(self.context)
        record = _record(self.output)
        check_made_by(self.output, record, made_by, f"{self.group}.output")

    def _take(
        self, line: bytes, row: Row | None, number: int, tally: Counter[str]
    ) -> None:
        try:
            written = parse_json(line)
        except ValueError:
            written = None
        if (
            not isinstance(written, dict)
            or row is None
            or not self._is_of(row, written)
        ):
            raise JobError(
                f"{self.output}, line {number}: not what "
                + (f"line {row.line} of" if row is not None else "any more row of")
                + f" {self.config.input} comes to: delete the file, or name another "
                f"{self.group}.output"
            )
        tally.update(self.count(written))

    def _is_of(self, row: Row, written: dict[str, Any]) -> bool:
        same = (written.get("line"), written.get("key")) == (row.line, row.key)
        return same and self.whole(row, written)

    def _write(
        self, rows: Iterator[Row], tally: Counter[str], done: int, total: int
    ) -> None:
        verifier = run_verifier(
            self.context, self.config.verifiers, self.config.combine
        )
        progress = Progress(
            self.context.stage,
            "rows",
            done,
            total,
            tokens=lambda: getattr(verifier, "tokens_read", 0),
        )
        with appending(self.output) as write:
            for written in self.made(rows, verifier):
                write([written])
                tally.update(self.count(written))
                progress.add()


def check_input(field: str, path: str) -> None:
    """The file is there, and can be read twice.

    Raises:
      ConfigError, DataError: names the field, and what would be right.
    """
    if not path:
        raise ConfigError(f"{field} is empty: name a file of rows")
    if not Path(path).exists():
        raise DataError(f"{field}: {path}: no such file")
    if not Path(path).is_file() and not Path(path).is_dir():
        raise DataError(
            f"{field}: {path} is a pipe, which cannot be read twice: "
            "python -m aprm_jax.score reads pipes"
        )


def check_output(field: str, output: str) -> None:
    """What is written can be a file.

    Args:
      field: of the output, for messages.
      output: a file; "" is one in the stage's folder.

    Raises:
      ConfigError: it is a folder.
    """
    if output and Path(output).is_dir():
        raise ConfigError(f"{field}: {output} is a folder: name a file in it")


def row_writes(context: Context, group: str) -> Writes:
    """The file of rows that a job writes, and what lies beside it; see `Job.writes`."""
    c = getattr(context.config, group)
    named = f"{Path(c.input).name.partition('.')[0]}.{group}.jsonl"
    output = Path(c.output or context.root / context.stage / named)
    return Writes(f"{group}.output", output, (_bad_file(output), _record(output)))


def _bad_file(output: Path) -> Path:
    """The rows of the input that cannot be used."""
    return output.with_name(f"{output.name}.bad.jsonl")


def _record(output: Path) -> Path:
    """What the rows were made by."""
    return output.with_name(f"{output.name}.made_by.json")


def judged_in(context: Context) -> list[Any]:
    """What of the domain decides how steps are judged and answers compared."""
    c = context.config.domain
    return [c.name, c.modulus, c.oracle]


def check_names(
    context: Context, earlier: Collection[str], group: str, names: Iterable[str]
) -> None:
    """Each verifier's name may be one: of a stage, a folder, a server, on the hub.

    Raises:
      ConfigError, UnknownVerifierError, DataError: names the field or the name, and
        what could have been meant.
    """
    for name in names:
        check_name(name, oracle=True)
        scheme, rest = split_name(name)
        if scheme == "scores" and not earlier and not Path(rest).exists():
            raise DataError(f"{group}.verifiers: {name}: no such file")
        named = ("oracle", "scores", ADDRESS)
        if scheme in named or "/" in rest or rest in earlier:
            continue
        if not (context.root / rest).is_dir() and not Path(rest).is_dir():
            stages = sorted({path.parent.name for path in context.root.glob("*/model")})
            raise ConfigError(
                f"{group}.verifiers: {name!r} is neither a stage with a model "
                f"({', '.join(stages) or 'there is none'}) nor a folder, nor "
                f"OWNER/NAME on the hub.{nearest(rest, stages)}"
            )


def located(context: Context, name: str) -> str:
    """A verifier's name, a stage of the run as its folder."""
    scheme, rest = split_name(name)
    folder = context.root / rest
    if not rest or scheme in ("oracle", "scores", ADDRESS) or not folder.is_dir():
        return name
    return f"{scheme}:{folder}" if scheme else str(folder)


def run_verifier(context: Context, names: Sequence[str], combine: str) -> Verifier:
    """The verifier that a job's settings name, on the run's devices.

    Raises:
      UnknownVerifierError, ConfigError, ModelFileError, DataError: see
        `open_verifier`.
    """
    return open_verifier(
        [located(context, name) for name in names],
        combine,
        oracle=lambda: _oracle(context),
        place=context.place,
        served=lambda address: served_verifier(context, address),
        load=functools.partial(load_any, **published(context.config)),
    )


def published(config: Config) -> dict[str, str]:
    """What a model of Hugging Face is computed in here, for `load_any`."""
    return {"dtype": config.model.dtype, "param_dtype": config.model.param_dtype}


def served_verifier(context: Context, address: str) -> ServedVerifier:
    """The verifier at an address, whose answers are kept in the stage's folder.

    Raises:
      ConfigError: it is no address, or its key is not there.
    """
    http = context.config.endpoint.http
    return open_served(address, http, context.directory)


def _oracle(context: Context) -> StepOracle:
    """The domain's, without its problems."""
    c = context.config.domain
    if c.name == "arithmetic":
        return ArithmeticDomain(0, ArithmeticConfig(modulus=c.modulus)).oracle
    return TextOracle() if c.oracle == "text" else CalculatorOracle()


def _listed(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in tally.items() if n)
