"""Solvers by their names in a config: what an endpoint needs, and where it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_run

from aprm_jax.config import (
    ConfigError,
    as_read_by,
    is_read_by,
    jobs,
    validate,
)
from aprm_jax.config.groups import ASKS
from aprm_jax.jobs import samples, start, verifier_tables, verifiers
from aprm_jax.jobs.changes import FREE
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.solvers import open_solver
from aprm_jax.solvers import completions
from aprm_jax.solvers.endpoint import EndpointSolver
from aprm_jax.solvers.layouts import BuilderLayout, WordLayout
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.protocol import Scale

URL = "http://127.0.0.1:8000/v1"


def context(folder: Path, stage: str = "evaluate", **fields: object) -> Context:
    named = {
        "solver__endpoint": URL,
        "endpoint__model": "m",
        "builder__line_stride": 0,
        "evaluate__solver": "endpoint",
        "evaluate__prms": (),
        "evaluate__attack_prms": (),
        **fields,
    }
    return Context(tiny_run.config(**named), folder, stage)


def check(context: Context, job: str) -> None:
    start.check_sources([(context, jobs()[job])])


@pytest.mark.parametrize("learned", [1, 0])
def test_a_solver_is_prompted_as_it_learned_whatever_the_stage_reads(tmp_path, learned):
    small = {"d_model": 16, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1}
    fields = {f"model__{k}": v for k, v in small.items()} | {"model__d_ff": 16}
    of_solver = context(tmp_path, "solver", builder__window=learned, **fields)
    params = {"backbone": tiny.backbone(of_solver.decoder_config)}
    of_solver.save(params, "solver")
    stage = context(tmp_path, "orm", builder__window=1 - learned, **fields)
    solver = open_solver(stage, "solver", "prm.solver")
    assert isinstance(solver, LocalSolver)
    assert (solver.builder.window or 0) == learned
    lines = ("1 + 2 * 3", ("1 + 6",))
    assert solver.builder.context(*lines) == of_solver.writer.context(*lines)
    assert solver.builder.context(*lines) != stage.writer.context(*lines)


def test_an_endpoint_is_a_solver_by_its_name(tmp_path):
    of_run = context(tmp_path, endpoint__n=3, endpoint__http__retries=2)
    check(of_run, "evaluate")
    solver = open_solver(of_run, "endpoint", "evaluate.solver")
    assert isinstance(solver, EndpointSolver) and isinstance(solver.layout, WordLayout)
    assert (solver.model, solver.max_tokens, solver.choices) == ("m", 16, 3)
    assert solver.completions.url == f"{URL}/completions"
    rows = open_solver(context(tmp_path, endpoint__layout="rows"), "endpoint", "f")
    assert isinstance(rows, EndpointSolver) and isinstance(rows.layout, BuilderLayout)
    # One client, so that the journal is read once.
    again = open_solver(of_run, "endpoint", "evaluate.solver")
    assert isinstance(again, EndpointSolver)
    assert again.completions is solver.completions


def test_a_server_is_not_asked_for_the_likelihood_of_texts(tmp_path):
    of_run = context(tmp_path)
    assert list(verifiers.model_verifiers(of_run)) == []
    assert [v.key for v in verifier_tables.verifiers(of_run.config)] == []


@pytest.mark.parametrize(
    ("fields", "job", "said"),
    [
        ({"solver__endpoint": ""}, "evaluate", "needs solver.endpoint, which is empty"),
        ({"endpoint__model": ""}, "evaluate", "needs endpoint.model, which is empty"),
        (
            {"endpoint__layout": "rows", "builder__line_stride": 32},
            "evaluate",
            "needs builder.line_stride=0, not 32",
        ),
        (
            {"endpoint__key_variable": "NO_SUCH_KEY"},
            "evaluate",
            "'NO_SUCH_KEY'.*is not set",
        ),
        (
            {"evaluate__prms": ("endpoint",)},
            "evaluate",
            "evaluate.prms='endpoint': a server writes solutions, and has no param",
        ),
        (
            {"prm__solver": "endpoint", "sft__task": "perturb"}
            | {"generator__backbone": "somewhere"},
            "sft",
            "prm.solver='endpoint': a server writes solutions",
        ),
        ({"prm__init_from": "endpoint"}, "prm", "prm.init_from='endpoint': a server"),
    ],
)
def test_what_an_endpoint_lacks_is_said_before_anything_starts(
    fields, job, said, tmp_path
):
    with pytest.raises(ConfigError, match=said):
        check(context(tmp_path, **fields), job)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", r"is http:// or https://.*not 'localhost:8000/v1'"),
        ("ftp://localhost/v1", "is http:// or https://"),
        ("http://", "is http:// or https://"),
        ("http://localhost:99999/v1", "is no address"),
        ("http://[::1/v1", "is no address"),
        ("http://local host/v1", "is http:// or https://"),
        ("http://localhost/v1\n", "is http:// or https://"),
        ("https://me:hunter2@localhost/v1", "endpoint.key_variable"),
        ("me:hunter2@localhost/v1", "endpoint.key_variable"),
        ("https://localhost/v1?key=hunter2", "endpoint.key_variable"),
        ("https://localhost/v1#hunter2", "endpoint.key_variable"),
    ],
)
def test_an_address_is_one_and_holds_no_secret(url, said):
    config = tiny_run.config(solver__endpoint=url)
    with pytest.raises(ConfigError, match=f"solver.endpoint.*{said}") as error:
        validate(config)
    assert "hunter2" not in str(error.value)


def test_how_a_server_is_asked_redoes_nothing_and_what_it_is_asked_does(tmp_path):
    assert {"endpoint.http", "endpoint.key_variable"} <= set(FREE)
    for name in ("solver.endpoint", "endpoint.model", "endpoint.layout"):
        assert is_read_by(jobs()["evaluate"], name)
        assert not is_read_by(jobs()["sft"], name)
        assert not is_read_by(jobs()["aprm"], name)


@pytest.mark.parametrize("job", ASKS)
def test_a_stage_sees_all_that_it_asks_a_server_by(job, tmp_path):
    """A stage's config has no field that its job does not say it reads."""
    whole = context(tmp_path, endpoint__logprobs=True)
    seen = Context(as_read_by(whole.config, jobs()[job]), tmp_path, job)
    solver = open_solver(seen, "endpoint", "f.solver")
    assert isinstance(solver, EndpointSolver) and solver.logprobs
    assert solver.completions.url == f"{URL}/completions"


def test_the_samples_of_a_job_are_the_servers(tmp_path, monkeypatch):
    asked = []

    def ask(self, bodies):
        asked.extend(bodies)
        return [[completions.Choice("#### 3", True)] for _ in bodies]

    monkeypatch.setattr(completions.Completions, "ask", ask)
    of_run = context(tmp_path)
    problems = [of_run.domain.train(i) for i in range(2)]
    found = samples.sample(of_run, 0, problems, 2)
    assert [[s.steps[0] for s in row] for row in found] == [["#### 3"] * 2] * 2
    assert len({body["seed"] for body in asked}) == len(asked) >= 4
    assert problems[0].question in asked[0]["prompt"]


def test_scores_of_samples_say_how_their_verifier_is_read(tmp_path, monkeypatch):
    class Last:
        scale, aggregation = Scale.LOG_ODDS, "last"

        def score(self, solutions):
            return [np.zeros(len(steps)) for _, steps in solutions]

    class Plain(Last):
        aggregation = property()  # as of one that says nothing

    named = {"orm": Last(), "plain": Plain()}
    monkeypatch.setattr(verifiers, "model_verifiers", lambda *_: iter(named.items()))
    rows = [[Solution("1 + 2", ("3",), True)] * 2]
    found = samples.sample_scores(context(tmp_path), rows)
    assert {name: said.aggregation for name, said in found.items()} == {
        "orm": "last",
        "plain": "min",
    }
