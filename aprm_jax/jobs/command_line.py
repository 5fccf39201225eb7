"""Reads the command line, and turns errors that a user can put right into messages."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import absl.logging
import ml_collections
from absl import flags

from aprm_jax import __version__
from aprm_jax.config import (
    ConfigError,
    drop_overrides,
    flat,
    jobs,
    nearest,
    override,
    read_config_file,
    set_field,
    stages,
)
from aprm_jax.config.errors import UserError
from aprm_jax.config.schema import settings
from aprm_jax.jobs import of_run, usage
from aprm_jax.training import bucket
from aprm_jax.training.memory import ran_out
from aprm_jax.training.signals import Interrupted

STOPPED_EXIT_CODE = "preempted_exit_code"


class UsageError(UserError, ValueError):
    """The command line cannot be understood."""


log = logging.getLogger("aprm_jax")
_HELP = re.compile(r"--?(h|help|helpshort|helpfull|version)(=true)?|-\?")


def parse(argv: Sequence[str]) -> list[str]:
    """Absl's parser, but its complaints name the field, the value and what is right.

    Raises:
      UsageError, ConfigError: as their messages say.
    """
    argv = _with_bare_lists(argv)
    source, overrides = _split(argv)
    if not source and (run := _workdir(argv)):
        source = f"{of_run.__file__}:{run}"
        argv.insert(1, f"--config={source}")
    _help_if_asked(argv, source)
    if not source:
        _check_flags(argv)
        if (missing := _said_workdir(argv)[1]) and not os.path.isdir(missing):
            raise UsageError(
                f"--workdir={missing}: there is no such folder. A run that was started "
                "goes on by its folder alone; a new one needs --config=FILE, for "
                "example --config=configs/quickstart.py"
            )
        raise UsageError(
            "--config=FILE is missing, for example --config=configs/quickstart.py, or "
            "--workdir=DIR of a run that was started before; --help lists configs, "
            "jobs and fields"
        )
    _check_names(source, overrides)
    try:
        rest = flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        raise UsageError(_explain(str(error), source)) from error
    except flags.Error as error:
        raise UsageError(str(error)) from error
    # INFO of the libraries (no TPU here, a checkpoint was written) is not ours to tell.
    if not flags.FLAGS["verbosity"].present:
        absl.logging.set_verbosity(absl.logging.WARNING)
    return list(rest)


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Prints a `UserError` in one message on stderr and exits with 1."""
    try:
        yield
    except Interrupted as interrupted:
        if not interrupted.said:
            print(interrupted, flush=True)
        asked = _flag(STOPPED_EXIT_CODE)
        if asked is not None:
            interrupted.code = asked
        raise
    except KeyboardInterrupt:  # before or after the time when it is waited for
        print("Stopped by SIGINT.", flush=True)
        code = _flag(STOPPED_EXIT_CODE)
        sys.exit(128 + signal.SIGINT if code is None else code)
    except UserError as error:
        _fail(str(error))
    except (OSError, MemoryError, RuntimeError) as error:
        if lacking := ran_out(error):
            _fail(f"the memory does not suffice: {lacking}")
        if not isinstance(error, OSError) or not (error.filename or error.strerror):
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(
            f"{where}{error.strerror}. Is the folder writable, and is there space left "
            "on the disk?"
        )


def _flag(name: str) -> Any:
    """A flag's value; None before the command line was read."""
    known = flags.FLAGS.is_parsed() and name in flags.FLAGS
    return flags.FLAGS[name].value if known else None


def _fail(message: str) -> None:
    log.debug("where it came from", exc_info=True)
    logging.shutdown()
    sys.stdout.flush()
    print(f"aprm_jax: error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def _with_bare_lists(argv: Sequence[str]) -> list[str]:
    """`--config.x=a,b` of a tuple of texts, or `--config.x a,b`, as what it means.

    ml_collections takes it for one text. One with quotes, brackets, blanks or options
    behind a `?`, which may have commas of their own, is left as it is.
    """
    out: list[str] = []
    for arg in argv:
        if out and "=" not in out[-1] and _is_of_list(out[-1]):
            arg = f"{out.pop()}={arg}"
        name, said, value = arg.partition("=")
        bare = re.fullmatch(r"[^\s'\"()\[\]?]*", value)
        if said and bare and _is_of_list(name):
            arg = f"{name}={tuple(filter(None, value.split(',')))!r}"
        out.append(arg)
    return out


def _is_of_list(flag: str) -> bool:
    """Whether a flag, without its value, is that of a tuple of texts."""
    match = re.fullmatch(r"--?config\.(?:overrides\.[^.]+\.)?([\w.]+)", flag)
    known = settings().get(match[1]) if match else None
    return known is not None and known.type == "tuple[str, ...]"


def _split(argv: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """What --config says, and the (field, value) pairs of --config.x.y=value."""
    source, overrides = "", []
    for arg, after in itertools.pairwise([*argv[1:], ""]):
        match = re.fullmatch(r"--?(no)?config(\.[^=]*)?(=.*)?", arg, re.DOTALL)
        if match is None:
            continue
        _, field, value = match.groups()
        value = after if value is None else value[1:]
        if field is not None:
            overrides.append((field[1:], value))
        else:
            source = value
    return source, overrides


def _check_flags(argv: Sequence[str]) -> None:
    """Without a config absl is not asked; a misspelt flag is told all the same."""
    for arg in argv[1:]:
        match = re.match(r"--?(?:no)?([a-z_]+)", arg)
        name = match[1] if match else ""
        if name and name != "config" and name not in flags.FLAGS:
            raise UsageError(
                f"Unknown command line flag {name!r}.{nearest(name, list(flags.FLAGS))}"
            )


def _workdir(argv: Sequence[str]) -> str:
    """What --workdir says, where it is the folder of a run; else ""."""
    _, folder = _said_workdir(argv)
    return folder if os.path.exists(os.path.join(folder, of_run.FILE)) else ""


def _said_workdir(argv: Sequence[str]) -> tuple[slice, str]:
    """Which arguments say --workdir, and what; none and "" where none does."""
    for i, (arg, after) in enumerate(itertools.pairwise([*argv, ""])):
        match = re.fullmatch(r"--?workdir(=.*)?", arg, re.DOTALL)
        if match and match[1] is None:
            return slice(i, i + 2), after
        if match:
            return slice(i, i + 1), match[1][1:]
    return slice(0, 0), ""


@contextlib.contextmanager
def worked_on_here(argv: Sequence[str]) -> Iterator[list[str]]:
    """Arguments whose workdir is a folder; that of an address is kept there.

    Raises:
      WorkdirError: the address cannot be read or written.
    """
    where, said = _said_workdir(argv)
    if not bucket.is_address(said):
        yield list(argv)
        return
    with bucket.Bucket(said).kept() as folder:
        yield [*argv[: where.start], f"--workdir={folder}", *argv[where.stop :]]


def of_finished_run(
    config: ml_collections.ConfigDict, root: Path, argv: Sequence[str]
) -> ml_collections.ConfigDict:
    """What `config` asks of the run in `root`, for jobs that train nothing.

    What trained it is the run's own config: the overrides of its start need not be
    given again. Of `config` hold its settings for the job itself, and whatever the
    command line sets.
    """
    job = jobs().get(config.job)
    if job is None or job.needs or not (root / of_run.FILE).exists():
        return config
    out, given = of_run.get_config(str(root)), flat(config)
    _, overrides = _split(argv)
    named = {name for name, _ in overrides}
    own = tuple(f"{job.group}." for job in jobs().values() if not job.needs)
    for name, value in given.items():
        if name in named or name == "job" or name.startswith(own):
            set_field(out, name, value)
    for name in named:
        _, stage, field = [*name.split(".", 2), "", ""][:3]
        if name.startswith("overrides."):
            override(out, stage, {field: flat(config.overrides[stage])[field]})
    return out


def _help_if_asked(argv: Sequence[str], source: str) -> None:
    """Prints what is asked for, and leaves with 0."""
    asked = [m[1] for m in map(_HELP.fullmatch, argv[1:]) if m]
    if not asked:
        return
    if asked == ["version"]:
        print(f"aprm_jax {__version__}")
    else:
        print(usage.text(_values(source) if source else None, source), end="")
    if "helpfull" in asked:
        print("\nflags of libraries:\n" + flags.FLAGS.get_help())
    sys.exit(0)


def _values(source: str) -> dict[str, Any]:
    """The fields of a config file by name: whatever is wrong is told in a line."""
    file, _, arg = source.partition(":")
    try:
        return flat(read_config_file(file, arg))
    except ConfigError as error:
        raise ConfigError(f"--config={source}: {error}") from error
    except UserError:
        raise
    except Exception as error:  # a config file is Python: it may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        here = os.path.abspath(file)
        lines = [f.lineno for f in frames if os.path.abspath(f.filename) == here]
        where = f", line {lines[-1]}" if lines else ""
        raise ConfigError(
            f"--config={source}: the config file failed{where}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_names(source: str, overrides: Sequence[tuple[str, str]]) -> None:
    """Every field that is set is one of the config file's."""
    known = _values(source)
    changed = flat(known.pop("overrides"), "overrides.")
    names = [*known, *changed]
    for name, value in overrides:
        if name in names:
            continue
        inside = [other for other in names if other.startswith(f"{name}.")]
        if inside:
            raise UsageError(
                f"--config.{name}={value}: {name!r} is a group of fields; set one of "
                f"them, such as {inside[0]!r}"
            )
        raise UsageError(
            f"--config.{name}={value}: unknown config field {name!r}."
            f"{nearest(name, names)}"
        )


def without_dropped_stages(
    config: ml_collections.ConfigDict, source: str
) -> ml_collections.ConfigDict:
    """The config without the overrides of stages that `--config.stages` drops."""
    if list(config.overrides):
        file, _, arg = source.partition(":")
        drop_overrides(config, stages(read_config_file(file, arg)))
    return config


def _explain(message: str, source: str) -> str:
    """Absl's "flag --config.sft.updates=x: invalid literal …" in our words."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
    if match is None:
        return message
    name, value = match.groups()
    file, _, arg = source.partition(":")
    known = flat(read_config_file(file, arg))
    default = (known | flat(known["overrides"], "overrides."))[name]
    return (
        f"config field {name!r} takes {type(default).__name__} "
        f"(default {default!r}), not {value!r}"
    )
