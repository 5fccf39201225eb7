"""A tiny game for tests: the arithmetic problems, models of width 16, small rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tiny

from aprm_jax.config.game import RewardsConfig
from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.replies import Reply
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.game.arena import Arena
from aprm_jax.game.config import GameConfig
from aprm_jax.game.rollouts import (
    OracleQueries,
    Perturbation,
    Prompt,
    Situation,
    situations,
    verify,
)
from aprm_jax.game.rounds import Rounds
from aprm_jax.game.update import UpdateConfig
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.io import ModelSpec, save_model
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.training.mesh import make_mesh
from aprm_jax.verifiers.objective import PrmObjective

DOMAIN = ArithmeticDomain(seed=3)
CONFIG = tiny.decoder(len(DOMAIN.tokenizer))
DECODER = Decoder(CONFIG)
POINTS = situations(DOMAIN, range(6), seed=1)
EASY = Situation("2 + 3 * 3", (), "2 + 9")


def builder(
    window: int | None = 1, buckets: tuple[int, ...] = (40, 64), line_stride: int = 0
) -> StepBuilder:
    """The domain's step builder."""
    return StepBuilder(DOMAIN.tokenizer, window, buckets, line_stride)


def sampler(rows: StepBuilder, new: int = 10, **changes: Any) -> Sampler:
    """Draws steps of at most `new` tokens."""
    fields: dict[str, Any] = {
        "stop_ids": (rows.step_id, int(DOMAIN.tokenizer.eos_token_id)),
        "pad_id": rows.pad_id,
        "prompt_buckets": rows.buckets,
        "max_new_tokens": new,
        "batch_buckets": (4, 16),
        "positions": rows.positions,
    }
    return Sampler(CONFIG, **(fields | changes))


def generator(seed: int = 0) -> Any:
    """A Generator with a critic that is not zero."""
    head = heads.init_value_head(jax.random.key(seed + 50), CONFIG.d_model)
    return {"backbone": tiny.backbone(CONFIG, seed), "value_head": head}


def prm(seed: int = 1, head: str = "token") -> Any:
    """A PRM."""
    key = jax.random.key(seed + 60)
    return heads.init_prm(key, tiny.backbone(CONFIG, seed), CONFIG.d_model, head)


def update_config(**changes: Any) -> UpdateConfig:
    """What the joint update needs; no field at a value that hides its effect."""
    fields: dict[str, Any] = {
        "head": "token",
        "advantage": "group",
        "normalise_advantage": False,
        "gae_lambda": 0.9,
        "gamma": 0.95,
        "value_weight": 0.5,
        "clip_ratio": 0.2,
        "beta_generator": 0.1,
        "eta_generator": 0.03,
        "prm": PrmObjective("cross_entropy", beta=0.05, eta=0.07),
    }
    return UpdateConfig(**(fields | changes))


def save(folder: Path, kind: Any, params: Any, **spec: Any) -> None:
    """Writes a model of `CONFIG`; a PRM's head is that of `prm`."""
    fields = {
        "head": "token" if kind == "prm" else None,
        "window": 1,
        "buckets": (64,),
        "domain": DOMAIN.name,
    }
    made = ModelSpec(kind=kind, **({"decoder": CONFIG} | fields | spec))
    save_model(folder, params, made, DOMAIN.tokenizer)


def game_config(**changes: Any) -> GameConfig:
    """A game of a few perturbations a round; `changes` replace any field."""
    small: dict[str, Any] = {
        "updates": 20,
        "groups": 3,
        "group_size": 6,
        "generator_rows": 12,
        "generator_replay": 0,
        "prm_clean": 4,
        "prm_fresh": 4,
        "prm_replay": 4,
        "static_probe": 3,
        "replay_capacity": 8,
        "warmup": 2,
        "sample_log": 2,
    }
    return GameConfig(**(small | changes))


def arena(rows: StepBuilder | None = None, **changes: Any) -> Arena:
    """Where tiny games are played: on one device."""
    rows = rows or builder(line_stride=16)
    fields: dict[str, Any] = {
        "problems": DOMAIN,
        "corruptor": DOMAIN,
        "oracle": DOMAIN.oracle,
        "kinds": DOMAIN.kinds,
        "builder": rows,
        "decoder": DECODER,
        "sampler": changes.get("sampler") or sampler(rows),
        "mesh": make_mesh(MeshConfig(), jax.devices()[:1]),
    }
    return Arena(**(fields | changes))


def reply(rows: StepBuilder, text: str, **changes: Any) -> Reply:
    """A closed reply; its k-th token has log-probability -k / 10."""
    ids = changes.get("ids", (*rows.encode(text), rows.step_id))
    logprobs = -0.1 * np.arange(1, len(ids) + 1, dtype=np.float32)
    fields: dict[str, Any] = {"ids": ids, "logprobs": logprobs, "stopped": True}
    return Reply(**(fields | changes))


def verified(
    draws: Sequence[tuple[int, Reply]],
    points: Sequence[Situation],
    rows: StepBuilder,
    prm_rows: RowFormat | None = None,
) -> list[Perturbation]:
    """Replies to some of the points, merged, with the oracle's verdicts."""
    prompts = [Prompt.of(rows, point) for point in points]
    groups = [[r for g, r in draws if g == group] for group in range(len(points))]
    replies, oracle = rows.replies, DOMAIN.oracle
    queries = OracleQueries(prompts, oracle, replies, prm_rows or rows)
    return verify(groups, prompts, queries)


def rounds(place: Arena, config: GameConfig, **changes: Any) -> Rounds:
    """A game of fresh players."""
    fields: dict[str, Any] = {
        "generator": generator(),
        "prm": prm(),
        "head": "token",
        "seed": 5,
    }
    return Rounds(place, config, **(fields | changes))


TABLE = RewardsConfig(generator_caught=0.0)
