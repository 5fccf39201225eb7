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


@pytest.fixture(scope="module")
def prm(tmp_path_factory) -> aprm_jax.PRM:
    return aprm_jax.PRM.load(tiny.save(tmp_path_factory.mktemp("m") / "prm", "prm"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> aprm_jax.Generator:
    folder = tmp_path_factory.mktemp("m") / "generator"
    return aprm_jax.Generator.load(tiny.save(folder, "generator", max_new_tokens=6))


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


def test_one_string_is_not_a_list_of_steps(prm, generator):
    with pytest.raises(TypeError, match="list"):
        prm.score("1 + 1 =", "2")
    with pytest.raises(TypeError, match="list"):
        generator.perturb("1 + 1 =", "2", "2")


# In a Python of its own: here beartype would refuse it first, with its own words.
_REFUSALS = """
import numpy as np, sys, aprm_jax
prm, generator = aprm_jax.PRM.load(sys.argv[1]), aprm_jax.Generator.load(sys.argv[2])
q, perturb = "1 + 1 =", generator.perturb
for call in {calls}:
    try:
        print("ACCEPTED", eval(call))
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""
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
perturb(q, [], '2', temperature=-1) -> ValueError temperature must be finite and
perturb(q, [], '2', temperature=float('nan')) -> ValueError temperature must be fi
perturb(q, [], '2', temperature='hot') -> TypeError temperature must be a number
len(perturb(q, (), '2', n=np.int64(2), seed=np.int32(1))) -> ACCEPTED 2
prm.score(q, tuple('23')).shape -> ACCEPTED (2,)
prm.score(np.str_(q), np.array(['2', '3'])).shape -> ACCEPTED (2,)
prm.score(q, (s for s in '23')).shape -> ACCEPTED (2,)
prm.score('', ['2']).shape -> ACCEPTED (1,)
""".splitlines()
]


def test_what_is_no_text_is_refused_where_it_stands(tmp_path):
    folders = [str(tiny.save(tmp_path / kind, kind)) for kind in ("prm", "generator")]
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
    with pytest.raises(ModelFileError, match="holds a generator"):
        aprm_jax.PRM.load(folder)
