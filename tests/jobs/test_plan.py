"""`job=plan`: every step of a config on chips that are not here."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny_run

from aprm_jax.config import (
    ConfigError,
    jobs,
    read_config_file,
    validate,
    with_fields,
)
from aprm_jax.config.errors import UserError
from aprm_jax.config.groups import MeshConfig
from aprm_jax.jobs import plan, plan_steps
from aprm_jax.jobs.context import Context
from aprm_jax.training.chips import Topology
from aprm_jax.training.forecast import Forecast, forecast, shard_bytes
from aprm_jax.training.mesh import make_mesh

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "configs/quickstart.py"


def command(folder, *flags):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "aprm_jax.main",
            f"--config={QUICKSTART}:runlocal",
            "--config.job=plan",
            f"--workdir={folder}",
            *flags,
        ],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def test_steps_are_compiled_for_chips_that_are_not_here(tmp_path):
    stages = read_config_file(str(QUICKSTART), "runlocal").stages
    [training, *_] = [s.partition(":")[0] for s in stages if s.endswith(":sft")]
    done = command(
        tmp_path,
        "--config.plan.topology=gpu:h100x2",
        "--config.mesh.fsdp=2",
        f"--config.plan.stages={training}",
        "--config.plan.steps=update",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "plan/plan.json").read_text())
    assert (told["topology"], told["chips"]) == ("gpu:h100x2", 2)
    [step] = told["steps"]
    assert (step["stage"], step["name"]) == (training, "update")
    assert step["fits"] and step["peak"] < 1e9
    assert step["flops"] >= step["useful_flops"] > 0
    assert 0 < step["mfu_serial"] < step["mfu"] <= 1
    assert step["time"] == max(step["seconds"].values())
    # Two moments, each as large as they are.
    held = step["holds"]
    assert held["optimiser"] == pytest.approx(2 * held["parameters"], rel=0.01)
    assert step["links"]["fsdp"]
    assert sum(held.values()) <= step["peak"]
    page = (tmp_path / "plan/plan.html").read_text()
    assert "1 of 1 planned steps fit" in page and "<script src" not in page
    assert "Every step fits." not in page  # others were not asked for
    missing = {one["what"] for one in told["not_planned"]}
    assert missing == {"plan.stages does not name it", "steps other than update"}
    assert not (tmp_path / training).exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "plan.topology=''"),
        ({"topology": "v5e:8"}, "plan.topology='v5e:8'"),
        ({"topology": "gpu:h100x1", "stages": ("none",)}, "no stage is called 'none'"),
    ],
)
def test_what_cannot_be_planned_is_told_before_anything_begins(tmp_path, fields, said):
    config = tiny_run.config({f"plan.{name}": v for name, v in fields.items()})
    with pytest.raises(UserError, match=said):
        plan.check(Context(config, tmp_path, "plan"), {})


def _told(peak: float) -> Forecast:
    seconds = {"compute": 1.0, "links": 0.5}
    return Forecast("update", {}, 0.0, 0.0, peak, 10.0, 1.0, 1.0, 1.0, {}, seconds)


def _planned(monkeypatch, tmp_path, peaks, job="aprm", **fields):
    """Plans the first update of a config whose steps need `peaks`, one a try."""
    own = {"topology": "gpu:h100x1", "steps": ("update",)} | fields
    named = {f"plan.{name}": value for name, value in own.items()}
    config = tiny_run.config(named, stages=(f"stage:{job}",))
    asked = iter(peaks)
    monkeypatch.setattr(plan.forecasts, "forecast", lambda *a: _told(next(asked)))
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[:1])
    context = Context(config, tmp_path, "plan")
    [found] = plan.plans(config, context, Topology.of("gpu:h100x1"))
    return found


def test_remedies_are_tried_in_order_until_one_fits(monkeypatch, tmp_path):
    found = _planned(monkeypatch, tmp_path, [99, 98, 97, 5])
    # The mesh of one chip cannot be another one.
    assert found.changes == {"model.remat": "full", "game.microbatches": 4}
    assert not found.forecast.fits
    assert found.changed is not None and found.changed.fits


def test_what_changes_the_learning_comes_last(monkeypatch, tmp_path):
    found = _planned(monkeypatch, tmp_path, [99] * 6 + [5])
    assert [*found.changes][2:] == ["game.moments", "game.references", "lora.rank"]
    # Adapters stand on the reference, which then is as it was loaded.
    assert found.changes["game.references"] == "full"
    found = _planned(monkeypatch, tmp_path, [99] * 5 + [5])
    assert found.changes["game.references"] == "int8"


def test_tries_are_bounded_and_a_step_that_fits_has_none(monkeypatch, tmp_path):
    assert _planned(monkeypatch, tmp_path, [99, 98], tries=1).changed is None
    found = _planned(monkeypatch, tmp_path, [5])
    assert found.forecast.fits and not found.changes
    refused = dataclasses.replace(_told(1.0), refusal="out of memory")
    assert not refused.fits


def test_a_config_without_steps_is_refused(tmp_path):
    config = tiny_run.config(plan__topology="gpu:h100x1", stages=("report",))
    with pytest.raises(ConfigError, match="none of the stages"):
        plan.run(Context(config, tmp_path, "plan"))


def test_every_job_is_planned_or_named(tmp_path):
    """None is passed over in silence, nor called one that computes nothing."""
    config = tiny_run.config(tiny_run.SMALL)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    for job in jobs():
        context = Context(config, tmp_path, "stage")
        found = plan_steps.programs(context, job, mesh)
        assert bool(found) == (job not in (*plan_steps.ON_THE_HOST, "plan")), job
        names = [step.name for step in found]
        assert len(set(names)) == len(names)
    assert plan_steps.left_out(config, "a_plug_in") == ["all of job=a_plug_in"]


TRAINED = ("teach", "prm", "pav", "rl", "attack")


@pytest.mark.parametrize("job", TRAINED)
def test_a_stage_is_planned_by_the_steps_that_it_runs(tmp_path, job):
    fields = {**tiny_run.SMALL, **tiny_run.SMALL_GAME, "builder.window": 0}
    config = tiny_run.config(fields, rl__groups=2, rl__group_size=2, sft__batch_size=4)
    context, topology = Context(config, tmp_path, "stage"), Topology.of("gpu:h100x1")
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    [update, *_] = plan_steps.programs(context, job, mesh)
    told = forecast(update, topology, mesh)
    assert told.name == "update" and told.fits and told.flops > 0
    # Adam's two moments; of OGDA a second one and the gradient before.
    held = told.holds
    trained = held["parameters"]
    assert held["optimiser"] == pytest.approx(2 * trained, rel=0.01)
    assert plan_steps.updates(config, job) == {
        "teach": 200 + 6 * 50, "prm": 400, "pav": 400, "rl": 200, "attack": 0
    }[job]  # fmt: skip


def test_samples_are_drawn_beside_the_game(tmp_path):
    """Both players, their moments and references stay while G writes."""
    config = tiny_run.config({**tiny_run.SMALL, **tiny_run.SMALL_GAME})
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    context = Context(config, tmp_path, "stage")
    steps = {one.name: one for one in plan_steps.programs(context, "aprm", mesh)}
    update, decode = steps["update"], steps["decode"]
    stays = sum(
        shard_bytes(update.holds[name])
        for name in ("parameters", "optimiser", "references")
    )
    own = shard_bytes(decode.holds["parameters"])
    assert decode.beside == stays - own > 5 * own
    alone = plan_steps.programs(context, "search", mesh)
    assert [one.beside for one in alone] == [0, 0, 0]
    told = forecast(decode, Topology.of("gpu:h100x1"), mesh)
    without = forecast(
        dataclasses.replace(decode, beside=0), Topology.of("gpu:h100x1"), mesh
    )
    assert told.peak == without.peak + decode.beside


@pytest.mark.parametrize("job", ["aprm", "rl"])
def test_int8_references_are_a_quarter_of_full_ones(tmp_path, job):
    """Of the update, and of what lies beside the samples; an attacker's stay full."""
    group = {"aprm": "game", "rl": "rl"}[job]
    found = {}
    for how in ("full", "int8"):
        fields = {**tiny_run.SMALL, **tiny_run.SMALL_GAME, f"{group}.references": how}
        mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
        context = Context(tiny_run.config(fields), tmp_path, "stage")
        steps = {one.name: one for one in plan_steps.programs(context, job, mesh)}
        update = steps["update"]
        assert update.args[2 if job == "rl" else 1] is update.holds["references"]
        found[how] = (
            shard_bytes(update.holds["references"]),
            shard_bytes(update.holds["parameters"]),
            steps["decode"].beside,
        )
        [attacked, *_] = plan_steps.programs(context, "attack", mesh)
        found[f"attacked {how}"] = shard_bytes(attacked.holds["references"])
    (full, learned, beside), (int8, same, less) = found["full"], found["int8"]
    assert 0.25 < int8 / full < 0.4  # scales and norms are float32
    assert learned == same and beside - less == full - int8
    assert found["attacked full"] == found["attacked int8"]


def test_a_reference_that_is_both_counts_once(tmp_path):
    fields = {"generator_from": "backbone", "prm_from": "backbone"}
    config = tiny_run.config(
        {f"game.{k}": v for k, v in fields.items()}, **tiny_run.SMALL, lora__rank=2
    )
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    context = Context(config, tmp_path, "stage")
    [update, *_] = plan_steps.programs(context, "aprm", mesh)
    base = shard_bytes(update.args[1].generator["backbone"])
    assert base <= shard_bytes(update.holds["references"]) < 1.1 * base
    assert shard_bytes(update.twice) == base


def test_what_is_planned_of_a_decode_is_what_helps_one(tmp_path):
    config = tiny_run.config(model__dtype="bfloat16", mesh__fsdp=16, mesh__data=1)
    tried = list(plan._remedies(config, "search", "decode", Topology.of("v5e:4x4")))
    assert tried == [
        {"mesh.sample_tensor": 8},
        {"mesh.sample_tensor": 16},
        {"builder.sample_rows": 128},
        {"builder.sample_rows": 64},
    ]
    for changes in tried:
        validate(with_fields(config, changes))


def test_a_plan_names_what_it_leaves_out(monkeypatch, tmp_path, caplog):
    config = tiny_run.config(
        {**tiny_run.SMALL, "plan.topology": "gpu:h100x1", "rl.guard.prm": "aprm"},
        stages=("solver:sft", "more:rl", "page:report"),
    )
    monkeypatch.setattr(plan.forecasts, "forecast", lambda *a: _told(5.0))
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[:1])
    found = plan.run(Context(config, tmp_path, "plan"))
    assert found == {"fits": True, "not_planned": 1}
    told = json.loads((tmp_path / "plan/plan.json").read_text())
    [missing] = told["not_planned"]
    assert missing["stage"] == "more" and "rl.guard.prm" in missing["what"]
    page = (tmp_path / "plan/plan.html").read_text()
    assert "planned steps fit" in page and "rl.guard.prm" in page
    assert "Every step fits." not in page
    assert "more: not planned: the game of rl.guard.prm" in caplog.text


def test_all_that_is_planned_fits(monkeypatch, tmp_path):
    config = tiny_run.config(
        {**tiny_run.SMALL, "plan.topology": "gpu:h100x1"}, stages=("solver:sft",)
    )
    monkeypatch.setattr(plan.forecasts, "forecast", lambda *a: _told(5.0))
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[:1])
    plan.run(Context(config, tmp_path, "plan"))
    assert "Every step fits." in (tmp_path / "plan/plan.html").read_text()


def test_a_step_that_no_stage_has_is_told(tmp_path, monkeypatch):
    config = tiny_run.config(
        {**tiny_run.SMALL, "plan.topology": "gpu:h100x1", "plan.steps": ("updat",)},
        stages=("more:rl",),
    )
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[:1])
    with pytest.raises(ConfigError, match=r"plan\.steps=.*update, score, prefill"):
        plan.run(Context(config, tmp_path, "plan"))


def test_a_price_makes_a_cost_of_the_times(monkeypatch, tmp_path, caplog):
    config = tiny_run.config(
        {**tiny_run.SMALL, "plan.topology": "gpu:h100x2", "plan.steps": ("update",)},
        stages=("solver:sft",),
        plan__price=3.0,
        sft__updates=1200,
        mesh__data=1,
    )
    monkeypatch.setattr(plan.forecasts, "forecast", lambda *a: _told(5.0))
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[:1])
    with caplog.at_level("INFO", "aprm_jax"):
        plan.run(Context(config, tmp_path, "plan"))
    told = json.loads((tmp_path / "plan/plan.json").read_text())
    [step] = told["steps"]
    # Two chips for a second, and half a second more: by the hour 6 dollars.
    least, serial = 6 / 3600, 1.5 * 6 / 3600
    assert step["dollars"] == pytest.approx({"least": least, "serial": serial})
    assert (told["price"], step["times"]) == (3.0, 1200)
    assert "1,200 updates cost at least $2.00, $3.00 if no collective" in caplog.text
    free = plan.dollars(_told(5.0), Topology.of("gpu:h100x2"), 0.0)
    assert free is None  # no price is made up
