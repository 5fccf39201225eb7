"""Runs a config's stages in one workdir: skips complete ones, continues the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aprm_jax.config import (
    Config,
    ConfigError,
    Job,
    as_read_by,
    for_stage,
    jobs,
    stages,
)
from aprm_jax.config.addresses import addresses_in
from aprm_jax.files import DamagedFileError
from aprm_jax.jobs.backbones import ENDPOINT
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.schedule import Schedule, Task, waves
from aprm_jax.jobs.workers import Took, Workers
from aprm_jax.training import hosts, sharing
from aprm_jax.training.memory import (
    OutOfMemoryError,
    drop_programs_at_limit,
    ran_out,
)
from aprm_jax.training.workdir import check_done, is_done, mark_done


def chosen_stages(config: Config) -> list[tuple[str, str]]:
    """(stage, job) of all stages, or of those of one job (`config.job`).

    What is made on request, as an export, needs no stage of its own.

    Raises:
      ConfigError: there is none.
    """
    chosen = [s for s in stages(config) if config.job in ("pipeline", s[1])]
    job = jobs().get(config.job)
    if chosen:
        return chosen
    if job is not None and job.redone in ("asked", "always"):
        return [(job.name, job.name)]
    listed = ", ".join(f'"{stage}"' for stage in (*config.stages, config.job))
    raise ConfigError(
        f"job={config.job!r}: none of this config's stages runs it; stages are "
        f"{', '.join(config.stages) or 'none'}. Add one: --config.stages='({listed},)'"
    )


def with_asked(config: Config) -> Config:
    """The config with a stage of what is measured on request and had none.

    So that a report shows an evaluation, and the next start knows what it was made by.
    """
    job, listed = jobs().get(config.job), stages(config)
    if job is None or job.redone != "changed" or job.name in dict(listed).values():
        return config
    shown = (k for k, (_, other) in enumerate(listed) if _is_made_always(other))
    at = next(shown, len(listed))  # a report is of what stands before it
    added = (*config.stages[:at], job.name, *config.stages[at:])
    return dataclasses.replace(config, stages=added)


def _is_made_always(job: str) -> bool:
    return jobs()[job].redone == "always"


def run(config: Config, root: Path, processes: int = 1) -> None:
    """Runs every stage, or those of one job (`config.job`).

    A stage that ended left `done.json` and is skipped; one that was killed goes on from
    its newest checkpoint. `report` is made again each time, what is asked for too.
    Of several hosts all run what is computed together, each its share of a stage's
    pieces by itself, and the leader the rest.

    Args:
      config: of the whole run.
      root: the workdir.
      processes: how many compute side by side what does not wait for one another.
    """
    chosen = chosen_stages(config)
    sharing.share("the first stage")
    if processes > 1:
        _side_by_side(config, root, chosen, processes)
        return
    for index, (name, job) in enumerate(chosen, 1):
        record, place = jobs()[job], f"[{index}/{len(chosen)}] {name}"
        skips = functools.partial(_skips, config, root / name, record)
        if hosts.from_leader(f"whether {name} is done", skips):
            log.info("%s: complete, skipped", place)
            continue
        log.info("%s (%s)", place, job)
        context = _context(config, root, name, record)
        if by_all_hosts(context.config, record):
            _run(context, record)
        else:
            before = _dealt(context, record)
            if hosts.leader():
                with hosts.alone():
                    _run(context, record, before)
        sharing.share(f"{name} is done")


def by_all_hosts(config: Config, job: Job) -> bool:
    """Whether all hosts of a run compute a stage; if not, the leader does.

    A server that writes solutions, or scores them, would answer each on its own.

    Args:
      config: of the stage.
      job: that it runs.
    """
    asks = any(source == ENDPOINT for _, source in job.sources(config))
    asks |= any(addresses_in(getattr(config, job.group), job.group))
    return job.together and not (asks and not job.length)


def _dealt(context: Context, record: Job) -> Took:
    """Computes the stage's pieces, each on one of several hosts; what that took."""
    took = Took()
    if hosts.count() == 1:
        return took
    for number, wave in enumerate(waves(record.pieces(context.config))):
        mine = Took()
        for piece in wave[hosts.index() :: hosts.count()]:
            task = Task(context.stage, record.name, piece)
            with hosts.alone():
                mine += _computed(context, record, task)
        # A reader must find what another host has written: they wait for one another.
        place = f"pieces {number} of {context.stage}"
        times = hosts.exchange(place, dataclasses.asdict(mine))
        sharing.gather(f"files of {place}")
        took = sum((Took(**of_host) for of_host in times), took)
    return took


def _side_by_side(
    config: Config, root: Path, chosen: list[tuple[str, str]], processes: int
) -> None:
    """The same in so many processes; what nothing can run beside, in this one."""
    schedule = Schedule(config, chosen)
    open_, begun = set(schedule.tasks), dict[str, bool]()
    pieces = dict[str, Took]()  # of stages that are not done
    places = {
        name: f"[{k}/{len(chosen)}] {name}" for k, (name, _) in enumerate(chosen, 1)
    }

    def begins(task: Task) -> bool:
        """Whether a task is computed at all; says so of a stage's first."""
        name, record = task.stage, jobs()[task.job]
        if name not in begun:
            begun[name] = not _skips(config, root / name, record)
            if begun[name]:
                log.info("%s (%s)", places[name], task.job)
            else:
                log.info("%s: complete, skipped", places[name])
        return begun[name]

    def note(task: Task, took: Took) -> None:
        open_.discard(task)
        if task.piece:
            pieces[task.stage] = pieces.get(task.stage, Took()) + took

    with Workers(config, root, processes) as workers:
        while open_:
            for task in schedule.ready(open_, workers.tasks):
                before, alone = pieces.get(task.stage, Took()), schedule.alone(task)
                if not (alone or workers.free):
                    break
                if not begins(task):
                    open_.discard(task)
                elif alone:
                    note(task, compute(config, root, task, before))
                else:
                    workers.give(task, before)
            if workers.tasks:
                for task, took in workers.answers():
                    note(task, took)


def compute(config: Config, root: Path, task: Task, before: Took) -> Took:
    """Computes a stage, or a piece of one, in this process.

    Args:
      config: of the whole run.
      root: the workdir.
      task: what is computed.
      before: what the stage's pieces took.
    """
    record = jobs()[task.job]
    context = _context(config, root, task.stage, record)
    if not task.piece:
        return _run(context, record, before)
    return _computed(context, record, task)


def _computed(context: Context, record: Job, task: Task) -> Took:
    with _timed() as took, _within_memory(task.stage, task.job):
        record.piece(context, task.piece)
    return took()


def _context(config: Config, root: Path, stage: str, record: Job) -> Context:
    return Context(as_read_by(for_stage(config, stage), record), root, stage)


@contextlib.contextmanager
def _timed() -> Iterator[Callable[[], Took]]:
    start, busy = time.perf_counter(), time.process_time()
    yield lambda: Took(time.perf_counter() - start, time.process_time() - busy)


def _skips(config: Config, directory: Path, record: Job) -> bool:
    redone = record.redone
    again = redone == "always" or (redone == "asked" and config.job == record.name)
    return is_done(directory) and not again and _is_intact(directory, redone)


def _run(context: Context, record: Job, before: Took | None = None) -> Took:
    """Runs a stage, and marks it as done; `before` is what its pieces took."""
    with _timed() as took, _within_memory(context.stage, record.name):
        results = dict(record.run(context))
    whole = took() + (before or Took())
    elsewhere = results.pop("elsewhere", ())
    info = {
        "job": record.name,
        **dataclasses.asdict(whole),
        "spent": context.spent.to_json(),
        **({"left_out": context.left_out} if context.left_out else {}),
        **results,
    }
    if hosts.leader():
        mark_done(context.directory, info, elsewhere)
    log.info("%s: done in %.0f s", context.stage, whole.seconds)
    return whole


@contextlib.contextmanager
def _within_memory(stage: str, job: str) -> Iterator[None]:
    """Makes room for a stage; where memory does not suffice, says what needs less."""
    drop_programs_at_limit()
    try:
        yield
    except Exception as error:
        if not (lacking := ran_out(error)):
            raise
        less = [jobs()[job].less_memory, "shorter builder.buckets, model.remat='full'"]
        raise OutOfMemoryError(
            f"{stage} ({job}): the memory does not suffice: {lacking}. What needs "
            f"less: {', '.join(filter(None, less))}, a smaller model, or more devices "
            "and mesh.fsdp"
        ) from error


def _is_intact(directory: Path, redone: str) -> bool:
    """Whether a complete stage has the files that it wrote.

    Raises:
      DamagedFileError: it has not; but what is made on request is made again.
    """
    try:
        check_done(directory)
    except DamagedFileError as error:
        if redone != "asked":
            raise
        log.warning("%s", str(error).partition(". ")[0])
        return False
    return True
