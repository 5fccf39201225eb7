"""job=select: the choice of each question, by any verifier; what is wrong by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import tiny_run

import aprm_jax
from aprm_jax.data.jsonl import RowError
from aprm_jax.data.solutions import parse_candidates
from aprm_jax.jobs import row_files, start
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.training.workdir import done_info

RIGHT, WRONG = ["2 + 12", "14"], ["5 * 4", "20"]
QUESTION = "2 + 3 * 4"


def _select(tmp_path, rows, **fields):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {
        "job": "select",
        "compilation_cache": "",
        "select.input": str(source),
        "select.output": str(tmp_path / "out.jsonl"),
        "select.verifiers": ("oracle",),
    }
    start.run(tiny_run.config(own | fields), tmp_path / "run")
    out = (tmp_path / "out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in out], done_info(tmp_path / "run" / "select")


def test_the_best_of_any_number_of_candidates_in_any_form(tmp_path):
    texts, objects = "5 * 4\n20", {"steps": RIGHT, "answer": "14"}
    rows, info = _select(
        tmp_path,
        [
            {"question": QUESTION, "candidates": [WRONG, RIGHT], "answer": 14, "id": 3},
            {"prompt": QUESTION, "solutions": [texts, objects], "reference": "20"},
            {"question": QUESTION, "samples": [[], WRONG, ["", "14"]]},
            {"question": QUESTION, "candidates": []},
            {"question": QUESTION, "candidates": [[], ""], "answer": "14"},
        ],
    )
    assert [row["index"] for row in rows] == [1, 1, 1, None, None]
    assert [row["by"] for row in rows] == ["best", "best", "best", "", ""]
    first = rows[0]
    assert (first["line"], first["id"], first["answer"]) == (1, 3, "14")
    assert first["solution"] == RIGHT and first["correct"] is True
    assert [c["answer"] for c in first["candidates"]] == ["20", "14"]
    np.testing.assert_allclose(first["score"], 1, atol=1e-9)
    np.testing.assert_allclose(first["candidates"][0]["scores"], [0, 0], atol=1e-9)
    assert rows[1]["correct"] is False and "correct" not in rows[2]
    assert rows[2]["candidates"][0] == {"answer": None, "score": None, "scores": []}
    assert rows[3]["solution"] is rows[3]["answer"] is rows[3]["score"] is None
    assert (info["rows"], info["graded"], info["correct"]) == (5, 3, 1)
    assert info["accuracy"] == pytest.approx(1 / 3)
    assert (info["chosen_by_best"], info["without_a_choice"]) == (3, 2)


def test_votes_count_what_means_the_same_and_say_who_chose(tmp_path):
    half, also, other = ["so 1/2", "#### 1/2"], [r"\boxed{0.5}"], ["#### 3"]
    row = {"question": "q", "candidates": [other, half, also], "answer": r"\frac12"}
    scores = [{"prompt": "q", "completions": c, "scores": [0.4]} for c in (other, also)]
    scores.append({"prompt": "q", "completions": half, "scores": [0.3, 0.9]})
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in scores))
    by = {"select.verifiers": (f"scores:{path}",)}
    for pick, aggregation, index in (
        ("best", "", 0),
        ("best", "last", 1),
        ("vote", "", 2),
        ("majority", "mean", 1),
    ):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        fields = {"select.pick": pick, "select.aggregation": aggregation}
        [found], _ = _select(tmp_path, [row], **by, **fields)
        assert (found["index"], found["by"]) == (index, pick)
        assert found["correct"] == (index > 0)
    path.write_text(json.dumps(scores[0] | {"scores": [None]}) + "\n")
    (tmp_path / "out.jsonl").unlink()
    [found], info = _select(tmp_path, [row], **by)
    assert (found["index"], found["by"], found["score"]) == (1, "majority", None)
    assert info["chosen_by_majority"] == 1


def test_what_an_answer_is_can_be_narrowed(tmp_path):
    row = {"question": QUESTION, "candidates": [["2 + 12"], RIGHT], "answer": "14"}
    for how, expected in (
        ("auto", ["2 + 12", "14"]),
        ("stated", [None, None]),
        ("domain", [None, "14"]),
    ):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        [found], _ = _select(tmp_path, [row], **{"select.answers": how})
        assert [c["answer"] for c in found["candidates"]] == expected


def test_a_prms_choice_is_that_of_its_scores_and_goes_on(tmp_path):
    tiny.save(tmp_path / "run" / "aprm" / "model", "prm")
    candidates = [["1 + 6", "7"], ["3 * 3", "9"], ["7"], ["1 " * 50]]
    rows = [{"question": "1 + 2 * 3 =", "candidates": candidates}] * 3
    fields = {"select.verifiers": ("aprm",), "select.aggregation": "product"}
    found, _ = _select(tmp_path, rows, **fields)
    prm = aprm_jax.PRM.load(tmp_path / "run")
    scores = [prm.score("1 + 2 * 3 =", steps) for steps in candidates[:3]]
    expected = [float(np.prod(s)) for s in scores]
    for row in found:
        got = [c["score"] for c in row["candidates"]]
        np.testing.assert_allclose(got[:3], expected, rtol=1e-4)
        assert got[3] is None and row["index"] == int(np.argmax(expected))
    out = tmp_path / "out.jsonl"
    whole = out.read_text()
    out.write_text(whole[: len(whole) // 2])
    again, info = _select(tmp_path, rows, **fields)
    assert again == found and info["rows"] == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q"}, "no field candidates or solutions or samples or responses"),
        ({"question": "q", "candidates": "x"}, "'candidates' must be a list"),
        (
            {"question": "q", "candidates": ["a", None]},
            r"candidates\[1\]: must be a list",
        ),
        (
            {"question": "q", "samples": [["a", 3]]},
            r"samples\[0\]: .*item 1 is int",
        ),
        (
            {"question": "q", "candidates": [{"x": 1}]},
            r"candidates\[0\]: no field compl",
        ),
        ({"question": "q", "candidates": [], "answer": True}, "'answer' must be a num"),
        ({"question": None, "candidates": []}, "'question' must be text, not None"),
    ],
)
def test_a_row_of_anything_else_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        parse_candidates(row, 1)


def test_answers_are_not_graded_by_two_rules_in_one_file(tmp_path):
    scores = tmp_path / "scores.jsonl"
    scores.write_text('{"prompt": "3+4", "completions": ["7"], "scores": [0.9]}\n')
    output = tmp_path / "out.jsonl"
    fields = {
        "select.input": "in.jsonl",
        "select.output": str(output),
        "select.verifiers": (f"scores:{scores}",),
        "select.answers": "domain",
    }

    def start_in(domain):
        config = tiny_run.config(fields | {"domain.name": domain})
        job = row_files.RowJob(
            Context(config, tmp_path, "select"),
            "select",
            own=("answers",),
            parse=lambda row, line: None,
            made=lambda rows, verifier: iter(()),
            whole=lambda row, written: True,
            count=lambda written: {},
        )
        job._check_settings()

    start_in("arithmetic")
    output.write_text("{}\n")
    start_in("arithmetic")
    with pytest.raises(JobError, match="was made with other grader: delete it"):
        start_in("gsm8k")
