"""What a process that computes stages is set up with: cores, programs, its log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from aprm_jax.config import Config
from aprm_jax.files import cache_folder
from aprm_jax.jobs.context import log
from aprm_jax.training.mesh import split_cpu


def log_to_stdout() -> None:
    """The jobs' lines go where the training loop's go, without decoration."""
    if log.handlers:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def use_compilation_cache(where: str) -> None:
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


def deal_out_cores(configs: Sequence[Config]) -> None:
    """A device to each core, but one for all where a copy of the model is much."""
    sizes: set[int] = set()
    for c in configs:
        if not is_small(c):
            return
        sizes |= {c.sft.batch_size, c.prm.batch_size, c.game.generator_rows}
        sizes.add(c.game.prm_clean + c.game.prm_fresh + c.game.prm_replay)
    split_cpu(configs[0].mesh, sorted(sizes))


def is_small(c: Config) -> bool:
    """Whether no model of a stage is one of Hugging Face."""
    return not (c.solver.backbone or c.generator.backbone or c.prm.backbone)
