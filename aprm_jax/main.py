"""The command: `aprm-jax --config=FILE[:arg] [--workdir=DIR]`; see `--help`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Read once, on import: no advice on what else one could install.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from absl import app, flags
from ml_collections import config_flags

from aprm_jax.config import validate
from aprm_jax.jobs import command_line
from aprm_jax.training.memory import check_address_space, keep_freed_memory
from aprm_jax.training.streams import outlive_readers

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, FILE[:arg]; --config.x.y=VALUE sets a field of it."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, by default runs/<config>-<time>, or an address as gs://BUCKET/"
    "RUN, where it is kept. A second start goes on where the first one stopped.",
)

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    None,
    "Whether this is one of several hosts that run the same command; see "
    "docs/scaling.md. By default told from JAX_COORDINATOR_ADDRESS, SLURM or TPU_*.",
)

flags.DEFINE_integer(
    command_line.STOPPED_EXIT_CODE,
    None,
    "Exit code of a run that SIGTERM or Ctrl-C stopped, for schedulers that take any "
    "other than 0 for a failure; by default 128 + the signal: 143 or 130.",
    lower_bound=0,
    upper_bound=255,
)


def main(argv: list[str]) -> None:
    """Checks everything that is cheap to check, then runs the config's stages."""
    if len(argv) > 1:
        raise command_line.UsageError(f"{argv[1]!r} is no flag; flags start with --")
    source = flags.FLAGS["config"].config_filename  # pyright: ignore[reportAttributeAccessIssue]
    file, _, arg = source.partition(":")
    name = "-".join(part for part in (Path(file).stem, arg) if part)
    check_address_space()
    keep_freed_memory()
    default = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    root = Path(_WORKDIR.value or default)
    config = command_line.without_dropped_stages(_CONFIG.value, source)
    config = command_line.of_finished_run(config, root, sys.argv)
    validate(config)
    from aprm_jax.jobs import start  # JAX: not before the config is known to be right

    start.run(config, root, per_core=True, distributed=_DISTRIBUTED.value)


def entry() -> None:
    """Runs `main`; what a user can put right becomes one message and exit code 1."""
    outlive_readers()
    with (
        command_line.reported_errors(),
        command_line.worked_on_here(sys.argv) as argv,
    ):
        app.run(main, argv=argv, flags_parser=command_line.parse)


if __name__ == "__main__":
    entry()
