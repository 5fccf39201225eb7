"""Who is paid what, which verifier a reward wants, and what advantages come of it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_rl import Says, config

from aprm_jax.config import rl as schema
from aprm_jax.config.rl import AlarmConfig
from aprm_jax.policy.advantages import baselined, of_tokens
from aprm_jax.rl.monitor import gap, habits, over_the_limit
from aprm_jax.rl.payment import idle, payment_of
from aprm_jax.rl.sources import (
    SOURCES,
    Graded,
    RewardError,
    Said,
    check_source,
    pay,
    said,
)
from aprm_jax.rl.update import Payment, Readings, advantages_of
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.protocol import Scale
from aprm_jax.verifiers.score_file import ScoreFileVerifier

WIDTH = 3
STEPS = np.array([3, 1, 2, 3], np.float32)
SCORES = [np.array(x) for x in ([0.9, 0.4, 0.8], [0.7], [0.2, 0.6], [0.5, 0.5, 0.5])]
GRADED = Graded(
    right=np.array([True, False, True, False]),
    paid=np.array([True, True, False, False]),
    lengths=np.array([9, 3, 30, 20], np.float32),
    steps=STEPS,
    most_tokens=24,
)
WORD = Said(
    SCORES,
    np.array([0.4, 0.7, 0.0, 0.5], np.float32),
    np.full(4, np.nan, np.float32),
    [10 * s for s in SCORES],
)
PAY = dataclasses.replace(config().pay, clip_margin=0.5, overlong_buffer=8)


def _paid(name):
    return pay(name, GRADED, WORD, PAY, WIDTH)


def test_the_schema_has_every_source():
    assert tuple(SOURCES) == schema.SOURCES


def test_every_source_pays_what_it_says():
    np.testing.assert_array_equal(_paid("outcome"), [[1], [0], [np.nan], [np.nan]])
    np.testing.assert_array_equal(_paid("overlong"), [[0], [0], [-1], [-0.5]])
    np.testing.assert_allclose(_paid("solution")[:, 0], WORD.whole)
    step = _paid("step")
    np.testing.assert_allclose(step[0], [0.9, 0.4, 0.8], rtol=1e-6)
    np.testing.assert_allclose(_paid("progress"), 10 * step, rtol=1e-6)
    np.testing.assert_allclose(_paid("clip")[0], [0, -0.1, 0], atol=1e-6)
    np.testing.assert_allclose(_paid("delta")[0], [0, -0.5, 0.4], atol=1e-6)
    assert _paid("min_form")[0].argmin() != 1 and _paid("min_form")[0, 1] > 0.3
    # Of the third nobody may say that it is right.
    np.testing.assert_array_equal(_paid("first_error")[0], [1, 1, 1])
    np.testing.assert_array_equal(_paid("first_error")[2], [-1, -1, 0])
    for name in SOURCES:
        if name != "implicit":
            assert _paid(name).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "verifier", "message"),
    [
        ("step", None, "name one in rl.verifiers"),
        ("solution", ScoreFileVerifier("x", {}), "not of new ones"),
        ("step", Says(scale=Scale.LOG_PROBABILITY), "likelihood"),
        ("progress", Says(), "job=pav"),
        ("first_error", Says(values=True, aggregation="last"), "name a PRM"),
        ("min_form", Says(aggregation="last"), "ORM"),
        ("step", CombinedVerifier([Says(), Says(aggregation="last")]), "ORM"),
        ("step", Says(aggregation="last"), "values that a PRM learned"),
    ],
)
def test_a_verifier_of_another_kind_is_named(name, verifier, message):
    with pytest.raises(RewardError, match=f"'{name}' wants.*{message}"):
        check_source(name, verifier)


def test_the_right_kinds_are_taken():
    for name in ("step", "clip", "delta", "min_form", "first_error", "solution"):
        check_source(name, Says())
    check_source("solution", Says(aggregation="last"))
    check_source("progress", Says(values=True, aggregation="last"))
    check_source("outcome", None)
    check_source("implicit", None)


def _solution(steps, finished=True):
    tokens = tuple((1, 2) for _ in steps)
    return Solution("1 + 2", tuple(steps), finished, tokens, ())


def test_a_verifier_says_of_equal_solutions_the_same():
    verifier = Says(lambda text: 0.25 if text == "a" else 0.5)
    solutions = [
        _solution(["a", "b"]),
        _solution([]),
        _solution(["a", "b"]),
        _solution(["b"], finished=False),
    ]
    word = said(verifier, solutions, False)
    assert [len(s) for s in word.steps] == [2, 0, 2, 1]
    np.testing.assert_allclose(word.whole, [0.25, 0, 0.25, 0], rtol=1e-6)
    assert [len(a) for a in verifier.asked] == [2]
    last = said(Says(verifier.score_of, aggregation="last"), solutions, False)
    np.testing.assert_allclose(last.whole, [0.5, 0, 0.5, 0], rtol=1e-6)


class Progress(Says):
    """A verifier that also pays for progress."""

    def rewards(self, solutions):
        return [np.full(len(steps), -0.5) for _, steps in solutions]


def test_the_last_step_of_what_did_not_end_earns_nothing():
    solutions = [_solution(["a", "a"]), _solution(["a", "a"], finished=False)]
    word = said(Progress(lambda text: 0.75), solutions, True)
    ended, open_ = word.steps
    np.testing.assert_allclose(ended, [0.75, 0.75], rtol=1e-6)
    np.testing.assert_allclose(open_, [0.75, 0.0], rtol=1e-6)
    assert word.progress is not None
    np.testing.assert_array_equal(word.progress, [[-0.5, -0.5], [-0.5, -0.5]])
    graded = dataclasses.replace(GRADED, steps=np.array([2, 2], np.float32))
    for name, least in (("min_form", 0.0), ("clip", -0.9), ("delta", -0.75)):
        paid = pay(name, graded, word, config().pay, WIDTH)
        assert paid[1].sum() < paid[0].sum()
        assert paid[1, 1] == pytest.approx(least, abs=1e-3)
    # Its word is taken where that is asked for; what was not read stays unread.
    taken = said(Progress(lambda text: 0.75), solutions, True, unfinished=True)
    np.testing.assert_allclose(taken.steps[1], [0.75, 0.75], rtol=1e-6)
    # The monitor sees it as it is paid.
    np.testing.assert_allclose(word.whole, [0.75, 0.0], rtol=1e-6)
    np.testing.assert_allclose(taken.whole, [0.75, 0.75], rtol=1e-6)
    told = gap(np.array([True, False]), taken.whole_read)
    np.testing.assert_allclose(told["reward/gap"], 0.75 - 0.5)
    unread = said(Says(lambda text: np.nan), solutions, False)
    assert np.isnan(unread.steps[1]).all() and np.isnan(unread.whole_read[1])
    generous = Progress(lambda text: 0.75)
    generous.rewards = lambda solutions: [np.full(len(s), 0.5) for _, s in solutions]
    paid = said(generous, solutions, True).progress
    np.testing.assert_array_equal(paid, [[0.5, 0.5], [0.5, 0.0]])


def _payment(rewards, word=WORD, graded=GRADED, **changes):
    c = config(groups=2, group_size=2, rewards=rewards, **changes)
    return payment_of(c, graded, word, WIDTH)


def test_what_is_left_out_is_counted():
    payment, counts = _payment(("outcome",))
    # The second problem has no verifiable reward: nothing to tell its samples apart.
    np.testing.assert_array_equal(payment.weight, [1, 1, 0, 0])
    assert counts["rl/uniform"] == 0.5 and counts["rl/labels"] == 2
    assert counts["reward/outcome"] == 0.5
    alike = dataclasses.replace(GRADED, right=np.array([True, False, True, True]))
    alike = dataclasses.replace(alike, paid=np.ones(4, bool))
    payment, counts = _payment(("outcome",), graded=alike)
    # Of all that was paid, also where it teaches nothing.
    assert payment.weight.tolist() == [1, 1, 0, 0] and counts["reward/outcome"] == 0.75
    payment, counts = _payment(("outcome",), uniform="keep")
    assert payment.weight.all() and counts["rl/left_out"] == 0

    unread = [np.array([0.9, np.nan, 0.8]), *SCORES[1:]]
    word = dataclasses.replace(WORD, steps=unread)
    payment, counts = _payment(("step",), word)
    np.testing.assert_array_equal(payment.weight, [0, 0, 1, 1])
    assert counts["rl/unread"] == counts["rl/alone"] == 0.25
    payment, counts = _payment(("step",), word, estimator="reinforce++")
    np.testing.assert_array_equal(payment.weight, [0, 1, 1, 1])

    infinite = [*SCORES[:3], np.array([0.5, np.inf, 0.5])]
    payment, counts = _payment(("step",), dataclasses.replace(WORD, steps=infinite))
    assert counts["rl/nonfinite_rewards"] == 0.25
    np.testing.assert_array_equal(payment.weight, [1, 1, 0, 0])

    none = dataclasses.replace(GRADED, steps=np.array([3, 0, 2, 3], np.float32))
    payment, counts = _payment(("step",), graded=none)
    assert counts["rl/unwritten"] == 0.25 and payment.weight[1] == 0
    assert idle({"rl/finished": 1.0, **counts}, payment) == ""


IDS = np.array(
    [[-1, 0, 0, 1, 2], [-1, 0, 0, -1, -1], [0, -1, 1, 1, -1], [0, 1, 1, 2, 2]], np.int32
)


def _of(rewards, weights, **changes):
    c = config(groups=2, group_size=2, rewards=rewards, weights=weights, **changes)
    payment, _ = payment_of(c, GRADED, WORD, WIDTH)
    read = Readings(
        ref_logprobs=np.full(IDS.shape, -1.0, np.float32) * (IDS >= 0),
        old_logprobs=np.full(IDS.shape, -0.5, np.float32) * (IDS >= 0),
        values=np.zeros(IDS.shape, np.float32),
    )
    return advantages_of(c, IDS, payment, read)[0], payment


@pytest.mark.parametrize("how", ["grpo", "rloo", "reinforce++"])
def test_sources_are_compared_before_they_are_added(how):
    options = {"estimator": how, "uniform": "keep", "kl_weight": 0.0}
    both, payment = _of(("outcome", "step"), (1.0, 0.5), **options)
    first, _ = _of(("outcome",), (1.0,), **options)
    second, _ = _of(("step",), (0.5,), **options)
    np.testing.assert_allclose(both, first + second, atol=1e-5)
    # Of its own worth alone: no sum over the steps to come.
    own, _ = _of(("progress",), (1.0,), **options)
    expected = baselined(
        jnp.asarray(payment.sources["step"] * 10),
        jnp.asarray(payment.steps),
        jnp.asarray(payment.groups),
        how,
    )
    np.testing.assert_allclose(own, of_tokens(expected, jnp.asarray(IDS)), atol=1e-5)


def test_kl_in_the_reward_keeps_the_scale_that_its_weight_gives():
    options = {"uniform": "keep", "kl_as": "reward", "rewards": ("outcome",)}
    rewards = options.pop("rewards")
    gains = [_of(rewards, (1.0,), kl_weight=w, **options)[0] for w in (0.0, 0.1, 0.2)]
    first, second = gains[1] - gains[0], gains[2] - gains[0]
    assert np.abs(first).max() > 1e-3
    np.testing.assert_allclose(second, 2 * first, atol=1e-6)


def test_a_critic_learns_the_weighted_sum():
    c = config(
        groups=2,
        group_size=2,
        rewards=("outcome", "step"),
        weights=(1.0, 0.5),
        estimator="ppo",
        gamma=1.0,
        gae_lambda=1.0,
        kl_weight=0.0,
    )
    payment, _ = payment_of(c, GRADED, WORD, WIDTH)
    zeros = np.zeros(IDS.shape, np.float32)
    read = Readings(zeros, zeros, zeros)
    gains, returns = advantages_of(c, IDS, payment, read)
    # Of the first solution: 0.5 (0.9, 0.4, 0.8) of the steps, 1 of the outcome.
    assert returns is not None
    np.testing.assert_allclose(returns[0], [0, 2.05, 2.05, 1.6, 1.4], rtol=1e-5)
    kept = (IDS >= 0) & (payment.weight[:, None] > 0)
    np.testing.assert_allclose(np.mean(np.asarray(gains)[kept]), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(np.asarray(gains)[kept]), 1, rtol=1e-3)


def test_rewards_of_a_payment_may_be_fractions():
    assert isinstance(_payment(("step",))[0], Payment)
    assert _payment(("step",))[0].sources["step"][0, 0] == np.float32(0.9)


def test_habits_that_pay_without_being_right_are_seen():
    solutions = [
        _solution(["1 + 2", "3", " 3 ", ""]),
        _solution(["x"], finished=False),
    ]
    found = habits(solutions)
    assert found["rl/steps"] == 2.5 and found["rl/tokens"] == 5
    assert found["rl/finished"] == 0.5
    shares = [found[f"rl/{name}"] for name in ("repeated", "empty", "copied")]
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.2])
    right = np.array([True, False, False])
    whole = np.array([0.9, 0.7, np.nan])
    told = gap(right, whole)
    np.testing.assert_allclose(told["reward/gap"], 0.8 - 0.5)
    np.testing.assert_allclose(told["reward/oracle"], 1 / 3)
    assert "reward/gap" not in gap(right, None)
    assert habits([])["rl/tokens"] == 0


def test_an_alarm_names_what_is_beyond_its_limit():
    alarm = AlarmConfig(0.2, 5.0, 0.1, 0.1, 0.1, 2.0, 0.05, 3)
    calm = {"reward/gap": 0.1, "policy/kl_sequence": 1.0, "rl/tokens": 9.0}
    calm |= {"rl/repeated": 0.0, "rl/empty": 0.0, "rl/copied": 0.0}
    assert over_the_limit(calm, alarm, 10.0, 0.0) == []
    loud = {
        "gap": {"reward/gap": 0.3},
        "kl": {"policy/kl_sequence": 6.0},
        "repeated": {"rl/repeated": 0.2},
        "empty": {"rl/empty": 0.2},
        "copied": {"rl/copied": 0.2},
        "length": {"rl/tokens": 4.0},
        "drop": {},
    }
    for name, value in loud.items():
        drop = 0.1 if name == "drop" else float("nan")
        assert over_the_limit(calm | value, alarm, 10.0, drop) == [name]
        off = dataclasses.replace(alarm, **{name: 0.0})
        assert over_the_limit(calm | value, off, 10.0, drop) == []
    longer = over_the_limit(calm | {"rl/tokens": 21.0}, alarm, 10.0, 0.0)
    assert longer == ["length"]
