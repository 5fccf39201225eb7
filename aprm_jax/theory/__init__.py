"""The theory of the game, on matrix games that are small enough to solve."""

from aprm_jax.theory.bounds import (
    lipschitz_bound,
    monotonicity_bound,
    regulariser_warning,
    strong_monotonicity,
    support_floor,
    tangent_eigenvalue,
    tangent_jacobian,
)
from aprm_jax.theory.equilibrium import (
    Equilibrium,
    NoConvergenceError,
    solve_equilibrium,
)
from aprm_jax.theory.games import (
    MatrixGame,
    best_response,
    best_responses,
    entropy,
    kl,
    logit_operator,
    matrix_game,
    operator,
    utilities,
    verdict_game,
)
from aprm_jax.theory.play import (
    Trajectory,
    game_optimisers,
    linear_rate,
    local_rates,
    simulate,
)

__all__ = [
    "Equilibrium",
    "MatrixGame",
    "NoConvergenceError",
    "Trajectory",
    "best_response",
    "best_responses",
    "entropy",
    "game_optimisers",
    "kl",
    "linear_rate",
    "lipschitz_bound",
    "local_rates",
    "logit_operator",
    "matrix_game",
    "monotonicity_bound",
    "operator",
    "regulariser_warning",
    "simulate",
    "solve_equilibrium",
    "strong_monotonicity",
    "support_floor",
    "tangent_eigenvalue",
    "tangent_jacobian",
    "utilities",
    "verdict_game",
]
