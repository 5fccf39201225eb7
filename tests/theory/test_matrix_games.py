"""The theory of the game on matrix games: lemmas, support, bound, convergence."""

from __future__ import annotations

import itertools
import re

import command
import jax
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from aprm_jax.config import default_config
from aprm_jax.game.ogda import ogda
from aprm_jax.theory import (
    MatrixGame,
    NoConvergenceError,
    best_response,
    best_responses,
    entropy,
    game_optimisers,
    kl,
    linear_rate,
    lipschitz_bound,
    local_rates,
    logit_operator,
    matrix_game,
    monotonicity_bound,
    operator,
    regulariser_warning,
    simulate,
    solve_equilibrium,
    strong_monotonicity,
    support_floor,
    tangent_eigenvalue,
    utilities,
    verdict_game,
)

# (r_G: fooled, caught, still correct), (r_R: wrong, right), the bound on tau.
WORKED_CASES = [
    ((1.0, 0.0, -1.0), (0.0, 1.0), 0.125),
    ((1.0, 0.0, -1.0), (-1.0, 1.0), 0.375),
    ((1.0, -1.0, -1.0), (0.0, 1.0), 0.0),
    ((1.0, -1.0, -1.0), (-1.0, 1.0), 0.25),
]
COORDINATION = np.eye(2)  # both want the same action: the bound is 0.5


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _policies(rng: np.random.Generator, n: int = 3, m: int = 4):
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def _random_game(rng: np.random.Generator, n: int = 3, m: int = 4) -> MatrixGame:
    ref_g, ref_r = _policies(rng, n, m)
    beta_g, eta_g, beta_r, eta_r = rng.uniform(0.1, 0.6, 4)
    return matrix_game(
        rng.normal(size=(n, m)),
        rng.normal(size=(n, m)),
        beta_g=beta_g,
        eta_g=eta_g,
        beta_r=beta_r,
        eta_r=eta_r,
        ref_g=ref_g,
        ref_r=ref_r,
    )


def _verdict(generator_rewards, prm_rewards, tau: float) -> MatrixGame:
    return verdict_game(generator_rewards, prm_rewards, eta_g=tau, eta_r=tau)


def test_lemma_1_kl_is_negative_entropy_and_cross_entropy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy, ref = rng.dirichlet(np.ones(5), size=2)
        np.testing.assert_allclose(
            kl(policy, ref), -entropy(policy) - policy @ np.log(ref), atol=1e-12
        )
        uniform = np.full(5, 0.2)
        np.testing.assert_allclose(
            kl(policy, uniform), np.log(5) - entropy(policy), atol=1e-12
        )


def test_lemma_2_best_response_beats_a_numerical_optimiser():
    rng = np.random.default_rng(1)
    for _ in range(5):
        payoff, (ref, _) = rng.normal(size=3), _policies(rng)
        beta, eta = rng.uniform(0.1, 1.0, 2)

        def loss(logits, payoff=payoff, ref=ref, beta=beta, eta=eta):
            p = np.exp(logits - logits.max())
            p /= p.sum()
            return -p @ payoff + beta * p @ np.log(p / ref) + eta * p @ np.log(p)

        found = minimize(loss, np.zeros(3), method="BFGS", tol=1e-12).x
        numerical = np.exp(found) / np.exp(found).sum()
        closed = np.asarray(best_response(payoff, ref, beta, eta))
        np.testing.assert_allclose(closed, numerical, atol=1e-5)
        assert loss(np.log(closed)) <= loss(found) + 1e-12


def test_operator_is_the_negated_gradient_of_both_utilities():
    rng = np.random.default_rng(2)
    game = _random_game(rng)
    x, y = _policies(rng)
    width = 1e-6
    actual_g, actual_r = operator(game, x, y)
    assert float(sum(actual_g)) == pytest.approx(0, abs=1e-12)
    for i, j in itertools.combinations(range(3), 2):
        direction = np.eye(3)[i] - np.eye(3)[j]
        ahead = utilities(game, x + width * direction, y)[0]
        behind = utilities(game, x - width * direction, y)[0]
        slope = (ahead - behind) / (2 * width)
        assert -float(actual_g @ direction) == pytest.approx(float(slope), abs=1e-6)
    closed = -(x @ game.payoff_r) + game.beta_r * np.log(y / game.ref_r)
    closed += game.eta_r * np.log(y)
    np.testing.assert_allclose(actual_r, closed - closed.mean(), atol=1e-12)
    # In logits the chain rule weighs by the policy's own covariance.
    in_logits, _ = logit_operator(game, np.log(x), np.log(y))
    covariance = np.diag(x) - np.outer(x, x)
    np.testing.assert_allclose(in_logits, covariance @ actual_g, atol=1e-12)


def test_equilibrium_is_a_fixed_point_to_1e_12_and_a_zero_of_the_operator():
    rng = np.random.default_rng(3)
    for _ in range(8):
        game = _random_game(rng)
        found = solve_equilibrium(game)
        reply = best_responses(game, found.x, found.y)
        assert max(np.abs(reply[0] - found.x).max(), np.abs(reply[1] - found.y).max())
        np.testing.assert_allclose(np.concatenate(reply)[:3], found.x, atol=1e-12)
        np.testing.assert_allclose(reply[1], found.y, atol=1e-12)
        for part in operator(game, found.x, found.y):
            np.testing.assert_allclose(part, 0, atol=1e-9)
        # Nash: no deviation pays.
        best = utilities(game, found.x, found.y)
        for _ in range(20):
            x, y = _policies(rng)
            assert utilities(game, x, found.y)[0] <= best[0] + 1e-12
            assert utilities(game, found.x, y)[1] <= best[1] + 1e-12


def test_theorem_1_every_equilibrium_has_full_support():
    rng = np.random.default_rng(4)
    for _ in range(20):
        game = _random_game(rng)
        found = solve_equilibrium(game)
        floor_g, floor_r = support_floor(game)
        assert 0 < floor_g <= found.x.min()
        assert 0 < floor_r <= found.y.min()


def test_support_floor_is_attained_where_one_action_dominates():
    # G's second action loses by the same margin against every action of R.
    game = matrix_game([[1, 1], [0, 0]], np.zeros((2, 2)), eta_g=0.5, eta_r=0.5)
    expected = 1 / (1 + np.exp(2))
    assert solve_equilibrium(game).x[1] == pytest.approx(expected, abs=1e-12)
    assert support_floor(game)[0] == pytest.approx(np.exp(-2) / 2)


@pytest.mark.parametrize(("tau", "says_correct"), [(1, 0.357), (0.5, 0.162), (0.1, 0)])
def test_prm_degenerates_as_its_regulariser_weakens(tau, says_correct):
    found = solve_equilibrium(_verdict((1, 0, -1), (0, 1), tau))
    assert found.y[0] == pytest.approx(says_correct, abs=5e-4)


def test_clean_steps_keep_the_prm_from_always_incorrect():
    shares = [0.0, 0.25, 0.4, 0.6]
    says_correct = [
        solve_equilibrium(verdict_game(clean_share=share, eta_g=0.1, eta_r=0.1)).y[0]
        for share in shares
    ]
    assert says_correct == sorted(says_correct)
    assert says_correct[0] < 1e-4
    assert says_correct[-1] > 0.8


@pytest.mark.parametrize(("generator_rewards", "prm_rewards", "bound"), WORKED_CASES)
def test_the_monotonicity_bound_is_tight(generator_rewards, prm_rewards, bound):
    game = _verdict(generator_rewards, prm_rewards, 1.0)
    assert monotonicity_bound(game.payoff_g, game.payoff_r) == pytest.approx(bound)
    rng = np.random.default_rng(5)

    above = _verdict(generator_rewards, prm_rewards, bound + 0.02)
    modulus = strong_monotonicity(above)
    assert modulus == pytest.approx(0.04)
    smallest = min(_monotonicity_ratios(above, rng, spread=0.45))
    assert modulus - 1e-9 <= smallest

    # Half a hundredth above and below, at the centre, where the regulariser is weakest.
    ratios = _monotonicity_ratios(above, rng, spread=1e-3, pairs=400)
    assert min(ratios) < modulus + 0.02
    if bound > 0:
        below = _verdict(generator_rewards, prm_rewards, bound - 0.02)
        assert strong_monotonicity(below) < 0
        assert min(_monotonicity_ratios(below, rng, spread=1e-3, pairs=400)) < 0


def _monotonicity_ratios(game, rng, *, spread, pairs=100):
    """<F(z) - F(z'), z - z'> / |z - z'|^2 for random pairs around the centre."""
    ratios = []
    evaluate = jax.jit(operator)
    for p, q, r, s in rng.uniform(0.5 - spread, 0.5 + spread, (pairs, 4)):
        here = np.array([p, 1 - p]), np.array([q, 1 - q])
        there = np.array([r, 1 - r]), np.array([s, 1 - s])
        change = np.concatenate(evaluate(game, *here)) - np.concatenate(
            evaluate(game, *there)
        )
        gap = np.concatenate(here) - np.concatenate(there)
        ratios.append(change @ gap / (gap @ gap))
    return ratios


def test_the_bound_is_exact_for_more_actions_and_unequal_weights():
    rng = np.random.default_rng(6)
    for _ in range(10):
        payoffs = rng.normal(size=(2, 3, 4))
        bound = monotonicity_bound(*payoffs)
        ratio = rng.uniform(0.3, 3)

        def weighted(scale, payoffs=payoffs, bound=bound, ratio=ratio):
            tau = scale * bound
            return matrix_game(*payoffs, eta_g=tau * ratio, eta_r=tau / ratio)

        # Worst where all mass lies on the pair of actions that attains the maximum.
        total = payoffs.sum(0)
        i, j, k, l = max(  # noqa: E741
            itertools.product(range(3), range(3), range(4), range(4)),
            key=lambda q: abs(
                total[q[0], q[2]]
                - total[q[1], q[2]]
                - total[q[0], q[3]]
                + total[q[1], q[3]]
            ),
        )
        x = np.full(3, 1e-9) + 0.5 * (np.eye(3)[i] + np.eye(3)[j])
        y = np.full(4, 1e-9) + 0.5 * (np.eye(4)[k] + np.eye(4)[l])
        assert tangent_eigenvalue(weighted(0.99), x, y) < 0
        assert strong_monotonicity(weighted(0.99)) < 0
        above = weighted(1.01)
        modulus = strong_monotonicity(above)
        assert modulus > 0
        for _ in range(20):
            assert tangent_eigenvalue(above, *_policies(rng)) >= modulus


def test_below_the_bound_uniqueness_can_fail_and_above_it_does_not():
    assert monotonicity_bound(COORDINATION, COORDINATION) == pytest.approx(0.5)
    for tau, count in ((0.45, 3), (0.55, 1)):
        game = matrix_game(COORDINATION, COORDINATION, eta_g=tau, eta_r=tau)
        found = {
            round(float(solve_equilibrium(game, ([p, 1 - p], [p, 1 - p])).x[0]), 6)
            for p in np.linspace(0.02, 0.98, 13)
        }
        assert len(found) == count


@pytest.mark.parametrize(("generator_rewards", "prm_rewards", "bound"), WORKED_CASES)
def test_ogda_converges_linearly_to_one_point_from_many_starts(
    generator_rewards, prm_rewards, bound
):
    game = _verdict(generator_rewards, prm_rewards, 0.5)
    assert bound < 0.5
    optimiser = ogda(0.5 / lipschitz_bound(game))  # the step that the theory allows
    for p, q in ((0.05, 0.95), (0.95, 0.9), (0.9, 0.1), (0.3, 0.4)):
        play = simulate(
            game, optimiser, 4000, space="policy", start=([p, 1 - p], [q, 1 - q])
        )
        assert play.distance[-1] < 1e-9
        # The last iterate, not an average; after the first tenth one mode is left.
        rate, r_squared = linear_rate(play.distance[200:])
        assert rate < 0.999
        assert r_squared > 0.98


def test_on_a_game_that_cycles_only_the_optimistic_rules_converge():
    # Being caught costs more than leaving the step: corrupt is no longer dominant, R
    # chases G and G flees. F is strongly monotone (the bound is 0), barely.
    game = _verdict((1, -1, 0), (0, 1), 0.02)
    assert 0 < strong_monotonicity(game) < 0.05
    steps = 2000
    optimisers = game_optimisers(0.1, optax.cosine_decay_schedule(0.01, steps))
    plays = {
        name: simulate(
            game, optimiser, steps, space="policy", start=([0.9, 0.1], [0.3, 0.7])
        ).distance
        for name, optimiser in optimisers.items()
    }
    assert plays["simultaneous GDA"][-500:].min() > 0.3
    assert plays["Adam (default b1 = 0.9)"][-500:].min() > 0.2
    assert plays["OGDA"][-1] < 1e-7
    assert plays["OGDA-Adam (b1 = 0)"][-1] < 1e-5
    rate, r_squared = linear_rate(plays["OGDA"][500:])
    assert rate == pytest.approx(0.9909, abs=5e-4)
    assert r_squared > 0.999


def test_local_rates_are_what_steps_near_the_equilibrium_do():
    rng = np.random.default_rng(4)
    for game in (_random_game(rng), _verdict((1, -1, 0), (0, 1), 0.05)):
        target, step = solve_equilibrium(game), 0.05
        closed = local_rates(game, target, step)
        away = (np.eye(2, len(p)) * [[1e-5], [-1e-5]] for p in (target.x, target.y))
        x, y = (p + a.sum(0) for p, a in zip((target.x, target.y), away, strict=True))
        for name, optimiser in (("gda", optax.sgd(step)), ("ogda", ogda(step))):
            play = simulate(
                game, optimiser, 400, start=(x, y), space="policy", equilibrium=target
            )
            rate, _ = linear_rate(play.distance[20:], above=1e-10)
            assert rate == pytest.approx(closed[name], abs=5e-4)


def test_local_rates_of_a_rotation_are_known():
    # Two players that turn and hardly stop: the eigenvalues are 2 tau +- i.
    turn, tau, step = np.array([[1.0, -1.0], [-1.0, 1.0]]) / 2, 1e-3, 0.1
    game = matrix_game(turn, -turn, eta_g=tau, eta_r=tau)
    found = local_rates(game, solve_equilibrium(game), step)
    u = step * (2 * tau + 1j)
    assert found["gda"] == pytest.approx(abs(1 - u))
    roots = np.roots([1, -(1 - 2 * u), -u])
    assert found["ogda"] == pytest.approx(np.abs(roots).max())
    assert found["ogda"] < 1 < found["gda"]


def test_ogda_converges_in_logits_where_gradient_descent_runs_to_the_edge():
    game = _verdict((1, -1, 0), (0, 1), 0.02)
    optimisers = game_optimisers(0.5, 0.05)
    start = ([0.9, 0.1], [0.3, 0.7])
    descent = simulate(game, optimisers["simultaneous GDA"], 1500, start=start)
    optimistic = simulate(game, optimisers["OGDA"], 1500, start=start)
    assert descent.distance[-300:].max() > 0.6
    assert optimistic.distance[-1] < 1e-6
    np.testing.assert_allclose(optimistic.x.sum(1), 1)


def test_linear_rate_recovers_a_geometric_decay_and_ignores_rounding():
    steps = np.arange(400)
    distance = np.maximum(3.0 * 0.9**steps, 1e-16)
    rate, r_squared = linear_rate(distance)
    assert rate == pytest.approx(0.9)
    assert r_squared == pytest.approx(1.0)
    assert linear_rate(1 / (1 + steps))[1] < 0.9
    with pytest.raises(ValueError, match="nothing to fit"):
        linear_rate(np.zeros(10))


def test_warning_names_the_bound_only_below_it():
    message = regulariser_warning(0.05, 0.05, 0.1, 0.02)
    assert message is not None
    assert "0.125" in message
    assert "0.1095" in message  # sqrt(0.1 * 0.12)
    assert regulariser_warning(0.1, 0.05, 0.1, 0.05) is None
    stricter = regulariser_warning(0.1, 0.05, 0.1, 0.05, prm_rewards=(-1, 1))
    assert stricter is not None
    assert "0.375" in stricter
    # "Any tau > 0" is not "tau = 0".
    assert regulariser_warning(0, 1e-3, 0, 1e-3, (1, -1, -1)) is None
    assert regulariser_warning(0, 0, 0, 0, (1, -1, -1)) is not None


@pytest.mark.parametrize("share", [0.1, 0.375, 0.8])
def test_clean_steps_raise_the_bound_to_a_quarter_of_their_share(share):
    game = verdict_game((1, -1, -1), (0, 1), clean_share=share)
    bound = monotonicity_bound(game.payoff_g, game.payoff_r)
    assert bound == pytest.approx(share / 4)


def test_the_page_says_where_the_defaults_lie():
    c = default_config().game
    weights = (c.beta_generator, c.eta_generator, c.beta_prm, c.eta_prm)
    pay = c.rewards
    rewards = (
        (pay.generator_fooled, pay.generator_caught, pay.generator_still_correct),
        (pay.prm_wrong, pay.prm_right),
    )
    rows = c.prm_clean + c.prm_fresh + c.prm_replay
    share = c.prm_clean / rows
    warning = regulariser_warning(*weights, *rewards, clean_share=share)
    found = re.search(r"= ([\d.]+) with .* more than ([\d.]+);", warning or "")
    assert found is not None  # the defaults are below it
    weight, bound = map(float, found.groups())
    tau_g, tau_r = weights[0] + weights[1], weights[2] + weights[3]
    page = " ".join((command.REPOSITORY / "docs/method.md").read_text().split())
    assert (
        f"{c.prm_clean} of R's {rows} rows are clean, s/4 = {bound:.3f}, and "
        f"√({tau_g:g} · {tau_r:g}) = {weight:.3f}"
    ) in page
    # As the job calls it there is nothing to say; and the remedy is one.
    assert regulariser_warning(*weights, *rewards) is None
    raised = (weights[0], 0.05, *weights[2:])
    assert regulariser_warning(*raised, *rewards, clean_share=share) is None


def test_bad_games_are_refused():
    with pytest.raises(ValueError, match="two equal matrices"):
        matrix_game([[1, 2]], [[1], [2]])
    with pytest.raises(ValueError, match="eta_r"):
        matrix_game([[1]], [[1]], eta_r=-1.0)
    with pytest.raises(ValueError, match="ref_g"):
        matrix_game(np.eye(2), np.eye(2), ref_g=[1.0, 0.0])
    with pytest.raises(ValueError, match="clean_share"):
        verdict_game(clean_share=1.0)
    with pytest.raises(ValueError, match="beta \\+ eta > 0"):
        solve_equilibrium(verdict_game(eta_g=1.0))
    with pytest.raises(NoConvergenceError):
        solve_equilibrium(verdict_game(eta_g=1.0, eta_r=1.0), max_iterations=1)
