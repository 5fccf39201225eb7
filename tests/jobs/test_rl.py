"""job=rl on tiny models: what it leaves, how it goes on, and every wrong input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_game
import tiny_run

from aprm_jax.config import ConfigError, with_fields
from aprm_jax.data.jsonl import DataError
from aprm_jax.evals.records import Results, read_results
from aprm_jax.jobs import rl, rl_guard
from aprm_jax.jobs.rl_tables import rl_tables
from aprm_jax.models import heads
from aprm_jax.models.io import load_model
from aprm_jax.rl.sources import RewardError
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import mark_done


def config(**fields):
    small = {
        **tiny_run.SMALL_GAME,
        "checkpoint.every": 1,
        "builder.buckets": (48,),
        "builder.max_steps": 2,
        "builder.max_new_tokens": 6,
        "rl.verifiers": ("prm",),
        "rl.rewards": ("outcome", "step"),
        "rl.updates": 2,
        "rl.groups": 2,
        "rl.group_size": 4,
        "rl.dev_every": 1,
        "rl.dev_problems": 4,
        "rl.pass_samples": 2,
        "rl.pass_problems": 4,
        "rl.sample_log": 1,
        "rl.max_idle": 0,
        "game.replay_capacity": 32,
    }
    return tiny_run.small(small | fields)


def _save(folder, kind, params, **more):
    rows = {"buckets": (48,), "max_new_tokens": 6}
    tiny_game.save(folder, kind, params, **rows, **more)


def _finishing(backbone):
    """The tiny backbone, which closes about every second step."""
    embedding = backbone["embed"]["embedding"]
    step = tiny_game.builder().step_id
    return {**backbone, "embed": {"embedding": embedding.at[step].multiply(1.5)}}


@pytest.fixture(autouse=True)
def _concluding(monkeypatch):
    """Random models seldom write a number alone: any closed step ends a solution."""
    patched = {
        "is_final": lambda self, step: True,
        "answer": lambda self, steps: steps[-1],
        "same_answer": lambda self, given, expected: given == expected,
    }
    for name, method in patched.items():
        monkeypatch.setattr(ArithmeticDomain, name, method)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    generator = tiny_game.generator()
    backbone = _finishing(generator["backbone"])
    _save(folder / "solver/model", "solver", {"backbone": backbone})
    _save(folder / "generator/model", "generator", generator)
    prm = heads.init_prm(jax.random.key(1), backbone, 16, "token")
    _save(folder / "prm/model", "prm", prm)
    _save(folder / "orm/model", "prm", prm, aggregation="last")
    return folder


def test_a_solver_is_left_with_its_log_and_pass_at_n(root):
    c = config()
    found = rl.run(tiny_run.at("rl", c, root, "rl"))
    params, spec, _ = load_model(root / "rl/model")
    assert spec.kind == "solver" and set(params) == {"backbone"}
    rows = read_metrics(root / "rl")
    assert len(rows) == 2 and not any(row["nonfinite"] for row in rows)
    for phase in ("sample", "verify", "score", "update"):
        assert any(f"time/{phase}" in row for row in rows)
    records, _ = read_results(root / "rl/results.json", "")
    results = Results(records)
    for when in (rl.BEFORE, rl.AFTER):
        one, two = (results.value(rl.SET, "dev", "", f"pass@{n}", when) for n in (1, 2))
        assert 0 <= one <= two <= 1
    assert found["alarm"] == "" and found["best_dev"] >= 0
    lines = (root / "rl" / rl.ROLLOUTS).read_text().splitlines()
    assert {json.loads(line)["step"] for line in lines} == {0, 1}
    mark_done(root / "rl", {"job": "rl", **found})
    c = with_fields(c, {"stages": ("rl",)})
    [table] = rl_tables(c, root)
    assert [row.name for row in table.rows] == ["before RL", "after"]
    assert [column.name for column in table.columns] == ["N = 1", "N = 2"]
    assert "Best on dev" in table.note and "No alarm" in table.note


class Killed(Exception):
    pass


def test_a_run_that_was_killed_ends_with_the_same_bits(root, monkeypatch):
    paying = {"rl.implicit_from": "solver", "rl.implicit_learning_rate": 1e-2}
    paying["rl.rewards"] = ("outcome", "implicit")
    c = config(**{"lora.rank": 2, "rl.overlap": True, "rl.updates": 3} | paying)
    rl.run(tiny_run.at("rl", c, root, "whole"))
    play = rl.Rounds.step_fn

    def killed(self, state, step, timer):
        if step == 2:
            raise Killed
        return play(self, state, step, timer)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(rl.Rounds, "step_fn", killed)
        rl.run(tiny_run.at("rl", c, root, "cut"))
    assert not (root / "cut/model").exists()
    rl.run(tiny_run.at("rl", c, root, "cut"))
    for folder in ("model", "adapter", "implicit/model"):
        file = f"{folder}/params.safetensors"
        assert (root / "cut" / file).read_bytes() == (
            root / "whole" / file
        ).read_bytes()
    logs = [
        [
            {k: v for k, v in row.items() if "time/" not in k}
            for row in read_metrics(root / s)
        ]
        for s in ("cut", "whole")
    ]
    assert repr(logs[0]) == repr(logs[1])


def test_the_game_guards_and_its_prm_is_kept(root, monkeypatch):
    added = []
    rows = rl_guard.GameGuard._rows
    monkeypatch.setattr(
        rl_guard.GameGuard,
        "_rows",
        lambda self, solutions: added.append(rows(self, solutions)) or added[-1],
    )
    c = config(
        **{
            "rl.verifiers": (),
            "rl.guard.prm": "prm",
            "rl.guard.own_steps": True,
            "rl.updates": 2,
        }
    )
    rl.run(tiny_run.at("rl", c, root, "guarded"))
    logged = read_metrics(root / "guarded")
    assert all("prm/loss" in row for row in logged)
    assert [row["guard/own_steps"] for row in logged] == [len(a) for a in added]
    assert sum(map(len, added))
    labels = {float(row.labels[0]) for part in added for row in part}
    assert labels <= {0.0, 1.0}
    after, spec, _ = load_model(root / "guarded/prm/model")
    before, _, _ = load_model(root / "prm/model")
    assert spec.kind == "prm"
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


def test_what_a_solution_was_cut_off_in_is_no_step_for_the_guard(root):
    c = config(
        **{"rl.verifiers": (), "rl.guard.prm": "prm", "rl.guard.own_steps": True}
    )
    guard = rl_guard.GameGuard.of(tiny_run.at("rl", c, root, "cut_off"))
    solution = Solution("2 + 3 * 4", ("2 + 12", "1"), False)
    whole, cut = (
        guard._rows([solution]),
        guard._rows([dataclasses.replace(solution, closed=False)]),
    )
    assert [row.labels.tolist() for row in whole] == [[1.0], [0.0]]
    assert [row.labels.tolist() for row in cut] == [[1.0]]


def test_own_steps_that_do_not_fit_the_games_rows_are_left_out(root):
    """The PRM was trained on longer rows, and scores them still."""
    solution = Solution("2 + 3 * 4", ("2 + 12", "14"), True)
    c = config(**{"rl.verifiers": (), "rl.guard.prm": "prm"})
    long = rl_guard.GameGuard.of(tiny_run.at("rl", c, root, "long"))
    first, last = long._rows([solution])
    c = with_fields(c, {"builder.buckets": (len(first) - 1,)})
    guard = rl_guard.GameGuard.of(tiny_run.at("rl", c, root, "short"))
    assert guard.read.scorer.builder.fits(first)
    (row,) = rows = guard._rows([solution])
    assert row.tokens.tolist() == last.tokens.tolist() and len(last) < len(first)
    assert guard.state.replay.add(rows).size == 1


def test_a_guard_may_keep_its_generator_as_it_is(root):
    guarded = {"rl.verifiers": (), "rl.guard.prm": "prm"}
    for frozen in (False, True):
        c = config(**guarded, **{"game.freeze_generator": frozen})
        guard = rl_guard.GameGuard.of(tiny_run.at("rl", c, root, "frozen"))
        assert (guard.state.archive is None) == frozen


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"rl.verifiers": ("prmm",)}, ConfigError, "'prmm' is neither a stage"),
        ({"rl.verifiers": ("scores:x",)}, DataError, "no such file"),
        ({"rl.verifiers": ("orm",)}, RewardError, "ORM"),
        ({"rl.verifiers": ()}, RewardError, "wants a verifier"),
        ({"rl.rewards": ("progress",)}, RewardError, "job=pav"),
        (
            {"rl.verifiers": ("likelihood:solver",)},
            RewardError,
            "likelihood says how probable",
        ),
        ({"rl.solver_from": "prm"}, ConfigError, "is a prm; it must be solver"),
        ({"rl.pass_splits": ("dev", "tset")}, DataError, "has no split 'tset', only"),
    ],
)
def test_wrong_names_and_kinds_are_refused_before_a_round(root, fields, error, message):
    context = tiny_run.at("rl", config(**fields), root, "wrong")
    with pytest.raises(error, match=message):
        rl.check(context, {})
        rl.run(context)
    assert not (root / "wrong" / "metrics.jsonl").exists()
    shutil.rmtree(root / "wrong", ignore_errors=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rl.group_size": 1}, "rl.group_size must be at least 2"),
        ({"rl.rewards": ()}, "rl.rewards is empty"),
        ({"rl.rewards": ("outcom",)}, "rl.rewards must be one of outcome"),
        ({"rl.rewards": ("step", "step")}, "twice"),
        ({"rl.weights": (1.0,)}, "1 weights for 2 rl.rewards"),
        ({"rl.kl_estimator": "k1"}, "its gradient is 0 in expectation"),
        ({"rl.kl_estimator": "k3"}, "the other KL"),
        ({"rl.kl_as": "reward"}, "its gradient is biased"),
        ({"rl.dual_clip": 0.5}, "rl.dual_clip is 0 or above 1"),
        (
            {"rl.dev_every": 0, "rl.keep": "best"},
            "keep='best' keeps the best checkpoint on dev",
        ),
        (
            {"rl.dev_every": 0, "rl.alarm.kl": 9.0},
            "alarm.kl=9.0 stops and keeps the best",
        ),
        ({"rl.rewards": ("implicit",)}, "rl.implicit_from names"),
        ({"rl.implicit_learning_rate": 1e-3}, "name it in rl.implicit_from"),
        ({"rl.guard.prm": "prm"}, "set rl.verifiers=()"),
        ({"rl.prover_values": "pav"}, "rl.prover_values='pav' is of progress alone"),
        (
            {"game.right_targets": "reference", "game.prm_objective": "expected"},
            "game.prm_objective='expected' learns verdicts",
        ),
        ({"rl.estimator": "gpro"}, "Did you mean 'grpo'"),
    ],
)
def test_settings_that_do_not_go_together_are_named(fields, message):
    with pytest.raises(ConfigError) as caught:
        config(**fields)
    assert message in str(caught.value)


def test_a_group_of_one_is_no_fault_where_nothing_is_compared_within_it():
    for estimator in ("reinforce++", "ppo"):
        config(**{"rl.group_size": 1, "rl.estimator": estimator})
