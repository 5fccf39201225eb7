"""The life of a process that computes tasks of a run for another one: see `workers`."""

from __future__ import annotations

import contextlib
import pickle
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aprm_jax.children import die_with
from aprm_jax.config import Config, for_stage, frozen, stages
from aprm_jax.config.errors import UserError
from aprm_jax.jobs.schedule import Task
from aprm_jax.jobs.workers import Took
from aprm_jax.training.streams import outlive_readers


def main(parent: int, descriptor: int) -> None:
    """A worker's life: a run, then tasks of it until the pipe ends."""
    die_with(parent)
    outlive_readers()
    connection = Connection(descriptor)
    from aprm_jax.training.signals import Interrupted

    with contextlib.suppress(EOFError, Interrupted):
        config, root = connection.recv()
        work = _at_work(frozen(config), root)
        while True:
            task, before = connection.recv()
            try:
                answer: Any = work(task, before)
            except Interrupted:
                raise
            except Exception as error:
                answer = _sendable(error)
            sys.stdout.flush()
            connection.send(answer)


def _at_work(config: Config, root: Path) -> Callable[[Task, Took], Took]:
    """What computes tasks of a run that another process has checked and locked."""
    # Late, as they take seconds: first a worker sees whether its parent lives.
    from aprm_jax.jobs import pipeline, process
    from aprm_jax.training.memory import keep_freed_memory
    from aprm_jax.training.signals import prompt_stop

    keep_freed_memory()
    process.log_to_stdout()
    process.use_compilation_cache(config.compilation_cache)
    process.deal_out_cores([for_stage(config, name) for name, _ in stages(config)])

    def work(task: Task, before: Took) -> Took:
        with prompt_stop(""):
            return pipeline.compute(config, root, task, before)

    return work


def _sendable(error: Exception) -> Exception:
    """An error as the parent gets it, with the lines that say where it came from."""
    trace = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its class takes other arguments than it keeps
        if isinstance(error, UserError):
            return UserError(str(error))
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, UserError):
        print(trace, file=sys.stderr, flush=True)
    return error
