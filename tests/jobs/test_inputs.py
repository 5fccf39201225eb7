"""What a run was given stays as it was: no job writes over it, or deletes it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny
import tiny_run

from aprm_jax.config import ConfigError
from aprm_jax.jobs import start

ROW = {"prompt": "2 + 3 * 4", "completions": ["2 + 12", "14"]}
CANDIDATES = {"question": "2 + 3 * 4", "candidates": [["2 + 12", "14"]]}
ASKED = {"question": "2 + 3 * 4", "answer": "14"}


def _write(path: Path, *rows: dict) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _refused(root: Path, given: str, said: str, **fields) -> None:
    """The start is refused, and everything is as it was."""
    before = {p: p.read_bytes() for p in root.parent.rglob("*") if p.is_file()}
    config = tiny_run.config({"compilation_cache": ""} | fields)
    with pytest.raises(ConfigError, match=said) as caught:
        start.run(config, root)
    assert given in str(caught.value)
    after = {p: p.read_bytes() for p in root.parent.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize("job", ["score", "select"])
@pytest.mark.parametrize("suffix", ["", ".bad.jsonl", ".made_by.json"])
@pytest.mark.parametrize("place", ["same", "link", "hard", "dots", "default"])
def test_no_file_of_rows_takes_the_place_of_its_input(tmp_path, job, suffix, place):
    root = tmp_path / "run"
    output = tmp_path / "out.jsonl"
    if place == "default":
        output = root / job / f"in.{job}.jsonl"
    rows = {"score": ROW, "select": CANDIDATES}
    written = output.with_name(f"{output.name}{suffix}")
    source = tmp_path / "in.jsonl"
    if place in ("same", "default"):  # by default the name is that of the input
        source = written
    _write(source, rows[job])
    if place == "link":
        written.symlink_to(source)
    elif place == "hard":
        os.link(source, written)
    elif place == "dots":
        written = source = Path(_write(written, rows[job]))
    given = str(source)
    if place == "dots":
        given = str(source.parent / "x" / ".." / source.name)
        (source.parent / "x").mkdir()
    fields = {f"{job}.input": given, f"{job}.verifiers": ("oracle:arithmetic",)}
    if place != "default":
        fields[f"{job}.output"] = str(output)
    _refused(root, f"{job}.input", "would be overwritten", job=job, **fields)


@pytest.mark.parametrize("suffix", ["", ".bad.jsonl", ".made_by.json"])
def test_scores_that_are_read_are_not_written_over(tmp_path, suffix):
    source = _write(tmp_path / "in.jsonl", ROW)
    scores = _write(tmp_path / f"out.jsonl{suffix}", {"line": 1, "scores": [1, 1]})
    _refused(
        tmp_path / "run",
        f"score.verifiers: scores:{scores}",
        "would be overwritten",
        **{
            "job": "score",
            "score.input": source,
            "score.output": str(tmp_path / "out.jsonl"),
            "score.verifiers": (f"scores:{scores}",),
        },
    )


def test_nothing_is_written_into_a_folder_that_is_read(tmp_path):
    folder = tmp_path / "data"
    _write(folder / "in.jsonl", ROW)
    _refused(
        tmp_path / "run",
        "score.input",
        "would be read as a part of it",
        **{
            "job": "score",
            "score.input": str(folder),
            "score.output": str(folder / "out.jsonl"),
            "score.verifiers": ("oracle:arithmetic",),
        },
    )


def test_what_lies_beside_an_output_is_no_data_of_another_stage(tmp_path):
    """The questions that a run is trained on are not what a score puts aside."""
    source = _write(tmp_path / "in.jsonl", ROW)
    train = _write(tmp_path / "out.jsonl.bad.jsonl", ASKED)
    _refused(
        tmp_path / "run",
        "domain.train",
        "would be overwritten",
        **{
            "job": "score",
            "domain.name": "questions",
            "domain.train": f"questions:{train}",
            "score.input": source,
            "score.output": str(tmp_path / "out.jsonl"),
            "score.verifiers": ("oracle:arithmetic",),
        },
    )


def test_a_search_does_not_put_aside_the_questions_that_it_is_asked(tmp_path):
    root = tmp_path / "run"
    tiny.save(root / "solver" / "model", "solver")
    for output in ("", str(tmp_path / "found.jsonl")):
        made = Path(output or root / "search" / "solutions.jsonl")
        for path in (made, made.with_name(f"{made.name}.made_by.json")):
            if not output and path != made:
                path = made.with_name("made_by.json")
            source = _write(path, ASKED)
            _refused(
                root,
                "search.questions",
                "would be overwritten",
                **{
                    "job": "search",
                    "search.questions": f"questions:{source}",
                    "search.output": output,
                    "search.verifiers": ("oracle",),
                },
            )
            path.unlink()


def test_what_is_prepared_does_not_replace_its_sources(tmp_path):
    root = tmp_path / "run"
    train = _write(tmp_path / "train.jsonl", *[ASKED] * 9)
    for field in ("prepare.sources", "prepare.against"):
        source = _write(root / "data" / "prepared" / "more.jsonl", ASKED)
        _refused(
            root,
            field,
            "would be overwritten",
            **{
                "stages": ("data:prepare",),
                "domain.name": "questions",
                "domain.train": train,
                "prepare.sources": (f"questions:{train}",),
                field: (f"questions:{source}",),
            },
        )


def test_the_runs_own_lists_of_bad_rows_are_no_data(tmp_path):
    """Reading the file that they are of deletes them."""
    root = tmp_path / "run"
    train = _write(tmp_path / "train.jsonl", *[ASKED] * 9)
    mended = _write(root / "quarantine" / "train.jsonl-00000000.jsonl", ASKED)
    _refused(
        root,
        "domain.test",
        "would be overwritten",
        **{
            "stages": ("solver:sft",),
            "domain.name": "questions",
            "domain.train": train,
            "domain.test": mended,
        },
    )


def test_one_job_may_read_what_another_writes(tmp_path):
    root = tmp_path / "run"
    scored = tmp_path / "scored.jsonl"
    fields = {
        "job": "score",
        "compilation_cache": "",
        "score.input": _write(tmp_path / "in.jsonl", ROW),
        "score.output": str(scored),
        "score.verifiers": ("oracle:arithmetic",),
        "select.input": str(scored),
        "evaluate.scores": (f"oracle={scored}",),
        "domain.name": "labelled",
    }
    start.run(tiny_run.config(fields), root)
    assert json.loads(scored.read_text())["scores"] == pytest.approx([1, 1])
