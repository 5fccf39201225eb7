"""How fast GDA, OGDA and Adam converge on matrix games, beside the theory.

    python benchmarks/rates.py run       # benchmarks/results/rates.json, seconds
    python benchmarks/rates.py tables    # docs/results.md

Every rule plays the 2x2 models of the APRM game from the same random starts, in the
space of policies: the worked reward tables at a regulariser weight of 0.5, above the
bound of each, by the step 1 / (2 L) that the theory allows; and a game that turns,
where a caught Generator pays more than one that left the step, by a step of 0.1 at a
weight of 0.02. Adam's rate falls to nothing along a cosine. A factor is that by which
the distance to the equilibrium shrinks in a step, fitted behind the first fifth of it;
the closed form is of the game linearised at its equilibrium.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax
from compare_table import ROOT, commit, one_line_each, replace_between, table

from aprm_jax.theory import (
    Equilibrium,
    MatrixGame,
    game_optimisers,
    linear_rate,
    lipschitz_bound,
    local_rates,
    monotonicity_bound,
    simulate,
    solve_equilibrium,
    strong_monotonicity,
    verdict_game,
)

RESULTS = ROOT / "benchmarks/results/rates.json"
# Rewards of G (R fooled, caught, left) and R (wrong, right), both players' weight, and
# the step, None for the theory's.
GAMES = {
    "+1, 0, −1; 0, 1": ((1, 0, -1), (0, 1), 0.5, None),
    "+1, 0, −1; −1, 1": ((1, 0, -1), (-1, 1), 0.5, None),
    "+1, −1, −1; 0, 1": ((1, -1, -1), (0, 1), 0.5, None),
    "+1, −1, −1; −1, 1": ((1, -1, -1), (-1, 1), 0.5, None),
    "+1, −1, 0; 0, 1": ((1, -1, 0), (0, 1), 0.02, 0.1),
}
STARTS = 12
STEPS = 3000
ADAM_RATE = 0.01
RULES = ("simultaneous GDA", "OGDA", "Adam (default b1 = 0.9)", "OGDA-Adam (b1 = 0)")
CLOSED = {"simultaneous GDA": "gda", "OGDA": "ogda"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "tables"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    if args.action == "run":
        args.results.write_text(one_line_each(run()))
        return
    replace_between(args.page, "rates", render(json.loads(args.results.read_text())))


def run(starts: int = STARTS, steps: int = STEPS) -> dict[str, Any]:
    """Plays all games, and gives what the table is made of."""
    found: dict[str, Any] = {
        "command": "python benchmarks/rates.py run",
        "commit": commit(),
        "starts": starts,
        "steps": steps,
        "adam_rate": ADAM_RATE,
    }
    draw = np.random.default_rng(0)
    for name, (of_g, of_r, tau, step) in GAMES.items():
        game = verdict_game(of_g, of_r, eta_g=tau, eta_r=tau)
        lipschitz = lipschitz_bound(game)
        found[name] = {
            "weight": tau,
            "bound": monotonicity_bound(game.payoff_g, game.payoff_r),
            "modulus": strong_monotonicity(game),
            "lipschitz": lipschitz,
            "step": step or 0.5 / lipschitz,
        }
        points = draw.uniform(0.02, 0.98, (starts, 2))
        found[name]["rules"] = _play(game, found[name]["step"], points, steps)
    return found


def _play(
    game: MatrixGame, step: float, points: np.ndarray, steps: int
) -> dict[str, dict[str, Any]]:
    """Of every rule: factors, closed and measured, and the distances at the end."""
    target = solve_equilibrium(game)
    closed = local_rates(game, target, step)
    falling = optax.cosine_decay_schedule(ADAM_RATE, steps)
    return {
        name: {"closed": closed[CLOSED[name]] if name in CLOSED else None}
        | _measured(game, optimiser, target, points, steps)
        for name, optimiser in game_optimisers(step, falling).items()
    }


def _measured(
    game: MatrixGame,
    optimiser: optax.GradientTransformation,
    target: Equilibrium,
    points: np.ndarray,
    steps: int,
) -> dict[str, list[float]]:
    """A number a start: the factor, how straight the line is, and where it ends."""
    out: dict[str, list[float]] = {"factor": [], "r_squared": [], "end": []}
    for p, q in points:
        start = ([p, 1 - p], [q, 1 - q])
        play = simulate(
            game,
            optimiser,
            steps,
            start=start,
            space="policy",
            equilibrium=target,
        )
        distance = play.distance[: 1 + _above_rounding(play.distance)]
        factor, straight = linear_rate(distance[len(distance) // 5 :])
        out["factor"].append(round(factor, 7))
        out["r_squared"].append(round(straight, 5))
        out["end"].append(float(f"{play.distance[-1]:.3g}"))
    return out


def _above_rounding(distance: np.ndarray) -> int:
    """The last step before the first that is as near as rounding."""
    below = np.flatnonzero(distance < 1e-11)
    return int(below[0]) - 1 if below.size else len(distance) - 1


def render(found: dict[str, Any]) -> str:
    """The table as Markdown: a row a game, a column a rule."""
    rows = []
    for name in GAMES:
        game = found[name]
        cells = [f"{game['weight']:g} ({game['bound']:g})", f"{game['step']:.2g}"]
        cells += [_cell(game["rules"][rule]) for rule in RULES]
        rows.append((name, cells))
    header = ["r_G; r_R", "weight (bound)", "step", *RULES]
    return (
        f"{table(header, rows)}\n\nFactor a step, the slowest of {found['starts']} "
        "starts, in brackets the closed form at the equilibrium; behind it the largest "
        f"distance after {found['steps']:,} steps. Made by `benchmarks/rates.py` from "
        "`benchmarks/results/rates.json`."
    )


def _cell(rule: dict[str, Any]) -> str:
    end = f"{_most(rule['end']):.0e}"
    if rule["closed"] is None:
        return end
    return f"{_most(rule['factor']):.5f} ({rule['closed']:.5f}); {end}"


def _most(values: Sequence[float]) -> float:
    return max(values)


if __name__ == "__main__":
    main()
