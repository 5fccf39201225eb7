"""Roles from scratch whose models are not of one size."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import tiny_game
import tiny_run

from aprm_jax.config import ConfigError, jobs
from aprm_jax.jobs import aprm, attack, sft, verifiers
from aprm_jax.models import heads
from aprm_jax.models.io import load_model
from aprm_jax.sampling.sampler import Sampler

# Twice as wide, with twice as many heads and twice the feed-forward layer.
WIDE = dataclasses.replace(
    tiny_game.CONFIG,
    d_model=2 * tiny_game.CONFIG.d_model,
    num_heads=2 * tiny_game.CONFIG.num_heads,
    num_kv_heads=2 * tiny_game.CONFIG.num_kv_heads,
    d_ff=2 * tiny_game.CONFIG.d_ff,
)
GAME = tiny_run.SMALL_GAME | {"game.updates": 2, "log_every": 1}
PAIRS = [("2 + 3 * 4", ("2 + 12", "14")), ("5 - 3", ("2",))]


def _wide_prm() -> Any:
    key = jax.random.key(7)
    return heads.init_prm(key, tiny.backbone(WIDE, 5), WIDE.d_model, "token")


@pytest.fixture
def root(tmp_path):
    tiny_game.save(tmp_path / "generator/model", "generator", tiny_game.generator())
    tiny_game.save(tmp_path / "narrow/model", "prm", tiny_game.prm())
    tiny_game.save(tmp_path / "wide/model", "prm", _wide_prm(), decoder=WIDE)
    return tmp_path


def test_a_width_brings_its_heads_and_feed_forward_layers(tmp_path):
    config = tiny_run.small({"prm.d_model": WIDE.d_model})
    context = tiny_run.at("aprm", config, tmp_path)
    found = context.of("prm").decoder_config
    assert found.computes_as(dataclasses.replace(WIDE, vocab_size=found.vocab_size))
    # The others are alike still, and share what is compiled for them.
    assert context.of("generator") is context
    same = tiny_run.small({"prm.d_model": tiny_game.CONFIG.d_model})
    context = tiny_run.at("aprm", same, tmp_path)
    assert context.of("prm") is context


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prm.d_model": 24}, r"prm\.d_model must be a multiple of 16, not 24"),
        (
            {"generator.d_model": 32, "generator.backbone": "some/model"},
            r"generator\.d_model=32: generator\.backbone has its own width",
        ),
    ],
)
def test_a_width_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        tiny_run.small(fields)


def test_players_of_two_sizes_play(root):
    fields = GAME | {"prm.d_model": WIDE.d_model, "game.prm_from": "wide"}
    config = tiny_run.small(fields)
    aprm.run(tiny_run.at("aprm", config, root, "game"))
    before, after = (load_model(root / stage / "model") for stage in ("wide", "game"))
    assert after[1].decoder.computes_as(WIDE)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before[0], after[0])
    assert any(jax.tree.leaves(moved))
    _, generator, _ = load_model(root / "game/generator/model")
    assert generator.decoder.computes_as(tiny_game.CONFIG)


def test_an_evaluation_reads_prms_of_several_sizes(root):
    def scores(prms, **fields):
        config = tiny_run.small(
            {"evaluate.prms": prms, "evaluate.solver": "", "evaluate.splits": ()},
            **fields,
        )
        context = tiny_run.at("evaluate", config, root)
        return verifiers.model_scores(context, PAIRS)

    found = scores(("narrow", "wide"))
    alone = scores(("wide",), prm__d_model=WIDE.d_model)
    assert [list(row) for row in found["wide"].rows] == [
        list(row) for row in alone["wide"].rows
    ]
    assert not np.allclose(found["wide"].rows[0], found["narrow"].rows[0])


def test_an_evaluation_attacks_prms_of_several_sizes(root):
    def rates(name, **fields):
        attacked = {
            "evaluate.attack_updates": 2,
            "game.generator_from": "generator",
            "game.groups": 2,
        }
        config = tiny_run.small(attacked, **fields)
        return attack.attack_prm(tiny_run.at("evaluate", config, root), name)

    found = rates("wide")
    assert found == rates("wide", prm__d_model=WIDE.d_model)
    assert found != rates("narrow")


def test_a_generator_of_another_size_learns_the_mistakes_of_the_solver(
    tmp_path, monkeypatch
):
    mine = {"backbone": tiny_game.generator(3)["backbone"]}
    tiny_game.save(tmp_path / "solver/model", "solver", mine)
    fields = {"generator.d_model": WIDE.d_model, "sft.task": "perturb"}
    config = tiny_run.small(fields | {"sft.init_from": "base", "sft.pool": 4})
    assert ("prm.solver", "solver") in list(jobs()["sft"].sources(config))
    drawn = []

    class Seen(Exception):
        """Enough: what is drawn from has been noted."""

    def sample(self, backbone, *args, **kwargs):
        drawn.append(backbone)
        raise Seen

    monkeypatch.setattr(Sampler, "sample", sample)
    context = tiny_run.at("sft", config, tmp_path).of("generator")
    with pytest.raises(Seen):
        sft.wrong_samples(context, tiny.backbone(WIDE, 5))
    assert jax.tree.all(jax.tree.map(np.array_equal, drawn[0], mine["backbone"]))
