"""What a language model learns of prepared rows: what the labelled domain teaches."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from aprm_jax.data import prepared
from aprm_jax.data.labelled import LabelledSolution, from_labels, question_id
from aprm_jax.data.labelled_texts import right_texts
from aprm_jax.data.learned import LearnedRows
from aprm_jax.data.prepared import PreparedRow
from aprm_jax.data.steps import StepBuilder

NAN = math.nan
SOLUTIONS = [
    ("1 + 2", ("3", "4", "5"), (1, 0, 1)),  # what follows a wrong step is not learned
    ("1 + 2", ("3", "6", "7"), (1, 1, 1)),
    ("1 + 3", ("2", "1"), (0, NAN)),  # nothing of it
    ("1 + 4", ("5", "6", "7"), (1, NAN, 1)),  # it goes on behind what nobody rated
    ("1 + 5", ("6", "7", "8"), (1, NAN, 0)),
    ("1 + 6", ("7", "8", "9"), (1, 1, 1)),  # its second step is wrong in the next row
    ("1 + 6", ("7", "8"), (NAN, 0.2)),
    ("2 + 6", ("8", "9"), (0.5, 0.4)),
]


def _builder(window: int | None) -> StepBuilder:
    return StepBuilder(tiny.tokenizer(), window, (64,))


def _solutions(rows=SOLUTIONS) -> list[LabelledSolution]:
    return [from_labels(q, s, list(map(float, labels))) for q, s, labels in rows]


def _learned(
    folder: Path, rows, window=None, held=(), cut=0.5
) -> tuple[LearnedRows, list[list[str]]]:
    """The rows, and the texts of the steps that are learned of each."""
    builder = _builder(window)
    written = [
        PreparedRow(
            builder.solution(s.question, s.steps, s.labels), question_id(s.question), ""
        )
        for s in _solutions(rows)
    ]
    prepared.write_prepared(
        folder / "prepared",
        {"train": written},
        lambda: {"builder": prepared.builder_settings(builder)},
    )
    split = prepared.open_split(folder / "prepared", "train")
    found = LearnedRows(split, held, cut)
    texts = [
        [
            builder.decode(row.tokens[row.step_ids == k])
            for k in range(row.step_ids.max() + 1)
        ]
        for row in found
    ]
    return found, texts


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("cut", [0.5, 0.3])
def test_they_are_the_texts_of_the_labelled_domain(tmp_path, window, cut):
    found, texts = _learned(tmp_path, SOLUTIONS, window, cut=cut)
    domain = {p.steps[:k] for p in right_texts(_solutions(), cut) for k in (1, 2, 3)}
    assert {tuple(t[:k]) for t in texts for k in (1, 2, 3)} == domain
    steps = sum(len(labels) for _, _, labels in SOLUTIONS)
    assert found.num_wrong == steps - sum(map(len, texts)) > 0
    assert found.num_held_out == found.num_unlabelled == 0


def test_a_cut_row_is_the_row_of_its_beginning(tmp_path):
    for window in (None, 1):
        found, _ = _learned(tmp_path, SOLUTIONS[:1], window)
        [row] = found
        expected = _builder(window).solution("1 + 2", ["3"], [1.0])
        for name in ("tokens", "positions", "segment_ids", "step_ids", "labels"):
            np.testing.assert_array_equal(getattr(row, name), getattr(expected, name))


def test_what_nothing_is_known_of_is_its_authors(tmp_path):
    rows = [("1 + 2", ("3", "4"), (NAN, NAN)), ("2 + 2", ("4", "5"), (1, NAN))]
    found, texts = _learned(tmp_path, rows)
    assert texts == [["3", "4"], ["4"]]
    assert (found.num_wrong, found.num_unlabelled) == (0, 1)


def test_questions_that_are_held_out_are_left_out_however_they_are_typed(tmp_path):
    held = {question_id(" 1 +  2"), question_id("1 + 6")}
    found, texts = _learned(tmp_path, SOLUTIONS, held=held)
    assert found.num_held_out == 4
    # Nor does what they call wrong count; "1 + 3" has nothing that is right.
    assert texts == [["5", "6", "7"], ["6", "7"], ["8"]]
    assert len(found) == 3
    with pytest.raises(IndexError):
        found[3]
    assert json.dumps([found.num_wrong, found.num_unlabelled]) == "[4, 0]"
