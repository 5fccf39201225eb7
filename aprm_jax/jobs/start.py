"""Starts a run: checks all that is cheap to check, then hands over to the pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from aprm_jax import __version__
from aprm_jax.config import (
    Config,
    ConfigError,
    Job,
    for_stage,
    is_made_up,
    jobs,
    nearest,
    stages,
    validate,
)
from aprm_jax.config.addresses import addresses_in
from aprm_jax.config.fields import AnyConfig
from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled_texts import split_source
from aprm_jax.data.prompts import GENERATOR_PLACES, SOLVER_PLACES, check_prompt
from aprm_jax.data.rows import TooLongError
from aprm_jax.data.sources import source_path
from aprm_jax.files import cache_folder
from aprm_jax.jobs import backbones, changes, of_run, pipeline
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.inputs import check_apart
from aprm_jax.jobs.schedule import Schedule, Task
from aprm_jax.jobs.solvers import check_endpoint
from aprm_jax.jobs.workers import Took
from aprm_jax.models.io import SPEC_FILE
from aprm_jax.tasks.questions import reader_of
from aprm_jax.training import bucket, hosts
from aprm_jax.training.lock import locked
from aprm_jax.training.memory import keep_freed_memory
from aprm_jax.training.mesh import AXES, split_cpu
from aprm_jax.training.signals import prompt_stop
from aprm_jax.training.workdir import WorkdirError, open_workdir

_PROBED = 256  # training problems whose lengths are looked at


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
        _log_to_stdout()
        _check_local(root)
        checked = pipeline.with_asked(validate(config))
        check_prompt("prompt.generator", checked.prompt.generator, GENERATOR_PLACES)
        check_prompt("prompt.solver", checked.prompt.solver, SOLVER_PLACES)
        _use_compilation_cache(checked.compilation_cache)
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
        _is_small(c.config) and _fits_one_device(c.config.mesh) for c, _ in contexts
    )
    alone = hosts.count() == 1 and not bucket.of_this_run()
    if not (affinity and whole and alone) or jax.default_backend() != "cpu":
        return 1
    most = config.processes or len(affinity(0))
    width = Schedule(config, stages(config)).width()
    return max(1, min(most, len(affinity(0)), width))


def as_worker(config: Config, root: Path) -> Callable[[Task, Took], Took]:
    """What computes tasks of a run that another process has checked and locked."""
    keep_freed_memory()
    _log_to_stdout()
    _use_compilation_cache(config.compilation_cache)
    _split_cpu([for_stage(config, name) for name, _ in stages(config)])

    def work(task: Task, before: Took) -> Took:
        with prompt_stop(""):
            return pipeline.compute(config, root, task, before)

    return work


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
        _split_cpu([context.config for context, _ in contexts])
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
        _split_cpu([context.config for context, _ in contexts])
    for context, job in contexts:
        if job.here:
            by_all = pipeline.by_all_hosts(context.config, job)
            with contextlib.nullcontext() if by_all else hosts.alone():
                _ = context.mesh  # compared with the devices
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


def check_files(config: Config) -> None:
    """The data files that the config names exist.

    Raises:
      DataError: names the field and the file.
    """
    c = config.domain
    if c.name == "questions":
        if not c.train:
            raise DataError(
                "domain.train is empty: give a JSONL or CSV file of questions and "
                "answers, or READER:SOURCE"
            )
        for field in ("train", "test"):
            _check_exists(f"domain.{field}", reader_of(getattr(c, field))[1])
    if c.name != "gsm8k":
        return
    for field in ("train", "test", "model_solutions", "processbench"):
        source = getattr(c, field)
        if not source and field in ("train", "test"):
            raise DataError(
                f"domain.{field} is empty: give a JSONL file, datasets:NAME or "
                "tfds:NAME"
            )
        _check_exists(f"domain.{field}", source)


def check_labelled_files(config: Config) -> None:
    """The labelled solutions and the scores that the config names exist.

    Raises:
      DataError: names the field and the file.
    """
    c = config
    searched = c.prm.negatives == "values"  # such data are stages' own
    named = [("prm.data", entry) for entry in (() if searched else c.prm.data)]
    if c.domain.name == "labelled":
        named.append(("domain.train", c.domain.train))
        for entry in c.evaluate.sets:
            named.append(("evaluate.sets", entry.partition("=")[2]))
    for field, entry in named:
        _, source = split_source(entry, field)
        _check_exists(field, source)
    for entry in c.evaluate.scores:
        path = entry.partition("=")[2]
        if not Path(path).exists():
            raise DataError(f"evaluate.scores: {path}: no such file or folder")


def check_made_up(config: Config) -> None:
    """Nothing that a config file made up for `runlocal` is measured beside real data.

    Raises:
      DataError: names the field.
    """
    c = config
    others = {
        "domain.test": [c.domain.test],
        "domain.model_solutions": [c.domain.model_solutions],
        "domain.processbench": [c.domain.processbench],
        "prm.data": list(c.prm.data),
        "evaluate.sets": list(c.evaluate.sets),
    }
    if c.domain.name == "arithmetic" or is_made_up(c.domain.train):
        return
    for field, entries in others.items():
        made = next((entry for entry in entries if is_made_up(entry)), None)
        if made is not None:
            raise DataError(
                f"{field}: {made} was made up for the config's runlocal, and "
                f"domain.train is not: name your own, or set {field} to nothing"
            )


def _check_exists(field: str, source: str) -> None:
    path = source_path(source) if source else None
    if path is not None and not path.exists():
        raise DataError(f"{field}: {path}: no such file")


def check_sources(contexts: Sequence[tuple[Context, Job]]) -> None:
    """Each model that a stage starts from is an earlier stage's, a folder, a server.

    Raises:
      ConfigError: names the field and what could have been meant.
    """
    before: list[str] = []
    for context, job in contexts:
        for field, source in job.sources(context.config):
            if source == ENDPOINT:
                check_endpoint(context.config, field, job.name)
                continue
            folders = (context.root / source / "model", Path(source))
            found = any((path / SPEC_FILE).is_file() for path in folders)
            found |= source == BACKBONE  # `Context.load` says what it needs
            found |= not job.needs and source.partition("/")[0] in before
            if source not in before and not found:
                what, known = "an earlier stage", before
                if not job.needs:  # most often of a run that is over
                    what, known = "a model that is finished", _models(context.root)
                raise ConfigError(
                    f"stage {context.stage!r}: {field}={source!r} is neither {what} "
                    f"({', '.join(known) or 'there is none'}) nor a model's folder."
                    f"{nearest(source, known)}"
                )
        before.append(context.stage)


def _models(root: Path) -> list[str]:
    """What stages have saved: "aprm", "aprm/generator"."""
    folders = root.glob(f"**/model/{SPEC_FILE}")
    return sorted(str(path.parents[1].relative_to(root)) for path in folders)


def check_problems(contexts: Sequence[tuple[Context, Job]]) -> None:
    """Reads the data, checks the splits, and looks at how long the solutions are.

    Raises:
      DataError: a file cannot be used.
      ConfigError: see the jobs' own checks.
      TooLongError: most training solutions do not fit the longest bucket.
    """
    measured: list[str] = []
    for context, job in contexts:
        if "problems" not in job.needs:
            continue
        setting = f"{context.config.builder}{context.config.domain}"
        if setting not in measured:  # most stages share one
            measured.append(setting)
            _check_lengths(context)
        job.check_data(context)


def _check_lengths(context: Context) -> None:
    builder = context.builder
    steps = context.config.builder.max_steps
    problems = [context.domain.train(i) for i in range(_PROBED)]
    lengths = [
        max(
            len(builder.step(p.question, p.steps[:k], s)) for k, s in enumerate(p.steps)
        )
        for p in problems
    ]
    most = builder.buckets[-1]
    long = sum(n > most for n in lengths)
    labelled = context.config.domain.name == "labelled"  # whose rows branch
    cut = sum(len(p.steps) > steps for p in problems)
    if 2 * long > len(lengths):
        raise TooLongError(
            f"{long} of {len(lengths)} training problems have a step that, with the "
            f"lines it sees, does not fit the longest bucket: up to {max(lengths)} "
            f"tokens for {most}. Raise builder.buckets, or set a smaller "
            "builder.window."
        )
    if long:
        lost = "lose the steps beyond" if labelled else "are left out"
        log.warning(
            "%s: %d of %d training problems are longer than %d tokens and %s "
            "(builder.buckets)",
            context.domain.name,
            long,
            len(lengths),
            most,
            lost,
        )
    if 2 * cut > len(problems) and not labelled:
        raise TooLongError(
            f"{cut} of {len(problems)} training problems have more than {steps} steps; "
            "raise builder.max_steps"
        )


def _split_cpu(configs: Sequence[Config]) -> None:
    """A device to each core, but one for all where a copy of the model is much."""
    sizes: set[int] = set()
    for c in configs:
        if not _is_small(c):
            return
        sizes |= {c.sft.batch_size, c.prm.batch_size, c.game.generator_rows}
        sizes.add(c.game.prm_clean + c.game.prm_fresh + c.game.prm_replay)
    split_cpu(configs[0].mesh, sorted(sizes))


def _is_small(c: Config) -> bool:
    """Whether no model of a stage is one of Hugging Face."""
    return not (c.solver.backbone or c.generator.backbone or c.prm.backbone)


def _fits_one_device(c: MeshConfig) -> bool:
    return all(getattr(c, axis) in (-1, 1) for axis in AXES)


def _use_compilation_cache(where: str) -> None:
    """Keeps compiled programs on disk: a second start compiles next to nothing."""
    if not where:
        return
    if where == "auto":
        where = str(cache_folder("xla"))
    try:
        Path(where).mkdir(parents=True, exist_ok=True)
        usable = os.access(where, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    if not usable:
        log.warning("%s is not writable: compiled programs are not kept", where)
        return
    jax.config.update("jax_compilation_cache_dir", where)
    # Small programs too: there are many of them, and their time adds up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _log_to_stdout() -> None:
    """The jobs' lines go where the training loop's go, without decoration."""
    if log.handlers:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
