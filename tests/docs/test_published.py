"""Published tables are what their scripts make of the results beside them."""

from __future__ import annotations

import importlib
import json
import shutil
import sys

import command
import pytest

BENCHMARKS = command.REPOSITORY / "benchmarks"
PAGE = command.REPOSITORY / "docs/results.md"
sys.path.insert(0, str(BENCHMARKS))
seed_files = importlib.import_module("seed_files")
FIGURES = ("pressure", "rl", "search_pressure")  # draw one beside their tables
SCRIPTS = ("attack", "naive_pressure", "pav", "pressure", "rl", "search_pressure")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_has_what_the_results_say(name, tmp_path, monkeypatch):
    if not list((BENCHMARKS / "results" / name).glob("*.json")):
        pytest.skip(f"benchmarks/results/{name}: no seed has been measured")
    script = importlib.import_module(name)
    page = shutil.copy(PAGE, tmp_path / "results.md")
    arguments = [name, "tables", f"--page={page}"]
    if name in FIGURES:
        arguments.append(f"--figure={tmp_path / 'figure.svg'}")
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()
    assert (tmp_path / "figure.svg").exists() == (name in FIGURES)


def test_a_run_is_collected_under_its_seed(tmp_path, monkeypatch):
    attack = importlib.import_module("attack")
    run, results = tmp_path / "run", tmp_path / "results"
    (run / "attack").mkdir(parents=True)
    settings = {"seed": 7, "attack": {"oracle_calls": 20}}
    (run / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(attack, "read_results", lambda path, remedy: (RECORDS, {}))
    path = attack.collect(run, results)
    assert path == results / "seed_7.json"
    [found] = seed_files.read(results)
    assert (found["seed"], found["oracle_calls"]) == (7, 20)
    assert "--config=configs/attack.py:RUN --config.seed=7" in found["command"]
    assert found["aprm"] == {"robustness_score": 0.8765}  # no kinds, no other sets


def record(**fields):
    from aprm_jax.evals.records import Record

    row = {"set": "robustness", "split": "", "verifier": "/runs/p/aprm/model"}
    row |= {"metric": "robustness_score", "value": 0.87654}
    return Record.from_json(row | fields)


RECORDS = [record(), record(part="kind", metric="wrong"), record(set="steps")]
