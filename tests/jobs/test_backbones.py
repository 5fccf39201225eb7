"""Models of Hugging Face as players: found, described, shared; bad ones refused.

The whole game on them runs in the configs' `:runlocal`.
"""

import json
import re
import tempfile
from pathlib import Path

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from safetensors.numpy import save_file

from aprm_jax.config import (
    ConfigError,
    read_config_file,
    validate,
    with_fields,
)
from aprm_jax.data.prompted import PromptedGenerator, PromptedSolver
from aprm_jax.data.prompts import REASONS
from aprm_jax.data.steps import StepBuilder
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.peft import to_peft
from aprm_jax.hf.safetensors_io import ModelFileError
from aprm_jax.hf.save import write_adapter
from aprm_jax.jobs import aprm, backbones, samples, start, verifiers
from aprm_jax.jobs.context import Context
from aprm_jax.models.io import load_model
from aprm_jax.models.lora import LoraConfig, init_lora, merge
from aprm_jax.testing.tiny import write_tiny

TEXTS = ["Ann has 3 boxes of 4 pens.", "3*4=<<3*4=12>>12 pens.", "#### 12"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder / "lm", "qwen2", TEXTS)
    write_tiny(folder / "prm", "qwen2", TEXTS, layout="qwen2_prm", seed=1)
    return folder


def _context(tmp_path, **fields) -> Context:
    named = {name: str(value) for name, value in fields.items()}
    config = tiny_run.config({"builder.line_stride": 0}, **named)
    return Context(config, tmp_path, "stage")


def test_a_kernel_that_cannot_do_the_model_names_its_field(models, tmp_path):
    fields = {"solver__backbone": models / "lm", "model__attention": "cudnn"}
    context = _context(tmp_path, **fields)
    said = "model.attention='cudnn' needs dtype='bfloat16', not 'float32'"
    for found in (lambda: context.of("solver").decoder_config, lambda: context.decoder):
        with pytest.raises(ConfigError, match=re.escape(said)):
            found()


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


def test_a_backbone_that_is_written_anew_is_opened_anew(tmp_path):
    widths = []
    for width in (32, 48):
        write_tiny(tmp_path / "lm", "qwen2", TEXTS, sizes={"d_ff": width})
        context = _context(tmp_path, solver__backbone=tmp_path / "lm").of("solver")
        assert context.source is not None
        widths.append(context.source.decoder.d_ff)
    assert widths == [32, 48]


@pytest.mark.parametrize("role", ["solver", "generator"])
def test_a_backbone_without_a_language_head_is_no_player_that_writes(role, tmp_path):
    folder = write_tiny(tmp_path / "lm", "qwen2", TEXTS)
    fields = json.loads((folder / "config.json").read_text())
    fields["architectures"] = ["Qwen2Model"]
    (folder / "config.json").write_text(json.dumps(fields))
    context = _context(tmp_path, **{f"{role}__backbone": folder}).of(role)
    with pytest.raises(UnsupportedModelError, match="has no LM head"):
        context.load("backbone", "game.generator_from", role)


def test_who_is_told_in_words(models, tmp_path):
    lm = models / "lm"
    context = _context(tmp_path, generator__backbone=lm, solver__backbone=lm)
    generator, solver = context.of("generator"), context.of("solver")
    assert isinstance(generator.builder, PromptedGenerator)
    # A solver that was trained here knows our rows; the bare backbone does not.
    assert type(solver.solver("solver").builder) is StepBuilder
    bare = solver.solver("backbone")
    assert isinstance(bare.builder, PromptedSolver) and bare.of("prm") is not bare
    assert bare is solver.solver("backbone")  # with what it has compiled
    text = generator.tokenizer.decode(
        generator.builder.perturb_context("Q?", ("A.",), "B.")
    )
    assert "Rewrite the next step" in text and "<|assistant|>" in text
    assert context.of("prm").source is None  # stays from scratch
    scratch = _context(tmp_path)
    assert type(scratch.solver("backbone").builder) is StepBuilder


def test_an_existing_prm_is_loaded_with_its_head(models, tmp_path):
    context = _context(tmp_path, prm__backbone=models / "prm").of("prm")
    params, spec = context.load("backbone", "game.prm_from", "solver", "prm")
    assert (spec.kind, spec.head, spec.layout) == ("prm", "two_class", "qwen2_prm")
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


def test_a_backbone_is_looked_at_before_the_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = command.REPOSITORY / "configs" / "qwen2_5_0_5b_gsm8k.py"
    config = read_config_file(path, "runlocal")
    assert config.stages[0] == "solver:sft"  # the Generator's turn comes late
    weights = Path(config.generator.backbone) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        start.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_needs_contiguous_positions():
    config = tiny_run.config(solver__backbone="some/model")
    with pytest.raises(ConfigError, match=r"builder.line_stride=0, not 32"):
        validate(config)


def test_bfloat16_parameters_are_for_frozen_ones():
    config = tiny_run.config(model__param_dtype="bfloat16")
    with pytest.raises(ConfigError, match="small updates would be lost in it"):
        validate(config)


def test_splits_need_a_solver():
    config = tiny_run.config(evaluate__solver="")
    with pytest.raises(ConfigError, match=r"evaluate.splits needs evaluate.solver"):
        validate(config)


def test_an_adapter_is_merged_into_the_base_that_it_names(models, tmp_path):
    base = _context(tmp_path, solver__backbone=models / "lm")
    plain, _ = base.load("backbone", "evaluate.solver", "solver")
    lora = LoraConfig(rank=2, alpha=4.0, targets="layers/attention/q/kernel")
    adapter = init_lora(jax.random.key(3), plain["backbone"], lora)
    adapter = jax.tree.map(lambda x: jnp.ones_like(x) * 0.1 + x, adapter)
    tensors, fields = to_peft(adapter, lora, family="qwen2", base=str(models / "lm"))
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_adapter(folder, tensors, fields, base.tokenizer)
    context = _context(tmp_path, solver__backbone=folder)
    found, _ = context.load("backbone", "evaluate.solver", "solver")
    wanted = merge(plain["backbone"], adapter, lora)
    for ours, theirs in zip(
        jax.tree.leaves(found["backbone"]), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    q = found["backbone"]["layers"]["attention"]["q"]["kernel"]
    assert not np.array_equal(
        q, plain["backbone"]["layers"]["attention"]["q"]["kernel"]
    )


def test_an_adapter_that_names_no_base_is_refused(models, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": np.zeros(1, np.float32)}, folder / "adapter_model.safetensors")
    context = _context(tmp_path, solver__backbone=folder)
    with pytest.raises(ModelFileError, match="base_model_name_or_path is None"):
        _ = context.source


def test_a_bare_backbone_writes_whole_solutions(tmp_path, monkeypatch):
    """It never learned to close a step with our token: told in words, it need not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = command.REPOSITORY / "configs" / "llama3_1_8b_lora.py"
    config = read_config_file(path, "runlocal")
    assert config.evaluate.solver == "backbone"
    config = with_fields(config, {"evaluate.prms": ()})
    context = Context(config, tmp_path, "evaluate")
    problems = context.domain.problems("test", 2)
    groups = samples.sample(context, 1, problems, 4)
    solutions = [solution for group in groups for solution in group]
    assert any(s.finished and len(s.steps) > 1 for s in solutions)
    scores = verifiers.model_scores(
        context, [(s.question, tuple(s.steps)) for s in solutions]
    )
    # The least token's, which the sampler knows by itself; of other text the ids that
    # were drawn need not be those that it is read with.
    pairs = [
        pair
        for solution, row in zip(solutions, scores["likelihood"].rows, strict=True)
        for step, *pair in zip(solution.steps, solution.min_logprob, row, strict=True)
        if re.fullmatch(r"[234][+*][56]=[789]\.|#### [789]\.?", step)
    ]
    assert len(pairs) > 4
    np.testing.assert_allclose(*zip(*pairs, strict=True), atol=1e-4)


@pytest.mark.parametrize(
    "name", ["qwen2_5_0_5b_gsm8k", "qwen2_5_math_prm_7b_harden", "llama3_1_8b_lora"]
)
def test_the_generator_learns_where_a_config_is_cut(name, tmp_path, monkeypatch):
    """Of random weights alone no reply ends, and every reward is the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the models go
    config = read_config_file(command.REPOSITORY / "configs" / f"{name}.py", "runlocal")
    # No teaching, no warm-up before it.
    fields = {f"game.{player}_from": "backbone" for player in ("generator", "prm")}
    config = with_fields(config, fields | {"game.updates": 3})
    context = Context(config, tmp_path, "aprm")
    aprm.run(context)
    lines = (tmp_path / "aprm" / "metrics.jsonl").read_text().splitlines()
    rounds = [json.loads(line) for line in lines]
    assert all(r["game/incorrect_rate"] > 0 for r in rounds)
    assert all(r["generator/reward"] > -1 for r in rounds)
    reasons = ("one_step", *REASONS)
    assert all(sum(r[f"reply/{k}"] for k in reasons) == 1 for r in rounds)
    # Where all rewards of a group are the same, the entropy bonus alone is left: 1e-8.
    assert max(abs(r["generator/loss"]) for r in rounds) > 1e-3
    assert min(r["generator/grad_norm"] for r in rounds) > 0
    player = context.of("generator")
    before, _ = player.load("backbone", "game.generator_from", "generator")
    after, _, _ = load_model(tmp_path / "aprm" / "generator" / "model")
    pairs = zip(
        jax.tree.leaves(before["backbone"]),
        jax.tree.leaves(after["backbone"]),
        strict=True,
    )
    assert any(not np.array_equal(a, b) for a, b in pairs)
