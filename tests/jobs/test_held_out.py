"""Nothing that learns data beside the domain's learns what the domain evaluates on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import command
import ml_collections
import pytest
import tiny_run

from aprm_jax.config import for_stage, jobs, read_config_file, set_field
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.problem import Problem
from aprm_jax.files import sealed
from aprm_jax.jobs import pipeline, prepare, prm_labels, report, sft, tree_data
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.jobs.held_out import note_held_out
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.training.workdir import done_info

COUNT = 60
FILE = command.REPOSITORY / "configs" / "own_data.py"


def _question(k: int) -> str:
    return f"Ann has {k} pens and buys {k + 3} more. How many has she?"


def _steps(k: int) -> list[str]:
    return [f"{k} + {k + 3} = {2 * k + 3}", f"#### {2 * k + 3}"]


def _write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _labelled(folder: Path) -> str:
    """Two solutions of each question: a right one, and one that is wrong at once."""
    rows = []
    for k in range(COUNT):
        wrong = [f"{k} * {k + 3} = WRONG", f"#### {k}"]
        for steps, label in ((_steps(k), 1), (wrong, 0)):
            rows.append(
                {"prompt": _question(k), "completions": steps, "labels": [label] * 2}
            )
    return "step_format:" + _write(folder / "labelled.jsonl", rows)


def _questions(folder: Path) -> str:
    rows = [
        {
            "question": _question(k),
            "solution": "\n".join(_steps(k)),
            "answer": 2 * k + 3,
        }
        for k in range(COUNT)
    ]
    return _write(folder / "questions.jsonl", rows)


def _context(folder: Path, stage: str, labels: bool, **fields) -> Context:
    """A stage of a run on these questions, or on the labelled solutions of them."""
    source = _labelled(folder)
    own = {
        "stages": ("data:prepare", "solver:sft", "value:prm", "report"),
        "domain.train": source if labels else _questions(folder),
        "prepare.sources": (source,),
        "sft.data": "data",
        "sft.batch_size": 4,
        "sft.updates": 1,
        "prm.negatives": "labels",
        "prm.data": (source,),
        "compilation_cache": "",
        "metrics.tensorboard": False,
    }
    config = read_config_file(FILE, "labels-runlocal" if labels else "runlocal")
    with config.unlocked():
        config.overrides = ml_collections.ConfigDict()
    for name, value in (own | tiny_run.dotted(fields)).items():
        set_field(config, name, value)
    return Context(for_stage(config, stage), folder / "run", stage)


def _evaluated(context: Context) -> set[str]:
    """Questions of the domain's evaluation splits, two of them at least."""
    domain = context.domain
    if isinstance(domain, LabelledDomain):
        return {row.question for row in (*domain.dev, *domain.test)}
    return {p.question for s in ("dev", "test") for p in domain.problems(s, COUNT)}


@pytest.mark.parametrize("labels", [False, True])
def test_a_solver_learns_of_prepared_data_what_its_domain_teaches(
    tmp_path, caplog, labels
):
    (tmp_path / "run").mkdir()
    prepare.run(_context(tmp_path, "data", labels))
    context = _context(tmp_path, "solver", labels)
    held = _evaluated(context)
    rows = sft._learned(context, tmp_path / "run" / "data" / "prepared")
    texts = {
        (row.tokens[row.step_ids == k].tobytes()) for row in rows for k in range(2)
    }
    domain, builder = context.domain, context.builder
    trained = [domain.train(k) for k in range(domain.num_train)]
    taught = [builder.solution(p.question, _steps(k)) for p, k in _numbered(trained)]
    assert texts == {
        row.tokens[row.step_ids == k].tobytes() for row in taught for k in range(2)
    }
    assert context.left_out.pop("held_out_solutions") >= len(held) >= 20
    assert context.left_out == {"wrong_steps": 2 * (len(rows))}
    assert "their questions are in an evaluation split of the domain" in caplog.text


def _numbered(problems: list[Problem]) -> list[tuple[Problem, int]]:
    return [(p, int(p.question.split()[2])) for p in problems]


def test_what_is_held_out_is_asked_when_the_data_are_read(tmp_path):
    """A domain that holds others out later is obeyed, though the data are the same."""
    (tmp_path / "run").mkdir()
    prepare.run(_context(tmp_path, "data", False))
    folder = tmp_path / "run" / "data" / "prepared"
    kept = []
    for count in (3, 12):
        context = _context(tmp_path, "solver", False, domain__dev_count=count)
        kept.append(len(sft._learned(context, folder)))
    assert kept[0] - kept[1] in range(10, 19)  # of dev and test, nine more of each


def test_nothing_left_to_learn_is_an_error(tmp_path):
    (tmp_path / "run").mkdir()
    prepare.run(_context(tmp_path, "data", True))
    context = _context(tmp_path, "solver", True, domain__label_cut=1.0)
    folder = tmp_path / "run" / "data" / "prepared"
    assert len(sft._learned(context, folder))
    context.domain.held_out = frozenset(question_id(_question(k)) for k in range(COUNT))
    with pytest.raises(JobError, match=r"sft\.data: .* no right step"):
        sft._learned(context, folder)


@pytest.mark.parametrize("labels", [False, True])
def test_a_prm_learns_no_label_of_an_evaluated_question(tmp_path, caplog, labels):
    context = _context(tmp_path, "value", labels)
    held = _evaluated(context)
    found = {s.question for s in prm_labels.labelled_solutions(context)}
    assert found == {_question(k) for k in range(COUNT)} - held
    assert context.left_out == {"held_out_solutions": 2 * len(held)}
    assert "value: prm.data: " in caplog.text


def test_labels_of_evaluated_questions_alone_are_refused(tmp_path):
    context = _context(tmp_path, "value", False)
    [question] = context.domain.problems("test", 1)[0].question.splitlines()
    row = {"prompt": question.upper(), "completions": ["a"], "labels": [1]}
    source = "step_format:" + _write(tmp_path / "held.jsonl", [row])
    context = _context(tmp_path, "value", False, prm__data=(source,))
    with pytest.raises(DataError, match=r"prm\.data: every question of .*held\.jsonl"):
        prm_labels.labelled_solutions(context)


def _tree(question: str, right: str) -> dict:
    nodes = [
        {"parent": -1, "text": question, "finished": False},
        {"parent": 0, "text": right, "finished": True, "correct": True},
    ]
    return sealed({"question": question, "reference": right, "tree": nodes})


@pytest.mark.parametrize("split", ["dev", "test", "longer", "worded"])
def test_trees_of_an_evaluated_question_teach_nothing(tmp_path, split):
    domain = ArithmeticDomain(seed=0)
    held, trained = domain.problems(split, 1)[0], domain.train(0)
    path = tmp_path / "solutions.jsonl"
    context = Context(tiny_run.config(), tmp_path, "policy")
    _write(path, [_tree(p.question, p.answer) for p in (held, trained)])
    for learn in (tree_data.right_solutions, tree_data.value_solutions):
        context.left_out.clear()
        assert {p.question for p in learn(context, [str(path)])} == {trained.question}
        assert context.left_out == {"held_out_trees": 1}
    _write(path, [_tree(held.question, held.answer)])
    with pytest.raises(DataError, match=r"search\.splits=train"):
        tree_data.right_solutions(context, [str(path)])


def test_domains_know_what_they_evaluate(tmp_path):
    domain = ArithmeticDomain(seed=0)
    for split in domain.splits:
        assert all(domain.is_held_out(p.question) for p in domain.problems(split, 20))
    for draw in (domain.train, domain.corpus):
        assert not any(domain.is_held_out(draw(k).question) for k in range(100))
    assert not domain.is_held_out("1 + 1") and not domain.is_held_out("How many?")
    for labels in (False, True):
        context = _context(tmp_path, "solver", labels)
        held = {_question(k) for k in range(COUNT)}
        held = {q for q in held if context.domain.is_held_out(q.upper())}
        assert held == _evaluated(context)


def test_the_run_keeps_what_was_left_out_and_the_report_shows_it(tmp_path):
    def learn(context: Context) -> dict:
        note_held_out(context.of("prm"), "prm.data", 15)
        return {}

    context = _context(tmp_path, "solver", False)
    pipeline._run(context, dataclasses.replace(jobs()["sft"], run=learn))
    found = done_info(tmp_path / "run" / "solver")
    assert found["left_out"] == {"held_out_solutions": 15}
    reporting = _context(tmp_path, "report", False)
    facts = dict(report._facts(reporting, {}))
    assert facts["Not learned by solver"] == "15 held out solutions"
    report.run(reporting)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["left_out.solver.held_out_solutions"] == 15
    assert "15 held out solutions" in (tmp_path / "run" / "report.html").read_text()
