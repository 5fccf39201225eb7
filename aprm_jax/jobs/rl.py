"""RL of a solver: opens who solves, who scores, who guards; keeps what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.config import Config, ConfigError
from aprm_jax.data.jsonl import DataError
from aprm_jax.evals import intervals
from aprm_jax.evals.records import RESULTS, Record, metric_records, write_results
from aprm_jax.hf import pretrained
from aprm_jax.hf.export import check_target
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.rl_guard import GameGuard
from aprm_jax.jobs.rl_rollouts import ServedRollouts
from aprm_jax.jobs.row_files import check_names, run_verifier
from aprm_jax.models import heads, lora
from aprm_jax.models.lora import LoraConfig
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.implicit import ImplicitPRM
from aprm_jax.rl.rounds import ALARMS, LoopState, Rounds
from aprm_jax.rl.sources import check_source, paying
from aprm_jax.rl.task import Task
from aprm_jax.search.select import pass_at_n
from aprm_jax.servers.client import read_key
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.training import hosts
from aprm_jax.training.lines import LineLog
from aprm_jax.training.loop import run_loop
from aprm_jax.verifiers.models import BrokenModelError
from aprm_jax.verifiers.protocol import Verifier

ROLLOUTS = "rollouts.jsonl"
SET = "rl"  # of the records
BEFORE, AFTER = "before", "after"
_BACKBONE, _PASS = 4, 62  # of random keys


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The verifiers' names can be ones, and the splits are there.

    Raises:
      ConfigError, UnknownVerifierError, DataError: names the field and what would do.
      ExportError: a server cannot be told what is trained.
    """
    c = context.config.rl
    if c.rollouts.solver:
        _check_served(context.config)
    named = filter(None, (*c.verifiers, c.prover_values))
    check_names(context, earlier, "rl", named)
    if c.pass_samples:
        _check_splits(context)
    if any(name.startswith("scores:") for name in c.verifiers):
        raise ConfigError(
            "rl.verifiers: a file has scores of solutions that are there, and RL "
            "samples new ones: name a PRM, a stage or an oracle"
        )


def _check_splits(context: Context) -> None:
    """Pass@N is measured when all rounds are over: its splits are looked at before."""
    for split in context.config.rl.pass_splits:
        if split not in context.domain.splits:
            raise DataError(
                f"rl.pass_splits: {context.domain.name} has no split {split!r}, only "
                f"{', '.join(context.domain.splits)}"
            )


def _check_served(c: Config) -> None:
    """There is what a server draws from, and a key if it wants one."""
    read_key(c.endpoint.key_variable)
    if c.rl.rollouts.push == "folder":
        folder = Path(c.rl.rollouts.folder)
        check_target(folder, "rl.rollouts.folder")
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"rl.rollouts.folder: {folder} holds no model: export rl.solver_from "
                "there (--config.job=export), and start the server with it"
            )


def run(context: Context) -> dict[str, Any]:
    """Trains; saves the solver as `model/`, and Pass@N as `results.json`."""
    c = context.config
    role = context.solver(c.rl.solver_from)
    params, _ = role.load(c.rl.solver_from, "rl.solver_from", "solver")
    config = RLConfig.of(c.rl, lora=LoraConfig.of(c.lora))
    policy = {"backbone": params["backbone"]}
    if config.critic:
        key = jax.random.wrap_key_data(context.key(_BACKBONE, 1))
        head = heads.init_value_head(key, role.decoder_config.d_model)
        # Values start at zero: nothing is known of the rewards yet.
        policy["value_head"] = context.place(jax.tree.map(jnp.zeros_like, head))
    prover = _prover(context)
    guard = GameGuard.of(context, prover) if c.rl.guard.prm else None
    verifier = (
        _verifier(context, prover) if guard is None else guard.verifier(guard.state)
    )
    for name in config.rewards:
        check_source(name, verifier)
    samples, task = LineLog(context.directory / ROLLOUTS), _task(role)
    served = _rollouts(role, policy if config.lora else None, config)
    rounds = Rounds(
        task,
        config,
        policy=policy,
        seed=c.seed,
        verifier=verifier,
        guard=guard,
        implicit=_implicit(role, task, config),
        sink=lambda row: samples.append(json.dumps(row)),
        rollouts=served,
    )
    if config.references == "int8":
        del params, policy
        pretrained.forget_weights()
    try:
        state = run_loop(
            rounds.state,
            rounds.step_fn,
            workdir=context.directory,
            config=context.loop_config(config.updates),
            name=context.stage,
            samples=samples,
            finished=rounds.finished,
        )
    except BrokenModelError as error:
        raise JobError(f"{', '.join(c.rl.verifiers)}: {error}") from error
    if served is not None:
        served.close()
    return _result(role, rounds, state, guard)


def _task(role: Context) -> Task:
    domain = role.domain
    # Its parameters are replaced in every round.
    solver = LocalSolver(role.sampler, None, domain, role.writer)
    steps = role.config.builder.max_steps
    return Task(domain, domain, solver, role.decoder, role.mesh, steps)


def _rollouts(role: Context, policy: Any, config: RLConfig) -> ServedRollouts | None:
    if not config.rollouts.solver:
        return None
    return ServedRollouts(role, lambda now: lora.merged(policy, now, config.lora))


def _implicit(role: Context, task: Task, config: RLConfig) -> ImplicitPRM | None:
    if not config.implicit_from:
        return None
    params, _ = role.load(config.implicit_from, "rl.implicit_from", "solver")
    backbone = {"backbone": params["backbone"]}
    return ImplicitPRM(task, config, backbone, role.key(_BACKBONE, 2))


def _prover(context: Context) -> Verifier | None:
    name = context.config.rl.prover_values
    return run_verifier(context, (name,), "mean") if name else None


def _verifier(context: Context, prover: Verifier | None) -> Verifier | None:
    c = context.config.rl
    if not c.verifiers:
        return None
    verifier = run_verifier(context, c.verifiers, c.combine)
    if c.verifiers == (c.prover_values,):
        prover = verifier  # one model: a `Pav` says what that comes to
    return paying(c, verifier, prover)


def _result(
    role: Context, rounds: Rounds, state: LoopState, guard: GameGuard | None
) -> dict[str, Any]:
    """Saves what was learned, measures Pass@N, and says what stopped it."""
    watch, c = state.watch, role.config.rl
    alarm = ALARMS[int(watch.stopped) - 1] if watch.stopped else ""
    trained = state.policy.params
    if alarm or c.keep == "best":
        trained = role.place(state.best)
    if alarm:
        log.warning(
            "%s: stopped by rl.alarm.%s; what is kept is of round %d, dev accuracy %s",
            role.stage,
            alarm,
            int(watch.best_step),
            f"{float(watch.best):.3f}" if watch.best >= 0 else "unknown",
        )
    merged = rounds.merged(trained)
    role.save({"backbone": merged["backbone"]}, "solver")
    if "lora" in trained:
        adapter = {"lora": trained["lora"]}
        role.save(adapter, "solver", folder="adapter", on=c.solver_from)
    if guard is not None:
        guard.save(state.guard)
    if rounds.implicit is not None and rounds.implicit.learns:
        learned = rounds.implicit.merged(state.implicit)
        role.save(learned, "solver", folder="implicit/model")
    records = _pass_records(role, rounds, merged["backbone"]) if c.pass_samples else []
    if hosts.leader():
        write_results(role.directory / RESULTS, records)
    best = {"best_round": int(watch.best_step), "best_dev": float(watch.best)}
    return {"alarm": alarm} | (best if watch.best >= 0 else {})


def _pass_records(role: Context, rounds: Rounds, after: Any) -> list[Record]:
    """Pass@N of the solver before and after, on the same problems and draws."""
    c, domain, task = role.config.rl, role.domain, rounds.task
    sizes = [1 << k for k in range(c.pass_samples.bit_length())]
    records: list[Record] = []
    before = rounds.ref["backbone"]
    if c.references == "int8":
        before = role.load(c.solver_from, "rl.solver_from", "solver")[0]["backbone"]
    for index, split in enumerate(c.pass_splits):
        problems = list(domain.problems(split, c.pass_problems))
        key = role.key(_PASS, index)
        for when, backbone in ((BEFORE, before), (AFTER, after)):
            solved = task.solve(backbone, problems, c.pass_samples, key)
            right = task.right(problems, solved)
            found = {
                f"pass@{n}": intervals.bootstrap(np.asarray(pass_at_n(right, n), float))
                for n in sizes
            }
            records += metric_records(SET, split, "", found, part=when)
            text = ", ".join(f"{k} {v.mean:.3f}" for k, v in found.items())
            log.info("%s: %s, %s: %s", role.stage, split, when, text)
    return records
