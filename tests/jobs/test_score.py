"""job=score: in order, each row once, and what is wrong by its name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import tiny_run

import aprm_jax
from aprm_jax.config import ConfigError
from aprm_jax.data.jsonl import DataError
from aprm_jax.files import DamagedFileError
from aprm_jax.jobs import kept_rows, row_files, start
from aprm_jax.jobs.context import JobError
from aprm_jax.training.workdir import done_info
from aprm_jax.verifiers.models import ModelVerifier
from aprm_jax.verifiers.named import UnknownVerifierError

SOLUTIONS = [(question, list(steps)) for question, steps, _ in tiny.solutions()] * 4


def _config(**fields):
    own = {"job": "score", "compilation_cache": "", "score.batch": 5}
    return tiny_run.config(own | fields)


def _write(path, rows):
    text = (r if isinstance(r, str) else json.dumps(r) for r in rows)
    path.write_text("".join(f"{line}\n" for line in text))
    return str(path)


@pytest.fixture
def run(tmp_path):
    """A finished run with a PRM, and a file of twelve solutions beside it."""
    tiny.save(tmp_path / "run" / "aprm" / "model", "prm")
    rows = [
        {"id": f"n{k}", "prompt": q, "completions": steps}
        for k, (q, steps) in enumerate(SOLUTIONS)
    ]
    return tmp_path / "run", _write(tmp_path / "in.jsonl", rows)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_come_in_the_files_order(run, tmp_path):
    root, source = run
    start.run(_config(**{"score.input": source}), root)
    rows = _rows(root / "score" / "in.score.jsonl")
    assert [row["line"] for row in rows] == list(range(1, 13))
    assert [row["id"] for row in rows] == [f"n{k}" for k in range(12)]
    expected = aprm_jax.PRM.load(root).score_batch(SOLUTIONS)
    for row, scores in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row["scores"], scores, rtol=1e-5)
    info = done_info(root / "score")
    assert (info["rows"], info["steps"]) == (12, sum(len(s) for _, s in SOLUTIONS))
    assert not info.get("bad") and not info.get("unscored_steps")


class Killed(BaseException):
    """As SIGKILL: nothing may catch it."""


@pytest.fixture
def asked(monkeypatch):
    """Counts the solutions that a model is asked about; dies at the third batch."""
    asked, limit = [], [3]
    score = ModelVerifier.score

    def counted(self, solutions):
        if len(asked) == limit[0]:
            raise Killed
        asked.append(len(solutions))
        return score(self, solutions)

    monkeypatch.setattr(ModelVerifier, "score", counted)
    return asked, limit


@pytest.mark.parametrize("torn", ["", '{"line": 11, "id"', '{"line": 11}'])
def test_a_killed_job_goes_on_and_scores_nothing_twice(run, asked, torn):
    root, source = run
    (sizes, limit), config = asked, _config(**{"score.input": source})
    limit[0] = 2
    with pytest.raises(Killed):
        start.run(config, root)
    output = root / "score" / "in.score.jsonl"
    assert len(_rows(output)) == 10
    kept = output.read_text()
    output.write_text(kept + torn)
    limit[0] = 9
    start.run(config, root)
    assert sizes == [5, 5, 2]
    assert output.read_text().startswith(kept)
    assert [row["line"] for row in _rows(output)] == list(range(1, 13))
    start.run(config, root)  # all is there: no model is asked
    assert sizes == [5, 5, 2] and done_info(root / "score")["rows"] == 12


def _edited(row, **changes):
    return {**row, **changes}


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: [_edited(rows[0], line=2), *rows[1:]],
        lambda rows: [_edited(rows[0], key=rows[1]["key"]), *rows[1:]],
        lambda rows: [_edited(rows[0], scores=rows[0]["scores"][:1]), *rows[1:]],
        lambda rows: [_edited(rows[0], scores=[2.0, 0.5]), *rows[1:]],
        lambda rows: [_edited(rows[0], scores=[float("nan"), 0.5]), *rows[1:]],
        lambda rows: ["no json", *rows[1:]],
        lambda rows: ["7", *rows[1:]],
        lambda rows: [*rows, rows[-1]],
    ],
)
def test_rows_that_are_of_something_else_are_refused(run, damage):
    root, source = run
    config = _config(**{"score.input": source})
    start.run(config, root)
    output = root / "score" / "in.score.jsonl"
    _write(output, damage(_rows(output)))
    with pytest.raises(JobError, match=r"line (1|13): not what .* comes to: delete"):
        start.run(config, root)


def test_one_process_at_a_time_writes_an_output(run, tmp_path):
    """Of another workdir too, whose lock is another."""
    root, source = run
    output = tmp_path / "elsewhere" / "out.jsonl"
    fields = {
        "score.input": source,
        "score.output": str(output),
        "score.verifiers": ("oracle:arithmetic",),
    }
    with kept_rows.claimed(output, "a"):
        with pytest.raises(JobError, match=r"another process.*another score\.output"):
            start.run(_config(**fields), root)
        assert not output.exists()
    start.run(_config(**fields), root)
    assert len(_rows(output)) == 12
    assert not list(output.parent.glob(".*"))


@pytest.mark.parametrize("now", ["cut", "bad"])
def test_an_input_that_changes_while_it_is_read_is_no_success(
    run, tmp_path, monkeypatch, now
):
    root, source = run
    rows = _rows(tmp_path / "in.jsonl")
    opened = row_files.run_verifier

    def changing(*args):
        later = rows[:5] if now == "cut" else [*rows[:5], *["no json"] * 7]
        _write(tmp_path / "in.jsonl", later)
        return opened(*args)

    monkeypatch.setattr(row_files, "run_verifier", changing)
    fields = {"score.input": source, "score.verifiers": ("oracle:arithmetic",)}
    with pytest.raises(JobError, match=r"it had 12 good rows and 0 bad.* then 5 and"):
        start.run(_config(**fields), root)
    assert not (root / "score" / "done.json").exists()


def test_rows_of_other_settings_are_refused(run, tmp_path):
    root, source = run
    output = str(tmp_path / "out.jsonl")
    fields = {"score.input": source, "score.output": output}
    start.run(_config(**fields), root)
    other = _config(**fields, **{"score.verifiers": ("oracle:arithmetic",)})
    with pytest.raises(JobError, match="made with other verifiers: delete it or name"):
        start.run(other, root)
    tiny.save(root / "aprm" / "model", "prm", threshold=0.75)  # trained anew
    with pytest.raises(JobError, match="made with other verifiers"):
        start.run(_config(**fields), root)
    (tmp_path / "out.jsonl.made_by.json").unlink()
    with pytest.raises(
        DamagedFileError, match=r"made_by.json is missing. Delete .*out"
    ):
        start.run(_config(**fields), root)


BAD = ["no json", {"prompt": "q"}, {"prompt": "1 =", "completions": ["1", None]}]


def test_bad_rows_are_put_aside_and_the_rest_goes_on(run, tmp_path):
    root, _ = run
    rows = [
        {"prompt": "1 =", "completions": ["1"]},
        *BAD,
        {"prompt": "1 + 1 =", "completions": []},
        {"prompt": "2 =", "completions": ["2 " * 40, "2"]},  # longer than the model
        {"prompt": "2 =", "completions": ["2"]},
    ]
    source = _write(tmp_path / "in.jsonl", rows)
    fields = {"score.input": source, "domain.max_bad_share": 0.5}
    start.run(_config(**fields), root)
    output = root / "score" / "in.score.jsonl"
    found = _rows(output)
    assert [row["line"] for row in found] == [1, 5, 6, 7]
    assert [len(row["scores"]) for row in found] == [1, 0, 2, 1]
    assert found[2]["scores"] == [None, None]
    aside = _rows(output.with_name("in.score.jsonl.bad.jsonl"))
    assert [row["line"] for row in aside] == [2, 3, 4]
    assert all(row["file"] == source for row in aside)
    info = done_info(root / "score")
    assert (info["rows"], info["bad"]) == (4, 3)
    assert (info["unscored_steps"], info["empty"]) == (2, 1)


def test_too_many_bad_rows_stop_the_job_before_a_model_is_loaded(
    run, tmp_path, monkeypatch
):
    root, _ = run
    monkeypatch.setattr(row_files, "open_verifier", None)
    source = _write(tmp_path / "bad.jsonl", [*BAD, {"prompt": "1", "completions": []}])
    fields = {"score.input": source, "domain.max_bad_share": 0.7}
    with pytest.raises(DataError, match=r"bad.jsonl, line 1: not JSON.* 3 of 4 rows"):
        start.run(_config(**fields), root)
    assert not (root / "score" / "bad.score.jsonl").exists()
    with pytest.raises(DataError, match="no rows"):
        start.run(_config(**{"score.input": _write(tmp_path / "e.jsonl", [])}), root)


def test_what_is_missing_is_named_before_anything_is_made(run, tmp_path):
    root, source = run
    for fields, error, said in (
        ({}, ConfigError, "score.input is empty"),
        ({"score.input": "gone.jsonl"}, DataError, "gone.jsonl: no such file"),
        ({"score.input": "/dev/null"}, DataError, "is a pipe"),
        ({"score.input": source, "score.verifiers": ()}, ConfigError, "is empty"),
        (
            {"score.input": source, "score.output": source},
            ConfigError,
            "score.input: .* would be overwritten",
        ),
        (
            {"score.input": source, "score.output": str(tmp_path)},
            ConfigError,
            "is a folder: name a file in it",
        ),
        (
            {"score.input": source, "score.verifiers": ("oracle:chess",)},
            UnknownVerifierError,
            "no such oracle; there are",
        ),
        (
            {"score.input": source, "score.verifiers": ("",)},
            UnknownVerifierError,
            "a P",
        ),
        (
            {"score.input": source, "score.verifiers": ("scores:gone.jsonl",)},
            DataError,
            "score.verifiers: scores:gone.jsonl: no such file",
        ),
        (
            {"score.input": source, "score.verifiers": ("aprn",)},
            ConfigError,
            "'aprn' is neither a stage with a model .aprm. .* Did you mean 'aprm'",
        ),
    ):
        with pytest.raises(error, match=said):
            start.run(_config(**fields), root)
    assert not (root / "score").exists()


def test_a_text_is_split_and_the_runs_oracle_judges(run, tmp_path):
    root, _ = run
    rows = [{"question": "2 + 3 * 4", "reply": "2 + 12\n14"}]
    source = _write(tmp_path / "texts.jsonl", rows)
    fields = {"score.input": source, "score.text": "reply"}
    start.run(_config(**fields, **{"score.verifiers": ("oracle",)}), root)
    [row] = _rows(root / "score" / "texts.score.jsonl")
    np.testing.assert_allclose(row["scores"], [1, 1], atol=1e-9)
    output = str(tmp_path / "modulo.jsonl")
    fields |= {"score.output": output, "domain.modulus": 10}
    start.run(_config(**fields, **{"score.verifiers": ("oracle",)}), tmp_path / "other")
    [row] = _rows(tmp_path / "modulo.jsonl")
    np.testing.assert_allclose(row["scores"], [0, 0], atol=1e-9)


def test_written_scores_are_a_verifier(run, tmp_path):
    root, source = run
    start.run(_config(**{"score.input": source}), root)
    made = root / "score" / "in.score.jsonl"
    fields = {
        "score.input": source,
        "score.output": str(tmp_path / "again.jsonl"),
        "score.verifiers": (f"scores:{made}",),
    }
    start.run(_config(**fields), root)
    first, again = _rows(made), _rows(tmp_path / "again.jsonl")
    for one, other in zip(first, again, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], rtol=1e-9)
