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

from aprm_jax.config import ConfigError, read_config_file
from aprm_jax.config.errors import UserError
from aprm_jax.jobs import plan
from aprm_jax.jobs.context import Context
from aprm_jax.training.chips import Topology
from aprm_jax.training.forecast import Forecast

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
    assert "Every step fits." in page and "<script src" not in page
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
    return Forecast("update", {}, 0.0, peak, 10.0, 1.0, 1.0, 1.0, {}, {"compute": 1.0})


def _planned(monkeypatch, tmp_path, peaks, **fields):
    """Plans the first update of a config whose steps need `peaks`, one a try."""
    own = {"topology": "gpu:h100x1", "steps": ("update",)} | fields
    named = {f"plan.{name}": value for name, value in own.items()}
    config = tiny_run.config(named, stages=("stage:aprm",))
    asked = iter(peaks)
    monkeypatch.setattr(plan, "forecast", lambda *a: _told(next(asked)))
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
    found = _planned(monkeypatch, tmp_path, [99] * 5 + [5])
    assert [*found.changes][2:] == ["game.moments", "lora.rank"]


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
