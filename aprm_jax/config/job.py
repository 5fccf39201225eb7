"""What a job says of itself, and how jobs are found."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

RECORDS = "aprm_jax.jobs.records"


class Curves(NamedTuple):
    """A chart of a training's metrics: name in the legend → metric."""

    title: str
    lines: Mapping[str, str]
    style: Literal["percent", "number"] = "number"


@dataclasses.dataclass(frozen=True)
class Lazy:
    """The function "module:name" of `aprm_jax.jobs`, imported when it is called."""

    place: str

    def __call__(self, *args: Any) -> Any:
        """What the function returns."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(f"aprm_jax.jobs.{module}"), name)(*args)


class Needs(NamedTuple):
    """What a piece of a stage waits for: stages, and other pieces of its own."""

    stages: Sequence[str] = ()
    pieces: Sequence[str] = ()


def _nothing(*args: Any) -> tuple[()]:
    return ()


@dataclasses.dataclass(frozen=True)
class Job:
    """A kind of stage. Its module imports neither JAX nor models: `--help` reads it.

    Attributes:
      name: as in `stages` and `--config.job`.
      place: among the others, in the order in which a run needs them.
      purpose: what it does, in a line.
      group: the name of its settings in the config.
      settings: the frozen dataclass of these settings.
      run: does it, of the stage's `jobs.context.Context`. Returns what `done.json`
        keeps, and under "elsewhere" the files outside the stage's folder that are
        read again.
      check: raises where the stage cannot run, of its context and the stages before
        it, name → job; before anything is made.
      check_data: likewise of its context, once the problems may be read.
      together: whether all hosts of a run compute it, each a share. If not, the first
        does, with its own devices, and the others wait; so where what is no training
        asks a server.
      here: whether it computes on the devices of this machine, as `mesh` has them.
      beside: whether it may run while other stages do: it reads what `sources` names,
        and writes into its own folder alone.
      pieces: of the stage's config, names of parts that are computed on their own, and
        kept for the stage, each with what it waits for; behind those that it names.
      piece: computes the part of that name, of the stage's context.
      needs: whether the run's problems, and its models of Hugging Face, must be
        usable. A job that needs neither reads what a run has made.
      validate: raises a ConfigError where settings do not go together, in any config.
      sources: (field, stage or folder) of the models that a stage starts from.
      reads: fields, or groups, of other jobs that its results depend on; "" is all.
      given: fields that name files which it reads, those of the problems aside.
      uses_problems: of the stage's config, whether it computes on them though
        `needs` does not name them: what it makes changes with their files.
      judges: of the stage's config, whether it asks the oracle about new steps.
      once: fields, or groups, beside its own settings that a command may set for it
        alone where it is no stage of the run; the run keeps its own.
      writes: of its context, what it writes where its settings say (`inputs.Writes`).
      outputs: what it leaves in its stage's folder.
      length: the field that says how many updates a training takes; "" = no training.
      ends: fields that say when it may end and nothing else: while it has not, others
        go on with what there is.
      effort: how long an update takes, or a hundredth of what has none, beside sft's.
      shown: (label, metric) of a training's lines on the console; see its `Console`.
      less_memory: what of its settings needs less memory, for a message; "" = none.
      charts: of a training, on the report's page.
      redone: when a complete stage is computed again. "changed": where anything that
        it depends on has; "asked": then, and by `--config.job`.
    """

    name: str
    place: int
    purpose: str
    group: str
    settings: type
    run: Callable[[Any], Mapping[str, Any]]
    check: Callable[[Any, Mapping[str, str]], object] = _nothing
    check_data: Callable[[Any], object] = _nothing
    needs: tuple[Literal["problems", "backbones"], ...] = ("problems", "backbones")
    here: bool = True
    together: bool = False
    beside: bool = False
    pieces: Callable[[Any], Mapping[str, Needs]] = lambda config: {}
    piece: Callable[[Any, str], object] = _nothing
    validate: Callable[[Any], object] = _nothing
    sources: Callable[[Any], Iterable[tuple[str, str]]] = _nothing
    reads: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    uses_problems: Callable[[Any], bool] = lambda config: False
    judges: Callable[[Any], bool] = lambda config: False
    once: tuple[str, ...] = ()
    writes: Callable[[Any], Iterable[Any]] = _nothing
    outputs: tuple[str, ...] = ("model",)
    length: str = ""
    ends: tuple[str, ...] = ()
    effort: float = 1.0
    shown: tuple[tuple[str, str], ...] = ()
    less_memory: str = ""
    charts: tuple[Curves, ...] = ()
    redone: Literal["never", "changed", "asked", "always"] = "never"


@functools.cache
def jobs() -> dict[str, Job]:
    """All jobs by name, in the order of a run: one a module."""
    package = importlib.import_module(RECORDS)
    found = [
        importlib.import_module(f"{RECORDS}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    ordered = sorted((module.JOB for module in found), key=lambda job: job.place)
    return {job.name: job for job in ordered}
