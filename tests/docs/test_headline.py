"""One command for every figure: what it would run, and what is passed over."""

from __future__ import annotations

import importlib
import json
import sys

import command
import pytest

sys.path.insert(0, str(command.REPOSITORY / "benchmarks"))
headline = importlib.import_module("headline")
figures = importlib.import_module("figures")
run_costs = importlib.import_module("run_costs")
compare_table = importlib.import_module("compare_table")
seed_files = importlib.import_module("seed_files")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Of two seeds under pressure, one of RL without most arms, and three pooled."""
    monkeypatch.setattr(run_costs, "PATH", tmp_path / "c")
    folder = tmp_path / "results"
    arms = figures.FIGURES["pressure"].arms(figures.config_of("pressure"))
    pressure = {"curves": {"test": {f"{arm}.min": [] for arm in arms}}}
    write(folder / "pressure/seed_0.json", pressure)
    write(folder / "pressure/seed_1.json", pressure)
    write(folder / "rl/seed_0.json", {"arms": {"aprm": {}, "orm": {}}})
    accuracy = {f"test/{prm}.min@8": {} for prm in ("prm_frozen", "aprm")}
    pooled = {"seeds": [0, 1, 2], "accuracy": accuracy}
    write(folder / "naive_generator.json", pooled)
    return folder


def write(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


@pytest.fixture
def plan(tmp_path, results):
    def of(*names, seeds=(0, 1, 2)):
        return headline.Plan(names, seeds, tmp_path / "runs", results)

    return of


@pytest.mark.parametrize("name", list(headline.FIGURES))
def test_configs_and_scripts_are_there(name, plan):
    figure = headline.FIGURES[name]
    if figure.config:
        assert figures.config_of(name).name
    arms = list(figure.arms(figures.config_of(name)))
    assert bool(arms) == bool(figure.found)
    made = plan(name)
    for script in (*made.collect(name, 0), *made.pool(name), *made.tables(name)):
        assert (command.REPOSITORY / script[1]).is_file()
        assert not any("{" in part for part in script)


@pytest.mark.parametrize("name", list(headline.FIGURES))
def test_published_results_are_found_with_their_arms(name):
    figure = headline.FIGURES[name]
    lacks = figures.lacking(name, 0)
    assert figures.ALL not in lacks
    arms = list(figure.arms(figures.config_of(name)))
    assert len(lacks) < len(arms) or not arms


def test_every_published_table_is_of_a_figure():
    page = (command.REPOSITORY / "docs/results.md").read_text()
    marked = {line[5:-10] for line in page.splitlines() if line.endswith(":begin -->")}
    named = {"results": "compare", "compute": "compare", "smollm2": "smollm2_game"}
    assert {named.get(name, name) for name in marked} <= set(headline.FIGURES)


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


def test_an_arm_that_a_config_has_gained_is_what_a_seed_lacks(plan):
    lacks = plan("rl").lacking("rl", 0)
    assert "guarded" in lacks and "prm_static" in lacks
    assert not {"aprm", "orm"} & set(lacks)
    assert plan("rl").lacking("rl", 1) == [figures.ALL]
    [line, _] = headline.estimate(plan("rl", seeds=(0,)), run_costs.Costs())
    assert "seed 0 (published without prm_static, prm_monte_carlo" in line


def test_pooled_seeds_that_are_published_are_found_and_run_again_only_with_more(plan):
    made = plan("naive_generator", seeds=(0, 1))
    assert made.seeds("naive_generator") == []
    assert made.pool("naive_generator") == []
    [script] = made.tables("naive_generator")
    assert script[1:] == [
        "benchmarks/compare_table.py",
        "--name=naive_generator",
        "--by-seed",
    ]
    more = plan("naive_generator", seeds=(3,))  # without it three would be lost
    assert more.seeds("naive_generator") == [0, 1, 2, 3]
    [script] = more.pool("naive_generator")
    assert script[-4:] == [f"{more.runs}/naive_generator-{seed}" for seed in range(4)]


def test_no_seeds_asked_for_are_those_wanted_and_those_published(plan):
    assert plan("naive_generator", seeds=None).seeds("naive_generator") == [*range(5)]
    assert plan("pressure", seeds=None).seeds("pressure") == [2, 3, 4]


def test_results_of_more_seeds_or_arms_are_not_written_over(tmp_path):
    path = tmp_path / "compare.json"
    compare_table.write_seeds(path, {"seeds": [0, 1]}, '{"seeds": [0, 1]}')
    with pytest.raises(SystemExit, match="has seeds 1, which these runs lack"):
        compare_table.write_seeds(path, {"seeds": [0, 2]}, "")
    compare_table.write_seeds(path, {"seeds": [2, 1, 0]}, '{"seeds": [2, 1, 0]}')
    assert json.loads(path.read_text())["seeds"] == [2, 1, 0]
    found = {"seed": 0, "arms": {"orm": {}, "pav": {}}}
    seed_files.write(found, tmp_path, json.dumps(found))
    with pytest.raises(SystemExit, match="has arms/orm, which this run lacks"):
        seed_files.write({"seed": 0, "arms": {"pav": {}, "new": {}}}, tmp_path, "")
    assert seed_files.read(tmp_path) == [found]


def test_what_a_figure_starts_from_may_start_from_another(plan):
    chain = [("pressure", 0), ("rl_pav", 0), ("pav", 0)]
    assert list(plan("pav", seeds=(0,)).runs_of("pav")) == chain


def test_what_fails_ends_its_figure(plan):
    calls = []
    assert not headline.make(
        plan("pressure"), "pressure", lambda c: len(calls.append(c) or calls)
    )
    assert len(calls) == 1


def test_fields_of_a_figure_are_in_its_command(plan):
    said = plan("rl_unfinished").command("rl_unfinished", 0)
    assert "--config.rl.pay.unfinished=True" in said
    assert figures.config_of("rl_unfinished").rl.pay.unfinished
    assert not figures.config_of("rl").rl.pay.unfinished


@pytest.mark.parametrize("name", ("rl", "rl_unfinished", "quickstart", "mutations"))
def test_a_run_is_of_the_figure_whose_settings_it_has(name, tmp_path):
    settings = figures.config_of(name).to_dict() | {"seed": 3}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert figures.figure_of(tmp_path) == (name, 3)


def test_data_that_is_not_there_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("APRM_GSM8K_DIR", str(tmp_path))
    monkeypatch.delenv("APRM_PRM800K_DIR", raising=False)
    assert headline.missing("gsm8k") == ""
    assert "APRM_PRM800K_DIR" in headline.missing("smollm2_game")  # R's run reads it
    monkeypatch.setenv("APRM_PRM800K_DIR", str(tmp_path))
    assert headline.missing("smollm2_game") == ""


def end(run, stage, seconds):
    write(run / stage / "done.json", {"cpu_seconds": seconds})


def test_costs_are_those_of_stages_of_earlier_runs(plan, tmp_path):
    costs, made = run_costs.Costs(), plan("pressure", "rl", seeds=(2,))
    assert headline.estimate(made, costs).__next__().endswith("2: not measured")
    stages = figures.stages_of("pressure")
    for stage in stages[1:]:
        end(tmp_path / "a", stage, 600.0)
        end(tmp_path / "b", stage, 1200.0)
    costs.note("pressure", 0, tmp_path / "a", "COMMAND", "c0ffee")
    costs.note("pressure", 1, tmp_path / "b", "COMMAND", "")
    first = 0.25 * (len(stages) - 1)  # hours: the mean of both
    lines = list(headline.estimate(made, run_costs.Costs()))
    solver = f"seed 2: {first:.1f} CPU hours, {stages[0]} not measured"
    assert lines[0].endswith(solver)
    assert lines[1].endswith("seed 2: not measured")  # its own; the other counts once
    rest = "CPU hours in all, and what was not measured of pressure, rl"
    assert lines[2] == f"{first:.1f} {rest}"
    end(tmp_path / "a", stages[0], 3600.0)
    costs.note("pressure", 0, tmp_path / "a", "COMMAND", "c0ffee")
    end(made.folder("pressure", 2), stages[1], 5.0)  # is there: not to run again
    lines = list(headline.estimate(made, run_costs.Costs()))
    assert lines[0].endswith(f"seed 2: {first + 0.75:.1f} CPU hours")
    kept = json.loads((tmp_path / "c").read_text())["pressure"]
    assert kept["commits"] == {"0": "c0ffee"}
    assert kept["stages"][stages[1]] == {"0": 600.0, "1": 1200.0}


def test_a_whole_seed_stands_in_for_stages_that_nobody_measured(tmp_path):
    whole = {"p": {"seeds": {"3": 100.0, "4": 300.0}, "stages": {"a": {"0": 50.0}}}}
    write(tmp_path / "costs.json", whole)
    costs = run_costs.Costs(tmp_path / "costs.json")
    assert costs.of("p", 0, ["a"]) == run_costs.Cost(50.0)
    assert costs.of("p", 0, ["a", "b"]) == run_costs.Cost(200.0)
    assert costs.of("p", 4, ["b"], ["a"]) == run_costs.Cost(250.0)
    assert costs.of("q", 0, ["b"]) == run_costs.Cost(0.0, ("b",))


def test_a_script_that_makes_a_figure_is_called_once_and_timed(plan, results):
    made, calls = plan("rates", seeds=None), []

    def call(words):
        calls.append(words[1:])
        if words[-1] == "run":
            write(results / "rates.json", {})
        return 0

    assert headline.make(made, "rates", call)
    assert calls == [["benchmarks/rates.py", "run"], ["benchmarks/rates.py", "tables"]]
    assert run_costs.Costs().knows("rates")
    assert headline.make(made, "rates", call)
    assert calls[2:] == [["benchmarks/rates.py", "tables"]]


def test_a_share_ends_where_shares_do():
    row = {"mean": 0.5, "low": -0.0041, "high": 1.172}
    assert compare_table.share_ends(row, ".0f") == "(0–100)"
    inside = row | {"low": 0.251, "high": 0.749}
    assert compare_table.share_ends(inside, ".1f") == "(25.1–74.9)"
    # A difference may be below zero.
    gap = row | {"by_seed": [0.1, 0.5, 0.9]}
    assert compare_table._points(gap) == "+50.0 (-0.4 to +117.2)"
    assert compare_table._percent(gap) == "50.0 (0.0–100.0)"
