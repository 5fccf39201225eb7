"""What `--help` prints: usage, jobs, configs, and every field with its meaning."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config import Setting, group_meaning, jobs, settings
from aprm_jax.config.files import NEXT_TO_PACKAGE, NOT_SHIPPED

_USAGE = """\
Trains process reward models (PRMs) against a learned adversary.

usage: aprm-jax --config=FILE[:ARG] [--config.FIELD=VALUE ...] [--workdir=DIR]
       aprm-jax --workdir=RUN [--config.job=JOB] [--config.FIELD=VALUE ...]

  --config=FILE[:ARG]     what runs: a config file; ":runlocal" is a cut of minutes
  --config.FIELD=VALUE    sets a field; --config.overrides.STAGE.FIELD of one stage
  --workdir=DIR           folder of the run, by default runs/CONFIG-TIME; a second start
                          in the same folder goes on where the first one stopped,
                          and needs no --config: the run has its own
  --help, --version       this text, with --config=FILE that file's values; the version
  --helpfull              flags of libraries too
`python -m aprm_jax.main` is the same command.
"""


def text(values: Mapping[str, Any] | None = None, source: str = "") -> str:
    """The whole help.

    Args:
      values: of a config by dotted name, in place of the schema's defaults.
      source: where they come from.
    """
    parts = [_USAGE, *_jobs(), "", *_configs(), "", *_fields(values or {}, source)]
    return "\n".join(parts) + "\n"


def _jobs() -> Iterator[str]:
    yield "jobs (a stage is NAME:JOB; --config.job=JOB runs the stages of one job):"
    for name, job in jobs().items():
        yield from _entry(name, job.purpose, 12)


def _configs() -> Iterator[str]:
    for folder in (Path("configs"), NEXT_TO_PACKAGE):
        files = sorted(folder.glob("*.py"))
        if not files:
            continue
        yield "configs:"
        for path in files:
            yield from _entry(str(folder / path.name), _purpose(path), 32)
        return
    yield f"configs: none is here; {NOT_SHIPPED}"


def _purpose(path: Path) -> str:
    """The first line of a config file, which is not run."""
    try:
        written = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, SyntaxError):
        return ""
    return (written or "").partition("\n")[0]


def _fields(values: Mapping[str, Any], source: str) -> Iterator[str]:
    where = f"value in {source}" if source else "default"
    yield f"fields (--config.FIELD=VALUE), with type and {where}:"
    group = None
    for setting in settings().values():
        if setting.group != group:
            group = setting.group
            about = " ".join(group_meaning(group).split())
            yield ""
            yield f"  {group or '(the run)'}: {about}"
        value = values.get(setting.name, setting.default)
        yield f"  {setting.name}: {setting.type} = {value!r}"
        yield from _wrapped(_meaning(setting), 6)


def _meaning(setting: Setting) -> str:
    choices = ", ".join(map(str, setting.limits.choices))
    return setting.meaning + (f"; one of {choices}" if choices else "")


def _entry(name: str, about: str, width: int) -> Iterator[str]:
    """A name and what it is, on one line where both fit."""
    lines = _wrapped(about, width)
    if lines and len(name) + 4 <= width:
        yield f"  {name:<{width - 2}}{lines.pop(0).strip()}"
    else:
        yield f"  {name}"
    yield from lines


def _wrapped(words: str, indent: int) -> list[str]:
    width = min(100, max(60, shutil.get_terminal_size((88, 24)).columns))
    margin = " " * indent
    return textwrap.wrap(words, width, initial_indent=margin, subsequent_indent=margin)
