"""Rounds of RL on a tiny solver: it learns, resumes bitwise, and says what is wrong."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny_rl
from tiny_rl import Says, config, leaves, play, rounds

from aprm_jax.config.rl import AlarmConfig
from aprm_jax.models.lora import LoraConfig
from aprm_jax.rl.implicit import ImplicitPRM
from aprm_jax.rl.rounds import ALARMS, NothingLearnedError
from aprm_jax.training.loop import LoopConfig, run_loop
from aprm_jax.training.metrics import read_metrics

NO_ALARM = AlarmConfig()
OPEN = dataclasses.replace(config().pay, unfinished=True)  # whatever does not end


@pytest.fixture(scope="module")
def learned():
    """Twelve rounds of outcome reward, and what they learned from."""
    of = rounds(config(), verifier=Says())
    return of, *play(of, of.state, range(12))


def test_a_solver_learns_what_is_paid(learned):
    of, state, metrics = learned
    first, last = metrics[:3], metrics[-3:]
    right = [np.mean([m["reward/oracle"] for m in part]) for part in (first, last)]
    assert right[1] > right[0] + 0.2
    # At the end all samples of a group are right: such rounds teach nothing.
    taught = [m for m in metrics if not m["rl/idle"]]
    assert len(taught) >= 4
    assert taught[-1]["policy/kl_sequence"] > taught[0]["policy/kl_sequence"]
    # The sampler's probabilities are the trainer's.
    assert max(m["policy/drift_max"] for m in taught) < 1e-3
    assert all(m["reward/outcome"] <= 1 for m in taught)
    assert of.accuracy(of.model(state.policy.params)) > of.accuracy(of.ref) + 0.2
    # The reference stays as it was.
    same = zip(leaves(of.ref), leaves(tiny_rl.policy(tiny_rl.TASK)), strict=True)
    assert all((a == b).all() for a, b in same)


def test_a_round_depends_on_state_and_number_alone(learned):
    of, state, metrics = learned
    half, _ = play(of, of.state, range(5))
    kept = jax.device_get(half)
    resumed = dataclasses.replace(kept, policy=jax.device_put(kept.policy))
    after, again = play(of, resumed, range(5, 12))
    for a, b in zip(leaves(after), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert repr(again) == repr(metrics[5:])


def test_an_int8_reference_is_nearly_the_full_one(learned):
    _, _, full = learned
    of = rounds(config(references="int8"), verifier=Says())
    assert of.ref["backbone"]["embed"]["embedding"].dtype == np.int8
    begun = leaves(tiny_rl.policy(tiny_rl.TASK))
    for a, b in zip(leaves(of.state.policy.params), begun, strict=True):
        np.testing.assert_array_equal(a, b)  # what learns is as it was
    state, [first] = play(of, of.state, range(1))
    for name in ("policy/kl_token", "policy/kl_sequence"):
        assert 0 < abs(first[name] - full[0][name]) < 0.05
    # Its advantages are not the reference's affair, and neither are its samples.
    same = ("reward/oracle", "rl/tokens")
    assert [first[name] for name in same] == [full[0][name] for name in same]
    resumed = rounds(config(references="int8"), verifier=Says())
    kept = jax.device_get(state)
    kept = dataclasses.replace(kept, policy=jax.device_put(kept.policy))
    went_on, later = play(of, state, range(1, 2))
    again, same = play(resumed, kept, range(1, 2))
    for a, b in zip(leaves(went_on), leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert repr(later) == repr(same)


def test_a_stage_that_goes_on_from_another_draws_what_would_have_come_next(learned):
    of, _, _ = learned
    later = rounds(config(rounds_before=3, verifiable_share=0.5), verifier=Says())
    at_once = rounds(config(verifiable_share=0.5), verifier=Says())
    params = of.ref
    went_on, again = later._sample(params, 0), at_once._sample(params, 3)
    assert went_on.problems == again.problems and went_on.flat == again.flat
    paid = later._graded(went_on, 0).paid, at_once._graded(again, 3).paid
    np.testing.assert_array_equal(*paid)
    assert at_once._sample(params, 0).problems != again.problems


def test_the_learning_rate_falls_over_stages_that_follow_on():
    whole = config(updates=10, warmup=3, epochs=2)
    first = config(updates=4, warmup=3, epochs=2, rounds_after=6)
    then = config(updates=6, warmup=3, epochs=2, rounds_before=4)
    rates = [float(whole.schedule()(step)) for step in range(20)]
    parts = [float(first.schedule()(step)) for step in range(8)]
    parts += [float(then.schedule()(step)) for step in range(12)]
    np.testing.assert_allclose(parts, rates, rtol=1e-6)
    assert rates[0] == 0 < rates[-1] < rates[6]


def test_overlapping_rounds_are_one_update_old_and_resume_alike():
    """With a critic, minibatches, epochs; sampled in a thread, and when asked for."""
    policy = tiny_rl.policy(tiny_rl.TASK)
    kernel, bias = np.zeros((16, 1), np.float32), np.zeros(1, np.float32)
    policy["value_head"] = jax.device_put({"kernel": kernel, "bias": bias})
    c = config(
        overlap=True,
        updates=4,
        minibatches=2,
        epochs=2,
        estimator="ppo",
        rewards=("outcome", "first_error", "step"),
        pay=OPEN,
    )
    of = rounds(c, verifier=Says(), policy=policy, threaded=True)
    state, metrics = play(of, of.state, range(4))
    # Both first rounds are of the same parameters; later ones differ from theirs.
    assert metrics[0]["policy/drift_max"] < 1e-3 < metrics[2]["policy/drift_max"]
    half, _ = play(of, of.state, range(2))
    pool, of._pool = of._pool, None
    after, _ = play(of, half, range(2, 4))
    for a, b in zip(leaves(after), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert pool is not None and "policy/value_loss" in metrics[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"estimator": "rloo", "kl_as": "reward", "rewards": ("min_form", "delta")},
        {
            "aggregation": "constant",
            "rewards": ("outcome", "implicit", "solution", "clip", "overlong"),
            "lora": LoraConfig(2, 4.0),
            "microbatches": 2,
        },
    ],
    ids=["kl in the reward", "adapter"],
)
def test_every_reward_is_learned_from(changes):
    c = config(updates=2, **changes)
    policy, implicit = tiny_rl.policy(tiny_rl.TASK), None
    if "implicit" in c.rewards:
        pays = jax.tree.map(lambda x: 1.1 * x, policy)
        implicit = ImplicitPRM(tiny_rl.TASK, c, pays, jax.random.key(0))
    of = rounds(c, verifier=Says(), policy=policy, implicit=implicit)
    before = leaves(of.state.policy.params)
    # The first step of the warm-up is of length 0.
    state, rounds_played = play(of, of.state, range(2))
    metrics = rounds_played[-1]
    assert not any(m["rl/idle"] or m["nonfinite"] for m in rounds_played)
    after = leaves(state.policy.params)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    for name in c.rewards:
        assert name == "implicit" or np.isfinite(metrics[f"reward/{name}"])


class Never(tiny_rl.Odd):
    """To whom nothing concludes."""

    def is_final(self, step):
        del step
        return False


@pytest.mark.parametrize(
    ("verifier", "changes", "grader", "message"),
    [
        (Says(), {}, Never(), "no sample was finished"),
        (
            Says(lambda text: 0.95),
            {"rewards": ("clip",), "pay": OPEN},
            None,
            "were equal",
        ),
        (Says(lambda text: np.nan), {"rewards": ("step",)}, None, "cannot decide"),
        (Says(), {"rewards": ("delta",)}, None, "NaN or infinite"),
    ],
    ids=["unfinished", "equal", "undecidable", "nonfinite"],
)
def test_rounds_without_anything_to_learn_are_counted_and_end(
    verifier, changes, grader, message
):
    where = tiny_rl.TASK
    if grader is not None:
        solver = dataclasses.replace(where.solver, grader=grader)
        where = dataclasses.replace(where, solver=solver, grader=grader)
    c = config(max_idle=2, **changes)
    if message.startswith("NaN"):
        pay = dataclasses.replace(c.pay, delta_bound=float("nan"))
        c = dataclasses.replace(c, pay=pay)
    of = rounds(c, where, verifier=verifier)
    before = leaves(of.state.policy)
    state, metrics = play(of, of.state, range(1))
    assert metrics[0]["rl/idle"] == 1
    assert metrics[0]["rl/left_out"] == 1 or "finished" in message
    for a, b in zip(before, leaves(state.policy), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(NothingLearnedError, match=rf"2 rounds in a row.*{message}"):
        play(of, state, range(1, 2))


def test_an_alarm_stops_with_the_best_checkpoint(tmp_path):
    def score(text):
        return 0.99  # whatever is written

    alarm = dataclasses.replace(NO_ALARM, gap=0.1, rounds=2)
    c = config(alarm=alarm, dev_every=1, updates=9)
    of = rounds(c, verifier=Says(score))
    loop = LoopConfig(num_steps=9, checkpoint_every=2, tensorboard=False)

    def run(rounds):
        return run_loop(
            rounds.state,
            rounds.step_fn,
            workdir=tmp_path,
            config=loop,
            name="rl",
            console=False,
            finished=rounds.finished,
        )

    state = run(of)
    rows = read_metrics(tmp_path)
    assert ALARMS[int(state.watch.stopped) - 1] == "gap"
    assert len(rows) < 9 and [row["alarm"] for row in rows[-2:]] == [1, 1]
    dev = [rows[0]["dev/before"], *(row["dev/accuracy"] for row in rows)]
    assert float(state.watch.best) == max(dev)
    assert int(state.watch.best_step) == dev.index(max(dev))
    again = run(rounds(c, verifier=Says(score)))  # it stays stopped
    assert len(read_metrics(tmp_path)) == len(rows)
    for a, b in zip(leaves(again), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_kl_is_of_all_that_was_written(learned):
    of, _, metrics = learned
    # At the end all is right: nothing is learned, and the policy is far from its start.
    kl = [m["policy/kl_sequence"] for m in metrics]
    assert kl[0] == 0 and metrics[-1]["rl/idle"] and kl[-1] > 1
    some = metrics[3]
    assert 0 < some["rl/left_out"] < 1
    behind, _ = play(of, of.state, range(3))
    drawn = of._sample(behind.policy.params, 3)
    rows, placed = of._rows(drawn)
    ref = jax.device_get(of._read(of.ref, placed).logprobs)
    apart = np.where(rows.columns >= 0, rows.sampler_logprobs - ref, 0).sum(-1)
    wanted = apart.sum() / (rows.columns >= 0).any(-1).sum()
    np.testing.assert_allclose(some["policy/kl_sequence"], wanted, rtol=1e-3)


def test_a_fall_on_dev_counts_where_dev_is_looked_at(monkeypatch):
    alarm = dataclasses.replace(NO_ALARM, drop=0.1, rounds=2)
    of = rounds(config(alarm=alarm, dev_every=2, updates=20), verifier=Says())
    calm = {"rl/tokens": 3.0, "rl/repeated": 0.0, "rl/empty": 0.0, "rl/copied": 0.0}

    def stopped_at(accuracies):
        found, state = iter(accuracies), of.state
        monkeypatch.setattr(of, "accuracy", lambda model: next(found))
        for step in range(2 * len(accuracies) - 2):
            state, _ = of._watched(state, dict(calm), step, "")
            if of.finished(state):
                return step + 1
        return None

    # Before the first round, then after every other one.
    assert stopped_at([0.6, 0.3, 0.58, 0.3, 0.6]) is None
    assert stopped_at([0.6, 0.3, 0.55, 0.3, 0.4, 0.3]) == 8


def test_no_update_is_made_of_nothing():
    c = config(minibatches=4, groups=2, group_size=2, uniform="keep")
    of = rounds(c, verifier=Says())
    for step in range(4):
        batch = of.step_fn(of.state, step, tiny_rl.PhaseTimer()).batch
        if batch is not None:
            break
    batch = jax.device_get(batch)
    weight = np.zeros_like(batch.weight)
    weight[[1, 2]] = 1
    parts = of._minibatches(dataclasses.replace(batch, weight=weight), 0, 0)
    assert [part.weight.sum() for part in parts] == [1, 1]


def test_no_minibatch_is_left_with_nothing_where_there_is_enough():
    """Also where the first solution of a row is the one that weighs nothing."""
    whole = rounds(config(uniform="keep"), verifier=Says())  # rows of several
    batch = jax.device_get(whole.step_fn(whole.state, 0, tiny_rl.PhaseTimer()).batch)
    of = rounds(config(minibatches=2), verifier=Says())
    weight = np.zeros_like(batch.weight)
    assert weight.shape == (4, 4)
    weight[[0, 3], 1:] = 1
    batch = dataclasses.replace(batch, weight=weight)
    for epoch in range(20):
        parts = of._minibatches(batch, 0, epoch)
        assert [part.weight.sum() for part in parts] == [3, 3]


def test_what_minibatches_measure_is_what_the_whole_round_does():
    """Means over tokens, of which minibatches have more or fewer."""
    c = config(learning_rate=0.0, uniform="keep", pay=OPEN)
    logged = []
    for parts in (1, 4):
        of = rounds(dataclasses.replace(c, minibatches=parts), verifier=Says())
        _, [metrics] = play(of, of.state, range(1))
        logged.append(metrics)
    whole, dealt = logged
    assert whole["policy/entropy_token"] > 0 and not dealt["rl/idle"]
    for name in ("loss", "entropy_token"):
        wanted = pytest.approx(whole[f"policy/{name}"], rel=1e-5, abs=1e-6)
        assert dealt[f"policy/{name}"] == wanted


def test_a_share_above_0_pays_for_one_problem_at_least():
    for share, problems in ((0.0, 0), (0.1, 1), (0.5, 2), (1.0, 4)):
        of = rounds(config(verifiable_share=share), verifier=Says())
        drawn = of._sample(of.ref, 0)
        assert of._graded(drawn, 0).paid.sum() == 4 * problems


def test_a_verifier_is_asked_about_equal_solutions_once():
    verifier = Says()
    where = dataclasses.replace(tiny_rl.TASK, problems=tiny_rl.Numbers("0"))
    of = rounds(config(groups=2, group_size=8), where, verifier=verifier)
    play(of, of.state, range(1))
    [asked] = verifier.asked
    assert len(asked) == len(set(asked))


class _Stronger:
    """A guard whose verifier says more with every round; remembers the solutions."""

    def __init__(self):
        self.state, self.met = np.asarray(0, np.int64), []

    def verifier(self, state):
        return Says(lambda text: 0.1 * (1 + int(state)))

    def play(self, state, step, timer, solutions):
        self.met.append((step, len(solutions)))
        return np.asarray(int(state) + 1, np.int64), {"guard/rounds": float(state)}


def test_a_guard_plays_on_and_its_verifier_scores():
    guard = _Stronger()
    where = dataclasses.replace(tiny_rl.TASK, problems=tiny_rl.Numbers("0"))
    of = rounds(config(), where, guard=guard)  # nothing is right: it plays all the same
    state, metrics = play(of, of.state, range(3))
    assert int(state.guard) == 3 and guard.met == [(0, 16), (1, 16), (2, 16)]
    shares = [m["reward/verifier"] / m["rl/finished"] for m in metrics]
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3], rtol=1e-5)
