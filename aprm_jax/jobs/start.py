"""Starts a run: checks all that is cheap to check, then hands over to the pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import jax

from aprm_jax import __version__
from aprm_jax.config import (
    Config,
    ConfigError,
    Job,
    for_stage,
    jobs,
    stages,
    validate,
)
from aprm_jax.config.addresses import addresses_in
from aprm_jax.config.fields import AnyConfig
from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.prompts import GENERATOR_PLACES, SOLVER_PLACES, check_prompt
from aprm_jax.jobs import backbones, changes, of_run, pipeline
from aprm_jax.jobs.backbones import ENDPOINT
from aprm_jax.jobs.checks import (
    check_files,
    check_judged,
    check_labelled_files,
    check_made_up,
    check_problems,
    check_sources,
)
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.inputs import check_apart
from aprm_jax.jobs.process import (
    deal_out_cores,
    is_small,
    log_to_stdout,
    use_compilation_cache,
)
from aprm_jax.jobs.schedule import Schedule
from aprm_jax.training import bucket, hosts
from aprm_jax.training.lock import locked
from aprm_jax.training.mesh import AXES
from aprm_jax.training.signals import prompt_stop
from aprm_jax.training.workdir import WorkdirError, open_workdir


def run(
    config: AnyConfig,
    root: Path,
    *,
    per_core: bool = False,
    distributed: bool | None = False,
) -> None:
    """Runs the config's stages in the workdir `root`.

    Args:
      config: of the whole run.
      root: made if it is missing.
      per_core: on a CPU every core becomes a device, where that suits the models; for
        a process that has not used JAX yet.
      distributed: whether this host is one of several, see `hosts.joined`.

    Raises:
      ConfigError, HostsError, MeshError, WorkdirError, DataError, TooLongError: before
        anything is compiled; the jobs' own errors later.
    """
    with prompt_stop("What was finished is kept; the same command goes on from there."):
        log_to_stdout()
        _check_local(root)
        checked = pipeline.with_asked(validate(config))
        check_prompt("prompt.generator", checked.prompt.generator, GENERATOR_PLACES)
        check_prompt("prompt.solver", checked.prompt.solver, SOLVER_PLACES)
        use_compilation_cache(checked.compilation_cache)
        contexts = _contexts(checked, root)
        if any("problems" in job.needs for _, job in contexts):
            check_files(checked)
            check_labelled_files(checked)
        with hosts.joined(distributed):
            if not hosts.leader():
                log.setLevel(logging.WARNING)  # the leader says the rest
            _meet(checked, root, contexts, per_core)
            if hosts.leader():
                # What is in it is looked at by one process at a time.
                with locked(root):
                    _check_in(checked, root, contexts, per_core)
                    count = _processes(checked, contexts) if per_core else 1
                    _run_stages(checked, root, count)
            else:
                _run_stages(checked, root)


def _run_stages(config: Config, root: Path, processes: int = 1) -> None:
    hosts.barrier("the stages")  # the leader has checked them, and opened the workdir
    pipeline.run(config, root, processes)


def _processes(config: Config, contexts: Sequence[tuple[Context, Job]]) -> int:
    """How many compute the stages side by side: 1 where that does not suit them.

    It depends on the whole config and the cores alone, as the devices of each do: a run
    that goes on computes as the one that was stopped.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    whole = all(
        is_small(c.config) and _fits_one_device(c.config.mesh) for c, _ in contexts
    )
    alone = hosts.count() == 1 and not bucket.of_this_run()
    if not (affinity and whole and alone) or jax.default_backend() != "cpu":
        return 1
    most = config.processes or len(affinity(0))
    width = Schedule(config, stages(config)).width()
    return max(1, min(most, len(affinity(0)), width))


def _meet(
    config: Config,
    root: Path,
    contexts: Sequence[tuple[Context, Job]],
    per_core: bool,
) -> None:
    """Where there are several hosts: they run the same, and know all devices.

    Raises:
      HostsError, ConfigError: they do not, or could not stay together.
    """
    if hosts.count() == 1:
        return
    # In a bucket each has a folder of its own.
    places = [kept.address for kept in bucket.of_this_run()] or [str(root.absolute())]
    hosts.check_same("--workdir", ", ".join(places))
    text = json.dumps(dataclasses.asdict(config), sort_keys=True, default=str)
    hosts.check_same("their configs", hashlib.sha256(text.encode()).hexdigest())
    for context, job in contexts:
        if pipeline.by_all_hosts(context.config, job):
            _check_together(context, job)
    if per_core:
        deal_out_cores([context.config for context, _ in contexts])
    hosts.devices()  # each host waits here for the others' devices


def _check_together(context: Context, job: Job) -> None:
    """Nothing in a stage of all hosts depends on a clock, or on who asks.

    Raises:
      ConfigError: names the field.
    """
    c = context.config
    if c.domain.oracle == "text" and c.domain.oracle_workers:
        raise ConfigError(
            f"domain.oracle_workers={c.domain.oracle_workers}: workers give up by the "
            "clock, and hosts could take the same step for a different one; set 0 for "
            "a run on several hosts"
        )
    for field, source in job.sources(c):
        if source == ENDPOINT:
            raise ConfigError(
                f"stage {context.stage!r}: {field}={ENDPOINT!r} would answer each host "
                "on its own; run this stage on one host"
            )
    for field, address in addresses_in(getattr(c, job.group), job.group):
        raise ConfigError(
            f"stage {context.stage!r}: {field}={address!r} would answer each host on "
            "its own; run this stage on one host"
        )


def _check_local(root: Path) -> None:
    """The workdir is a folder.

    Raises:
      WorkdirError: it is an address.
    """
    scheme, found, _ = str(root).partition(":/")
    if found and scheme.isalnum():
        raise WorkdirError(
            f"The workdir {root} is an address, and a run needs a folder: the command "
            "line works on addresses in one, `training.bucket.Bucket` does it in Python"
        )


def _check_in(
    config: Config,
    root: Path,
    contexts: Sequence[tuple[Context, Job]],
    per_core: bool,
) -> None:
    """Checks the rest and opens the workdir, which is ours alone."""
    check_apart(contexts)
    own = {name for name, _ in stages(config)}
    whole = own <= {context.stage for context, _ in contexts}
    plan = changes.plan(config, root, reads_data=whole)
    earlier: dict[str, str] = {}
    for context, job in contexts:
        job.check(context, earlier)
        earlier[context.stage] = job.name
    if per_core and hosts.count() == 1 and any(job.here for _, job in contexts):
        deal_out_cores([context.config for context, _ in contexts])
    for context, job in contexts:
        if job.here:
            by_all = pipeline.by_all_hosts(context.config, job)
            with contextlib.nullcontext() if by_all else hosts.alone():
                _ = context.mesh  # compared with the devices
    check_judged(contexts)
    check_sources(contexts)
    for context, job in contexts:
        if "backbones" in job.needs:
            backbones.check(context.config)
    check_made_up(config)
    there = (
        dataclasses.asdict(config) if plan.is_new else (root / of_run.FILE).read_text()
    )
    open_workdir(root, there, __version__)
    log.info("workdir: %s", root)
    plan.keep_new_data()
    plan.put_tokenizer_aside()
    check_problems(contexts)
    for line in plan.carry_out(__version__):
        log.info("%s", line)


def _contexts(config: Config, root: Path) -> list[tuple[Context, Job]]:
    """All stages, or those of a job that trains nothing and was asked for alone."""
    chosen = pipeline.chosen_stages(config)
    if any(jobs()[job].needs for _, job in chosen):
        chosen = stages(config)
    return [
        (Context(for_stage(config, name), root, name), jobs()[job])
        for name, job in chosen
    ]


def _fits_one_device(c: MeshConfig) -> bool:
    return all(getattr(c, axis) in (-1, 1) for axis in AXES)
