"""Each reader on a row of its data set's form, with the traps that each form has."""

from __future__ import annotations

import gzip
import hashlib
import json
import math

import pytest

from aprm_jax.data.jsonl import DataError, RowError
from aprm_jax.data.labelled import (
    as_kind,
    from_first_error,
    from_labels,
    from_ratings,
    question_id,
    split_id,
)
from aprm_jax.data.readers import (
    ProblemSource,
    StepSource,
    read_problems,
    read_steps,
    sources,
)
from aprm_jax.data.readers.base import number_text, paragraphs, spelt_list
from aprm_jax.data.readers.boxes import last_box
from aprm_jax.oracle.answers import grade

NAN = math.nan


def _write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _parse(name: str, row: dict) -> list:
    return list(sources()[name].parse(row))


def _same(labels, expected) -> bool:
    return repr(tuple(labels)) == repr(tuple(expected))


def test_every_data_set_has_a_reader_with_its_public_name():
    steps = {n for n, s in sources().items() if isinstance(s, StepSource)}
    problems = {n for n, s in sources().items() if isinstance(s, ProblemSource)}
    assert steps == {
        *("prm800k", "math_shepherd", "processbench", "prmbench", "step_format"),
        *("rlhflow", "openrlhf", "versaprm", "mr_ben", "mr_gsm8k", "reasoneval"),
        "math_aps",
    }
    assert problems == {
        *("gsm8k", "math", "math500", "svamp", "scibench", "jeebench"),
        *("olympiadbench", "aime", "amc", "skywork", "questions"),
    }
    for source in sources().values():
        assert source.hub or source.name in ("reasoneval", "questions")  # files alone
        assert all(n.startswith("datasets:") for n in source.hub)
    assert sources()["gsm8k"].tfds == "tfds:gsm8k"
    assert not sources()["prm800k"].evaluation and sources()["math500"].evaluation


# PRM800K.


def _flat(rating, **changes) -> dict:
    row = {
        "instruction": "What is 2+2?",
        "responses": ["Add them."],
        "next_response": "It is 4.",
        "rating": rating,
        "is_human_response": False,
    }
    return row | changes


def test_a_flat_row_labels_its_last_step_alone():
    [neutral] = _parse("prm800k", _flat(0))
    assert neutral.steps == ("Add them.", "It is 4.")
    assert _same(neutral.labels, (NAN, 0.5)) and neutral.ratings == (None, 0)
    assert _same(_parse("prm800k", _flat(-1))[0].labels, (NAN, 0.0))
    assert _same(_parse("prm800k", _flat(1))[0].labels, (NAN, 1.0))


@pytest.mark.parametrize("rating", [2, True, "1", 0.5])
def test_a_rating_is_one_of_three(rating):
    with pytest.raises(RowError, match="rating must be -1, 0, 1 or null"):
        _parse("prm800k", _flat(rating))


def _completion(text, rating):
    return {"text": text, "rating": rating, "flagged": None}


def _level(*completions, chosen=None, human=None):
    return {
        "completions": [_completion(*c) for c in completions],
        "chosen_completion": chosen,
        "human_completion": human,
    }


def _nested(*levels, reason="solution") -> dict:
    return {
        "question": {"problem": "Q"},
        "label": {"steps": list(levels), "finish_reason": reason},
    }


def test_an_original_row_is_its_path_and_what_lies_beside_it():
    row = _nested(
        _level(("a", 1), chosen=0),
        _level(("b", -1), ("c", 0), ("d", None), chosen=1),
        _level(("e", -1), human={"text": "f", "rating": None}),
        _level(("g", -1), ("h", -1)),
    )
    path, *beside = _parse("prm800k", row)
    # The session ended at a wrong step: it is on the path. People's own steps are
    # unrated, and no rating stands in any text.
    assert path.steps == ("a", "c", "f", "g")
    assert path.ratings == (1, 0, None, -1)
    assert _same(path.labels, (1.0, 0.5, NAN, 0.0))
    assert [(s.steps, s.ratings) for s in beside] == [
        (("a", "b"), (None, -1)),
        (("a", "c", "e"), (None, None, -1)),
        (("a", "c", "f", "h"), (None, None, None, -1)),
    ]
    assert {s.category for s in [path, *beside]} == {"solution"}


def test_an_original_row_may_end_without_a_step():
    nothing = {"completions": None, "human_completion": None, "chosen_completion": None}
    [path] = _parse("prm800k", _nested(_level(("a", 1), chosen=0), nothing))
    assert path.steps == ("a",) and path.finished
    with pytest.raises(RowError, match="no step has a completion"):
        _parse("prm800k", _nested(nothing))


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (_level(("a", 1), chosen=1), "step 0: chosen_completion 1 of 1"),
        (_level(("a", 7), chosen=0), "step 0: rating must be"),
        ("a", "step 0 must be an object"),
    ],
)
def test_bad_original_rows_say_which_step(level, message):
    with pytest.raises(RowError, match=message):
        _parse("prm800k", _nested(level))


def test_a_null_completion_keeps_its_place():
    level = _level(("b", -1), ("c", 1), chosen=2)
    level["completions"].insert(0, None)
    null_text = _level(("f", 1), chosen=1)
    null_text["completions"].insert(0, {"text": None, "rating": None})
    ended = _level(("g", -1), ("h", 0))
    ended["completions"].insert(0, None)
    path, *beside = _parse("prm800k", _nested(level, null_text, ended))
    assert (path.steps, path.ratings) == (("c", "f", "g"), (1, 1, -1))
    assert [s.steps for s in beside] == [("b",), ("c", "f", "h")]
    # What went on from no text follows nothing that we know.
    lost = _level(("x", 1), chosen=1)
    lost["completions"].append(None)
    row = _nested(_level(("a", 1), chosen=0), lost, _level(("z", 1), chosen=0))
    path, *beside = _parse("prm800k", row)
    assert path.steps == ("a",) and [s.steps for s in beside] == [("a", "x")]
    assert path.finished is False  # its end is lost with the step
    last = _level(("y", 1), chosen=1)
    last["completions"].append(None)
    [path, _] = _parse("prm800k", _nested(_level(("a", 1), chosen=0), last))
    assert path.steps == ("a",) and path.finished is False
    with pytest.raises(RowError, match="chosen_completion 3 of 3"):
        _parse("prm800k", _nested(level | {"chosen_completion": 3}))
    with pytest.raises(RowError, match="no step has a completion"):
        _parse("prm800k", _nested({"completions": [None], "chosen_completion": 0}))


def test_unrated_and_repeated_rows_are_dropped_and_counted(tmp_path):
    rows = [_flat(1), _flat(None), _flat(1), _flat(-1)]
    found = read_steps(_write(tmp_path / "rows.jsonl", rows), "prm800k")
    assert (len(found), found.num_unlabelled, found.num_repeated) == (2, 1, 1)
    assert found[0].split == "rows"
    again = read_steps(str(tmp_path / "rows.jsonl"), "prm800k", unique=False)
    assert (len(again), again.num_repeated) == (3, 0)


def test_the_real_prm800k_has_the_counts_that_it_is_known_for(shared_data):
    path = shared_data / "prm800k"
    found = read_steps(str(path / "phase1_test.jsonl.gz"), "prm800k", unique=False)
    ratings = [s.ratings[-1] for s in found]
    assert [ratings.count(r) for r in (1, 0, -1)] == [2245, 867, 1970]
    assert (found.num_bad, found.num_unlabelled) == (0, 367)
    nested = read_steps(str(path / "raw_schema_samples.jsonl"), "prm800k")
    assert nested.num_bad == 0
    assert sum(len(s.steps) == s.num_labelled > 1 for s in nested) == 4
    # Both forms of one session give the same steps the same ratings.
    flat = {(s.question, s.steps): s.ratings[-1] for s in found}
    both = [s for s in nested if (s.question, s.steps) in flat]
    assert len(both) > 3
    assert all(flat[s.question, s.steps] == s.ratings[-1] for s in both)


# Other step data.


def _shepherd(text: str, signs: str) -> dict:
    for sign in signs:
        text = text.replace("ки", sign, 1)
    return {"label": text, "task": "GSM8K"}


def test_math_shepherds_tags_become_labels():
    text = "What is Step 1: of 5 + 8 - 1? Step 1: 5+8 = 13. ки\nStep 2: 13-1 = 12 ки"
    [found] = _parse("math_shepherd", {"input": text, **_shepherd(text, "+-")})
    assert found.question == "What is Step 1: of 5 + 8 - 1?"
    assert found.steps == ("5+8 = 13.", "13-1 = 12")
    assert found.labels == (1.0, 0.0) and found.category == "GSM8K"
    older = {
        "input": "Q Step 1: a+b ки ?\n\nStep 2: c ки ?",
        "label": "Q Step 1: a+b ки -\n\nStep 2: c ки +",
    }
    [found] = _parse("math_shepherd", older)
    assert (found.steps, found.labels) == (("a+b", "c"), (0.0, 1.0))


@pytest.mark.parametrize(
    ("text", "question", "steps"),
    [
        ("Q? Step 1: As Step 1: says, 4. ки", "Q?", ["As Step 1: says, 4."]),
        ("Add 2 Step 1: From Step 1: 4 ки", "Add 2", ["From Step 1: 4"]),
        ("Q? Step 1: a ки\nStep 2: see Step 1: b ки", "Q?", ["a", "see Step 1: b"]),
        ("What is Step 1: of it? Step 1: a ки", "What is Step 1: of it?", ["a"]),
        (
            "Do this. Step 1: add. Step 2: halve. How many? Step 1: a ки",
            "Do this. Step 1: add. Step 2: halve. How many?",
            ["a"],
        ),
        ("Q?\r\nStep 1: a ки\r\nStep 2: b ки\r\n", "Q?", ["a", "b"]),
        ("Q? **Step 1:** a ки\n**Step 2**: b ки", "Q?", ["a", "b"]),
        ("Q?\n__Step 1:__ a ки\n### Step 2: b ки", "Q?", ["a", "b"]),
        ("Q? Step 1: **a** b ки\n**Step 2: c** d ки", "Q?", ["**a** b", "**c** d"]),
        ("Q? Step 1: Is it 4? ки\nStep 2: Yes. ки", "Q?", ["Is it 4?", "Yes."]),
        ("Q? Step 1: a\nb ки\nstep 2 : c ки", "Q?", ["a\nb", "c"]),
    ],
)
def test_math_shepherds_solution_begins_at_its_own_step_1(text, question, steps):
    row = {"input": text, **_shepherd(text, "+-")}
    [found] = _parse("math_shepherd", row)
    assert (found.question, list(found.steps)) == (question, steps)
    assert found.labels == (1.0, 0.0)[: len(steps)]
    # Which line ends the other field has does not matter.
    unix = row | {"label": row["label"].replace("\r\n", "\n")}
    assert _parse("math_shepherd", unix) == [found]


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("Q Step 1: a ки", "Q Step 1: b +", "differ in step 1"),
        ("Q Step 1: a ки", "Q Step 1: a x", "step 1 ends in 'x'"),
        ("Q Step 1: a", "Q Step 1: a", "no tag"),
        ("Step 1: a ки", "Step 1: a +", "no question"),
        ("Q a ки", "Q a +", "no 'Step 1:'"),
        ("Q Step 1: a ки tail", "Q Step 1: a + tail", "behind the last tag"),
        ("Q Step 1: a ки Step 2: ки", "Q Step 1: a + Step 2: +", "step 2 is empty"),
    ],
)
def test_math_shepherd_rows_that_do_not_fit_are_refused(text, label, message):
    with pytest.raises(RowError, match=message):
        _parse("math_shepherd", {"input": text, "label": label})


def test_processbench_counts_from_zero_and_masks_what_comes_after():
    row = {"id": "math-3", "generator": "M", "problem": "Q", "steps": ["a", "b", "c"]}
    [wrong] = _parse("processbench", row | {"label": 1})
    assert _same(wrong.labels, (1.0, 0.0, NAN)) and wrong.ratings == (1, -1, None)
    assert (wrong.split, wrong.problem_id, wrong.category) == ("math", "math-3", "M")
    [right] = _parse("processbench", row | {"label": -1})
    assert right.labels == (1.0, 1.0, 1.0)
    for label in (3, -2):
        with pytest.raises(RowError, match="no step of 3"):
            _parse("processbench", row | {"label": label})


def test_prmbench_counts_from_one_and_knows_every_step():
    row = {
        "idx": "circular_prm_test_p1_0",
        "classification": "circular",
        "original_question": "Q",
        "modified_question": "Q'",
        "original_process": ["a", "b"],
        "modified_process": ["a", "b", "c"],
        "error_steps": [1, 3],
    }
    [found] = _parse("prmbench", row)
    assert found.question == "Q'" and found.labels == (0.0, 1.0, 0.0)
    assert found.category == "circular"
    modified, original = _parse("prmbench", row | {"classification": "redundency"})
    assert (modified.category, original.category) == ("redundency", "correct")
    assert (original.question, original.labels) == ("Q", (1.0, 1.0))
    assert original.problem_id == modified.problem_id
    with pytest.raises(RowError, match="error step 0 of 3, counted from 1"):
        _parse("prmbench", row | {"error_steps": [0]})
    with pytest.raises(RowError, match="must list integers"):
        _parse("prmbench", row | {"error_steps": None})


def test_prmbench_ignores_steps_past_the_end_and_counts_such_rows(tmp_path, caplog):
    row = {"classification": "deception", "modified_question": "Q"}
    row["modified_process"] = ["a", "b"]
    errors = [[2], [2, 3, 7], [9], []]
    rows = [row | {"idx": str(k), "error_steps": e} for k, e in enumerate(errors)]
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_steps(str(path), "prmbench", unique=False, max_bad_share=0.0)
    assert [s.labels for s in found] == [(1.0, 0.0)] * 2 + [(1.0, 1.0)] * 2
    assert (found.num_bad, found.num_ignored) == (0, 2)
    assert "2 solutions have labels of steps that they do not have" in caplog.text


def test_the_step_format_takes_truth_values_numbers_and_null():
    row = {"prompt": "Q", "completions": ["a", "b", "c", "d"]}
    [found] = _parse("step_format", row | {"labels": [True, 0.75, None, False]})
    # A fraction survives: it is no rating, and no class.
    assert _same(found.labels, (1.0, 0.75, NAN, 0.0))
    assert found.ratings == (1, None, None, -1)
    for labels in ([1, 1, 1], None, [1, 1, 1, 2], [1, 1, 1, "1"], [1, 1, 1, NAN]):
        with pytest.raises(RowError, match="label"):
            _parse("step_format", row | {"labels": labels})


# Kinds of labels.


def test_labels_by_kind():
    people = from_ratings("Q", "abcd", [1, 0, -1, None])
    assert as_kind(people, "soft") is people
    # A neutral step counts as not incorrect.
    assert _same(as_kind(people, "hard").labels, (1.0, 1.0, 0.0, NAN))
    assert as_kind(people, "hard").ratings == people.ratings
    assert as_kind(people, "three_class") == people
    sampled = from_labels("Q", "abcde", [0.0, 0.3, 0.5, 0.7, 1.0])
    assert as_kind(sampled, "hard").labels == (0.0, 0.0, 1.0, 1.0, 1.0)
    thirds = as_kind(sampled, "three_class")
    assert thirds.labels == (0.0, 0.0, 0.5, 1.0, 1.0)
    assert thirds.ratings == (-1, -1, 0, 1, 1)
    assert _same(from_first_error("Q", "ab", 0).labels, (0.0, NAN))
    with pytest.raises(ValueError, match="first error 2 of 2"):
        from_first_error("Q", "ab", 2)
    with pytest.raises(ValueError, match="2 steps, 1 labels"):
        from_labels("Q", "ab", [1.0])


def test_questions_are_the_same_whatever_their_layout():
    a = question_id("Find  $\\left(x+1\\right)$ if x = 2.")
    assert a == question_id("find (x+1) if\n x=2 .")
    assert a != question_id("Find (x-1) if x = 2.")
    assert question_id("2+3") != question_id("23")
    assert len({question_id(""), question_id("?"), question_id("…")}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 * (3 + 4)?", "What is (2 * 3) + 4?"),
        ("(1+2)*3?", "1+2*3?"),
        ("Compute 5! + 2", "Compute 5 + 2"),
        ("Find n! for n = 3.", "Find n for n = 3."),
        ("Is x != 3?", "Is x = 3?"),
        ("What is 5% of 20?", "What is 5 of 20?"),
        ("What is $5\\%$ of 20?", "What is $5$ of 20?"),
        ("How many integers have |x| < 3?", "How many integers have x < 3?"),
        ("Solve x ≥ 3", "Solve x ≤ 3"),
        ("Solve $x \\neq 3$", "Solve $x = 3$"),
        ("8 ÷ 4?", "8 × 4?"),
        ("8 − 4?", "8 4?"),
        ("8 – 4?", "8 + 4?"),
        ("√(4) + 5", "√(4 + 5)"),
        ("\\sqrt{2}+3", "\\sqrt{2+3}"),
        ("a_{n+1}", "a_n + 1"),
        ("\\log_2 8", "\\log 2 8"),
        ("What is 1.5 + 2?", "What is 1, 5 + 2?"),
        ("What is .5 + 2?", "What is 5 + 2?"),
        ("f(x, -y)", "f(x - y)"),
        ("gcd(1,200)", "gcd(1200)"),
        ("What is 3:4?", "What is 3 4?"),
        ("1, 2, ..., 10", "1, 2, 10"),
        ("Find f'(2).", "Find f(2)."),
        ("Find f' at 2.", "Find f at 2."),
        ("Find (fg)'.", "Find (fg)."),
        ("x² + 1", "x2 + 1"),
        ("5² + 1", "52 + 1"),
        ("3½ + 1", "31/2 + 1"),
        ("sin 90°", "sin 90"),
        ("It costs €5.", "It costs £5."),
        ("\\{2\\}", "{2}"),
        ("[1, 2)", "(1, 2]"),
        ("\\matrix{1 & 2 \\\\ 3 & 4}", "\\matrix{1 & 2 & 3 & 4}"),
        ("Is A = a + 1?", "Is a = a + 1?"),
        ("Let A be a set.", "Let a be a set."),
        ("Find P(X).", "Find P(x)."),
        ("Let $\\Gamma=2$.", "Let $\\gamma=2$."),
        ("Find Δ.", "Find δ."),
        ("How much is 5 mW?", "How much is 5 MW?"),
        ("How much is 5 Mg?", "How much is 5 mg?"),
        ("What is 5 @ 3?", "What is 5 # 3?"),
        ("Compute a@b.", "Compute a b."),
        ("n# = 30", "n = 30"),
        ("Find #A.", "Find A."),
        ("7 § 2", "7 2"),
        ("7 • 2", "7 2"),
        ("7 ‖ 2", "7 2"),
        ("7 ? 2", "7 2"),
        ("A \\ B", "A B"),
        ("A\\B", "A B"),
        ("0.\u03055", "0.5"),
        ("x\u0304 = 2", "x = 2"),
    ],
)
def test_a_sign_that_changes_the_question_tells_two_apart(one, other):
    assert question_id(one) != question_id(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $2 + 3$?", "what is 2+3"),
        ("Well, Bob! How many?", "well Bob: how many."),
        ("“Ann’s” pens; how many…", '"Ann\'s" pens how many'),
        ("The sides 'a' and 'b' of Ann's", "the sides “a” and “b” of Ann’s"),
        ("$x^{2} + \\frac{1}{2}$", "$x^2+\\frac 1 2$"),
        ("$x^{10}$", "$x^10$"),
        ("x² + y₁", "x^2 + y_1"),
        ("3½", "3 1/2"),
        ("$3 \\times 4 \\cdot 5$", "3 × 4 * 5"),
        ("8 ÷ 4 − 1", "$8 / 4 - 1$"),
        ("$x \\le 3 \\leq y$", "x ≤ 3 ≤ y"),
        ("$90^\\circ$", "90°"),
        ("$f'(2)$", "f′(2)"),
        ("$\\left\\{ 1, 2 \\right\\}$", "\\{1,2\\}"),
        ("5\\text{ miles an hour}", "5 miles an hour"),
        ("$5\\%$", "5 %"),
        ("In 2010, people left.", "In 2010 people left"),
        ("A train left, and I left.", "a train left and I left"),
        ("I have 3", "i have 3"),
        ("X is 3. How much is x?", "x is 3. How much is x?"),
        ("O'Brien's hat", "o'brien's hat"),
        ("WHAT IS X + 3?", "what is x+3"),
        ("$5 \\ \\text{cm}$", "5 cm"),
        ("• two apples\n• some pears", "two apples some pears"),
    ],
)
def test_spacing_case_and_prose_punctuation_tell_none_apart(one, other):
    assert question_id(one) == question_id(other)


def test_signs_that_are_learned_to_count_move_no_split(shared_data):
    # Published splits are drawn by these: PRM800K's have been so since the first one.
    assert split_id("What is 2+2?") == split_id(" what is $2 + 2$ ")
    assert split_id("Is A = a @ 1?") == split_id("Is a = a 1?")
    train = read_steps(
        str(shared_data / "prm800k/phase1_test.jsonl.gz"), "prm800k", unique=False
    )
    ids = sorted({split_id(row.question) for row in train})
    digest = hashlib.sha256(" ".join(ids).encode()).hexdigest()
    assert (len(ids), digest[:16]) == (98, "558b0b7b7a4ea82d")


# Problems.


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "gsm8k",
            {"question": "Q", "answer": "1+1 = 2\n#### 2"},
            ("Q", "2", ("1+1 = 2", "#### 2"), "", ""),
        ),
        (
            "math",
            {"problem": "Q", "solution": "So\n\nit is \\boxed{\\frac{1}{2}}."},
            ("Q", "\\frac{1}{2}", ("So", "it is \\boxed{\\frac{1}{2}}."), "", ""),
        ),
        ("math500", {"problem": "Q", "answer": "3"}, ("Q", "3", (), "", "")),
        (
            "svamp",
            {"Body": "Bo has 2  pens", "Question": "How many?", "Answer": 145.0},
            ("Bo has 2 pens. How many?", "145", (), "Numeric", ""),
        ),
        (
            "scibench",
            {"problem_text": " Q\n", "answer_number": "+65.49", "unit": " $J$ "},
            (
                "Q The unit of the answer is $J$.",
                "+65.49 \\mathrm{J}",
                (),
                "Numeric",
                "$J$",
            ),
        ),
        (
            "jeebench",
            {"question": "Q", "gold": "BC", "type": "MCQ(multiple)", "index": 3},
            ("Q", "BC", (), "MCQ(multiple)", ""),
        ),
        (
            "olympiadbench",
            {
                "id": 7,
                "context": "C",
                "question": "Q",
                "final_answer": ["1", "$x$"],
                "answer_type": "Tuple",
                "solution": ["a\n\nb"],
            },
            ("C\nQ", "1, $x$", ("a", "b"), "Tuple", ""),
        ),
        ("aime", {"Problem": "Q", "Answer": 33}, ("Q", "33", (), "Numeric", "")),
        ("amc", {"problem": "Q", "answer": 142.0}, ("Q", "142", (), "Numeric", "")),
    ],
)
def test_problems(name, row, expected, tmp_path):
    _write(tmp_path / "some.jsonl", [row])
    [p] = read_problems(str(tmp_path / "some.jsonl"), name)
    assert (p.question, p.answer, p.steps, p.kind, p.unit) == expected
    assert (p.source, p.split) == (name, "some") and p.problem_id


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("math", {"problem": "Q", "solution": "\\boxed{1"}, "neither a field 'answer'"),
        ("svamp", {"Body": "B", "Question": "Q", "Answer": True}, "a number or text"),
        ("svamp", {"Body": "B", "Question": "Q", "Answer": NAN}, "nan, not a number"),
        ("jeebench", {"question": "Q", "gold": "E", "type": "MCQ", "index": 1}, "ABCD"),
        ("jeebench", {"question": "Q", "gold": "A", "type": "X", "index": 1}, "type"),
        ("aime", {"problem": "Q", "answer": "1000"}, "0 to 999"),
        ("aime", {"problem": "Q", "answer": "9" * 5000}, "0 to 999, not '9"),
        ("amc", {"text": "Q", "answer": 1}, "none of the fields problem"),
        ("olympiadbench", {"question": "Q", "final_answer": []}, "empty list"),
    ],
)
def test_bad_problems_are_refused(name, row, message):
    with pytest.raises(RowError, match=message):
        _parse(name, row)


def test_the_last_box_may_hold_braces():
    assert last_box("\\boxed{1} then \\boxed{\\frac{a}{b}} end") == "\\frac{a}{b}"
    assert last_box("\\fbox{ 7 }") == "7"
    assert last_box("no box") == last_box("\\boxed") == last_box("\\boxed{1") == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so it is $\\boxed 3$, that is $\\frac{6}{2}$.", "3"),
        ("Hence $\\boxed\\frac{3}{4}$.", "\\frac{3}{4}"),
        ("$\\boxed\\frac34$ of {x}", "\\frac34"),
        ("$\\boxed{5}$ and then \\fbox 7 of {x}", "7"),
        ("$\\boxed -12$, {x}", "-12"),
        ("\\(\\boxed\\sqrt[3]{2}\\)", "\\sqrt[3]{2}"),
        ("\\boxed 2\\pi. {x}", "2\\pi"),
        ("\\boxed\\{1, 2\\}$", "\\{1, 2\\}"),
        ("\\boxed\\left( 1, 2 \\right) so", "\\left( 1, 2 \\right)"),
        ("\\boxed\n {5}", "5"),
        ("\\boxedx {5}", ""),
    ],
)
def test_a_box_without_a_brace_holds_what_stands_next_to_it(text, answer):
    assert last_box(text) == answer


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (145.0, "145"),
        (0.5, "0.5"),
        (2.0**53, "9007199254740992"),
        (6.022e23, "6022" + 20 * "0"),
        (1e23, "1" + 23 * "0"),
        (-1e300, "-1" + 300 * "0"),
        (1.6e-19, "1.6e-19"),
        (10**23 + 1, "100000000000000000000001"),
    ],
)
def test_a_number_has_the_digits_that_were_written(value, text):
    assert number_text(value, "answer") == text


def test_a_large_answer_of_ones_own_is_graded_as_written():
    [problem] = _parse("questions", {"question": "Q", "answer": 6.022e23})
    for right in ("6.022e23", "$6.022\\times 10^{23}$", "602200000000000000000000"):
        assert grade(right, problem.answer)
    assert not grade("602200000000000027262976", problem.answer)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a\n \nb\r\n\r\nc", ("a", "b", "c")),
        ("a\n\n[asy]\nx;\n\ny;\n[/asy]\n\nb", ("a", "[asy]\nx;\n\ny;\n[/asy]", "b")),
        (
            "\\begin{align*}\nx\n\ny\n\\end{align*}\n\nb",
            ("\\begin{align*}\nx\n\ny\n\\end{align*}", "b"),
        ),
        ("$$x\n\ny$$\n\n\\[x\n\ny\\]", ("$$x\n\ny$$", "\\[x\n\ny\\]")),
        # What is never closed is cut as ever, and `\\[2pt]` opens nothing.
        ("\\begin{a}\n\nb\n\nc", ("\\begin{a}", "b", "c")),
        ("x\\\\[2pt]\n\ny", ("x\\\\[2pt]", "y")),
    ],
)
def test_blank_lines_set_paragraphs_apart_but_not_inside_of_something(text, parts):
    assert paragraphs(text) == parts


def test_the_real_solutions_are_cut_inside_of_no_environment(shared_data):
    found = read_problems(str(shared_data / "math500/math500.jsonl"), "math500")
    steps = [step for p in found for step in p.steps]
    for first, last in (("[asy]", "[/asy]"), ("\\begin{", "\\end{")):
        assert any(first in step for step in steps)
        assert not [s for s in steps if s.count(first) != s.count(last)]


@pytest.mark.parametrize(
    "text",
    [
        r'["3 \neq 4", "x"]',
        r"['3 \neq 4', 'x']",
        r'["x", "\nu = 3"]',
        r'["$a = 1,\nu = 3$"]',
        r'["a \not= b"]',
        r'["x\notin S"]',
        r'["$\nabla f$"]',
        r'["$x\ne 5$"]',
        r'[["3 \neq 4"]]',
        r'[["a"], ["\frac12"]]',
    ],
)
def test_a_spelt_list_with_a_broken_command_is_refused(text):
    with pytest.raises(RowError, match="a backslash is written twice"):
        spelt_list({"steps": text}, "steps")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (r'["3 \\neq 4"]', ["3 \\neq 4"]),
        (r'["a\nb = 3", "c\nnot so"]', ["a\nb = 3", "c\nnot so"]),
        (r'["v = 2\nu = 3"]', ["v = 2\nu = 3"]),  # a line of its own
        (r'["one\nequal to two"]', ["one\nequal to two"]),
        (r'["one\nless than two"]', ["one\nless than two"]),
    ],
)
def test_line_ends_of_a_spelt_list_are_kept(text, items):
    assert spelt_list({"steps": text}, "steps") == items


@pytest.mark.parametrize(
    ("name", "path", "count"),
    [
        ("gsm8k", "gsm8k/test.jsonl", 1319),
        ("math500", "math500/math500.jsonl", 500),
        ("svamp", "svamp/svamp.jsonl", 1000),
        ("scibench", "scibench", 580 + 112),  # a folder
        ("jeebench", "jeebench/dataset.json", 450),
        ("olympiadbench", "olympiadbench", 675),
    ],
)
def test_the_real_problems_are_all_read(shared_data, name, path, count):
    found = read_problems(str(shared_data / path), name)
    assert (len(found), found.num_bad) == (count, 0)
    assert all(p.question and p.answer for p in found)


def test_the_real_processbench_is_all_read(shared_data):
    for split, wrong, right in (("gsm8k", 207, 193), ("math", 594, 406)):
        found = read_steps(
            str(shared_data / f"processbench/{split}.json"), "processbench"
        )
        assert sum(0.0 in s.labels for s in found) == wrong
        assert sum(0.0 not in s.labels for s in found) == right
        assert {s.split for s in found} == {split}


# Files and names.


def test_bad_rows_are_quarantined_with_file_line_and_reason(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    _write(folder / "a.jsonl", [_flat(1, instruction=f"Q{k}") for k in range(3)])
    _write(folder / "b.jsonl", [_flat(1), _flat(3)])
    found = read_steps(
        str(folder), "prm800k", quarantine_dir=tmp_path / "bad", max_bad_share=0.5
    )
    assert (len(found), found.num_bad) == (4, 1)
    [record] = (tmp_path / "bad").iterdir()
    bad = json.loads(record.read_text())
    assert bad["file"].endswith("b.jsonl") and bad["line"] == 2
    assert "rating must be" in bad["reason"]
    with pytest.raises(DataError, match=r"b\.jsonl, line 2: rating must be.*20\.00%"):
        read_steps(str(folder), "prm800k")


def test_parquet_and_gzip_and_single_objects(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": "Q", "completions": ["a", "b"], "labels": [1.0, None]}]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet"
    )
    [found] = read_steps(str(tmp_path / "rows.parquet"), "step_format")
    assert _same(found.labels, (1.0, NAN))
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write(json.dumps(rows[0]) + "\n")
    assert len(read_steps(str(tmp_path / "rows.jsonl.gz"), "step_format")) == 1
    # MATH as its authors publish it: a folder of files with one object each.
    algebra = tmp_path / "MATH" / "algebra"
    algebra.mkdir(parents=True)
    for k in range(2):
        row = {"problem": f"Q{k}", "solution": f"\\boxed{{{k}}}", "type": "Algebra"}
        (algebra / f"{k}.json").write_text(json.dumps(row, indent=4))
    found = read_problems(str(tmp_path / "MATH"), "math")
    assert [(p.answer, p.category) for p in found] == [
        ("0", "Algebra"),
        ("1", "Algebra"),
    ]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("bad.parquet", "not a Parquet file"),
        ("none.parquet", "no such file"),
        ("empty", "holds no file"),
    ):
        with pytest.raises(DataError, match=message):
            read_steps(str(tmp_path / name), "step_format")


def _step_rows(*questions: str) -> list[dict]:
    return [{"prompt": q, "completions": ["a"], "labels": [True]} for q in questions]


def _folder(path, **files: str):
    """A folder with a file of one row each: name -> question."""
    for name, question in files.items():
        file = path / name.replace("__", "/").replace("_jsonl", ".jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, _step_rows(question))
    return path


def test_a_folder_is_read_one_split_at_a_time(tmp_path):
    folder = _folder(
        tmp_path / "a", train_0_jsonl="T0", train_1_jsonl="T1", my_test_jsonl="E"
    )
    with pytest.raises(DataError, match=r"several splits \(test, train: .*\?split="):
        read_steps(str(folder), "step_format")

    def questions(source, **split):
        return [s.question for s in read_steps(str(source), "step_format", **split)]

    assert questions(folder, split="train") == ["T0", "T1"]
    assert questions(f"{folder}?split=test") == ["E"]
    with pytest.raises(DataError, match="no file of split 'validation' among my_test"):
        questions(folder, split="validation")
    deep = _folder(tmp_path / "b", train__x_jsonl="T", dev__x_jsonl="D")
    assert questions(deep, split="validation") == questions(deep, split="dev") == ["D"]
    # One split, or none that is named, is the folder as it is.
    assert questions(_folder(tmp_path / "c", train_jsonl="T", x_jsonl="X")) == [
        "T",
        "X",
    ]
    assert questions(_folder(tmp_path / "test", x_jsonl="X"), split="test") == ["X"]
    # A file is its split, or it is refused.
    assert questions(folder / "my_test.jsonl") == ["E"]
    assert questions(folder / "my_test.jsonl", split="test") == ["E"]
    with pytest.raises(DataError, match=r"my_test\.jsonl is one file"):
        questions(folder / "my_test.jsonl", split="train")


def test_hidden_files_are_no_data(tmp_path):
    folder = _folder(tmp_path / "a", x_jsonl="X")
    for name in (".x.jsonl", "._x.jsonl", ".cache/y.jsonl", "__MACOSX/x.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0not json")
    assert [s.question for s in read_steps(str(folder), "step_format")] == ["X"]


def test_columns_of_a_path_are_renamed(tmp_path):
    rows = [{"q": "Q", "prompt": "other", "s": ["a"], "labels": [True]}]
    path = _write(tmp_path / "rows.jsonl", rows)
    [found] = read_steps(f"{path}?rename=q:prompt,s:completions", "step_format")
    assert (found.question, found.steps) == ("Q", ("a",))
    [found] = read_steps(f"{tmp_path}?rename=q:prompt,s:completions", "step_format")
    assert found.question == "Q"
    with pytest.raises(DataError, match="rename must be theirs:ours"):
        read_steps(f"{path}?rename=q", "step_format")
    with pytest.raises(DataError, match="unknown option 'config'"):
        read_steps(f"{path}?config=main", "step_format")
    odd = _write(tmp_path / "why?.jsonl", _step_rows("Q"))
    assert len(read_steps(odd, "step_format")) == 1


def test_hub_names_are_read_through_datasets(tmp_path):
    rows = [{"prompt": "Q", "completions": ["a"], "labels": [True]}]
    path = _write(tmp_path / "rows.jsonl", rows)
    [found] = read_steps(f"datasets:json?data_files={path}", "step_format")
    assert found.labels == (1.0,) and found.split == "train"
    # No network here: the error names the source and the split, and no traceback.
    with pytest.raises(DataError, match=r"datasets:Qwen/ProcessBench, split 'math'"):
        read_steps("", "processbench", split="math")


def test_an_unknown_reader_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'prm800k'"):
        read_steps("x", "prm800")
    with pytest.raises(DataError, match="no reader of problems is called 'prm800k'"):
        read_problems("x", "prm800k")
    with pytest.raises(ValueError, match="label must be one of"):
        read_steps("x", "prm800k", label="firm")
