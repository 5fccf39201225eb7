"""Jobs whose verifier is behind an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_game
import tiny_run
from tiny_server import Server, of_prm, serving

import aprm_jax
from aprm_jax.config import ConfigError, jobs, with_fields
from aprm_jax.jobs import (
    pipeline,
    rl,
    search,
    select,
    start,
    verifier_tables,
    verifiers,
)
from aprm_jax.jobs.context import Context
from aprm_jax.servers.client import EndpointError
from aprm_jax.servers.journal import FILE

URL = "http://127.0.0.1:8000/score"
SOLUTIONS = [(question, list(steps)) for question, steps, _ in tiny.solutions()]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    backbone = tiny_game.generator()["backbone"]
    tiny_game.save(folder / "solver" / "model", "solver", {"backbone": backbone})
    tiny_game.save(folder / "prm" / "model", "prm", tiny_game.prm())
    return folder


@pytest.fixture
def server(root) -> Iterator[Server]:
    """The PRM of the run, served."""
    with serving(of_prm(aprm_jax.PRM.load(root / "prm"))) as served:
        yield served


def _context(root: Path, stage: str, **fields: Any) -> Context:
    return Context(tiny_run.small({"builder.max_steps": 3, **fields}), root, stage)


def test_a_file_is_scored_by_a_server_and_paid_once(root, server, tmp_path):
    rows = [{"prompt": q, "completions": s} for q, s in SOLUTIONS * 2]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    fields = {
        "job": "score",
        "score.input": str(source),
        "score.verifiers": (server.url,),
        "score.batch": 6,
        "endpoint.http.requests": 1,
    }
    config, answer = tiny_run.small(fields), server.answer
    server.answer = lambda n, body: answer(n, body) if n < 2 else (404, {}, b"gone")
    with pytest.raises(EndpointError, match="the same command asks for the others"):
        start.run(config, root)
    server.answer = answer
    start.run(config, root)
    assert len(server.bodies) == len(SOLUTIONS) + 1  # one was refused
    written = (root / "score" / "in.score.jsonl").read_text().splitlines()
    expected = aprm_jax.PRM.load(root / "prm").score_batch(SOLUTIONS * 2)
    for line, scores in zip(written, expected, strict=True):
        np.testing.assert_allclose(json.loads(line)["scores"], scores, atol=1e-6)


def test_a_search_with_a_server_is_that_with_its_prm(root, server):
    fields = {"splits": ("dev",), "problems": 3, "n": 4, "m": 2, "trees": 0}
    rows = {}
    for stage, name in (("own", "prm"), ("asked", server.url)):
        named = fields | {"verifiers": (name,), "bootstrap": 50}
        context = _context(root, stage, **{f"search.{k}": v for k, v in named.items()})
        search.check(context, {})
        search.run(context)
        found = (root / stage / "solutions.jsonl").read_text().splitlines()
        rows[stage] = [json.loads(line) for line in found]
    assert len(rows["asked"]) == 3 and (root / "asked" / FILE).is_file()
    for mine, theirs in zip(rows["asked"], rows["own"], strict=True):
        assert [c["steps"] for c in mine["candidates"]] == [
            c["steps"] for c in theirs["candidates"]
        ]


def test_an_evaluation_has_a_row_of_a_server(root, server):
    fields = {"evaluate.solver": "", "evaluate.splits": (), "evaluate.attack_prms": ()}
    names = ("prm", server.url)
    context = _context(root, "evaluate", **fields, **{"evaluate.prms": names})
    start.check_sources([(context, jobs()["evaluate"])])
    pairs = [(q, tuple(s)) for q, s in SOLUTIONS]
    said = verifiers.model_scores(context, pairs)
    assert list(said) == list(names)
    for mine, theirs in zip(
        said[server.url].probabilities(), said["prm"].probabilities(), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    rows = {v.key: v.name for v in verifier_tables.verifiers(context.config)}
    assert rows[server.url] == server.url


def test_candidates_are_chosen_by_a_server(root, server, tmp_path):
    source = tmp_path / "in.jsonl"
    question, steps = SOLUTIONS[0]
    row = {"question": question, "candidates": [steps, steps[:1]]}
    source.write_text(json.dumps(row) + "\n")
    names = (server.url, "prm")
    fields = {"select.input": str(source), "select.verifiers": names}
    context = _context(root, "select", **fields)
    select.check(context, {})
    select.run(context)
    (line,) = (root / "select" / "in.select.jsonl").read_text().splitlines()
    expected = aprm_jax.PRM.load(root / "prm").score(question, steps)
    found = json.loads(line)["candidates"][0]["scores"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_host_asks():
    config = tiny_run.config()
    for job, all_hosts in (("search", False), ("rl", True)):
        asking = with_fields(config, {f"{job}.verifiers": (URL,)})
        assert pipeline.by_all_hosts(config, jobs()[job])
        assert pipeline.by_all_hosts(asking, jobs()[job]) is all_hosts
    context = Context(asking, Path("run"), "rl")
    rl.check(context, {})
    with pytest.raises(ConfigError, match=rf"rl\.verifiers='{URL}' would answer each"):
        start._check_together(context, jobs()["rl"])


def test_a_server_has_no_parameters_to_start_from(root):
    fields = {"evaluate.prms": (), "game.generator_from": "solver"}
    config = tiny_run.config(fields | {"evaluate.attack_prms": (URL,)})
    evaluate = Context(config, root, "evaluate"), jobs()["evaluate"]
    with pytest.raises(ConfigError, match=rf"evaluate\.attack_prms='{URL}' is neither"):
        start.check_sources([evaluate])
