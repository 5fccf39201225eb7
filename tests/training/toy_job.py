"""A small training job with every kind of state, to be killed and resumed."""

from __future__ import annotations

import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.training.loop import LoopConfig, run_loop
from aprm_jax.training.step_log import StepOutput
from aprm_jax.training.timing import PhaseTimer

STEPS = 40


def initial():
    weights = jax.random.normal(jax.random.key(0), (64, 64))
    return {
        "params": {"w": weights, "b": jnp.zeros((64,), jnp.bfloat16)},
        "momentum": {"w": jnp.zeros_like(weights)},
        "key": jax.random.key_data(jax.random.key(1)),
        "replay": np.zeros((8, 64), np.float32),
        "seen": 0,
    }


@partial(jax.jit, donate_argnums=(0, 1))
def _update(params, momentum, key, row):
    key, draw = jax.random.split(jax.random.wrap_key_data(key))
    x = jax.random.normal(draw, (16, 64)) + row[None]
    value, grad = jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(x @ w) ** 2))(
        params["w"]
    )
    momentum = {"w": 0.9 * momentum["w"] + grad}
    params = {"w": params["w"] - 0.1 * momentum["w"], "b": params["b"] + 0.125}
    return params, momentum, jax.random.key_data(key), {"loss": value}


def step(state, index: int, timer: PhaseTimer, pause: float = 0.0) -> StepOutput:
    with timer("sample"):
        time.sleep(pause)
        # In place, as a replay buffer is written.
        state["replay"][index % 8] = np.asarray(state["params"]["w"])[index % 64]
    with timer("update"):
        params, momentum, key, metrics = _update(
            state["params"], state["momentum"], state["key"], state["replay"].mean(0)
        )
    state = {
        "params": params,
        "momentum": momentum,
        "key": key,
        "replay": state["replay"],
        "seen": state["seen"] + 1,
    }
    return StepOutput(state, metrics)


def train(workdir, pause: float = 0.0, say=None, steps: int = STEPS, **config):
    def paused(state, index, timer):
        if say is not None:
            say(f"at {index}")
        return step(state, index, timer, pause)

    config = {"checkpoint_every": 5, "log_every": 20, "tensorboard": False} | config
    return run_loop(
        initial(),
        paused,
        workdir=workdir,
        config=LoopConfig(steps, **config),
        name="toy",
        console=say is not None,
    )


if __name__ == "__main__":
    # A save at almost every moment, so that kills hit one.
    train(sys.argv[1], 0.01, partial(print, flush=True), checkpoint_every=1)
