"""The Python API gives what the training graph gives, whatever the batch."""

from __future__ import annotations

import subprocess
import sys

import command
import jax
import numpy as np
import pytest
import tiny

import aprm_jax
from aprm_jax.data.rows import TooLongError
from aprm_jax.models import heads
from aprm_jax.models.io import ModelFileError
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.verifiers.reading import BrokenModelError


@pytest.fixture(scope="module")
def prm(tmp_path_factory) -> aprm_jax.PRM:
    return aprm_jax.PRM.load(tiny.save(tmp_path_factory.mktemp("m") / "prm", "prm"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> aprm_jax.Generator:
    folder = tmp_path_factory.mktemp("m") / "generator"
    return aprm_jax.Generator.load(tiny.save(folder, "generator", max_new_tokens=6))


@pytest.fixture(scope="module")
def solver(tmp_path_factory) -> aprm_jax.Solver:
    folder = tmp_path_factory.mktemp("m") / "run" / "solver" / "model"
    tiny.save(folder, "solver", max_new_tokens=6)
    return aprm_jax.Solver.load(folder.parents[1])


def test_score_is_the_sigmoid_of_the_training_graphs_logits(prm):
    question, steps, _ = tiny.solutions()[1]
    got = prm.score(question, steps)
    assert got.dtype == np.float32 and got.shape == (len(steps),)
    batch = prm.builder.collate([prm.builder.solution(question, steps)])
    logits = heads.step_logits(prm.decoder, prm.params, batch, "token")[0]
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), rtol=1e-4)
    assert len(set(got.tolist())) == len(steps)


def test_a_batch_of_mixed_lengths_scores_like_one_by_one(prm):
    solutions = [(q, steps) for q, steps, _ in tiny.solutions()] * 25
    together = prm.score_batch(solutions)
    assert [len(s) for s in together] == [len(steps) for _, steps in solutions]
    for (question, steps), scores in zip(solutions[:3], together[-3:], strict=True):
        np.testing.assert_allclose(
            scores, prm.score(question, steps), rtol=1e-4, atol=1e-5
        )


def test_other_sizes_in_the_same_buckets_compile_nothing(prm):
    prm.score_batch([("7 - 7 =", ["0"])] * 5 + [("2 =", ["2"])] * 2)
    with jax.no_tracing():
        prm.score_batch([("1 =", ["1", "1"]), ("1 + 1 =", ["2"])] * 2)


def test_no_steps_and_no_solutions_score_nothing(prm):
    assert prm.score("1 + 1 =", []).shape == (0,)
    assert prm.score_batch([]) == []


def test_too_long_is_named_or_nan(prm):
    fine, long = ("1 =", ["1"]), ("1 =", ["1 " * 50, "2"])
    with pytest.raises(TooLongError, match="solution 1 needs"):
        prm.score_batch([fine, long])
    scores = prm.score_batch([fine, long], too_long="nan")
    assert np.isfinite(scores[0]).all()
    assert scores[1].shape == (2,) and np.isnan(scores[1]).all()


def test_a_prm_that_has_no_values_says_so(prm):
    with pytest.raises(ValueError, match="nothing of a bare question: job=pav trains"):
        prm.value("1 + 2 =")
    with pytest.raises(TypeError):
        prm.value(3)


def test_one_string_is_not_a_list_of_steps(prm, generator):
    with pytest.raises(TypeError, match="list"):
        prm.score("1 + 1 =", "2")
    with pytest.raises(TypeError, match="list"):
        generator.perturb("1 + 1 =", "2", "2")


# In a Python of its own: here beartype would refuse it first, with its own words.
_REFUSALS = """
import numpy as np, sys, aprm_jax
prm, generator = aprm_jax.PRM.load(sys.argv[1]), aprm_jax.Generator.load(sys.argv[2])
q, perturb, grade = "1 + 1 =", generator.perturb, aprm_jax.grade
rank, solve = prm.rank, aprm_jax.Solver.load(sys.argv[3]).solve
for call in {calls}:
    try:
        print("ACCEPTED", eval(call))
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""
KINDS = ("prm", "generator", "solver")
_CALLS = [
    line.split(" -> ")
    for line in """\
prm.score(q, None) -> TypeError solution 0: steps must be a list of steps, not None
prm.score(q, ['2', None]) -> TypeError solution 0: steps[1] must be text, not None
prm.score(q, {'a': '2'}) -> TypeError solution 0: steps must be a list of steps, no
prm.score(q, {'2'}) -> TypeError solution 0: steps must be a list of steps, not se
prm.score(q, [2]) -> TypeError solution 0: steps[0] must be text, not int 2
prm.score(q, [b'2']) -> TypeError solution 0: steps[0] must be text, not bytes
prm.score(q, [['2']]) -> TypeError solution 0: steps[0] must be text, not list
prm.score(q, ['2', '']) -> ValueError solution 0: steps[1] is empty: ''
prm.score(q, [' \\n']) -> ValueError solution 0: steps[0] is empty
prm.score(q, ['\\ud800']) -> ValueError solution 0: steps[0] is no text
prm.score(None, ['2']) -> TypeError solution 0: the question must be text, not None
prm.score_batch([(q, ['2']), (q, ['2', 7])]) -> TypeError solution 1: steps[1] must
prm.score_batch([(q, ['2']), None]) -> TypeError solution 1 must be (question, ste
prm.score_batch([{'q': q}]) -> TypeError solution 0 must be (question, steps), not
prm.score_batch([(q, ['2'], 1)]) -> TypeError solution 0 must be (question, steps)
prm.score_batch(None) -> TypeError solutions must be a list of (question, steps) p
prm.score_batch('x') -> TypeError solutions must be a list of (question, steps) pai
prm.score_batch({}) -> TypeError solutions must be a list of (question, steps) pair
prm.score_batch([], too_long='drop') -> ValueError too_long must be 'raise' or 'nan'
prm.score_batch([], too_long=None) -> ValueError too_long must be 'raise' or 'nan'
perturb(q, None, '2') -> TypeError prefix must be a list of steps, not None
perturb(q, [3], '2') -> TypeError prefix[0] must be text, not int 3
perturb(q, [''], '2') -> ValueError prefix[0] is empty
perturb(q, [], None) -> TypeError the step must be text, not None
perturb(q, [], '') -> ValueError the step is empty
perturb({}, [], '2') -> TypeError the question must be text, not dict {}
perturb(q, [], '2', n=0) -> ValueError n must be at least 1, not 0
perturb(q, [], '2', n=1.5) -> TypeError n must be a whole number, not float 1.5
perturb(q, [], '2', n=True) -> TypeError n must be a whole number, not bool True
perturb(q, [], '2', seed='x') -> TypeError seed must be a whole number, not str
perturb(q, [], '2', seed=-1) -> ValueError seed must be at least 0, not -1
perturb(q, [], '2', seed=1 << 32) -> ValueError seed must be at most 4294967295, not
perturb(q, [], '2', temperature=-1) -> ValueError temperature must be finite and
perturb(q, [], '2', temperature=float('nan')) -> ValueError temperature must be fi
perturb(q, [], '2', temperature='hot') -> TypeError temperature must be a number
len(perturb(q, (), '2', n=np.int64(2), seed=np.int32(1))) -> ACCEPTED 2
rank(q, '2') -> TypeError candidates must be a list of solutions, not one string
rank(q, {'2': 1}) -> TypeError candidates must be a list of solutions, not dict
rank(q, [['2'], 7]) -> TypeError candidates[1]: steps must be a list of steps, not int
rank(q, [['2', None]]) -> TypeError candidates[0]: steps[1] must be text, not None
[bool(np.isfinite(r.score)) for r in rank(q, [['2', ' ']])] -> ACCEPTED [True]
rank(q, ['\\ud800']) -> ValueError candidates[0] is no text: a lone surrogate
rank(7, []) -> TypeError the question must be text, not int 7
rank(q, [], aggregation='median') -> ValueError aggregation must be '' or 'min' or
[r.index for r in rank(q, ['', [], '2'])] -> ACCEPTED [2, 0, 1]
rank(q, []) -> ACCEPTED []
solve(['1 + 1 =']) -> TypeError the question must be text, not list ['1 + 1 =']
solve(' ') -> ValueError the question is empty
solve(q, n=0) -> ValueError n must be at least 1, not 0
solve(q, max_steps=0) -> ValueError max_steps must be at least 1, not 0
solve(q, max_steps=2.0) -> TypeError max_steps must be a whole number, not float 2.0
solve(q, temperature=-1) -> ValueError temperature must be finite and not negative
solve(q, top_p=0) -> ValueError top_p must be in (0, 1], not 0
solve(q, top_p='all') -> TypeError top_p must be a number, not str 'all'
solve(q, seed=-1) -> ValueError seed must be at least 0, not -1
solve(q, seed=1 << 70) -> ValueError seed must be at most 4294967295, not 118
aprm_jax.PRM.load(None) -> TypeError name must be a folder or OWNER/NAME on the hub, not
aprm_jax.Solver.load(prm) -> TypeError name must be a folder or OWNER/NAME on the hub
aprm_jax.Generator.load('') -> ValueError name is empty: a folder or OWNER/NAME
solve('1 ' * 40) -> TooLongError a row of
len(solve(q, n=np.int64(2), max_steps=np.int32(1), top_p=np.float32(1))) -> ACCEPTED 2
grade(7, '7') -> TypeError given must be text, not int 7
grade('7', 7) -> TypeError reference must be text, not int 7
grade('7', None) -> TypeError reference must be text, not NoneType None
(grade(None, '7'), grade('It is 7.', '7')) -> ACCEPTED (False, True)
prm.score(q, tuple('23')).shape -> ACCEPTED (2,)
prm.score(np.str_(q), np.array(['2', '3'])).shape -> ACCEPTED (2,)
prm.score(q, (s for s in '23')).shape -> ACCEPTED (2,)
prm.score('', ['2']).shape -> ACCEPTED (1,)
""".splitlines()
]


def test_what_is_no_text_is_refused_where_it_stands(tmp_path):
    folders = [str(tiny.save(tmp_path / kind, kind)) for kind in KINDS]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _REFUSALS.format(calls=[call for call, _ in _CALLS]),
            *folders,
        ],
        capture_output=True,
        text=True,
        env=command.ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    for said, (call, expected) in zip(done.stdout.splitlines(), _CALLS, strict=True):
        assert said.startswith(expected), call


def test_perturb_repeats_with_its_seed_and_varies_with_another(generator):
    arguments = ("1 + 2 * 3 =", [], "1 + 6")
    first = generator.perturb(*arguments, n=5, temperature=3.0)
    assert len(first) == 5
    assert first == generator.perturb(*arguments, n=5, temperature=3.0, seed=0)
    assert first != generator.perturb(*arguments, n=5, temperature=3.0, seed=1)
    assert len(set(first)) > 1
    for text in first:
        assert len(text.split()) <= 6
        assert "<step>" not in text


def test_greedy_perturbations_are_all_alike(generator):
    greedy = generator.perturb("1 + 2 =", [], "3", n=3, temperature=0.0)
    assert len(set(greedy)) == 1


def test_perturb_refuses_what_it_cannot_do(generator):
    with pytest.raises(TooLongError, match="longest bucket"):
        generator.perturb("1 " * 40, [], "1")
    with pytest.raises(ValueError, match="at least 1"):
        generator.perturb("1 =", [], "1", n=0)


def test_loading_the_wrong_kind_says_which_it_is(tmp_path):
    folder = tiny.save(tmp_path / "generator", "generator")
    wanted = "holds a generator, and a prm is wanted: a run or stage of job=prm, pav or"
    with pytest.raises(ModelFileError, match=wanted):
        aprm_jax.PRM.load(folder)
    tiny.save(tmp_path / "run" / "aprm" / "model", "prm")
    with pytest.raises(
        ModelFileError, match="no model of the kind 'solver'; there are"
    ):
        aprm_jax.Solver.load(tmp_path / "run")
    with pytest.raises(
        ModelFileError, match="holds a prm, and a solver is wanted: a r"
    ):
        aprm_jax.Solver.load(tmp_path / "run" / "aprm" / "model")


def test_a_broken_model_scores_nothing(prm):
    broken = jax.tree.map(lambda x: x * np.nan, prm.params)
    model = aprm_jax.PRM(broken, prm.spec, prm.builder.tokenizer)
    for call in (lambda: model.score("2", ["2"]), lambda: model.rank("2", ["2"])):
        with pytest.raises(BrokenModelError, match="not finite"):
            call()


def test_a_broken_model_writes_nothing(solver, generator):
    for model, call in (
        (solver, lambda m: m.solve("1 + 1 =", max_steps=2)),
        (generator, lambda m: m.perturb("1 + 1 =", [], "2", temperature=0.0)),
    ):
        call(model)
        nan = jax.tree.map(lambda x: x * np.nan, model.params)
        broken = type(model)(nan, model.spec, model.builder.tokenizer)
        with pytest.raises(BrokenModelError, match="not a number"):
            call(broken)


def test_the_best_candidate_comes_first(prm):
    question, candidates = "1 + 2 * 3 =", [["1 + 6", "7"], "3 * 3\n9", ["7"], "1 " * 50]
    read = [["1 + 6", "7"], ["3 * 3", "9"], ["7"]]
    scores = [prm.score(question, steps) for steps in read]
    orders = set()
    for how, total in (("", np.min), ("product", np.prod), ("last", lambda s: s[-1])):
        found = prm.rank(question, [*candidates, [], candidates[0]], aggregation=how)
        totals = [float(total(s)) for s in scores]
        best = sorted([0, 1, 2, 5], key=lambda k: -[*totals, 0, 0, totals[0]][k])
        assert [r.index for r in found] == [*best, 3, 4]
        for ranked in found[:4]:
            k = ranked.index % 5
            assert ranked.steps == tuple(read[k])
            np.testing.assert_allclose(ranked.scores, scores[k], rtol=1e-5)
            assert ranked.score == pytest.approx(totals[k], rel=1e-5)
        assert all(np.isnan(ranked.score) for ranked in found[4:])
        orders.add(tuple(best))
    assert len(orders) > 1  # or the aggregation would have changed nothing


def test_a_solver_writes_solutions_that_its_seed_decides(solver):
    question = "1 + 2 * 3 ="
    found = solver.solve(question, n=5, max_steps=3)
    assert len(found) == 5 and all(1 <= len(s.steps) <= 3 for s in found)
    assert {s.question for s in found} == {question}
    assert len({s.steps for s in found}) > 1
    for solution in found:
        assert len(solution.tokens) == len(solution.logprobs) == len(solution.steps)
    again = solver.solve(question, n=2, max_steps=3, seed=0)
    assert [s.steps for s in again] == [s.steps for s in found[:2]]
    other = solver.solve(question, n=5, max_steps=3, seed=1)
    assert [s.steps for s in other] != [s.steps for s in found]
    greedy = solver.solve(question, n=3, max_steps=3, temperature=0.0)
    narrow = solver.solve(question, n=3, max_steps=3, top_p=1e-6)
    assert len({s.steps for s in [*greedy, *narrow]}) == 1


def test_a_language_model_is_a_solver_that_is_told_in_words(tmp_path):
    write_tiny(tmp_path / "lm", "qwen2", ["2 + 3 = 5", "#### 7"])
    solver = aprm_jax.Solver.load(tmp_path / "lm")
    found = solver.solve("What is 3 + 4?", n=8, max_steps=2)
    assert any(s.steps and "=" in s.steps[0] for s in found)
    write_tiny(tmp_path / "prm", "qwen2", ["2 + 3 = 5"], layout="qwen2_prm")
    with pytest.raises(ModelFileError, match="holds a prm, and a solver is wanted"):
        aprm_jax.Solver.load(tmp_path / "prm")
