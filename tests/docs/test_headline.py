"""One command for every figure: what it would run, and what is passed over."""

from __future__ import annotations

import importlib
import json
import sys

import command
import pytest

from aprm_jax.config import read_config_file

sys.path.insert(0, str(command.REPOSITORY / "benchmarks"))
headline = importlib.import_module("headline")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(headline, "COSTS", tmp_path / "costs.json")
    results = tmp_path / "results"
    for seed in (0, 1):
        path = results / f"pressure/seed_{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    def of(*names, seeds=(0, 1, 2)):
        return headline.Plan(names, seeds, tmp_path / "runs", results)

    return of


@pytest.mark.parametrize("name", list(headline.FIGURES))
def test_configs_and_scripts_are_there(name, plan):
    figure = headline.FIGURES[name]
    if figure.config:
        path = command.REPOSITORY / figure.config.partition(":")[0]
        arg = figure.config.partition(":")[2].replace("{needs}", "")
        assert read_config_file(path, arg).name
    made = plan(name)
    for script in (*made.scripts(name, 0), *made.scripts(name)):
        assert (command.REPOSITORY / script[1]).is_file()
        assert not any("{" in part for part in script)


def test_a_seed_that_is_measured_is_passed_over_unless_another_figure_needs_it(plan):
    assert plan("pressure").seeds("pressure") == [2]
    made = plan("rl", seeds=(0,))
    assert list(made.runs_of("rl")) == [("pressure", 0), ("rl", 0)]
    calls = []
    assert headline.make(made, "rl", lambda c: calls.append(c[1:4]) or 0)
    said = [" ".join(call) for call in calls]
    runs = made.runs
    assert said == [
        "-m aprm_jax.main --config=configs/pressure.py",
        f"-m aprm_jax.main --config=configs/rl_verifiers.py:{runs}/pressure-0",
        f"benchmarks/rl.py collect {runs}/rl-0",
        "benchmarks/rl.py tables",
    ]


def test_what_a_figure_starts_from_may_start_from_another(plan):
    chain = [("pressure", 0), ("rl_pav", 0), ("pav", 0)]
    assert list(plan("pav", seeds=(0,)).runs_of("pav")) == chain


def test_what_fails_ends_its_figure(plan):
    calls = []
    assert not headline.make(
        plan("pressure"), "pressure", lambda c: len(calls.append(c) or calls)
    )
    assert len(calls) == 1


def test_costs_are_those_of_the_runs(plan):
    made = plan("pressure", "rl", seeds=(2,))
    assert headline._costs() == {}
    done = made.folder("pressure", 2) / "solver/done.json"
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"cpu_seconds": 7200.0}))
    headline._note_cost("pressure", 2, made.folder("pressure", 2))
    headline._note_cost("pressure", 5, made.folder("pressure", 5))
    lines = list(headline.estimate(made, headline._costs()))
    assert lines[0].endswith("seeds 2: 2.0 CPU hours")
    assert lines[1].endswith("seeds 2: unknown")  # its own; the other is counted once
    assert lines[2] == "2.0 CPU hours in all and what is not known"
