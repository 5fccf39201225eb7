"""A game in which a solver helps the Generator, as a stage of a run."""

from __future__ import annotations

import functools
import re
import tempfile

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny_game
import tiny_run

from aprm_jax.config import ConfigError, read_config_file, with_fields
from aprm_jax.data.prompted import PromptedSolver
from aprm_jax.game.config import GameConfig
from aprm_jax.game.explore import NATS
from aprm_jax.game.rounds import Rounds
from aprm_jax.jobs import aprm
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.plan_steps import left_out
from aprm_jax.jobs.prm import initial_prm
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import LoraConfig
from aprm_jax.oracle.verdict import Label
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.training.metrics import read_metrics, to_scalar
from aprm_jax.training.timing import PhaseTimer

TEXTS = ("What is 3 + 4?", "3 + 4 = 7")

HELP = {
    "game.explore.solver": "solver",
    "game.explore.forced": 1.0,
    "game.explore.plausible": 1.0,
}
GAME = tiny_run.SMALL_GAME | {"game.updates": 2, "log_every": 1}


@pytest.fixture
def root(tmp_path):
    models = {
        "solver": ("solver", {"backbone": tiny_game.generator(3)["backbone"]}),
        "generator": ("generator", tiny_game.generator()),
        "prm_warmup": ("prm", tiny_game.prm()),
    }
    for stage, (kind, params) in models.items():
        tiny_game.save(tmp_path / stage / "model", kind, params)
    return tmp_path


def _played(root, stage: str, **fields) -> list[dict]:
    config = tiny_run.small(GAME | tiny_run.dotted(fields))
    aprm.run(tiny_run.at("aprm", config, root, stage))
    return read_metrics(root / stage)


def test_a_stage_that_is_helped_plays_another_game(root):
    alone, helped = _played(root, "alone"), _played(root, "helped", **HELP)
    assert {"game/bonus"} <= helped[-1].keys() - alone[-1].keys()
    assert helped[0]["game/bonus"] >= 0
    assert helped[0]["game/edit_distance"] != alone[0]["game/edit_distance"]
    again = _played(root, "again", **HELP)
    assert again[-1]["prm/loss"] == helped[-1]["prm/loss"]


@pytest.mark.parametrize("field", ["forced", "plausible"])
def test_help_needs_a_solver_that_has_a_name(field):
    with pytest.raises(ConfigError, match=r"game\.explore\.solver must name"):
        tiny_run.small({f"game.explore.{field}": 0.5})


def test_a_share_that_comes_to_no_situation_is_refused():
    few = HELP | {"game.groups": 4, "game.explore.forced": 0.1}
    with pytest.raises(ConfigError, match=r"forced=0\.1 of game\.groups=4 .* is none"):
        tiny_run.small(few)
    tiny_run.small(few | {"game.groups": 8})


def test_the_solver_is_a_source_of_its_stage(root):
    fields = HELP | {"game.explore.solver": "nobody"}
    with pytest.raises(ConfigError, match=re.escape("game.explore.solver='nobody'")):
        _played(root, "helped", **fields)


def test_tokens_of_another_tokenizer_begin_no_reply(tmp_path):
    write_tiny(tmp_path / "lm", "qwen2", TEXTS)
    other = {"solver.backbone": str(tmp_path / "lm")}
    config = tiny_run.small(HELP | other)
    context = tiny_run.at("aprm", config, tmp_path)
    with pytest.raises(
        ConfigError, match=re.escape("another tokenizer; name a solver")
    ):
        aprm.check(context, {})
    told = HELP | other | {"game.explore.forced": 0.0}  # text is enough
    aprm.check(tiny_run.at("aprm", tiny_run.small(told), tmp_path), {})


def test_a_solver_that_helps_is_named_where_it_is_not_planned():
    alone, helped = tiny_run.config(), tiny_run.config(HELP)
    said = left_out(helped, "aprm")
    assert said[:-1] == left_out(alone, "aprm")
    assert said[-1].startswith("game.explore.solver='solver'")


def _language_models(root, rank: int) -> tuple[Rounds, Context]:
    """A helped game whose players and solver are language models, told in words."""
    path = command.REPOSITORY / "configs" / "llama3_1_8b_lora.py"
    fields = HELP | {
        "game.explore.solver": "backbone",
        "game.explore.forced": 0.5,
        "game.generator_from": "backbone",
        "game.prm_from": "backbone",
        "lora.rank": rank,
    }
    config = with_fields(read_config_file(path, "runlocal"), fields)
    context = Context(config, root, "aprm")
    aprm.check(context, {})
    player = context.of("generator")
    generator, _ = player.load("backbone", "game.generator_from", "generator")
    prm, spec = initial_prm(context.of("prm"), "backbone", "game.prm_from", "token")
    rounds = Rounds(
        context.arena_of(spec),
        GameConfig.of(config.game, lora=LoraConfig.of(config.lora)),
        generator=generator,
        prm=prm,
        head="token",
        seed=config.seed,
        explorer=aprm._explorer(context),
    )
    return rounds, context.solver("backbone")


def _said(solver: Context, params, prompt, ids) -> np.ndarray:
    """Log-probabilities of ids after a prompt, in NumPy from the solver's logits."""
    length = solver.builder.buckets[-1]
    tokens = np.zeros((1, length), np.int32)
    tokens[0, : len(prompt) + len(ids)] = [*prompt, *ids]
    logits = _logits(solver.decoder, params["backbone"], tokens)[0]
    logp = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    return np.array([logp[len(prompt) + k - 1, i] for k, i in enumerate(ids)])


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder, backbone, tokens):
    """Of one row; what follows a token changes nothing of it."""
    positions, variables = jnp.arange(tokens.shape[1])[None], {"params": backbone}
    hidden = decoder.apply(variables, tokens, positions, jnp.ones_like(tokens))
    return decoder.apply(variables, hidden, method=Decoder.logits)


@pytest.mark.parametrize("rank", [16, 0], ids=["adapters", "full"])
def test_a_language_model_begins_replies_by_its_own_prompt(rank, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the models go
    rounds, solver = _language_models(tmp_path, rank)
    assert isinstance(solver.builder, PromptedSolver)
    params, _ = solver.load("backbone", "game.explore.solver", "solver")
    played = rounds.play(rounds.state, 0, PhaseTimer())
    opened = [p for p in played.perturbations if p.reply.forced]
    assert {p.group for p in opened} == set(range(rounds.config.groups // 2))
    assert played.bonus is not None and (played.bonus > 0).any()
    for p, bonus in zip(played.perturbations, played.bonus, strict=True):
        point, reply = p.situation, p.reply
        prompt = solver.builder.context(point.question, point.prefix)
        assert prompt != list(p.prompt.ids)
        begun = _said(solver, params, prompt, reply.ids[: reply.forced])
        np.testing.assert_allclose(reply.logprobs[: reply.forced], begun, atol=1e-4)
        paid = 0.0
        if p.verdict.label == Label.INCORRECT:
            ids = [*solver.builder.encode(reply.text), solver.builder.replies.end_id]
            paid = max(0.0, 1 + _said(solver, params, prompt, ids).min() / NATS)
        assert bonus == pytest.approx(paid, abs=1e-4)
    batch, _ = rounds._batches(played, rounds.state)
    tokens, begun = np.asarray(batch.rows.tokens), np.asarray(batch.forced) > 0
    read = [
        tuple(tokens[b, batch.columns[b, s][begun[b, s]]].tolist())
        for b, s in np.argwhere(begun.any(-1))
    ]
    learned = [
        p for p in opened if p.reply.reason or p.verdict.label != Label.UNDECIDABLE
    ]
    assert sorted(read) == sorted(p.reply.ids[: p.reply.forced] for p in learned) != []
    # The rest is G's own: its sampler and its update agree on it.
    output = rounds.step_fn(rounds.state, 0, PhaseTimer())
    metrics = {name: to_scalar(value) for name, value in output.metrics.items()}
    assert metrics["generator/sampler_gap_max"] < 1e-4
    assert metrics["nonfinite"] == 0.0 < metrics["generator/grad_norm"]
    # Whatever the update has taken for itself, the solver has its weights.
    again = rounds.play(output.state, 1, PhaseTimer())
    assert any(p.reply.forced for p in again.perturbations)
