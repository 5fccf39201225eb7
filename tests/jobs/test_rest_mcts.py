"""ReST-MCTS*: what a value model and a policy learn from a search's trees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from aprm_jax.config import validate
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.files import DamagedFileError, sealed
from aprm_jax.jobs import prm_labels, sft, tree_data
from aprm_jax.jobs.context import Context, JobError


def _node(parent, text, correct=None, finished=None) -> dict:
    ends = correct is not None if finished is None else finished
    node = {"parent": parent, "text": text, "finished": ends}
    return node if correct is None else node | {"correct": correct}


# 2 * 3 + 4: the right way, one that is wrong from its first step, one not concluded
NODES = [
    _node(-1, "2 * 3 + 4"),
    _node(0, "6 + 4"),
    _node(1, "10", correct=True),
    _node(0, "5 + 4"),
    _node(3, "9", correct=False),
    _node(1, "6 + 4"),
]
WRONG = [_node(-1, "1 + 1"), _node(0, "3", correct=False)]
ROWS = [
    {"question": "2 * 3 + 4", "reference": "10", "tree": NODES},
    {"question": "1 + 1", "reference": "2", "tree": WRONG},
    {"question": "1 + 5", "reference": None, "tree": [_node(-1, "1 + 5")]},
    {"question": "1 + 6", "reference": "7"},  # whose tree was not kept
]


def _context(root: Path, rows=ROWS, **fields) -> Context:
    folder = root / "trees"
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(sealed(row)) + "\n" for row in rows]
    (folder / "solutions.jsonl").write_text("".join(lines))
    own = {"prm.negatives": "values", "prm.data": ("trees",), "sft.data": "trees"}
    return Context(tiny_run.config(own, **fields), root, "stage")


def test_whole_solutions_have_the_values_of_their_steps(tmp_path):
    found = tree_data.value_solutions(_context(tmp_path), ["trees"])
    assert [s.steps for s in found] == [("6 + 4", "10"), ("5 + 4", "9")]
    # The question is two steps from its answer; nothing is known of `1 + 1`.
    np.testing.assert_allclose([s.labels for s in found], [(0.5, 1.0), (0.0, 0.0)])
    assert all(isinstance(s, LabelledSolution) and s.finished for s in found)


def test_a_value_model_learns_them_as_they_are(tmp_path):
    context = _context(tmp_path, builder__window=0)
    assert prm_labels.labelled_solutions(context)[0].labels == (0.5, 1.0)
    rows, labels = prm_labels.labelled_rows(context)
    assert sorted(labels) == [0.0, 0.0, 0.5, 1.0]
    assert sum(len(row.labels) for row in rows) >= 4


def test_a_policy_learns_right_solutions_alone(tmp_path):
    context = _context(tmp_path)
    [problem] = tree_data.right_solutions(context, ["trees"])
    assert (problem.question, problem.steps) == ("2 * 3 + 4", ("6 + 4", "10"))
    batch, left_out, _ = sft._batches(context, None, {})(0, np.zeros(2, np.int64))
    learned = {int(i) for i in batch.tokens.ravel()}
    nine = context.domain.tokenizer.convert_tokens_to_ids("9")
    assert left_out == 0 and nine not in learned


@pytest.mark.parametrize("teach", ["value_solutions", "right_solutions"])
def test_trees_without_a_right_answer_teach_nothing(tmp_path, teach):
    context = _context(tmp_path, ROWS[1:])
    with pytest.raises(JobError, match=r"none of the 1 trees of trees has a right"):
        getattr(tree_data, teach)(context, ["trees"])


@pytest.mark.parametrize("rows", [ROWS[2:], []])
def test_a_search_without_trees_to_judge_is_named(tmp_path, rows):
    context = _context(tmp_path, rows)
    with pytest.raises(DataError, match=r"search\.trees >= search\.problems"):
        tree_data.value_solutions(context, ["trees"])


def test_a_row_that_was_changed_is_refused(tmp_path):
    context = _context(tmp_path)
    path = tmp_path / "trees" / "solutions.jsonl"
    path.write_text(path.read_text().replace('"correct": false', '"correct": true', 1))
    with pytest.raises(DamagedFileError, match="line 1"):
        tree_data.value_solutions(context, ["trees"])


def test_a_search_that_is_no_earlier_stage_is_refused_at_the_start(tmp_path):
    context = _context(tmp_path)
    tree_data.check_values(context, {})
    elsewhere = str(tmp_path / "trees" / "solutions.jsonl")
    assert tree_data.is_search(context, {}, elsewhere)
    context = _context(tmp_path, prm__data=("tree",))
    with pytest.raises(DataError, match=r"prm.data: 'tree'.*\(trees\)"):
        tree_data.check_values(context, {"trees": "search", "solver": "sft"})
    context = _context(tmp_path, prm__data=())
    with pytest.raises(DataError, match=r"prm\.data is empty"):
        tree_data.check_values(context, {})
    context = _context(tmp_path, sft__data="tree")
    with pytest.raises(DataError, match="tree"):
        sft.check(context, {"tree": "sft"})
    sft.check(context, {"tree": "search"})


def test_the_stages_of_a_run_start_from_their_searches():
    from aprm_jax.config import jobs

    fields = {
        "stages": ("trees:search", "value:prm", "policy:sft"),
        "prm.negatives": "values",
        "prm.data": ("trees", "other/solutions.jsonl"),
        "sft.data": "trees",
    }
    config = validate(tiny_run.config(fields))
    assert ("prm.data", "trees") in list(jobs()["prm"].sources(config))
    assert ("sft.data", "trees") in list(jobs()["sft"].sources(config))
    named = [source for _, source in jobs()["prm"].sources(config)]
    assert "other/solutions.jsonl" not in named
