"""What the files under `configs/` are read and written with."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from aprm_jax.config.fields import ConfigError, flat, nearest, override, set_field
from aprm_jax.config.fields import stages as stages_of

NEXT_TO_PACKAGE = Path(__file__).resolve().parents[2] / "configs"
NOT_SHIPPED = "config files come with a clone of the repository, not with its wheel"
_MADE_UP = "aprm_jax-"


def read_config_file(
    path: str | os.PathLike[str], arg: str = ""
) -> ml_collections.ConfigDict:
    """What `get_config(arg)` of a config file returns; one file may start from another.

    Raises:
      ConfigError: there is no such file.
    """
    spec = importlib.util.spec_from_file_location("aprm_jax_config_file", path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise ConfigError(f"{os.fspath(path)}: no such config file{_elsewhere(path)}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def _elsewhere(path: str | os.PathLike[str]) -> str:
    """Where a config file may lie that is not at its path."""
    shipped = NEXT_TO_PACKAGE / Path(path).name
    if shipped.is_file():
        return f"; there is {shipped}"
    return "" if NEXT_TO_PACKAGE.is_dir() else f"; {NOT_SHIPPED}"


def check_arg(arg: str, allowed: tuple[str, ...] = ("", "runlocal")) -> None:
    """Refuses what stands after FILE: unless the file knows it."""
    if arg not in allowed:
        names = [name for name in allowed if name]
        raise ConfigError(
            f"this config file takes {' or '.join(map(repr, names))} after its "
            f"colon, not {arg!r}.{nearest(arg, names)}"
        )


def finished_models(run: str, *stages: str) -> dict[str, str]:
    """The model folders of a finished run's stages, by stage.

    Raises:
      ConfigError: one of them is not there.
    """
    found = {stage: Path(run) / stage / "model" for stage in stages}
    for stage, folder in found.items():
        if not (folder / "model.json").is_file():
            raise ConfigError(
                "this config file takes the folder of a finished run or 'runlocal' "
                f"after its colon; {run!r} has no {stage}/model"
            )
    return {stage: str(folder) for stage, folder in found.items()}


def set_stages(config: ml_collections.ConfigDict, stages: tuple[str, ...]) -> None:
    """Sets the stages of a run, without the overrides of those that it has no more."""
    before = stages_of(config)
    config.stages = stages
    drop_overrides(config, before)


def drop_overrides(
    config: ml_collections.ConfigDict, before: Sequence[tuple[str, str]]
) -> None:
    """Drops overrides of stages that the run had `before` and has no more.

    Those of a stage that it never had stay, for `validate` to refuse: a misspelling.
    """
    gone = {name for name, _ in before} - {name for name, _ in stages_of(config)}
    with config.overrides.unlocked():
        for stage in gone & set(config.overrides):
            del config.overrides[stage]


def made_up_folder(name: str) -> Path:
    """A folder for the data that a config file makes up for its `runlocal`."""
    folder = Path(tempfile.gettempdir()) / f"{_MADE_UP}{name}-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


def is_made_up(source: str) -> bool:
    """Whether a source, of whatever reader, lies in a `made_up_folder`."""
    return str(Path(tempfile.gettempdir()) / _MADE_UP) in source


def run_local(config: ml_collections.ConfigDict) -> None:
    """Cuts every stage until all of them run in minutes on two CPU cores.

    Every branch still runs; what comes out means nothing.
    """
    small = {
        "log_every": 10,
        "checkpoint.every": 10,
        "checkpoint.keep_last": 1,
        "metrics.tensorboard": False,
        # Each length is a program to compile: most of the time goes there.
        "builder.buckets": config.builder.buckets[-2:],
        "model.d_model": 32,
        "model.num_layers": 1,
        "model.num_heads": 2,
        "model.num_kv_heads": 1,
        "model.head_dim": 16,
        "model.d_ff": 64,
        "sft.updates": 60,
        "sft.batch_size": 32,
        "sft.learning_rate": 1e-2,
        "sft.warmup": 5,
        "sft.pool": 16,
        "teach.updates": 6,
        "teach.rounds": 1,
        "teach.round_updates": 4,
        "teach.situations": 4,
        "teach.one_step": 0.0,
        "teach.wrong": 0.0,
        "prm.updates": 10,
        "prm.batch_size": 16,
        "prm.warmup": 2,
        "prm.pool_problems": 32,
        "prm.pool_samples": 4,
        "prm.mc_completions": 2,
        "pav.problems": 32,
        "pav.n_cov": 4,
        "pav.n_mc": 2,
        "game.updates": 10,
        "game.groups": 4,
        "game.group_size": 4,
        "game.generator_rows": 16,
        "game.generator_replay": 8,
        "game.prm_clean": 8,
        "game.prm_fresh": 8,
        "game.prm_replay": 4,
        "game.static_probe": 4,
        "game.replay_capacity": 64,
        "game.warmup": 2,
        "game.sample_log": 5,
        "search.problems": 12,
        "search.n": 4,
        "search.m": 2,
        "search.iterations": 4,
        "search.bootstrap": 100,
        "attack.oracle_calls": 20,
        "attack.points": 1,
        "attack.situations": 8,
        "attack.bootstrap": 100,
        "rl.updates": 4,
        "rl.groups": 4,
        "rl.group_size": 4,
        "rl.dev_every": 2,
        "rl.dev_problems": 8,
        "rl.pass_problems": 8,
        "rl.pass_samples": 4,
        "evaluate.problems": 12,
        "evaluate.samples": tuple(min(n, 4) for n in config.evaluate.samples[:1]),
        "evaluate.attack_updates": 2,
        "evaluate.bootstrap": 100,
    }
    for name, value in small.items():
        set_field(config, name, value)
    for stage, changed in config.overrides.items():
        # What a stage switches off (0) stays off.
        cut = {k: small[k] for k, v in flat(changed).items() if k in small and v}
        override(config, stage, cut)
