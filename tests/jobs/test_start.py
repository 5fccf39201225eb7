"""A start: which stages it runs, and what it refuses before it makes a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_game
import tiny_run

from aprm_jax.config import ConfigError, stages, validate, with_fields
from aprm_jax.jobs import checks, pipeline, start
from aprm_jax.models import heads


def config(**fields):
    return with_fields(tiny_run.config(tiny_run.SMALL), tiny_run.dotted(fields))


@pytest.fixture
def root(tmp_path) -> Path:
    """A run whose only stage, a solver, is done; beside it lies a PRM."""
    backbone = tiny_game.generator()["backbone"]
    prm = heads.init_prm(tiny_game.jax.random.key(1), backbone, 16, "token")
    for kind, tree in (("solver", {"backbone": backbone}), ("prm", prm)):
        tiny_game.save(tmp_path / kind / "model", kind, tree)
    return tmp_path


def test_what_is_asked_for_needs_no_stage():
    for job in ("report", "search", "score", "select", "attack", "export"):
        c = config(stages=("solver:sft",), job=job)
        assert pipeline.chosen_stages(c) == [(job, job)]
        assert pipeline.with_asked(c) == c


def test_an_evaluation_becomes_a_stage_before_the_report():
    c = config(stages=("solver:sft", "report"), job="evaluate")
    asked = pipeline.with_asked(c)
    assert stages(asked) == [
        ("solver", "sft"),
        ("evaluate", "evaluate"),
        ("report", "report"),
    ]
    assert pipeline.with_asked(asked) == asked
    own = config(stages=("measured:evaluate",), job="evaluate")
    assert pipeline.with_asked(own) == own


def test_a_job_that_trains_needs_a_stage_and_no_folder_is_made_before(tmp_path):
    c = config(stages=("solver:sft",), job="prm")
    with pytest.raises(ConfigError) as caught:
        start.run(c, tmp_path / "run")
    assert '--config.stages=\'("solver:sft", "prm",)\'' in str(caught.value)
    assert not (tmp_path / "run").exists()
    both = validate(config(stages=("solver:sft", "prm"), job="prm"))
    assert pipeline.chosen_stages(both) == [("prm", "prm")]


def test_data_that_were_made_up_are_refused_before_a_folder_is_made(
    tmp_path, monkeypatch
):
    train = tmp_path / "train.jsonl"
    train.write_text('{"question": "1 + 2", "answer": "3"}\n' * 20)
    monkeypatch.setattr(checks, "is_made_up", lambda name: name == "sets")
    c = config(
        domain__name="questions",
        domain__train=str(train),
        evaluate__splits=("test",),
        stages=("solver:sft",),
        prm__data=("sets",),
    )
    monkeypatch.setattr(start, "check_labelled_files", lambda config: None)
    with pytest.raises(ValueError, match=r"prm\.data: sets was made up"):
        start.run(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_these_stages_is_evaluated_and_reported(root, tmp_path):
    small = {
        "job": "evaluate",
        "evaluate__attack_prms": (),
        "evaluate__splits": ("test",),
        "evaluate__problems": 3,
        "evaluate__samples": (2,),
        "evaluate__bootstrap": 20,
        "builder__window": 0,
    }
    run = tmp_path / "measured"
    models = {
        "evaluate__solver": str(root / "solver" / "model"),
        "evaluate__prms": (str(root / "prm" / "model"),),
    }
    c = config(**small | models | {"stages": ()})
    start.run(c, run)
    assert (run / "evaluate" / "results.json").is_file()
    assert json.loads((run / "config.json").read_text())["stages"] == ["evaluate"]
    before = (run / "evaluate" / "done.json").read_bytes()
    start.run(c, run)  # nothing has changed
    assert (run / "evaluate" / "done.json").read_bytes() == before
    c = with_fields(c, {"job": "report", "stages": ("evaluate",)})
    start.run(c, run)
    page = (run / "report.html").read_text()
    assert "best of 2" in page
    kept = json.loads((run / "config.json").read_text())
    assert kept["stages"] == ["evaluate"]  # and the report is none
    shutil.rmtree(run / "report")
    start.run(with_fields(c, {"job": "evaluate", "evaluate.problems": 2}), run)
    assert (run / "evaluate" / "done.json").read_bytes() != before
