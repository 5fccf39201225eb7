"""What stages ask for to learn from is counted, whichever way they learn."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import command
import jax
import pytest
import tiny_game
import tiny_run
import tiny_solver
from safetensors import safe_open

from aprm_jax import __version__
from aprm_jax.config import (
    default_config,
    frozen,
    override,
    run_local,
    set_field,
    set_stages,
)
from aprm_jax.jobs import of_run
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.spent import CountedOracle, CountedSolver, Spent
from aprm_jax.models.flops import Compute
from aprm_jax.solvers.protocol import Solution
from aprm_jax.training.metrics import Metrics
from aprm_jax.training.workdir import done_info, mark_done, open_workdir

FILE = command.REPOSITORY / "benchmarks" / "compare_table.py"


def _table():
    spec = importlib.util.spec_from_file_location("compare_table", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spending_adds_up_over_steps_and_stages(tmp_path):
    metrics = Metrics(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        values = {"game/oracle_calls": 10.0 * step, "game/sampled_tokens": 7.0}
        metrics.write(step, values | {"prm/oracle_calls": 1.0})
    metrics.close()
    total = Spent.of_metrics(tmp_path, "game")
    assert total == Spent(60, 21)
    total.add(Spent.of_metrics(tmp_path, "prm"))
    assert total == Spent(oracle_calls=63, sampled_tokens=21)
    total.add(Compute.of(100.0, trained=2, read=5))  # a pass and its gradient are three
    assert total.to_json() == {
        "oracle_calls": 63,
        "sampled_tokens": 21,
        "trained_tokens": 2,
        "read_tokens": 5,
        "flops": 3 * 200 + 500,
    }


def test_an_oracle_and_a_solver_count_what_they_are_asked():
    domain = Context(tiny_run.config(), Path("nowhere"), "stage").domain
    oracle = CountedOracle(domain.oracle)
    verdict = oracle.judge("1 + 2 * 3", (), None, "1 + 6")
    assert verdict == domain.oracle.judge("1 + 2 * 3", (), None, "1 + 6")

    class Solver:
        def solve(self, starts, count, key, *, max_steps):
            drawn = ((1, 2), (3,) * max_steps)
            return [[Solution(q, ("a", "b"), True, drawn)] * count for q, _ in starts]

    solver = CountedSolver(Solver())
    assert len(solver.solve([("q", ()), ("r", ())], 3, None, max_steps=5)[1]) == 3
    assert (oracle.calls, solver.tokens) == (1, 2 * 3 * 7)
    assert solver.spent == Spent(sampled_tokens=42)  # who draws is not known


def test_a_solver_here_reads_its_prompts_and_what_it_draws():
    local = tiny_solver.solver(tiny_game.builder(window=1))
    starts = [("1 + 2", ()), ("3 * 4 + 5", ())]
    local.solve(starts, 1, jax.random.key(0), max_steps=1)  # before anybody counts
    counted = CountedSolver(local)
    found = counted.solve(starts, 2, jax.random.key(1), max_steps=2)
    drawn = [step for solutions in found for s in solutions for step in s.tokens]
    prompts = {tuple(local.builder.context(q, ())) for q, _ in starts}
    for s in (s for solutions in found for s in solutions if len(s.tokens) == 2):
        prompts.add(tuple(local.builder.context(s.question, s.steps[:1])))
    assert len(prompts) > 2  # each step sees the one before it alone
    read = sum(map(len, prompts)) + sum(map(len, drawn))
    size = sum(x.size for x in jax.tree.leaves(local.backbone))
    size -= local.backbone["embed"]["embedding"].size  # which is not its head
    assert counted.spent == Spent(
        sampled_tokens=counted.tokens, read_tokens=read, flops=2 * size * read
    )


def test_a_solver_counts_what_its_cache_lacks_as_a_ledger_does():
    local = tiny_solver.solver(tiny_game.builder(window=None))
    rows = local.begin([("1 + 2", ()), ("3 * 4 + 5", ())])
    parents, read = [0, 0, 1], []
    for k in range(2):
        before = local.tokens_read
        rows, _ = local.extend(rows, parents, range(3), jax.random.key(k))
        read.append((local.tokens_read - before, sum(rows.prefilled)))
        parents = [0, 1, 2]
    assert read[0][0] > 0 and all(mine == other for mine, other in read), read


def _config():
    config = default_config()
    run_local(config)
    for name, value in {
        "builder.buckets": (64,),
        "builder.line_stride": 0,
        "sft.pool": 4,
        "sft.solver_share": 0.5,
        "prm.updates": 3,
        "prm.pool_problems": 16,
        "prm.mc_completions": 2,
        "prm.init_from": "solver",
        "search.verifiers": ("static",),
        "search.problems": 2,
        "search.bootstrap": 10,
        "game.updates": 2,
        "game.prm_from": "static",
    }.items():
        set_field(config, name, value)
    ways = {"static": "static", "oracle": "oracle", "mc": "monte_carlo"}
    set_stages(
        config,
        (
            "solver:sft",
            "generator:sft",
            *(f"{stage}:prm" for stage in ways),
            "trees:search",
            "aprm:aprm",
        ),
    )
    perturb = {"task": "perturb", "init_from": "solver", "updates": 3}
    override(config, "generator", {f"sft.{k}": v for k, v in perturb.items()})
    for stage, negatives in ways.items():
        override(config, stage, {"prm.negatives": negatives})
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("run")
    open_workdir(root, _config().to_dict(), __version__)
    code, told = command.call(root, f"--workdir={root}", command.CACHE)
    assert code == 0, told
    return root


def test_every_stage_says_what_it_spent(run):
    found = {
        stage: Spent(**done_info(run / stage)["spent"])
        for stage in ("solver", "generator", "static", "oracle", "mc", "trees", "aprm")
    }
    taught = found["solver"]
    assert taught == Spent(trained_tokens=taught.trained_tokens, flops=taught.flops)
    # Three updates of eight corruptions, all of which the oracle has seen.
    assert found["static"].oracle_calls >= 3 * 8
    assert found["static"].sampled_tokens == 0
    for stage in ("generator", "oracle", "aprm"):
        assert found[stage].oracle_calls > 0 and found[stage].sampled_tokens > 0
    # Completions cost tokens, and answers are all that they are judged by.
    assert found["mc"].oracle_calls == 0
    assert found["mc"].sampled_tokens > found["oracle"].sampled_tokens
    assert found["trees"].oracle_calls == 0
    rows = (run / "trees" / "solutions.jsonl").read_text().splitlines()
    drawn = sum(json.loads(row)["ledger"]["decoded"] for row in rows)
    assert found["trees"].sampled_tokens == drawn > 0


def _numbers(folder: Path) -> tuple[int, int]:
    """How many parameters a model's backbone has, and those of its embedding."""
    with safe_open(folder / "params.safetensors", "numpy") as file:
        sizes = {name: file.get_tensor(name).size for name in file.keys()}  # noqa: SIM118
    embedding = [n for name, n in sizes.items() if "embed" in name]
    heads = sum(n for name, n in sizes.items() if "backbone" not in name)
    return sum(sizes.values()) - heads, sum(embedding)


def test_an_update_costs_six_operations_for_each_parameter_and_token(run):
    context = Context(frozen(of_run.get_config(str(run))), run, "solver").of("solver")
    c, builder = context.config, context.builder
    rows = []
    for i in range(c.sft.updates * c.sft.batch_size):
        problem = context.domain.corpus(i)
        steps = problem.steps[: c.builder.max_steps]
        for k in range(len(steps)):
            rows.append(builder.step(problem.question, steps[:k], steps[k]))
    tokens = sum(len(row) for row in rows if builder.fits(row))
    size, _ = _numbers(run / "solver" / "model")  # its embedding is its head
    spent = Spent(**done_info(run / "solver")["spent"])
    assert (spent.trained_tokens, spent.flops) == (tokens, 6 * size * tokens)


def test_a_prm_pays_for_what_it_reads_too(run):
    size, embedding = _numbers(run / "static" / "model")
    for stage in ("static", "oracle", "mc", "aprm"):
        spent = Spent(**done_info(run / stage)["spent"])
        tokens = 6 * spent.trained_tokens + 2 * spent.read_tokens
        # Where a language model reads as well, its head multiplies.
        low, high = (size - embedding) * tokens, size * tokens
        assert spent.trained_tokens and low <= spent.flops <= high
        assert (spent.flops == low) == (stage == "static")
    rows = (run / "trees" / "solutions.jsonl").read_text().splitlines()
    ledgers = [json.loads(row)["ledger"] for row in rows]
    spent = Spent(**done_info(run / "trees")["spent"])
    assert spent.flops == sum(round(ledger["flops"]) for ledger in ledgers) > 0
    read = ("decoded", "prefilled", "verifier_tokens")
    assert spent.read_tokens == sum(ledger[k] for ledger in ledgers for k in read)


def test_a_row_of_the_table_has_what_all_its_stages_took(run):
    table, needed = _table(), ("generator", "static", "aprm")
    infos = [done_info(run / stage) for stage in needed]
    whole = table.costs_of(run, "aprm")
    for name in infos[0]["spent"]:  # the solver, which every row has, not among them
        assert whole[name] == sum(info["spent"][name] for info in infos)
    assert whole["cpu_seconds"] == sum(info["cpu_seconds"] for info in infos)
    assert whole["updates"] == 2 + 3  # of the game, and of what R starts from
    alone = table.costs_of(run, "solver")
    assert alone == table.own_costs(run, "solver")
    assert alone["flops"] == done_info(run / "solver")["spent"]["flops"] > 0
    mean = table.mean_costs([{"flops": 1.0}, {"flops": 4.0}])
    assert mean == {"flops": 2.5}


def test_what_nothing_was_trained_for_has_no_cost_in_the_table():
    table = _table()
    costs = {"oracle_calls": 1500.0, "sampled_tokens": 4000.0, "updates": 400.0}
    results = {"spent": {"aprm": costs, "majority@8": None}}
    assert table._spent_cells(results, "aprm") == ["400", "1.5 k", "4.0 k"]
    assert table._spent_cells(results, "majority@8") == ["–"] * 3
    assert table._spent_cells({}, "aprm") == []


def test_a_run_of_an_older_version_has_no_figure(run, tmp_path):
    table, old = _table(), tmp_path / "old"
    open_workdir(old, _config().to_dict(), "test")
    (old / "solver").mkdir()
    mark_done(old / "solver", {"job": "sft", "spent": {"oracle_calls": 0}})
    assert table.own_costs(old, "solver") is table.costs_of(old, "solver") is None
    assert table.mean_costs([None, {"flops": 1.0}]) is None
