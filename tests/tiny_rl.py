"""RL of the tiny solver on problems whose answer is odd, with known verifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tiny_game
import tiny_solver

from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.problem import Problem
from aprm_jax.models.decoder import Decoder
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.rounds import Rounds
from aprm_jax.rl.task import Task
from aprm_jax.training.mesh import make_mesh
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.protocol import Scale, logit


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Problems that all have one answer."""

    answer: str = "3"
    splits: tuple[str, ...] = ("dev",)

    def train(self, index: int) -> Problem:
        question = f"{index % 7} + {index % 5}"
        return Problem(question, (self.answer,), self.answer)

    def corpus(self, index: int) -> Problem:
        return self.train(index)

    def problems(self, split: str, count: int) -> Sequence[Problem]:
        assert split == "dev"
        return [self.train(1000 + index) for index in range(count)]


class Odd(tiny_solver.Digits):
    """To whom any odd digit is the answer where that is odd, and nothing else is."""

    def same_answer(self, given: str | None, expected: str) -> bool:
        return given is not None and given in "13579" and expected in "13579"


@dataclasses.dataclass
class Says:
    """A verifier: P(correct) of each step by its text; remembers what it was asked."""

    score_of: Callable[[str], float] = lambda text: 0.9 if "1" in text else 0.2
    scale: Scale = Scale.LOG_ODDS
    aggregation: str = "min"
    values: bool = False
    asked: list[Any] = dataclasses.field(default_factory=list)

    def score(self, solutions):
        self.asked.append(list(solutions))
        return [logit([self.score_of(s) for s in steps]) for _, steps in solutions]


def task(window: int | None = 1, **changes: Any) -> Task:
    """One device, at most three steps of six tokens."""
    builder = tiny_game.builder(window, (24, 48))
    solver = tiny_solver.solver(builder, grader=Odd())
    fields: dict[str, Any] = {
        "problems": Numbers(),
        "grader": Odd(),
        "solver": solver,
        "decoder": Decoder(solver.sampler.config),
        "mesh": make_mesh(MeshConfig(), jax.devices()[:1]),
        "max_steps": 3,
    }
    return Task(**(fields | changes))


def config(**changes: Any) -> RLConfig:
    """A few samples a round; `changes` replace any field, `pay` and `alarm` whole."""
    small: dict[str, Any] = {
        "updates": 12,
        "groups": 4,
        "group_size": 4,
        "rewards": ("outcome",),
        "weights": (),
        "learning_rate": 3e-2,
        "warmup": 1,
        "dev_every": 0,
        "dev_problems": 4,
    }
    return RLConfig(**(small | changes))


TASK = task()


def rounds(of: RLConfig, where: Task = TASK, **changes: Any) -> Rounds:
    """RL of the tiny solver."""
    fields: dict[str, Any] = {"policy": policy(where), "seed": 5}
    return Rounds(where, of, **(fields | changes))


def policy(where: Task) -> dict[str, Any]:
    """Its parameters, placed."""
    return {"backbone": jax.device_put(where.solver.backbone)}


def play(of: Rounds, state: Any, steps: Sequence[int]):
    """The state after some rounds, and the metrics of each; it begins anew there."""
    timer, metrics = PhaseTimer(), []
    of._pending = None  # what a killed run had sampled ahead
    state = jax.tree.map(lambda x: x + 0 if isinstance(x, jax.Array) else x, state)
    for step in steps:
        output = of.step_fn(state, step, timer)
        state = output.state
        metrics.append(output.metrics)
    return state, metrics


def leaves(tree: Any) -> list[np.ndarray]:
    """Its arrays on the host."""
    return [np.asarray(x) for x in jax.tree.leaves(jax.device_get(tree))]
