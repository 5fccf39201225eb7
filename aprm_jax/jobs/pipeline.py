"""Runs a config's stages in one workdir: skips complete ones, continues the rest."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
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
from aprm_jax.files import DamagedFileError
from aprm_jax.jobs.context import Context, log
from aprm_jax.training import bucket, hosts
from aprm_jax.training.memory import OutOfMemoryError, ran_out
from aprm_jax.training.workdir import check_done, is_done, mark_done


def chosen_stages(config: Config) -> list[tuple[str, str]]:
    """(stage, job) of all stages, or of those of one job (`config.job`).

    What is made on request, as an export, needs no stage of its own.
    """
    chosen = [s for s in stages(config) if config.job in ("pipeline", s[1])]
    job = jobs().get(config.job)
    if not chosen and job is not None and job.redone == "asked":
        return [(job.name, job.name)]
    return chosen


def run(config: Config, root: Path) -> None:
    """Runs every stage, or those of one job (`config.job`).

    A stage that ended left `done.json` and is skipped; one that was killed goes on from
    its newest checkpoint. `report` is made again each time, what is asked for too.
    Of several hosts all run what is computed together, and the leader the rest.
    """
    chosen = chosen_stages(config)
    if not chosen:
        raise ConfigError(
            f"job={config.job!r}: none of this config's stages runs it; stages are "
            f"{', '.join(config.stages)}"
        )
    _copy_to_bucket()
    for index, (name, job) in enumerate(chosen, 1):
        directory = root / name
        record = jobs()[job]
        redone = record.redone
        again = redone == "always" or (redone == "asked" and config.job == job)
        skips = functools.partial(_skips, directory, record, again)
        if hosts.from_leader(f"whether {name} is done", skips):
            log.info("[%d/%d] %s: complete, skipped", index, len(chosen), name)
            continue
        log.info("[%d/%d] %s (%s)", index, len(chosen), name, job)
        read = as_read_by(for_stage(config, name), record)
        if record.together:
            _run(Context(read, root, name), record)
        elif hosts.leader():
            with hosts.alone():
                _run(Context(read, root, name), record)
        hosts.barrier(f"{name} is done")
        _copy_to_bucket()


def _copy_to_bucket() -> None:
    """Where the run is kept in one: at its start, and after each stage."""
    for kept in bucket.of_this_run():
        kept.writes = True
        kept.push()


def _skips(directory: Path, record: Job, again: bool) -> bool:
    return is_done(directory) and not again and _is_intact(directory, record.redone)


def _run(context: Context, record: Job) -> None:
    """Runs a stage, and marks it as done."""
    start, busy = time.perf_counter(), time.process_time()
    with _naming_what_needs_memory(context.stage, record.name):
        results = dict(record.run(context))
    elsewhere = results.pop("elsewhere", ())
    seconds = time.perf_counter() - start
    took = {"seconds": seconds, "cpu_seconds": time.process_time() - busy}
    info = {"job": record.name, **took, "spent": context.spent.to_json(), **results}
    if hosts.leader():
        mark_done(context.directory, info, elsewhere)
    log.info("%s: done in %.0f s", context.stage, seconds)


@contextlib.contextmanager
def _naming_what_needs_memory(stage: str, job: str) -> Iterator[None]:
    """Says of a stage whose memory did not suffice what would need less."""
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
