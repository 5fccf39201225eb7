"""The compiled steps of a stage on shapes alone: what the jobs run, without an array.

Every function here is the job's own; only its arguments are made up: batches as large
as the config allows, parameters as the architecture has them. What a job computes
beside them is named, in `left_out`.

Axes: B rows, T tokens, S steps, K solutions of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from aprm_jax.config import Config
from aprm_jax.config.addresses import is_address
from aprm_jax.config.groups import BuilderConfig
from aprm_jax.config.roles import alike
from aprm_jax.game.config import GameConfig
from aprm_jax.game.update import (
    GameState,
    GeneratorBatch,
    References,
)
from aprm_jax.game.update import make_update as make_game_update
from aprm_jax.jobs import backbones, plan_reading, plan_shapes, prm, sft, teach
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.plan_shapes import KEY, array, model, share
from aprm_jax.jobs.records.prm import SAMPLED
from aprm_jax.models import lora
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.rl import rounds as rl_rounds
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.trajectories import FEWEST, SHORTEST, SolutionRows, row_length
from aprm_jax.rl.update import PolicyBatch
from aprm_jax.training.forecast import Program, abstract, shard_bytes
from aprm_jax.training.mesh import batch_shards
from aprm_jax.verifiers.step_loss import PrmBatch

# Jobs that compute nothing on a device, or no more than a model that they read.
ON_THE_HOST = ("prepare", "export", "report")
Planner = Callable[[Context, jax.sharding.Mesh], list[Program]]


def programs(context: Context, job: str, mesh: jax.sharding.Mesh) -> list[Program]:
    """The steps of a stage that can be planned; none of a job that is not known."""
    planners: dict[str, Planner] = {
        "sft": _sft,
        "teach": _teach,
        "prm": _prm,
        "pav": _pav,
        "aprm": _game,
        "rl": _rl,
        "attack": _attack,
        "evaluate": _evaluate,
        "search": _solved,
        "score": _scored,
        "select": _scored,
    }
    return planners[job](context, mesh) if job in planners else []


def left_out(config: Config, job: str) -> list[str]:
    """What a stage computes on devices beside its `programs`, in words."""
    named: dict[str, Callable[[Config], Iterator[str]]] = {
        "sft": lambda c: iter(()),
        "prm": lambda c: iter(()),
        "aprm": _beside_game,
        "teach": _beside_teaching,
        "pav": _beside_values,
        "rl": _beside_rl,
        "attack": lambda c: _other_prms("attack.verifiers", c.attack.verifiers),
        "evaluate": _beside_evaluation,
        "search": _beside_search,
        "score": lambda c: _other_prms("score.verifiers", c.score.verifiers),
        "select": lambda c: _other_prms("select.verifiers", c.select.verifiers),
    }
    if job in ON_THE_HOST:
        return []
    return list(named[job](config)) if job in named else [f"all of job={job}"]


def updates(config: Config, job: str) -> int:
    """How many updates a stage makes, at most; 0 where the config does not say."""
    c, rl, game = config, config.rl, config.game
    counts = {
        "sft": c.sft.updates,
        "teach": c.teach.updates + c.teach.rounds * c.teach.round_updates,
        "prm": c.prm.updates,
        "pav": c.prm.updates,
        "aprm": game.updates * game.epochs,
        "rl": rl.updates * rl.epochs * rl.minibatches,
        "evaluate": len(c.evaluate.attack_prms) * c.evaluate.attack_updates,
    }
    return counts.get(job, 0)


def _beside_game(c: Config) -> Iterator[str]:
    if c.game.epochs > 1:
        yield "log-probabilities of replies before the first epoch"
    if c.game.static_probe:
        yield "the probe of static corruptions, as large as a score at most"
    if c.game.explore.helped:
        yield f"game.explore.solver={c.game.explore.solver!r}, which is held besides"


def _beside_teaching(c: Config) -> Iterator[str]:
    if c.sft.solver_share > 0:
        yield f"the samples of prm.solver={c.prm.solver!r} that corruptions begin with"


def _beside_values(c: Config) -> Iterator[str]:
    if c.pav.prover not in ("", c.pav.solver, backbones.ENDPOINT):
        yield f"the completions of pav.prover={c.pav.prover!r}, if of another size"


def _beside_rl(c: Config) -> Iterator[str]:
    if c.rl.guard.prm:
        yield "the game of rl.guard.prm: plan it as a stage of job=aprm"
    if "implicit" in c.rl.rewards:
        yield f"the model that pays, rl.implicit_from={c.rl.implicit_from!r}"
    yield from _other_prms("rl.verifiers", c.rl.verifiers)
    if c.rl.prover_values:
        yield f"the scores of rl.prover_values={c.rl.prover_values!r}"


def _beside_evaluation(c: Config) -> Iterator[str]:
    yield from _other_prms("evaluate.prms", c.evaluate.prms)
    if c.evaluate.solver:
        yield "the likelihood of solutions under evaluate.solver"
    for name in c.evaluate.solvers:
        yield f"the samples of {name!r} of evaluate.solvers, if of another size"


def _beside_search(c: Config) -> Iterator[str]:
    yield "what a search's sessions gather and read between steps"
    yield from _other_prms("search.verifiers", c.search.verifiers)


def _other_prms(field: str, names: tuple[str, ...]) -> Iterator[str]:
    """Verifiers that are no PRM of the config's own size, as far as a name tells."""
    for name in names:
        scheme = name.partition(":")[0]
        if is_address(name) or scheme in ("oracle", "scores"):
            continue  # computes elsewhere, or nothing
        if scheme == "likelihood" or "/" in name:
            yield f"the scores of {name!r} of {field}, which may be of another size"


def _sft(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    c = context.config
    role = "generator" if c.sft.task == "perturb" else "solver"
    config = plan_shapes.architecture(context, role)
    whole = role == "generator"
    params = plan_shapes.generator(config)
    if not whole:
        params = {"backbone": params["backbone"]}
    tx = sft.optimiser(c.sft)
    update = sft.compiled_update(c.sft, Decoder(config), tx, mesh)
    state = plan_shapes.started(mesh, params, tx)
    size = share(mesh, c.sft.batch_size, c.sft.microbatches)
    batch = plan_shapes.rows(mesh, size, c.builder.buckets[-1], c.builder.max_steps)
    holds = {"parameters": state.params, "optimiser": state.opt, "batch": batch}
    joint = Program("update", update, (state, batch), holds)
    sampled = whole and c.sft.solver_share > 0 and not c.sft.data
    return [joint, *(plan_reading.solver(context, mesh) if sampled else ())]


def _teach(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """Updates of a pupil, its replies, and an R that must believe them."""
    c = context.config
    config, adapters = (
        plan_shapes.architecture(context, "generator"),
        lora.LoraConfig.of(c.lora),
    )
    full = abstract(mesh, plan_shapes.generator(config))
    tx = teach.optimiser(c.sft, c.teach.updates)
    update = teach.compiled_update(c.sft, Decoder(config), tx, mesh, adapters)
    state = plan_shapes.started(mesh, plan_shapes.player(full, adapters), tx)
    size = share(mesh, c.sft.batch_size, c.sft.microbatches)
    batch = plan_shapes.rows(mesh, size, c.builder.buckets[-1], c.builder.max_steps)
    base = full if adapters else None
    holds = _learner_holds(state, base, batch)
    joint = Program("update", update, (state, batch, base), holds)
    pupil = model(mesh, full, state.params, adapters)["backbone"]
    # What it was made of stays, and of the updates' state the parameters.
    kept = shard_bytes((full, state.params))
    found = [joint, *plan_reading.samples(context, mesh, config, pupil, kept)]
    if c.teach.prm_from:
        score = plan_reading.scores(context, mesh)
        found.append(dataclasses.replace(score, beside=kept))
    return found


def _learner_holds(state: Any, ref: Any, batch: Any) -> dict[str, Any]:
    return {
        "parameters": state.params,
        "optimiser": state.opt,
        "references": ref,
        "batch": batch,
    }


def _prm(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    c = context.config
    found = _prm_update(context, mesh, c.prm.negatives == "labels")
    if c.prm.negatives in SAMPLED:
        found += plan_reading.solver(context, mesh)
    if c.prm.hard_share > 0:
        state, ref, *_ = found[0].args
        kept = shard_bytes((state, ref))
        found.append(plan_reading.scores(context, mesh, resident=kept))
    return found


def _pav(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    return [*_prm_update(context, mesh, True), *plan_reading.solver(context, mesh)]


def _prm_update(
    context: Context, mesh: jax.sharding.Mesh, labels: bool
) -> list[Program]:
    """R's update on packed rows of labels, or on a step a row."""
    c = context.config
    config = plan_shapes.architecture(context, "prm")
    tx = prm.optimiser(c.prm)
    adapters = lora.LoraConfig.of(c.lora)
    update = prm.compiled_update(c.prm, Decoder(config), tx, mesh, adapters)
    full = abstract(mesh, plan_shapes.scoring(config, c.prm.head))
    state = plan_shapes.started(mesh, plan_shapes.player(full, adapters), tx)
    ref = full if adapters or c.prm.beta > 0 else None
    size = share(mesh, c.prm.batch_size, c.prm.microbatches)
    rows = plan_shapes.rows(
        mesh, size, c.builder.buckets[-1], c.builder.max_steps if labels else 1
    )
    batch = PrmBatch(rows, None if labels else array(mesh, np.int32, size, 1))
    holds = _learner_holds(state, ref, batch)
    return [Program("update", update, (state, ref, batch, KEY), holds)]


def _game(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    return _played(context, mesh, not context.config.game.freeze_generator, True)


def _attack(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """A fresh Generator against an R of the config's size, which does not learn."""
    return _played(context, mesh, True, False)


def _played(
    context: Context, mesh: jax.sharding.Mesh, train_generator: bool, train_prm: bool
) -> list[Program]:
    """The joint update, R's scores and G's samples, all players in memory."""
    c = context.config
    roles = ("generator", "prm")
    own, theirs = (plan_shapes.architecture(context, role) for role in roles)
    config = GameConfig.of(c.game, lora=lora.LoraConfig.of(c.lora))
    begun = abstract(mesh, _begun(context, own, theirs))
    # An attacker's are full, see `evals.robustness`.
    how = config.references if train_prm else "full"
    models = (begun.generator, begun.prm)
    refs = References(*(plan_shapes.kept(mesh, one, how) for one in models))
    transforms = config.optimisers()
    state = GameState(
        *(
            plan_shapes.started(mesh, plan_shapes.player(full, config.lora), tx)
            for full, tx in zip(models, transforms, strict=True)
        )
    )
    update = make_game_update(
        Decoder(own),
        config.update(c.prm.head, train_generator, train_prm),
        *transforms,
        mesh,
        prm_decoder=Decoder(theirs),
    )
    batches = _game_batches(context, mesh, own.reads_branches)
    twice = _shared(context, refs)
    players = (state.generator, state.prm)
    holds = {
        "parameters": [player.params for player in players],
        "optimiser": [player.opt for player in players],
        "references": _once(refs) if twice else refs,
        "batch": batches,
    }
    joint = Program("update", update, (state, refs, *batches, KEY), holds, twice)
    kept = shard_bytes((state, holds["references"]))
    g, r = (
        model(mesh, full, player.params, config.lora)
        for full, player in zip(models, players, strict=True)
    )
    return [
        joint,
        plan_reading.scores(context, mesh, r, kept),
        *plan_reading.samples(context, mesh, own, g["backbone"], kept),
    ]


def _begun(context: Context, own: DecoderConfig, theirs: DecoderConfig) -> References:
    head = context.config.prm.head
    return References(plan_shapes.generator(own), plan_shapes.scoring(theirs, head))


def _game_batches(
    context: Context, mesh: jax.sharding.Mesh, branch: bool
) -> tuple[GeneratorBatch, PrmBatch]:
    """What both players learn from in a round."""
    c = context.config
    # What is imitated is set apart by weights, which cost nothing.
    replies = c.game.generator_rows + c.game.generator_replay
    size = share(mesh, replies, c.game.microbatches)
    labelled = c.game.prm_clean + c.game.prm_fresh + c.game.prm_replay
    prm_size = share(mesh, labelled, c.game.microbatches)
    length = c.builder.buckets[-1]
    return (
        _replies(mesh, size, length, c.builder.max_new_tokens, branch),
        PrmBatch(
            plan_shapes.rows(mesh, prm_size, length, 1),
            array(mesh, np.int32, prm_size, 1),
        ),
    )


def _shared(context: Context, refs: References) -> Any:
    """A base that both references are: one array in memory, if one model is both."""
    c = context.config
    one = c.game.generator_from == c.game.prm_from == backbones.BACKBONE
    if one and c.generator.backbone == c.prm.backbone:
        return refs.prm["backbone"]
    return ()


def _once(refs: References) -> References:
    """References whose common backbone is told once."""
    return References(refs.generator, {"head": refs.prm["head"]})


def _replies(
    mesh: jax.sharding.Mesh, size: int, length: int, width: int, branch: bool
) -> GeneratorBatch:
    """A reply a row: as many rows as there can be, where no two share a prompt."""
    rows = plan_shapes.rows(mesh, size, length, 1)
    if branch:
        rows = dataclasses.replace(rows, ends=rows.tokens)
    wide = [array(mesh, np.float32, size, 1, width) for _ in range(2)]
    return GeneratorBatch(
        rows=rows,
        columns=array(mesh, np.int32, size, 1, width),
        rewards=wide[0],
        weight=array(mesh, np.float32, size, 1),
        group=array(mesh, np.int32, size, 1),
        sampler_logprobs=wide[1],
        old_logprobs=None,
    )


def _rl(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """A policy's update, what models say of its solutions, and R's scores."""
    c = context.config
    config = RLConfig.of(c.rl, lora=lora.LoraConfig.of(c.lora))
    decoder = plan_shapes.architecture(context, "solver")
    full = plan_shapes.generator(decoder)
    if not config.critic:
        full = {"backbone": full["backbone"]}
    begun = abstract(mesh, full)
    ref = plan_shapes.kept(mesh, begun, config.references)
    tx = config.optimiser()
    state = plan_shapes.started(mesh, plan_shapes.player(begun, config.lora), tx)
    most = c.builder.max_steps * c.builder.max_new_tokens
    update = rl_rounds.compiled_update(config, Decoder(decoder), tx, mesh, most)
    batch = _solutions(context, config, mesh, decoder.reads_branches)
    holds = _learner_holds(state, ref, batch)
    behind = state.params if config.overlap else ()
    joint = Program(
        "update", update, (state, batch, ref), holds, beside=shard_bytes(behind)
    )
    policy = model(mesh, begun, state.params, config.lora)["backbone"]
    scored = any(not is_address(name) for name in config.verifiers)
    prm = _scored(context, mesh) if scored else []
    kept = shard_bytes((state, ref, behind, [one.holds["parameters"] for one in prm]))
    theirs = [
        dataclasses.replace(one, beside=kept - shard_bytes(one.holds["parameters"]))
        for one in prm
    ]
    found = [joint, *theirs]
    if not config.rollouts.solver:  # no server draws them
        found += plan_reading.samples(context, mesh, decoder, policy, kept)
    return found


def _solutions(
    context: Context, config: RLConfig, mesh: jax.sharding.Mesh, branch: bool
) -> PolicyBatch:
    """A minibatch of solutions as long as a prompt and a step leave room for."""
    c = context.config.builder
    _, slots = rl_rounds.dealt(config, batch_shards(mesh))
    size, many = slots.shape[0] // config.minibatches, slots.shape[1]
    drawn, length = _longest(c, many)
    width = row_length(drawn, FEWEST)
    rows = plan_shapes.rows(
        mesh, size, row_length(length, SHORTEST), many * c.max_steps
    )
    if branch:
        rows = dataclasses.replace(rows, ends=rows.tokens)

    def tokens(dtype: Any = np.float32) -> Any:
        return array(mesh, dtype, size, many, width)

    once = config.epochs * config.minibatches == 1
    old = config.critic or not once or (config.kl_weight and config.kl_as == "reward")
    return PolicyBatch(
        read=SolutionRows(rows, tokens(np.int32), tokens(np.int32), tokens()),
        weight=array(mesh, np.float32, size, many),
        advantages=tokens(),
        ref_logprobs=tokens(),
        old_logprobs=tokens() if old else None,
        returns=tokens() if config.critic else None,
    )


def _longest(c: BuilderConfig, many: int) -> tuple[int, int]:
    """Tokens of the longest solution, and of a row of so many that share a question.

    A prompt takes the longest bucket at most, and a step follows it. With a window
    each step has a prompt of its own.
    """
    most, last = c.max_steps * c.max_new_tokens, c.buckets[-1] + c.max_new_tokens
    if c.window:
        return most, many * c.max_steps * last
    tokens = min(most, last)
    return tokens, last + (many - 1) * tokens


def _evaluate(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """Scores, samples, and attacks by a fresh Generator."""
    if not context.config.evaluate.attack_prms:
        return _solved(context, mesh)
    # The attacker's own scores and samples are as large as those of the evaluation.
    attacked = _attack(context, mesh)
    same = alike(context.config, "solver", "generator")
    return attacked if same else [attacked[0], *_solved(context, mesh)]


def _solved(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    return [*_scored(context, mesh), *plan_reading.solver(context, mesh)]


def _scored(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    return [plan_reading.scores(context, mesh)]
