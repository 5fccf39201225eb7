"""`aprm_jax.search` on tiny models: names and objects, lists, and wrong arguments."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tiny_server import serving

import aprm_jax
from aprm_jax.config import ConfigError
from aprm_jax.models.io import ModelFileError
from aprm_jax.search.outcome import Outcome
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.verifiers.protocol import Scale, VerifierError

QUESTIONS = ["1 + 2 * 3 =", "7 - 7 =", "( 4 + 5 ) * 2 ="]
SMALL = {"n": 4, "m": 2, "max_steps": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("run")
    tiny.save(root / "solver" / "model", "solver", max_new_tokens=6)
    tiny.save(root / "aprm" / "model", "prm")
    return root


@pytest.fixture(scope="module")
def found(run) -> list[Outcome]:
    return aprm_jax.search(QUESTIONS, solver=run / "solver", verifier=run, **SMALL)


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A `Verifier` of somebody's own, which answers `given`."""

    given: Any
    scale: Any = Scale.LOG_ODDS

    def score(self, solutions):
        return self.given


def _told(outcome: Outcome):
    told = outcome.to_json()
    for field in ("seconds", "peak_kv_bytes"):
        told["ledger"].pop(field)
    return told


def test_a_list_is_searched_as_each_alone(run, found):
    assert [o.question for o in found] == QUESTIONS
    one = aprm_jax.search(
        QUESTIONS[1], solver=str(run / "solver"), verifier=str(run), **SMALL
    )
    assert isinstance(one, Outcome) and one.answer == found[1].answer
    assert [c.steps for c in one.candidates] == [c.steps for c in found[1].candidates]
    assert all(o.ledger.decoded > 0 and o.ledger.verifier_tokens > 0 for o in found)
    other = aprm_jax.search(
        QUESTIONS, solver=run / "solver", verifier=run, seed=1, **SMALL
    )
    assert [_told(o) for o in other] != [_told(o) for o in found]


def test_a_prm_that_is_loaded_and_whatever_is_a_solver(run, found):
    prm = aprm_jax.PRM.load(run)
    again = aprm_jax.search(QUESTIONS, solver=run / "solver", verifier=prm, **SMALL)
    assert [_told(o) for o in again] == [_told(o) for o in found]
    solver = aprm_jax.Solver.load(run / "solver")
    again = aprm_jax.search(QUESTIONS, solver=solver, verifier=run, **SMALL)
    assert [_told(o) for o in again] == [_told(o) for o in found]
    with pytest.raises(TypeError, match="this is a prm, and a solver is wanted: aprm"):
        aprm_jax.search("1", solver=prm)
    with pytest.raises(TypeError, match="a PRM or a verifier, not Solver"):
        aprm_jax.search("1", solver=solver, verifier=solver)

    class Always:
        """A `Solver` of somebody's own, without tokens and caches."""

        def solve(self, starts, count, key, *, max_steps, **options):
            solved = [Solution(q, (*steps, "#### 7"), True) for q, steps in starts]
            return [[solution] * count for solution in solved]

    mine = aprm_jax.search("6 + 1", solver=Always(), verifier=prm, n=4, m=2)
    assert mine.answer == "7" and mine.solution == ("#### 7",)
    (candidate,) = mine.candidates
    assert len(candidate.slots) == 4
    assert mine.scores == pytest.approx(prm.score("6 + 1", ["#### 7"]).tolist())


def test_a_majority_needs_no_verifier(run):
    outcome = aprm_jax.search(
        QUESTIONS[0],
        solver=run / "solver",
        method="best_of_n",
        pick="majority",
        n=8,
        max_steps=3,
    )
    assert outcome.scores == () and [p["slots"] for p in outcome.curve] == [1, 2, 4, 8]


def test_the_package_of_the_same_name_is_the_function_too():
    import aprm_jax.search.engine

    assert callable(aprm_jax.search)
    with pytest.raises(TypeError, match="solver must be a folder"):
        aprm_jax.search("1 + 1", solver=3, verifier="nowhere")


@pytest.mark.parametrize(
    ("question", "options", "error", "said"),
    [
        (3, {}, TypeError, "must be text or a list of texts, not int"),
        ([b"1"], {}, TypeError, "question 0 must be text, not bytes"),
        ({"question": "1"}, {}, TypeError, "must be text or a list of texts, not dict"),
        ("  ", {}, ValueError, "a question is empty"),
        ("1", {"nn": 3}, TypeError, "no option 'nn'; there are method, n, m"),
        ("1", {"n": 2.5}, TypeError, "n must be int, not 2.5"),
        (b"12", {}, TypeError, "must be text or a list of texts, not bytes"),
        ("1", {"n": np.True_}, TypeError, "n must be int, not"),
        ("1", {"aggregation": "med"}, ValueError, 'must be one of "", min, product'),
        ("1", {"grader": "x"}, TypeError, "grader must have is_final, .* not be str"),
        ("1", {"grader": AnswerGrader}, TypeError, "grader must have .* not be type"),
        ("1", {"solver": Wrong}, TypeError, "solver is the class Wrong: make one"),
        ("1", {"verifier": Wrong}, TypeError, "verifier is the class Wrong: make one"),
        ("1", {"verifier": "likelihood"}, ValueError, "name likelihood:SOLVER, a solv"),
        (
            "1",
            {"verifier": "scores"},
            ValueError,
            "does not say whose: name scores:FIL",
        ),
        (
            "1",
            {"solver": "http://h/v1"},
            ConfigError,
            "name: MODEL@http://HOST:PORT/v1",
        ),
        (
            "1",
            {"solver": "@http://h/v1"},
            ConfigError,
            "name: MODEL@http://HOST:PORT/v",
        ),
        ("1", {"solver": "m@http://h/v1#k"}, ConfigError, "^solver: after the # of"),
        ("1", {"n": 0}, ValueError, "n must be at least 1, not 0"),
        ("1", {"n": True}, TypeError, "n must be int, not True"),
        ("1", {"method": "beem"}, ValueError, "must be one of best_of_n, beam"),
        ("1", {"n": 6, "m": 4}, ConfigError, r"n \(6\) must be a multiple of m \(4\)"),
        ("1", {"verifier": None}, ConfigError, "^verifier is None: .*majority"),
        ("1", {"verifier": 7}, TypeError, "verifier must be a folder"),
        ("1", {"solver": ""}, ValueError, "solver is empty: a folder or OWNER/NAME"),
        ("1", {"seed": -1}, ValueError, "seed must be at least 0"),
        ("1", {"seed": 1 << 32}, ValueError, "seed must be at most 4294967295"),
        ("1", {"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        (
            "1",
            {"temperature": float("nan")},
            ValueError,
            "temperature must be a finite number, not nan",
        ),
    ],
)
def test_wrong_arguments_are_named(run, question, options, error, said):
    given = {"solver": run / "solver", "verifier": run} | options
    with pytest.raises(error, match=said):
        aprm_jax.search(question, **given)


def test_a_model_of_the_wrong_kind_is_named(run):
    with pytest.raises(ModelFileError, match="prm"):
        aprm_jax.search("1", solver=run / "aprm" / "model", verifier=run)
    with pytest.raises(ModelFileError, match="solver"):
        aprm_jax.search("1", solver=run / "solver", verifier=run / "solver" / "model")


def test_numbers_of_numpy_are_numbers(run, found):
    told = SMALL | {"n": np.int64(4), "temperature": np.float32(0.5)}
    again = aprm_jax.search(QUESTIONS, solver=run / "solver", verifier=run, **told)
    same = SMALL | {"temperature": 0.5}
    plain = aprm_jax.search(QUESTIONS, solver=run / "solver", verifier=run, **same)
    assert [_told(o) for o in again] == [_told(o) for o in plain]


def test_a_verifier_that_does_not_answer_is_named(run):
    with pytest.raises(VerifierError, match=r"Wrong.score: solution 0, of '1': 2 scor"):
        aprm_jax.search("1", solver=run / "solver", verifier=Wrong([[0, 0]]), n=1, m=1)


def test_a_server_may_write(run, monkeypatch):
    def answer(number: int, body: dict[str, Any]) -> bytes:
        assert body["model"] == "org/model" and "6 + 1" in body["prompt"]
        return json.dumps(
            {"choices": [{"text": "#### 7", "finish_reason": "stop"}]}
        ).encode()

    monkeypatch.setenv("SOME_KEY", "a-secret")
    with serving(answer) as server:
        name = f"org/model@{server.url}#SOME_KEY"
        found = aprm_jax.search("6 + 1", solver=name, verifier=run, n=2, m=2)
        assert server.headers[0]["authorization"] == "Bearer a-secret"
    assert found.answer == "7" and found.solution == ("#### 7",)
