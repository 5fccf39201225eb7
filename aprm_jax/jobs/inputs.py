"""Nothing that a run writes takes the place of a file that it was given.

Before anything is made, whatever a stage writes or clears away is compared with what
the config names: by path, links followed, and by what the file system says is the same
file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aprm_jax.config import ConfigError, Job
from aprm_jax.jobs.changes import ASIDE
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.given_files import Given, given_at_all, given_problems, given_to
from aprm_jax.training.workdir import DONE

_OF_THE_RUN = ("quarantine", "tokenizer")  # made anew at any start


class Writes(NamedTuple):
    """What a job writes where its settings say.

    Attributes:
      field: that says where.
      output: what it is asked for; another stage may read it.
      beside: what it keeps there for itself, and clears away.
    """

    field: str
    output: Path
    beside: tuple[Path, ...] = ()


def check_apart(contexts: Sequence[tuple[Context, Job]]) -> None:
    """No stage writes over a file that is read, or clears it away.

    Args:
      contexts: the stages that run, and their jobs.

    Raises:
      ConfigError: names the field, the file, and what would be written.
    """
    for context, job in contexts:
        anybodys = given_at_all(context.config)
        files = (g for g in given_to(context.config, job) if g.hub is None)
        own = [*files, *given_problems(context.config)]
        for name in _OF_THE_RUN:
            _check(anybodys, context.root / name)
        for path in _in_its_folder(context, job):
            _check(own, path)
        for made in job.writes(context):
            _check(own, made.output, made.field)
            _check_outside(own, made)
            for path in made.beside:
                _check(anybodys, path, made.field)


def _in_its_folder(context: Context, job: Job) -> Iterator[Path]:
    for name in (*job.outputs, DONE, ASIDE):
        yield context.root / context.stage / name


def _check(given: Sequence[Given], written: Path, field: str = "") -> None:
    """What is written, or all of a folder that is replaced, is no input."""
    if field and written.is_dir():
        return  # no file can be written there: its job says so
    place, known = written.resolve(), _identity(written)
    for one in given:
        inside = (
            path.resolve().is_relative_to(place) for path in (one.path, *one.files)
        )
        same = known is not None and any(_identity(f) == known for f in one.files)
        if same or any(inside):
            raise ConfigError(
                f"{one.field}: {one.text} would be overwritten or deleted: the run "
                f"writes {written} itself. Copy the input elsewhere and name the copy"
                + (f", or name another {field}" if field else "")
            )


def _check_outside(given: Sequence[Given], made: Writes) -> None:
    """Nothing is written into a folder that is read."""
    place = made.output.resolve()
    for one in given:
        if one.path.is_dir() and place.is_relative_to(one.path.resolve()):
            raise ConfigError(
                f"{made.field}: {made.output} is in the folder of {one.field} "
                f"({one.text}), and would be read as a part of it: name another"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What the file system knows a file by; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
