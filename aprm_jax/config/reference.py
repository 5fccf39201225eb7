"""The reference of all config fields, as Markdown, from the schema itself."""

from __future__ import annotations

import itertools

from aprm_jax.config.job import jobs
from aprm_jax.config.schema import group_meaning, settings
from aprm_jax.config.setting import Setting

_INTRODUCTION = """\
# Configuration

Every field of a config file, its type, its default and what it means. A config file is
Python: `get_config(arg)` starts from `default_config()` and sets what differs.
`--config.game.updates=500` sets a field for one run. A misspelt or ill-typed field
fails before anything is compiled, and names the nearest valid one.
APRM's constants are not published; every value here is ours.
"""


def configuration_reference() -> str:
    """One table for each group of fields, the run's own first."""
    parts = [_INTRODUCTION, _jobs()]
    ordered = sorted(settings().values(), key=lambda s: s.group)
    for group, fields in itertools.groupby(ordered, key=lambda s: s.group):
        title = f"`{group}`" if group else "The run"
        about = " ".join(group_meaning(group).split())
        parts.append(f"## {title}\n\n{_escaped(about)}\n\n{_table(list(fields))}")
    return "\n".join(parts)


def _jobs() -> str:
    rows = [f"| `{job.name}` | {_escaped(job.purpose)} |" for job in jobs().values()]
    return "\n".join(["## Jobs", "", "| job | what it does |", "|---|---|", *rows, ""])


def _table(fields: list[Setting]) -> str:
    head = ["| field | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *map(_row, fields), ""])


def _row(field: Setting) -> str:
    meaning = _escaped(field.meaning)
    if field.limits.choices:
        meaning += ": " + ", ".join(f"`{choice}`" for choice in field.limits.choices)
    return f"| `{field.name}` | {field.type} | `{field.default!r}` | {meaning} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell."""
    for mark in ("\\", "|", "<", "*", "_", "$", "`"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
