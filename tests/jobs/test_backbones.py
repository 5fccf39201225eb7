"""Models of Hugging Face as players: found, described, shared; bad ones refused.

The whole game on them runs in the configs' `:runlocal`.
"""

from pathlib import Path

import jax
import pytest

from aprm_jax.config import ConfigError, default_config, set_field, validate
from aprm_jax.data.prompted import PromptedBuilder
from aprm_jax.hf.tiny import write_tiny
from aprm_jax.jobs import backbones
from aprm_jax.jobs.context import Context

TEXTS = ["Ann has 3 boxes of 4 pens.", "3*4=<<3*4=12>>12 pens.", "#### 12"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder / "lm", "qwen2", TEXTS)
    write_tiny(folder / "prm", "qwen2", TEXTS, layout="qwen2_prm", seed=1)
    return folder


def _context(tmp_path, **fields) -> Context:
    config = default_config()
    set_field(config, "builder.line_stride", 0)
    for name, value in fields.items():
        set_field(config, name.replace("__", "."), str(value))
    return Context(config, tmp_path, "stage")


def test_roles_of_one_model_share_its_arrays(models, tmp_path):
    lm = models / "lm"
    context = _context(tmp_path, generator__backbone=lm, solver__backbone=lm)
    g, _ = context.of("generator").load("backbone", "game.generator_from", "generator")
    solver, spec = context.of("solver").load("backbone", "evaluate.solver", "solver")
    assert spec.family == "qwen2" and spec.kind == "solver"
    pairs = zip(
        jax.tree.leaves(g["backbone"]), jax.tree.leaves(solver["backbone"]), strict=True
    )
    assert all(a is b for a, b in pairs)
    assert not any(leaf.any() for leaf in jax.tree.leaves(g["value_head"]))


def test_a_generator_is_told_in_words_and_a_solver_is_not(models, tmp_path):
    lm = models / "lm"
    context = _context(tmp_path, generator__backbone=lm, solver__backbone=lm)
    generator, solver = context.of("generator"), context.of("solver")
    assert isinstance(generator.builder, PromptedBuilder)
    assert not isinstance(solver.builder, PromptedBuilder)
    text = generator.tokenizer.decode(
        generator.builder.perturb_context("Q?", ("A.",), "B.")
    )
    assert "Rewrite the next step" in text and "<|assistant|>" in text
    assert context.of("prm").source is None  # stays from scratch


def test_an_existing_prm_is_loaded_with_its_head(models, tmp_path):
    context = _context(tmp_path, prm__backbone=models / "prm").of("prm")
    params, spec = context.load("backbone", "game.prm_from", "solver", "prm")
    assert (spec.kind, spec.reading, spec.layout) == ("prm", "two_class", "qwen2_prm")
    assert set(params) == {"backbone", "head"}


def test_an_existing_prm_is_no_language_model(models, tmp_path):
    context = _context(tmp_path, solver__backbone=models / "prm").of("solver")
    with pytest.raises(
        ConfigError, match=r"is a PRM .qwen2_prm.; evaluate.solver needs"
    ):
        context.load("backbone", "evaluate.solver", "solver")


def test_backbone_needs_one(tmp_path):
    with pytest.raises(
        ConfigError, match=r"game.prm_from='backbone' needs a model.*prm.backbone"
    ):
        _context(tmp_path).of("prm").load("backbone", "game.prm_from", "prm")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "nowhere"])
def test_what_is_no_folder_and_no_name_is_refused(name):
    with pytest.raises(
        ConfigError, match=r"prm.backbone=.*no such folder, and no name"
    ):
        backbones.find(name, "prm.backbone")


def test_a_name_that_the_hub_does_not_give_says_so():
    with pytest.raises(
        ConfigError, match=r"solver.backbone='no/model'.*the hub does not"
    ):
        backbones.find("no/model", "solver.backbone")


def test_a_backbone_needs_contiguous_positions():
    config = default_config()
    set_field(config, "solver.backbone", "some/model")
    with pytest.raises(ConfigError, match=r"builder.line_stride=0, not 32"):
        validate(config)


def test_bfloat16_parameters_are_for_frozen_ones():
    config = default_config()
    set_field(config, "model.param_dtype", "bfloat16")
    with pytest.raises(ConfigError, match="small updates would be lost in it"):
        validate(config)


def test_splits_need_a_solver():
    config = default_config()
    set_field(config, "evaluate.solver", "")
    with pytest.raises(ConfigError, match=r"evaluate.splits needs evaluate.solver"):
        validate(config)
