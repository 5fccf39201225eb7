"""Which of a config's texts are files that a run is given, and which its own stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_run

from aprm_jax.config import Config, for_stage, jobs
from aprm_jax.jobs.data_record import data_differences, look
from aprm_jax.jobs.given_files import given_at_all, given_problems, given_to

FOLDER = Path("data")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch) -> Path:
    """A working folder with files under `data/`."""
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir()
    for name in ("train", "test", "more", "sets"):
        row = {"question": name, "answer": 1}
        (FOLDER / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def _config(stage: str, **fields) -> Config:
    own = {
        "stages": (f"{stage}:prepare", "solver:sft", "evaluate"),
        "domain.name": "questions",
        "domain.train": "data/train.jsonl",
        "domain.test": "data/test.jsonl",
        "prepare.sources": ("questions:data/more.jsonl",),
        "sft.data": stage,
    }
    return tiny_run.config(own, **fields)


@pytest.mark.parametrize("stage", ["data", "prep"])
def test_a_stage_hides_no_file_of_the_problems_whatever_its_name(stage):
    config = _config(stage)
    domain = {"data/train.jsonl", "data/test.jsonl"}
    assert {g.text for g in given_problems(config)} == domain
    assert {g.text for g in given_at_all(config)} == {
        *domain,
        "questions:data/more.jsonl",
    }
    known = look(config, {})
    assert known.keys() == {*domain, "questions:data/more.jsonl"}
    (FOLDER / "test.jsonl").write_text("{}\n")
    job = jobs()["evaluate"]
    given = given_to(for_stage(config, "evaluate"), job)
    changed = data_differences(known, look(config, known), given, job)
    assert [where for where, _, _ in changed] == ["domain.test, data/test.jsonl"]


def test_other_fields_of_files_are_seen_under_a_stages_name_too():
    fields = {"search__questions": "data/sets.jsonl", "score__input": "data/more.jsonl"}
    config = _config("data", **fields)
    for name, field in (("search", "questions"), ("score", "input")):
        found = {g.field: g.text for g in given_to(config, jobs()[name])}
        assert found[f"{name}.{field}"] == fields[f"{name}__{field}"]


def test_a_field_that_names_a_stage_names_no_file():
    sft, prm = jobs()["sft"], jobs()["prm"]
    config = _config("data")
    assert "sft.data" not in {g.field for g in given_to(config, sft)}
    elsewhere = _config("prep", sft__data="data/more.jsonl")
    assert "sft.data" in {g.field for g in given_to(elsewhere, sft)}
    searched = {
        "stages": ("data:search", "value:prm"),
        "prm.data": ("data/sets.jsonl",),
    }
    for negatives, named in (("values", False), ("labels", True)):
        config = tiny_run.config(searched, prm__negatives=negatives)
        fields = {g.field for g in given_to(config, prm)}
        assert ("prm.data" in fields) == named
