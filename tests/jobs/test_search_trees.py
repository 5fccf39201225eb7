"""Search trees of the report: what won, what was given up, what has no room."""

from __future__ import annotations

import json

import pytest

from aprm_jax.files import DamagedFileError, sealed
from aprm_jax.jobs.search_trees import search_trees
from aprm_jax.report.contents import ReportData
from aprm_jax.report.page import render


def node(parent, text, reward, count=1, *, finished=False, dropped=False):
    return {
        "parent": parent,
        "text": text,
        "score": reward,
        "reward": reward,
        "count": count,
        "finished": finished,
        "dropped": dropped,
    }


TREE = [
    node(-1, "1 + 2 * 3", 0.0, 0),
    node(0, "1 + 6", 0.9, 3),
    node(0, "3 * 3", 0.2, 1, dropped=True),
    node(1, "7", 0.8, 2, finished=True),
    node(1, "8", 0.4, 1, finished=True),
    node(2, "9", 0.1, 1, finished=True),
]


def row(tree=TREE, **changes):
    return {
        "index": 0,
        "split": "test",
        "question": tree[0]["text"],
        "tree": tree,
        "answer": "7",
        "solution": ["1 + 6", "7"],
        "reference": "7",
        "correct": True,
        "why": "",
        "score": 0.8,
        "candidates": [
            {"answer": "7", "group": 0, "score": 0.8, "count": 2},
            {"answer": "8", "group": 1, "score": 0.4, "count": 1},
            {"answer": "9", "group": 2, "score": 0.1, "count": 1},
        ],
    } | changes


def write(folder, *rows):
    (folder / "search").mkdir()
    path = folder / "search/solutions.jsonl"
    path.write_text("".join(json.dumps(sealed(r)) + "\n" for r in rows))
    return path


def test_what_won_is_a_path_and_what_was_given_up_stays(tmp_path):
    write(tmp_path, row())
    (tree,) = search_trees(tmp_path)
    first, second = tree.branches
    assert (first.text, first.won, first.dropped) == ("1 + 6", True, False)
    assert (second.text, second.won, second.dropped) == ("3 * 3", False, True)
    assert [(b.text, b.won, b.finished) for b in first.children] == [
        ("7", True, True),
        ("8", False, True),
    ]
    assert tree.why == (
        "score 0.80; 2 of 4 whole samples say so, the best of the others is 8 with 0.40"
    )
    assert (tree.answer, tree.expected, tree.correct) == ("7", "7", True)


def test_answers_that_mean_the_same_say_the_same(tmp_path):
    """However they are spelt; and what nobody scored has no score."""
    given = [("7", 0, 0.8), ("8", 1, 0.4), ("7.0", 0, 0.7), (None, None, None)]
    made = [
        {"answer": a, "group": g, "score": s, "count": 1, "steps": [a or "?"]}
        for a, g, s in given
    ]
    write(tmp_path, row(candidates=made))
    (tree,) = search_trees(tmp_path)
    assert tree.why == (
        "score 0.80; 2 of 4 whole samples say so, the best of the others is 8 with 0.40"
    )
    unscored = [c | {"score": None} for c in made]
    (tmp_path / "search/solutions.jsonl").unlink()
    (tmp_path / "search").rmdir()
    write(tmp_path, row(candidates=unscored, score=None))
    (tree,) = search_trees(tmp_path)
    assert tree.why == "2 of 4 whole samples say so"


def test_a_line_that_a_kill_tore_is_no_damage(tmp_path):
    path = write(tmp_path, row(), row(index=1))
    path.write_bytes(path.read_bytes()[:-20])
    assert len(search_trees(tmp_path)) == 1


def test_a_winner_that_the_search_gave_up_is_not_folded_away(tmp_path):
    write(tmp_path, row(answer="9", solution=["3 * 3", "9"], correct=False))
    (tree,) = search_trees(tmp_path)
    (won,) = [b for b in tree.branches if b.won]
    assert won.text == "3 * 3" and not won.dropped
    assert [b.won for b in won.children] == [True]
    assert "not 7" in render(ReportData("x", trees=[tree]))


def test_a_question_without_an_answer_says_why(tmp_path):
    none = row(answer=None, solution=None, correct=False, why="nothing was concluded")
    write(tmp_path, none, row() | {"tree": None})
    (tree,) = search_trees(tmp_path)
    assert not any(b.won for b in tree.branches)
    assert tree.why == "nothing was concluded"
    assert "no answer" in render(ReportData("x", trees=[tree]))


def test_a_wide_tree_is_cut_but_not_what_won(tmp_path):
    wide = [TREE[0], *(node(0, f"{k}", 1 - k / 100, finished=True) for k in range(50))]
    write(tmp_path, row(wide, solution=["49"], answer="49"))
    (tree,) = search_trees(tmp_path)
    texts = [b.text for b in tree.branches]
    assert len(texts) == 12 and tree.left_out == 38
    assert texts == [*map(str, range(11)), "49"]
    assert tree.branches[-1].won
    assert "and 38 more" in render(ReportData("x", trees=[tree]))


def test_a_deep_tree_and_hostile_text_make_a_page(tmp_path):
    text = "<script>alert(1)</script>"
    deep = [node(-1, text, 0.0), *(node(k, text, 0.5) for k in range(900))]
    write(tmp_path, row(deep, answer=None, solution=None, correct=None, reference=None))
    page = render(ReportData("x", trees=search_trees(tmp_path)))
    assert text not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("&lt;script&gt;alert(1)") == 61  # the question, and 60 steps


def test_a_changed_line_is_named(tmp_path):
    path = write(tmp_path, row())
    path.write_text(path.read_text().replace("1 + 6", "1 + 9"))
    with pytest.raises(DamagedFileError, match=r"solutions\.jsonl, line 1"):
        search_trees(tmp_path)
