"""job=pav on a tiny run: labels and model to the bit after a kill, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_game
import tiny_run
from tiny_game import CONFIG, DOMAIN

import aprm_jax
from aprm_jax.config import ConfigError
from aprm_jax.files import DamagedFileError
from aprm_jax.jobs import aprm, pav, pav_file, rl, search
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.jobs.records.pav import PavConfig
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.models import ModelVerifier
from aprm_jax.verifiers.pav import NoValuesError, Pav


def config(**fields):
    small = {
        "stages": ("solver:sft", "pav:pav", "found:search"),
        "builder.window": 0,
        "builder.max_steps": 3,
        "prm.head": "two_class",
        "prm.updates": 3,
        "prm.batch_size": 4,
        "pav.problems": 5,
        "pav.batch": 2,
        "pav.n_cov": 3,
        "pav.n_mc": 2,
        "search.verifiers": ("pav",),
        "search.aggregation": "effective",
        "search.problems": 2,
        "search.n": 4,
        "search.m": 2,
        "search.bootstrap": 20,
    }
    return tiny_run.small(small | fields)


class Scripted:
    """A solver of one short plan, right half of the time; by the draws alone."""

    def __init__(self, final=lambda answer, k: answer if k % 2 else "0"):
        self.final, self.calls = final, 0

    def solve(self, starts, count, key, **options):
        self.calls += 1
        answers = {p.question: p.answer for p in _problems()}
        out = []
        for question, prefix in starts:
            group = []
            for k in range(count):
                last = self.final(answers[question], k + len(prefix))
                middle = tuple(prefix) or (f"{1 + k % 2} + 1",)
                done = last is not None and DOMAIN.is_final(last)
                group.append(Solution(question, (*middle, last or "1 + 1"), done))
            out.append(group)
        return out


def _problems(c=None):
    context = Context(c or config(), Path("nowhere"), "pav")
    return [context.domain.train((1 << 40) + i) for i in range(8)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("solver", "other")):
        params = {"backbone": tiny.backbone(CONFIG, seed, spread=1.0)}
        tiny_game.save(folder / name / "model", "solver", params, window=None)
    return folder


@pytest.fixture
def scripted(monkeypatch):
    solver = Scripted()
    monkeypatch.setattr(pav, "open_solver", lambda *args: solver)
    return solver


def _context(root: Path, stage: str, **fields) -> Context:
    context = Context(config(**fields), root, stage)
    pav.check(context, {})
    return context


def _bytes(root: Path, stage: str) -> list[bytes]:
    files = (pav_file.LABELS, "summary.json", "model/params.safetensors")
    return [(root / stage / file).read_bytes() for file in files]


def test_labels_and_model_are_the_same_after_a_kill(
    root, scripted, monkeypatch, caplog
):
    with caplog.at_level("INFO", "aprm_jax"):
        info = pav.run(_context(root, "whole"))
    assert info["questions"] == 5 and info["seeds"] == info["finished"] == 15
    assert 0 < info["low_labels"] < info["labels"] == info["prefixes"]
    for said in (
        "15 seed rollouts, 15 of them",
        "Var[A^mu]",
        "5/5 questions",
        "seeds ",
    ):
        assert said in caplog.text
    told = json.loads((root / "whole/summary.json").read_text())
    assert told["prover"]["reading"].split(":")[0] in ("good", "bad", "unknown")
    assert told["prover"]["states"] > 0 and told["labels"]["tokens"] == 0
    calls = scripted.calls
    # Killed in the second batch, and a line torn in the middle.
    inner = pav.ValueSampler.trees

    def dies(self, problems, key, measured=0):
        if scripted.calls > calls:
            raise KeyboardInterrupt
        return inner(self, problems, key, measured)

    monkeypatch.setattr(pav.ValueSampler, "trees", dies)
    with pytest.raises(KeyboardInterrupt):
        pav.run(_context(root, "killed"))
    path = root / "killed" / pav_file.LABELS
    lines = (root / "whole" / pav_file.LABELS).read_bytes().splitlines(keepends=True)
    assert path.read_bytes() == b"".join(lines[:3])
    path.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    monkeypatch.setattr(pav.ValueSampler, "trees", inner)
    calls = scripted.calls
    pav.run(_context(root, "killed"))
    assert scripted.calls - calls == 3 * 2  # of three batches two
    assert _bytes(root, "killed") == _bytes(root, "whole")


def test_its_model_has_values_and_searches_by_effective_rewards(
    root, scripted, tmp_path
):
    pav.run(_context(root, "pav"))
    model = aprm_jax.PRM.load(root / "pav")
    assert model.spec.values and model.spec.aggregation == "last"
    value = model.verifier.questions(["1 + 2", "3 * 4"])
    assert np.isfinite(value).all() and value[0] != value[1]
    assert abs(model.value("1 + 2") - 1 / (1 + np.exp(-value[0]))) < 1e-6
    with pytest.raises(ValueError, match="the question does not fit"):
        model.value(" + ".join("1" * 60))
    context = Context(config(), root, "found")
    search.check(context, {"pav": "pav"})
    engine = search._engine(context, search._questions(context))
    assert isinstance(engine.verifier, Pav) and engine.aggregation.how == "last"
    assert search.run(context)["questions"] == 2
    # Another prover, by its own values.
    two = Context(config(**{"search.prover_values": "pav"}), root, "two")
    search.check(two, {"pav": "pav"})
    made = search._engine(two, [])
    assert isinstance(made.verifier, Pav)
    assert isinstance(made.verifier.prover, ModelVerifier)
    # What has no values is refused, by its job or once it is read.
    wrong = Context(config(**{"search.verifiers": ("aprm",)}), root, "wrong")
    with pytest.raises(
        ConfigError, match="needs values, and 'aprm' is a stage of job=ap"
    ):
        search.check(wrong, {"aprm": "aprm"})
    solver = Context(config(**{"search.verifiers": ("likelihood",)}), root, "wrong")
    with pytest.raises(NoValuesError, match="a likelihood says how probable"):
        search._engine(solver, [])
    with pytest.raises(
        ConfigError, match="prover_values='pav' is of effective rewards"
    ):
        config(**{"search.prover_values": "pav", "search.aggregation": "last"})


def _game(root: Path, stage: str, **fields) -> Context:
    """A game against the PAV, whose Generator sees one line alone."""
    short = {"stages": (f"{stage}:aprm",), "builder.window": 1}
    game = {"game.updates": 1, "game.prm_from": "pav", "game.generator_from": "writer"}
    given = tiny_run.SMALL_GAME | short | game | fields
    return _context(root, stage, **given)


def test_a_pav_that_the_game_has_hardened_is_one(root, scripted, monkeypatch):
    pav.run(_context(root, "pav"))
    tiny_game.save(root / "writer/model", "generator", tiny_game.generator())
    kept = {"game.right_targets": "reference"}
    aprm.run(_game(root, "hardened", **kept))
    spec = aprm_jax.PRM.load(root / "hardened").spec
    assert spec.values and spec.aggregation == "last" and spec.window is None
    # RL and search take it; as a prover too.
    progress = {"rl.rewards": ("progress",), "rl.prover_values": "hardened"}
    context = _game(root, "rl", **kept, **progress, **{"rl.verifiers": ("pav",)})
    rl.check(context, {"pav": "pav", "hardened": "aprm"})
    prover = rl._prover(context)
    paying = rl._verifier(context, prover)
    assert isinstance(paying, Pav) and paying.prover is prover
    assert np.isfinite(paying.rewards([("1 + 2", ("3",))])[0]).all()
    effective = {"search.verifiers": ("hardened",), **kept}
    search.check(Context(config(**effective), root, "found"), {"hardened": "aprm"})
    # It guards RL as well, and is still paid for progress.
    guarding = {"rl.guard.prm": "hardened", "rl.verifiers": ()}
    context = _game(root, "rl", **kept, **guarding, **{"rl.rewards": ("progress",)})
    guard = rl.GameGuard.of(context)
    assert isinstance(guard.verifier(guard.state), Pav)
    guard.save(guard.state)
    assert aprm_jax.PRM.load(root / "rl/prm").spec.values


@pytest.mark.parametrize(
    ("measured", "problems", "batch"),
    [(32, 400, 16), (32, 400, 1), (7, 5, 2), (3, 5, 4)],
)
def test_as_many_questions_are_measured_as_asked_for(measured, problems, batch):
    c = PavConfig(measured=measured, problems=problems, batch=batch)
    ends = [min(k + batch, problems) for k in range(0, problems, batch)]
    shares = np.array([pav._share(c, end) for end in ends])
    assert shares[-1] == min(measured, problems)
    even = shares[-1] * np.array(ends) / problems
    assert (np.abs(shares - even) < 1).all()


def test_a_game_that_teaches_verdicts_leaves_no_values(root, scripted):
    pav.run(_context(root, "pav"))
    tiny_game.save(root / "writer/model", "generator", tiny_game.generator())
    aprm.run(_game(root, "verdicts", **{"game.sample_log": 0}))  # none is logged
    assert not (root / "verdicts" / aprm.PERTURBATIONS).read_text()
    spec = aprm_jax.PRM.load(root / "verdicts").spec
    assert not spec.values and spec.aggregation == "min" and spec.window is None
    with pytest.raises(ConfigError, match="right_targets='reference' takes the scores"):
        kept = {"game.right_targets": "reference"}
        aprm.run(_game(root, "headless", **kept, **{"game.prm_from": "solver"}))


def test_a_windowed_model_learns_each_step_by_what_it_sees(root, scripted, caplog):
    context = _context(root, "seen", **{"builder.window": 1})
    trees = pav._labelled(context)
    rows, labels = pav.value_rows(context, trees)
    assert "builder.window=1: a value depends on the question" in caplog.text
    caplog.clear()
    values = {(t.question, s): v for t in trees for s, v in t.labels()}
    assert len(rows) == len(values) == len(labels)
    np.testing.assert_allclose(np.sort(labels), sorted(values.values()), rtol=1e-6)
    whole = pav.value_rows(_context(root, "seen2"), trees)[1]
    assert "builder.window" not in caplog.text
    np.testing.assert_allclose(np.sort(whole), np.sort(labels))


def test_labels_of_another_run_are_not_taken(root, scripted):
    pav._labelled(_context(root, "own"))
    path = root / "own" / pav_file.LABELS
    with pytest.raises(JobError, match=r"was made with other pav\.n_mc: delete it"):
        pav._labelled(_context(root, "own", **{"pav.n_mc": 3}))
    # More questions, and another K of the report, change no line.
    longer = _context(root, "own", **{"pav.problems": 6, "pav.best_of": 2})
    assert len(pav._labelled(longer)) == 6
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"nodes", b"node_", 1) + lines[2])
    with pytest.raises(DamagedFileError, match=r"labels\.jsonl, line 2 is not what"):
        pav._labelled(_context(root, "own"))
    path.write_bytes(lines[0] + lines[2] + lines[1])
    with pytest.raises(JobError, match="line 2 is of another question"):
        pav._labelled(_context(root, "own"))


@pytest.mark.parametrize(
    ("final", "said"),
    [
        (lambda answer, k: None, "none of 15 seed rollouts.*is finished.*max_steps=3"),
        (lambda answer, k: answer, "values are at or above 0.5, so there is nothing"),
        (lambda answer, k: "0", "all .* values are below 0.5, so there is nothing"),
    ],
    ids=["unfinished", "all right", "all wrong"],
)
def test_what_nothing_can_be_learned_from_is_said(
    root, monkeypatch, final, said, request
):
    solver = Scripted(final)
    monkeypatch.setattr(pav, "open_solver", lambda *args: solver)
    with pytest.raises(JobError, match=said):
        pav.run(_context(root, request.node.callspec.id.replace(" ", "_")))


def test_answers_that_cannot_be_decided_throughout_are_said(
    root, scripted, monkeypatch
):
    context = _context(root, "undecidable")
    monkeypatch.setattr(type(context.domain), "answer", lambda self, steps: None)
    with pytest.raises(JobError, match="completions states an answer"):
        pav.run(context)


def test_a_solver_that_concludes_nothing_is_not_asked_to_the_end(root, monkeypatch):
    solver = Scripted(lambda answer, k: None)
    monkeypatch.setattr(pav, "open_solver", lambda *args: solver)
    monkeypatch.setattr(pav, "_HOPELESS", 6)
    with pytest.raises(JobError, match="none of 6 seed rollouts"):
        pav.run(_context(root, "hopeless"))


def test_a_prover_that_is_the_base_is_warned_of(root, scripted, caplog):
    for stage, fields in (
        ("same1", {"pav.prover": "solver"}),
        ("same2", {"pav.best_of": 1}),
    ):
        caplog.clear()
        context = _context(root, stage, **fields)
        found = pav._statistics(context, pav._labelled(context))
        assert found.same and "the prover is the base policy" in caplog.text
    # Another one completes with its own words, and tells steps apart by itself.
    context = _context(root, "another", **{"pav.prover": "other"})
    trees = pav._labelled(context)
    found = pav._statistics(context, trees)
    assert not found.same and all(t.nodes[0].counts[1] == 2 for t in trees)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pav.n_mc": 0}, "pav.n_mc must be at least 1, not 0"),
        ({"pav.n_cov": 0}, "pav.n_cov must be at least 1"),
        ({"pav.temperature": 0.0}, "pav.temperature must be positive"),
        ({"pav.sampling": "pits"}, "pav.sampling must be one of all, first_pit"),
        (
            {"prm.head": "three_class", "prm.neutral": "class"},
            "a value is a probability",
        ),
        ({"prm.objective": "ppo"}, "values need prm.objective='cross_entropy'"),
    ],
)
def test_settings_that_do_not_go_together_are_named(root, fields, said):
    with pytest.raises(ConfigError, match=said):
        _context(root, "never", **fields)
