"""The solver that a config's field names: a model in this process, or a server."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from aprm_jax.config import Config, ConfigError, Job, flat
from aprm_jax.config.groups import HttpConfig
from aprm_jax.config.setting import items_of
from aprm_jax.hf.builders import open_writer
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.context import Context
from aprm_jax.models.io import ModelFileError
from aprm_jax.servers.client import read_key
from aprm_jax.servers.journal import FILE, Journal
from aprm_jax.solvers.completions import Completions
from aprm_jax.solvers.endpoint import EndpointSolver
from aprm_jax.solvers.layouts import BuilderLayout, TextLayout, WordLayout
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solver
from aprm_jax.verifiers.named import fingerprint_of

_WRITERS = ("solver", "solvers", "prover")  # fields that name who writes solutions


def open_solver(context: Context, source: str, field: str) -> Solver:
    """The solver `source`: a stage, a folder, `backbone` or `endpoint`.

    Args:
      context: of the stage that asks it.
      source: what the config's `field` holds.
      field: for messages.

    Raises:
      ConfigError: there is no such solver, or it does not fit the config.
    """
    if source == ENDPOINT:
        return _endpoint(context)
    of_role = context.solver(source)
    params, spec = of_role.load(source, field, "solver")
    writer = of_role.writer
    if (
        spec.window != writer.window
    ):  # of an ORM's stage: its solver reads as it learned
        own = dataclasses.replace(of_role.spec("solver"), window=spec.window)
        writer = open_writer(own, of_role.tokenizer)
    return LocalSolver(of_role.sampler, params["backbone"], of_role.domain, writer)


def written_by(context: Context, source: str) -> list[str]:
    """What of the config decides what a solver writes, beside the files of a stage.

    Rows that were written by one solver are not gone on with by another.

    Args:
      context: of the stage that asks it.
      source: as of `open_solver`.
    """
    c = context.config
    named = [c.prompt.solver]  # a stage's model may be told in words as well
    if source in (BACKBONE, ENDPOINT):
        named.append(c.solver.backbone)
    if source == BACKBONE:
        named.append(backbone_weights(c.solver.backbone))
    if source == ENDPOINT:
        named += [c.solver.endpoint, c.endpoint.model, c.endpoint.layout]
        if c.endpoint.n > 1:  # what shares a prompt shares seeds then
            named.append(f"endpoint.n={c.endpoint.n}")
    return named


def backbone_weights(name: str) -> str:
    """The fingerprint of a role's backbone; "" where it cannot be found."""
    try:
        return fingerprint_of(name)
    except ModelFileError:  # what opens it says so
        return ""


def asks_endpoint(config: Config, job: Job) -> bool:
    """Whether a stage names a server as who writes its solutions.

    Args:
      config: of the stage.
      job: that it runs.
    """
    named = {source for _, source in job.sources(config)}
    for value in flat(getattr(config, job.group)).values():
        named.update(items_of(value))
    return ENDPOINT in named


def check_endpoint(config: Config, field: str, job: str) -> None:
    """Whether the endpoint can be asked for what a job's `field` names it for.

    Raises:
      ConfigError: says what is missing.
    """
    # Fine-tuning starts G from the parameters of prm.solver.
    if job == "sft" or field.rpartition(".")[2] not in _WRITERS:
        raise ConfigError(
            f"{field}={ENDPOINT!r}: a server writes solutions, and has no parameters "
            "that could be trained or read here: name a stage or a model's folder"
        )
    for name, value in (
        ("solver.endpoint", config.solver.endpoint),
        ("endpoint.model", config.endpoint.model),
    ):
        if not value:
            raise ConfigError(f"{field}={ENDPOINT!r} needs {name}, which is empty")
    if config.endpoint.layout == "rows" and config.builder.line_stride:
        raise ConfigError(
            'endpoint.layout="rows" needs builder.line_stride=0, not '
            f"{config.builder.line_stride}: a server counts positions through"
        )
    read_key(config.endpoint.key_variable)


def _endpoint(context: Context) -> EndpointSolver:
    c = context.config
    asked = c.endpoint
    path = context.directory / FILE
    return EndpointSolver(
        _completions(c.solver.endpoint, asked.key_variable, asked.http, path),
        _layout(context, asked.layout),
        context.domain,
        asked.model,
        c.builder.max_new_tokens,
        asked.n,
        asked.logprobs,
    )


def _layout(context: Context, layout: str) -> TextLayout:
    if layout == "rows":
        return BuilderLayout(context.of("solver").writer)
    if context.config.solver.backbone:
        return BuilderLayout(context.solver(BACKBONE).writer)
    return WordLayout(context.config.prompt.solver)


@functools.lru_cache(maxsize=4)
def _completions(
    url: str, key_variable: str, http: HttpConfig, path: Path
) -> Completions:
    return Completions(url, read_key(key_variable), http, Journal(path))
