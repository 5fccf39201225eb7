"""The quickstart cut short: from the command to the report, and started again."""

import json
import os
import re
import shutil
from pathlib import Path

import command
import numpy as np
import pytest
import tiny_hf

import aprm_jax
from aprm_jax.config import jobs, read_config_file, validate, with_fields
from aprm_jax.evals.records import by_name, read_results
from aprm_jax.jobs import export, pipeline, tables
from aprm_jax.jobs.context import Context
from aprm_jax.report.contents import Cell, Column, Row, Table
from aprm_jax.training.metrics import read_metrics

TRAINED = ("solver", "generator", "prm_warmup", "prm_static", "aprm")
SPLITS = ("test", "longer", "larger", "worded")


def test_every_stage_leaves_its_model_and_its_log(whole):
    for stage in TRAINED:
        assert (whole / stage / "model" / "params.safetensors").is_file()
        rows = read_metrics(whole / stage)
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert not any(row["nonfinite"] for row in rows)
    for stage, job in (("solver", "sft"), ("aprm", "aprm"), ("prm_static", "prm")):
        logged = {name for row in read_metrics(whole / stage) for name in row}
        shown = [metric for _, metric in jobs()[job].shown if metric in logged]
        assert len(shown) >= 2, job  # and a metric that was renamed is missed here
        if job != "prm":  # whose labels have accuracies of their own
            assert len(shown) == len(jobs()[job].shown)
    first, last = (read_metrics(whole / "solver")[k]["loss"] for k in (0, -1))
    assert last < first


@pytest.mark.parametrize(
    ("job", "field", "source", "all_hosts"),
    [
        ("search", "search.solver", "solver", True),
        ("search", "search.solver", "endpoint", False),
        ("pav", "pav.solver", "endpoint", True),  # and refused, as it trains
        ("rl", "rl.solver_from", "solver", True),
        ("evaluate", "evaluate.solver", "solver", False),
    ],
)
def test_what_all_hosts_compute(job, field, source, all_hosts):
    config = with_fields(
        validate(read_config_file(command.REPOSITORY / "configs/quickstart.py")),
        {field: source},
    )
    assert pipeline.by_all_hosts(config, jobs()[job]) is all_hosts


def test_the_summary_is_flat_and_holds_together(whole):
    numbers = json.loads((whole / "summary.json").read_text())
    assert all(isinstance(v, int | float) for v in numbers.values())
    for split in SPLITS:
        sample, best, bound = (
            numbers[f"solver.{split}.{row}"]
            for row in ("sample", "aprm.min@4", "pass@4")
        )
        assert 0 <= best <= bound <= 1
        assert sample <= bound
        low, high = (numbers[f"solver.{split}.aprm.min@4.{e}"] for e in ("low", "high"))
        assert low <= best <= high
        other = numbers[f"solver.{split}.prm_static.min@4"]
        difference = numbers[f"difference.{split}.prm_static.min@4"]
        assert difference == pytest.approx(best - other)
    for name in ("aprm", "prm_static"):
        assert 0 <= numbers[f"robustness.{name}.success_rate"] <= 1
    assert numbers["train.aprm.steps"] == 10
    assert numbers["time.aprm.seconds"] > 0
    with np.load(whole / "evaluate" / "per_problem" / "test.npz") as rows:
        assert rows["aprm.min@4"].mean() == pytest.approx(
            numbers["solver.test.aprm.min@4"]
        )


def test_the_records_are_the_summary(whole):
    written = json.loads((whole / "results.json").read_text())
    numbers = json.loads((whole / "summary.json").read_text())
    records, _ = read_results(whole / "results.json", "")
    found = by_name(records)
    assert found == {k: v for k, v in numbers.items() if not k.startswith(("tr", "ti"))}
    assert written["training"]["aprm"]["steps"] == numbers["train.aprm.steps"]
    assert written["seconds"]["aprm"] == numbers["time.aprm.seconds"]


def test_the_report_shows_what_the_run_made(whole):
    page = (whole / "report.html").read_text()
    for text in ("APRM", "static corruptions", "majority of 4", "solver", "worded"):
        assert text in page
    for section in ("results", "progression", "curves", "perturbations", "solutions"):
        assert f'id="{section}"' in page
    row = json.loads(
        (whole / "aprm" / "perturbations.jsonl").read_text().split("\n")[0]
    )
    assert row["question"].replace("<", "&lt;") in page


def test_the_models_load_from_the_api(whole):
    prm = aprm_jax.PRM.load(whole / "aprm" / "model")
    scores = prm.score("2 + 3 * 4", ["2 + 12", "14"])
    assert scores.shape == (2,) and np.all((scores > 0) & (scores < 1))
    generator = aprm_jax.Generator.load(whole / "aprm" / "generator" / "model")
    assert len(generator.perturb("2 + 3 * 4", [], "2 + 12", n=2)) == 2


def test_the_models_are_exported_and_score_the_same(whole, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    config = read_config_file(command.REPOSITORY / "configs/quickstart.py", "runlocal")
    solution = "2 + 3 * 4", ["2 + 12", "14"]
    named = {"export.model": str(whole / "aprm" / "model")}
    results = export.run(Context(with_fields(config, named), tmp_path, "export"))
    score = tiny_hf.run_card(Path(results["directory"]), monkeypatch)["score"]
    prm = aprm_jax.PRM.load(whole / "aprm" / "model")
    np.testing.assert_allclose(score(*solution), prm.score(*solution), atol=1e-4)

    named = {"export.model": str(whole / "solver" / "model")}
    results = export.run(Context(with_fields(config, named), tmp_path, "solver"))
    assert tiny_hf.run_card(Path(results["directory"]), monkeypatch)["write"]


def test_the_command_makes_a_device_of_each_core(whole):
    page = (whole / "report.html").read_text()
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    devices = re.search(r"Devices</span><b>(\d+)", page)
    assert devices is not None
    assert (int(devices[1]) > 1) == (cores > 1)


def test_a_second_start_runs_the_report_alone(whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "run")
    (again / "report.html").unlink()
    code, output = command.call(
        tmp_path,
        command.QUICKSTART,
        command.CACHE,
        "--workdir=run",
        "--config.log_every=3",  # computes nothing else
    )
    assert code == 0, output
    assert output.count("complete, skipped") == 7
    # On the console: the rows of the table, with intervals.
    assert "APRM" in output and "report.html" in output
    page = (again / "report.html").read_text()
    assert _perturbations(page) == _perturbations((whole / "report.html").read_text())


def test_a_log_that_somebody_wrote_on_is_refused_by_name(whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "run")
    (again / "report.html").unlink()
    log = again / "aprm" / "perturbations.jsonl"
    log.write_text(
        log.read_text().split("\n")[0] + '\n{"step": 3, "ques\n' + log.read_text()
    )
    code, output = command.call(
        tmp_path, command.QUICKSTART, command.CACHE, "--workdir=run"
    )
    assert code == 1, output
    assert "aprm/perturbations.jsonl is not what was written" in output


def test_a_finished_run_is_trained_longer_and_measured_otherwise(whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "run")
    code, output = command.call(
        tmp_path,
        command.CACHE,
        "--workdir=run",  # and no --config: the run has its own
        "--config.game.updates=12",
        "--config.evaluate.splits=('test',)",
        "--config.evaluate.attack_prms=()",
    )
    assert code == 0, output
    assert output.count("complete, skipped") == 5
    assert "aprm: goes on to more updates" in output
    assert "going on from step 10" in output
    assert "evaluate: starts anew" in output
    rows = read_metrics(again / "aprm")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[:10] == read_metrics(whole / "aprm")
    numbers = json.loads((again / "summary.json").read_text())
    assert numbers["train.aprm.steps"] == 12
    assert "solver.test.aprm.min@4" in numbers
    assert not [k for k in numbers if "longer" in k or k.startswith("robustness.")]
    # What was made before is put aside, and refused is what would change the rest.
    assert (again / "evaluate" / "old" / "parts" / "longer.json").exists()
    code, output = command.call(tmp_path, "--workdir=run", "--config.sft.updates=99")
    assert code == 1 and "sft.updates: there 60, now 99" in output, output
    code, output = command.call(tmp_path, command.CACHE, "--workdir=run")
    assert code == 0 and output.count("complete, skipped") == 7, output


def _perturbations(page: str) -> str:
    return page.partition('<section id="perturbations">')[2].partition("</section>")[0]


def test_the_console_table_is_aligned():
    table = Table(
        "t",
        [Column("test"), Column("longer")],
        [
            Row("greedy", [Cell(0.5), None]),
            Row("APRM", [Cell(0.5, 0.25, 1.0), Cell(1)]),
        ],
        corner="by",
    )
    assert tables.as_text(table).splitlines() == [
        "by                    test  longer",
        "----------------------------------",
        "greedy                50.0       -",
        "APRM    50.0 [25.0, 100.0]   100.0",
    ]


def test_the_console_table_leaves_numbers_as_they_are():
    columns = [Column("F1"), Column("threshold", "number")]
    table = Table("t", columns, [Row("APRM", [Cell(0.5), Cell(0.347)])], corner="by")
    assert tables.as_text(table).splitlines()[-1] == "APRM  50.0      0.347"
