"""Readers of published PRM data, each on rows of its published form."""

from __future__ import annotations

import json
import math

import pytest

from aprm_jax.data.jsonl import DataError, RowError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.readers import read_steps, sources

NAN = math.nan


def _parse(name: str, row: dict) -> list:
    return list(sources()[name].parse(row))


def _same(labels, expected) -> bool:
    return repr(tuple(labels)) == repr(tuple(expected))


def _chat(*contents: str) -> dict:
    roles = ("user", "assistant")
    turns = [{"role": roles[k % 2], "content": c} for k, c in enumerate(contents)]
    return {"conversations": turns}


@pytest.mark.parametrize(
    ("row", "question", "steps", "labels"),
    [
        (
            _chat("How many? Step 1: 3+4 = 7.", "+", "Step 2: It is 8.", "-"),
            "How many?",
            ("3+4 = 7.", "It is 8."),
            (1.0, 0.0),
        ),
        # Deepseek's steps are paragraphs.
        (_chat("A\n\nB?\n\nFirst, 7.\n\n", "-"), "A\n\nB?", ("First, 7.",), (0.0,)),
        # A first step that cannot be told from the question has no label of its own.
        (_chat("How many? 3+4 = 7.", "+", "7", "-"), "How many? 3+4 = 7.", "7", (0.0,)),
        (_chat("Q? Step 1: a", "+", "Step 2: b"), "Q?", ("a", "b"), (1.0, NAN)),
        # Nor has a paragraph of the question, where the steps behind it have numbers
        # or it asks for something.
        (
            _chat("Let f = 2.\n\nFind f(1).", "+", "Step 2: f(1)=2", "-"),
            "Let f = 2.\n\nFind f(1).",
            ("f(1)=2",),
            (0.0,),
        ),
        (_chat("A\n\nB f.", "+", "Step 1: f", "-"), "A\n\nB f.", ("f",), (0.0,)),
        (
            _chat("A\n\nWhat is f?", "+", "It is 2", "-"),
            "A\n\nWhat is f?",
            ("It is 2",),
            (0.0,),
        ),
        (
            _chat("A\n\nFind f.", "+", "It is 2", "-"),
            "A\n\nFind f.",
            ("It is 2",),
            (0.0,),
        ),
        (
            {
                "messages": [
                    {"from": "system", "value": "Judge."},
                    {"from": "human", "value": "Q? Step 1: a"},
                    {"from": "gpt", "value": " + "},
                ]
            },
            "Q?",
            ("a",),
            (1.0,),
        ),
    ],
)
def test_rlhflow(row, question, steps, labels):
    [found] = _parse("rlhflow", row)
    assert (found.question, found.steps) == (question, tuple(steps))
    assert _same(found.labels, labels)


def test_what_a_row_does_not_say_of_itself_is_filled_in(tmp_path):
    path = tmp_path / "part.jsonl"
    path.write_text(json.dumps(_chat("Q? Step 1: a", "+")) + "\n")
    [found] = read_steps(str(path), "rlhflow")
    where = found.source, found.split, found.problem_id
    assert where == ("rlhflow", "part", question_id("Q?"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "field 'conversations' must be a list"),
        ({"conversations": []}, "no turn of the user"),
        ({"conversations": ["+"]}, "turn 0 must be an object"),
        (_chat("Q? Step 1: a", "yes"), r"turn 1 must be \+ or -, not 'yes'"),
        (_chat("Q?", "+"), "no 'Step 1:', and there is no other"),
        (_chat("Step 1: a", "+"), "no question before"),
        ({"conversations": [{"role": "assistant", "content": "+"}]}, "follows no step"),
        ({"conversations": [{"role": "user", "content": 3}]}, "must be text, not int"),
    ],
)
def test_rlhflow_rows_that_do_not_fit_are_refused(row, message):
    with pytest.raises(RowError, match=message):
        _parse("rlhflow", row)


def test_openrlhf():
    text = "How many? Step 1: 3+4 = 7. ки\nStep 2: It is 8. ки"
    for values in (["+", "-"], [1.0, 0.0], [True, False], [1, 0]):
        for field in ("value", "label"):
            [found] = _parse("openrlhf", {"input": text, field: values})
            assert (found.question, found.labels) == ("How many?", (1.0, 0.0))
            assert found.steps == ("3+4 = 7.", "It is 8.")
    [soft] = _parse("openrlhf", {"input": text, "value": [0.875, None]})
    assert _same(soft.labels, (0.875, NAN)) and soft.ratings == (None, None)
    label = "How many? Step 1: 3+4 = 7. +\nStep 2: It is 8. -"
    [shepherd] = _parse("openrlhf", {"input": text, "label": label})
    assert shepherd.labels == (1.0, 0.0)
    for row, message in (
        ({"input": text}, "none of the fields value"),
        ({"input": text, "value": ["+"]}, "1 labels for 2 tags"),
        ({"input": text, "value": ["+", "?"]}, "label 1 must be"),
        ({"input": "Q Step 1: a", "value": []}, "no tag"),
        ({"input": text + " more", "value": ["+", "-"]}, "behind the last tag"),
    ):
        with pytest.raises(RowError, match=message):
            _parse("openrlhf", row)


def test_versaprm():
    row = {
        "id": "b1-0",
        "cot_id": 3,
        "question": "Which?\nA. it's 1\nB. 2",
        "answer": "B",
        "category": "law",
        "src": "ori_mmlu",
        "chain_of_thoughts": """["Step 1: It's 2.", 'Step 2: So "B".']""",
        "labels": "[1, -1]",
        "parsed_answer_correctness": True,
    }
    [found] = _parse("versaprm", row)
    assert found.question == "Which?\nA. it's 1\nB. 2" and found.category == "law"
    assert found.steps == ("It's 2.", 'So "B".') and found.labels == (1.0, 0.0)
    lists = {"chain_of_thoughts": ["a", "b"], "labels": [1, None]}
    [found] = _parse("versaprm", row | lists)
    assert _same(found.labels, (1.0, NAN))
    [found] = _parse("versaprm", {"question": "Q", "steps": ["a"], "labels": ["OK"]})
    assert found.labels == (0.5,) and found.ratings == (0,)
    for changes, message in (
        ({"labels": "[1]"}, "2 steps and 1 labels"),
        ({"labels": "[1, 2]"}, "label 1 must be -1, 0, 1"),
        ({"labels": "[1, __import__('os')]"}, "must be a list"),
        ({"labels": "[" * 100_000}, "must be a list"),
        ({"chain_of_thoughts": "['a', 3]"}, "item 1 is no text"),
    ):
        with pytest.raises(RowError, match=message):
            _parse("versaprm", row | changes)


def test_mr_ben():
    row = {
        "Question_UUID": "u-1",
        "Subject": "math",
        "Question": "How many?",
        "Options": "A: 1\nB: 2",
        "Sampled_Model": "M",
        "Model_Solution_Steps": ["Step 1: a", "Step 2: b", "Step 3: c"],
        "Model_Solution_Correctness": "incorrect",
        "Model_Solution_First_Error_Step": "2",
    }
    [found] = _parse("mr_ben", row)
    assert found.question == "How many?\nA: 1\nB: 2" and found.steps == ("a", "b", "c")
    assert _same(found.labels, (1.0, 0.0, NAN))
    assert (found.problem_id, found.category) == ("u-1", "math")
    right = {
        "Model_Solution_Correctness": "correct",
        "Model_Solution_First_Error_Step": "N/A",
    }
    code = {key: value for key, value in row.items() if key != "Options"} | right
    [found] = _parse("mr_ben", code)
    assert found.question == "How many?" and found.labels == (1.0, 1.0, 1.0)
    text = {"Model_Solution_Steps": "Step 1: a\nand more\nStep 2: b"}
    [found] = _parse("mr_ben", row | text)
    assert found.steps == ("a\nand more", "b") and found.labels == (1.0, 0.0)
    for changes, message in (
        ({"Model_Solution_First_Error_Step": "4"}, "'4' of 3 steps, counted from 1"),
        ({"Model_Solution_First_Error_Step": 0}, "of 3 steps"),
        ({"Model_Solution_First_Error_Step": "N/A"}, "is incorrect, but"),
        ({"Model_Solution_Correctness": "correct"}, "solution is correct, but"),
        ({"Model_Solution_Correctness": " Right "}, "solution is right, but"),
        ({"Model_Solution_Correctness": "dubious"}, "'dubious', not correct or"),
        (
            {
                "Model_Solution_Correctness": "wrong",
                "Model_Solution_First_Error_Step": "N/A",
            },
            "is wrong, but",
        ),
        ({"Model_Solution_Steps": []}, "empty list"),
    ):
        with pytest.raises(RowError, match=message):
            _parse("mr_ben", row | changes)


def test_reasoneval_locates_errors_and_rates_redundancy():
    row = {"id": 0, "question": "Q", "generator": "Abel13B-001"}
    steps = {"model_output_step_format": [["1. a"], ["2. b", "b'"], ["3. c"]]}
    wrong = {
        "model_output_solution_correctness": "incorrect",
        "model_output_solution_first_error_step": 2,
    }
    [found] = _parse("reasoneval", row | steps | wrong)
    assert found.steps == ("1. a", "2. b\nb'", "3. c")
    assert _same(found.labels, (1.0, 0.0, NAN)) and found.category == "Abel13B-001"
    right = {
        "model_output_solution_correctness": "correct",
        "model_output_solution_first_error_step": "N/A",
    }
    [found] = _parse("reasoneval", row | steps | right)
    assert found.labels == (1.0, 1.0, 1.0)
    [found] = _parse("reasoneval", row | steps | {"rating": [1, 0, 1]})
    assert found.labels == (1.0, 0.5, 1.0) and found.ratings == (1, 0, 1)
    with pytest.raises(RowError, match="3 steps and 1 ratings"):
        _parse("reasoneval", row | steps | {"rating": [1]})
    with pytest.raises(RowError, match="neither a field"):
        _parse("reasoneval", row | steps)


def test_reasoneval_knows_where_a_perturbation_is_when_it_is_one_step():
    row = {
        "question": "Q",
        "reference_steps": ["a", "b", "c"],
        "hypothesis_steps": ["a", "x", "c"],
        "error_type": "random number",
        "tags": 1,
    }
    [found] = _parse("reasoneval", row)
    assert _same(found.labels, (1.0, 0.0, NAN)) and found.category == "random number"
    [found] = _parse("reasoneval", row | {"error_type": "swap steps", "tags": [0, 1]})
    assert found.num_labelled == 0
    with pytest.raises(RowError, match="'tags' is 3 of 3 steps"):
        _parse("reasoneval", row | {"tags": 3})


def test_mr_gsm8k():
    row = {
        "uuid": "u-2",
        "question": "Q",
        "model_output_steps": ["Step 1: a", "Step 2: b"],
        "model_output_solution_correctness": "incorrect",
        "model_output_solution_first_error_step": "2",
    }
    [found] = _parse("mr_gsm8k", row)
    assert found.steps == ("a", "b") and found.labels == (1.0, 0.0)
    assert found.problem_id == "u-2"


def _tree(text, value, *children) -> dict:
    return {"text": text, "mc_value": value, "children": list(children)}


def test_math_aps_trees_are_a_solution_a_leaf():
    tree = _tree(
        "Q",
        0.5,
        _tree("a", 0.75, _tree("b", 1.0), _tree("", 0.75, _tree("c", 0.0))),
        _tree("d", None),
    )
    row = {"question": "Q", "final_answer": "1", "reasoning_steps": tree}
    found = _parse("math_aps", row)
    assert [(s.steps, repr(s.labels)) for s in found] == [
        (("a", "b"), "(0.75, 1.0)"),
        (("a", "c"), "(0.75, 0.0)"),
        (("d",), "(nan,)"),
    ]
    assert {s.question for s in found} == {"Q"}
    assert [s.steps for s in _parse("math_aps", tree)] == [s.steps for s in found]
    for broken, message in (
        (_tree("Q", 0.5), "no step below its root"),
        (_tree("Q", 0.5, _tree("a", 1.5)), "mc_value must be"),
        (_tree("Q", 0.5, "a"), "must be an object"),
        (_tree(" ", 0.5, _tree("a", 1)), "neither a field 'question'"),
    ):
        with pytest.raises(RowError, match=message):
            _parse("math_aps", {"reasoning_steps": broken})
    deep = _tree("leaf", 1.0)
    for k in range(2000):  # no recursion over what a file may hold
        deep = _tree(f"{k}", 0.5, deep)
    [found] = _parse("math_aps", {"question": "Q", "reasoning_steps": deep})
    assert len(found.steps) == 2000


def test_math_aps_rows_label_their_last_step():
    row = {"question": "Q", "process": "a\n\nb\n\n", "label": ["-"]}
    [found] = _parse("math_aps", row)
    assert found.steps == ("a", "b") and _same(found.labels, (NAN, 0.0))
    tagged = {"process": "Step 1: a ки\nStep 2: b\n\nb ки", "label": ["+", "-"]}
    [found] = _parse("math_aps", row | tagged)
    assert found.steps == ("a", "b\n\nb") and found.labels == (1.0, 0.0)
    with pytest.raises(RowError, match="2 steps and 3 labels"):
        _parse("math_aps", row | {"label": ["+", "+", "-"]})


def test_skywork_problems():
    row = {
        "data_source": "train-math-numinamath",
        "prompt": [{"role": "user", "content": " What is 1+1? "}],
        "ability": "math",
        "reward_model": {"ground_truth": '["2"]', "style": "rule"},
        "extra_info": {"index": 7},
    }
    [p] = _parse("skywork", row)
    assert (p.question, p.answer, p.category) == (
        "What is 1+1?",
        "2",
        "train-math-numinamath",
    )
    for truth, answer in (("34", "34"), ("[0, 1]", "[0, 1]"), (["5", "6"], "5")):
        [p] = _parse("skywork", row | {"reward_model": {"ground_truth": truth}})
        assert p.answer == answer
    for changes, message in (
        ({"ability": "code"}, "'code'"),
        ({"reward_model": {"ground_truth": []}}, "empty list"),
        ({"prompt": []}, "one turn of the user"),
        ({"reward_model": {}}, "ground_truth"),
    ):
        with pytest.raises(RowError, match=message):
            _parse("skywork", row | changes)


def _file(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_label_may_be_a_sign_or_a_word_and_a_prompt_a_chat():
    row = {
        "prompt": [{"role": "user", "content": "Q"}],
        "completions": ["a", "b", "c", "d"],
        "labels": ["+", "-", "Correct", " false "],
    }
    [found] = _parse("step_format", row)
    assert (found.question, found.labels) == ("Q", (1.0, 0.0, 1.0, 0.0))
    table = {"prompt": "Q", "completions": '["a", "b"]', "labels": "[1, 0.25]"}
    [found] = _parse("step_format", table)
    assert (found.steps, found.labels) == (("a", "b"), (1.0, 0.25))
    with pytest.raises(RowError, match="label 0 must be true, false, null"):
        _parse("step_format", table | {"labels": '["maybe", 1]'})


def test_labels_of_solutions_are_not_read_as_labels_of_steps(tmp_path):
    """The form of gsm8k-gen-stepwise: several answers to one question."""
    rows = [
        {
            "prompt": f"<|user|>\nWhat is {q} + 2?<|end|>\n<|assistant|>\n",
            "completions": [
                f"{q} + 2 = {q + 2}.\n#### {q + 2}",
                f"It is near {q}. The answer is {q + 9}.",
            ],
            "labels": [True, False],
        }
        for q in range(6)
    ]
    with pytest.raises(DataError, match="are solutions of one question"):
        read_steps(_file(tmp_path / "rows.jsonl", rows), "step_format")
    steps = [
        {
            "prompt": f"What is {q} + 2?",
            "completions": [f"Add 2 to {q}.", f"The answer is {q + 2}."],
            "labels": [True, q % 2 == 0],
        }
        for q in range(6)
    ]
    assert len(read_steps(_file(tmp_path / "steps.jsonl", steps), "step_format")) == 6
    named = _file(tmp_path / "gsm8k-gen-stepwise.jsonl", steps)
    with pytest.raises(DataError, match="one label, not the steps of a solution"):
        read_steps(named, "step_format")


def test_one_rating_says_what_the_whole_file_has(tmp_path):
    """Few wrong steps would go unseen, and neutral ones be learned as wrong."""
    row = {"prompt": "q", "completions": ["a", "b"], "labels": [1, 0]}
    rows = [*[row] * 99, row | {"labels": [1, -1]}]
    with pytest.raises(DataError, match=r"line 100: label 1 is -1.*null for each 0"):
        read_steps(_file(tmp_path / "r.jsonl", rows), "step_format", max_bad_share=0.1)


@pytest.mark.parametrize("spelt", [r'["\frac12", "b"]', r'["a", "3 \times 4"]'])
def test_latex_that_was_taken_for_an_escape_is_refused(spelt):
    table = {"prompt": "q", "completions": spelt, "labels": "[1, 0]"}
    with pytest.raises(RowError, match=r"'completions': item [01] has a control char"):
        _parse("step_format", table)
    [found] = _parse(
        "step_format", table | {"completions": spelt.replace("\\", "\\\\")}
    )
    assert "\\" in "".join(found.steps)
    [found] = _parse("step_format", table | {"completions": r'["a\r\nb", "c\nd"]'})
    assert found.steps == ("a\r\nb", "c\nd")


def test_half_a_pair_in_a_list_that_is_spelt_in_a_text_is_refused():
    table = {"prompt": "q", "completions": r'["\ud83d", "b"]', "labels": "[1, 0]"}
    with pytest.raises(RowError, match=r"'completions\.0' has a lone surrogate"):
        _parse("step_format", table)
