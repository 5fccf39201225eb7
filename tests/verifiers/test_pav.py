"""A process advantage verifier: its rewards, in a search and of whole solutions."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tiny_game
from tiny_game import DECODER, DOMAIN
from tiny_search import Answers, FakeSolver, FakeVerifier, engine

import aprm_jax
from aprm_jax.config import ConfigError
from aprm_jax.jobs.records.search import SearchConfig
from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.build import make_engine
from aprm_jax.search.methods import BestOfN
from aprm_jax.search.outcome import outcome
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.models import likelihood_verifier, prm_verifier
from aprm_jax.verifiers.pav import NoValuesError, Pav
from aprm_jax.verifiers.protocol import Scale, StepVerifier, Verifier, logit
from aprm_jax.verifiers.stated import OracleVerifier

SOLUTIONS = [
    ("1 + 2 + 3 + 1", ("3 + 3 + 1", "6 + 1", "7")),
    ("1 + 2 + 3 + 1", ("3 + 3 + 1", "5 + 1", "6")),
    ("2 * 4", ("8", "8", "8")),
]


def _model(seed=1, window=None, **fields):
    builder = tiny_game.builder(window, (64,))
    params = tiny_game.prm(seed, "two_class")
    fields = {"values": True} | fields
    return prm_verifier(DECODER, "two_class", params, builder, max_steps=8, **fields)


def _reference(base, prover, starts, k, alpha):
    """Plain loops; `prover` is None for the best of k."""
    out = []
    for n, q in enumerate(base):
        mine = [starts[n], *(q if prover is None else prover[n])]
        if prover is None:
            mine = [1 - (1 - x) ** k for x in mine]
        gained = [b - a for a, b in itertools.pairwise(mine)]
        out.append([x + alpha * a for x, a in zip(q, gained, strict=True)])
    return out


@pytest.mark.parametrize(
    ("two", "window"), [(False, 1), (True, None)], ids=["best of 4", "two models"]
)
def test_rewards_are_the_bases_value_and_the_provers_progress(two, window):
    base, other = _model(1, window), _model(2, window)
    pav = Pav(base, other if two else 4, alpha=0.7)
    assert isinstance(pav, Verifier) and isinstance(pav, StepVerifier)
    odds, of_other = base.score(SOLUTIONS), other.score(SOLUTIONS)
    q, p = ([Scale.LOG_ODDS.probability(r) for r in x] for x in (odds, of_other))
    first = (other if two else base).questions([s for s, _ in SOLUTIONS])
    starts = Scale.LOG_ODDS.probability(first)
    expected = _reference(q, p if two else None, starts, 4, 0.7)
    np.testing.assert_allclose(pav.rewards(SOLUTIONS), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pav.score(SOLUTIONS), odds)
    assert pav.values and pav.tokens_read > 0
    # Step by step, from the caches: the same rewards, and the base's scores.
    rows, scores = pav.begin([(question, ()) for question, _ in SOLUTIONS])
    asked = [question for question, _ in SOLUTIONS]
    np.testing.assert_allclose(scores, base.questions(asked), rtol=1e-4, atol=1e-5)
    for k in range(3):
        steps = [solution[k] for _, solution in SOLUTIONS]
        rows, scores = pav.read(rows, range(3), steps)
        np.testing.assert_allclose(
            rows.rewards, [row[k] for row in expected], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(scores, [r[k] for r in odds], rtol=1e-4, atol=1e-5)
    # A branch that is entered later goes on from the value of its last step.
    begun, _ = pav.begin([(asked[0], SOLUTIONS[0][1][:2])])
    after, _ = pav.read(begun, [0], [SOLUTIONS[0][1][2]])
    np.testing.assert_allclose(after.rewards, expected[0][2], rtol=1e-4, atol=1e-5)
    one = base.begin([(asked[0], ())])[0].prefilled
    assert pav.begin([(asked[0], ())])[0].prefilled == ((1 + two) * one[0],)


def test_a_search_goes_on_with_what_progresses_and_chooses_by_the_value():
    """The worked example: two parents, and places for two of their four children."""
    shares = {"a": 0.0, "ax": 0.0, "ay": 0.1, "b": 0.2, "bx": 0.2, "by": 0.3}

    def rule(steps):
        if len(steps) == 2:
            return {f"= {''.join(steps)}": 1.0}
        return dict.fromkeys("ab" if not steps else "xy", 0.5)

    class Letters(Answers):
        def answer(self, steps):
            return steps[-1]

        def same_answer(self, given, expected):
            return given == expected

    def says(steps):
        path = "".join(s for s in steps if not s.startswith("="))
        return shares[path]

    kept = {}
    for name, verifier in {
        "value": FakeVerifier(says, start=0.0),
        "pav": Pav(FakeVerifier(says, start=0.0)),
    }.items():
        last = Aggregation("last")
        search = engine(BestOfN(64), verifier=verifier, rule=rule, aggregation=last)
        (tree,) = search.search(["q"], 0)
        rewards = {"".join(tree.steps(i)): n.reward for i, n in enumerate(tree.nodes)}
        ranked = tree.ranked(i for i, n in enumerate(tree.nodes) if n.depth == 2)
        kept[name] = {"".join(tree.steps(i)) for i in ranked[:2]}
        if name == "pav":
            want = {"ax": 0.0, "ay": 0.272, "bx": 0.2, "by": 0.385}
            for path, reward in want.items():
                assert abs(rewards[path] - reward) < 5e-4
            # The first step's progress is from the bare question.
            assert abs(rewards["b"] - (0.2 + 0.5 * (1 - 0.8**4))) < 1e-6
            # Its last steps bring nothing more; the value chooses, not the reward.
            best = outcome(tree, search, Letters(), "best")
            assert best.answer == "= by"
            assert abs(best.score - 0.3) < 1e-6
    assert kept == {"value": {"bx", "by"}, "pav": {"ay", "by"}}


def test_what_was_not_read_has_no_reward_and_does_not_win():
    builder = tiny_game.builder(None, (24,))
    params = tiny_game.prm(1, "two_class")
    short = prm_verifier(DECODER, "two_class", params, builder, max_steps=8)
    short = dataclasses.replace(short, values=True)
    long = "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8"
    for pav in (Pav(short), Pav(_model(), short)):
        (found,) = pav.rewards([("1 + 2 * 3", ("1 + 6", long))])
        assert np.isnan(found).tolist() == [False, True]
        rows, _ = pav.begin([("1 + 2 * 3", ())])
        rows, _ = pav.read(rows, [0], ["1 + 6"])
        rows, scores = pav.read(rows, [0], [long])
        assert math.isnan(rows.rewards[0]) and math.isnan(scores[0])


def test_without_a_value_of_the_question_the_first_step_has_no_progress():
    rows, _ = Pav(FakeVerifier(lambda steps: 0.3)).begin([("q", ())])
    rows, scores = Pav(FakeVerifier(lambda steps: 0.3)).read(rows, [0], ["a"])
    np.testing.assert_allclose(rows.rewards, [0.3], atol=1e-6)
    np.testing.assert_allclose(scores, logit([0.3]))


def test_a_verifier_of_another_kind_is_named():
    rows = tiny_game.builder(None, (64,))
    likelihood = likelihood_verifier(
        DECODER, {"backbone": tiny_game.prm()["backbone"]}, rows, max_steps=8
    )
    correct = _model(values=False)
    for kind, said in ((likelihood, "a likelihood says"), (correct, "this PRM says")):
        with pytest.raises(NoValuesError, match=f"the base's values: {said}.*job=pav"):
            Pav(kind)
        with pytest.raises(NoValuesError, match=f"the prover's values: {said}"):
            Pav(_model(), kind)
    both = CombinedVerifier([_model(), correct])
    with pytest.raises(NoValuesError, match="the base's values"):
        Pav(both)
    assert CombinedVerifier([_model(1), _model(2)]).values
    Pav(CombinedVerifier([_model(1), _model(2)]))
    Pav(OracleVerifier(DOMAIN.oracle))  # says nothing against it
    with pytest.raises(ValueError, match="the best of 0"):
        Pav(_model(), 0)


def test_a_method_that_averages_values_does_not_take_rewards():
    for method in ("mcts", "beam"):
        c = dataclasses.replace(SearchConfig(), method=method)
        if method == "mcts":
            with pytest.raises(ValueError, match="give it the PAV's base"):
                make_engine(c, FakeSolver(), Pav(_model()), 3)
        else:
            made = make_engine(c, FakeSolver(), Pav(_model()), 3)
            assert made.aggregation.how == "last"


@pytest.mark.parametrize("aggregation", ["", "effective"])
def test_a_search_takes_a_pav_as_it_is(aggregation):
    """Its own prover and weight: Q + 2 A is 0.3 for "a" and 0.25 + 2 x 0.7 for "b"."""
    base = FakeVerifier(lambda steps: 0.3 if "a" in steps else 0.25, start=0.2)
    prover = FakeVerifier(lambda steps: 0.2 if "a" in steps else 0.9, start=0.2)
    c = dataclasses.replace(SearchConfig(), aggregation=aggregation)
    made = make_engine(c, FakeSolver(), Pav(base, prover, alpha=2.0), 3).verifier
    assert made is not None
    rows, _ = made.begin([("q", ())])
    rows, scores = made.read(rows, [0, 0], ["a", "b"])
    np.testing.assert_allclose(rows.rewards, [0.3, 1.65])
    np.testing.assert_allclose(Scale.LOG_ODDS.probability(scores), [0.3, 0.25])


@pytest.mark.parametrize("option", [{"alpha": 0.25}, {"prover": 2}])
def test_a_pav_is_not_given_a_prover_or_weight_again(option):
    pav = Pav(FakeVerifier(start=0.5))
    for aggregation in ("", "effective"):
        with pytest.raises(ConfigError, match="is the PAV's own: make it with Pav"):
            aprm_jax.search(
                "1 + 2",
                solver="nowhere",
                verifier=pav,
                aggregation=aggregation,
                **option,
            )


def test_a_prover_that_is_the_base_is_warned_of(caplog):
    model = _model()
    for prover in (1, model):
        caplog.clear()
        Pav(model, prover)
        assert "already give, so it adds nothing" in caplog.text
    caplog.clear()
    Pav(model, 4)
    assert not caplog.text
