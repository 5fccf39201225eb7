"""A game in which a solver helps the Generator, as a stage of a run."""

from __future__ import annotations

import re

import pytest
import tiny_game
import tiny_run

from aprm_jax.config import ConfigError
from aprm_jax.jobs import aprm
from aprm_jax.jobs.plan_steps import left_out
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.training.metrics import read_metrics

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
