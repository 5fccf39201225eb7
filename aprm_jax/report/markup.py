"""HTML from the templates of this package.

They escape what they print, and what is not markup of our own is made printable and
cut first (`text.clean`), so that text of a model or of data stays text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from aprm_jax.report import text


def document(
    title: str,
    sections: Sequence[tuple[str, str, str]],
    *,
    subtitle: str = "",
    headline: str = "",
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """A whole page, which loads nothing and admits no script but its own.

    Args:
      title: its title.
      sections: (key, heading, body) each; the body is `Markup`, or text to escape.
      subtitle: one line under the title.
      headline: a sentence in large type.
      facts: (label, value) pairs under it.
    """
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            subtitle=subtitle,
            headline=headline,
            facts=facts,
            style=_resource("page.css"),
            script=script,
            script_hash=f"sha256-{digest}",
        )
    )


def macro(template: str, name: str) -> Callable[..., Markup]:
    """A macro of a template, as a function."""
    return getattr(_environment().get_template(template).module, name)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aprm_jax.report"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "diff": text.diff,
        "duration": text.duration,
        "number": text.number,
        "score": _score,
        "tint": _tint,
        "whole": lambda value: escape(text.clean(value, None)),
    }
    return environment


def _printable(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined) or hasattr(value, "__html__"):
        return value
    return text.clean(value)


def _resource(name: str) -> Markup:
    files = resources.files("aprm_jax.report")
    return Markup(files.joinpath("templates", name).read_text(encoding="utf-8"))


def _score(score: float) -> str:
    return text.EN_DASH if math.isnan(score) else f"{score:.2f}"


def _tint(score: float) -> str:
    return "s3" if math.isnan(score) else f"s{int(min(6, max(0, score * 7)))}"
