"""Values from completions: rollouts, counts of every prefix, a PRM that learns Q."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aprm_jax.config import ConfigError
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.rows import StepRow
from aprm_jax.data.trees import tree_rows
from aprm_jax.files import atomic_write, to_json
from aprm_jax.jobs import prm
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.pav_file import LABELS, LabelFile
from aprm_jax.jobs.prm_labels import branches, packed_batches, row_shape
from aprm_jax.jobs.records.pav import PavConfig
from aprm_jax.jobs.solvers import open_solver
from aprm_jax.jobs.spent import Spent
from aprm_jax.models.io import load_model
from aprm_jax.solvers.named import solver_of
from aprm_jax.solvers.protocol import Solver
from aprm_jax.training import hosts
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.labelled import by_half, class_weights
from aprm_jax.verifiers.progress import ProverStatistics, best_of, prover_statistics
from aprm_jax.verifiers.step_loss import THREE_CLASS
from aprm_jax.verifiers.value_labels import Coverage, ValueSampler, ValueTree

SUMMARY = "summary.json"
_KEY = 70  # of the random key, beside those of other stages
_HOPELESS = 64  # rollouts of which none is finished: more will not help
_STREAM = 9  # of the keys of updates


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """What the stage's settings need of each other.

    Raises:
      ConfigError: names the field.
    """
    del earlier
    c = context.config
    if c.prm.head == THREE_CLASS:
        raise ConfigError(
            f"prm.head={c.prm.head!r} has a class of neutral steps, and a value is a "
            f"probability: set prm.head='two_class' or 'token' for {context.stage}"
        )
    if c.prm.objective != "cross_entropy":
        raise ConfigError(
            f"prm.objective={c.prm.objective!r} learns verdicts; values need "
            f"prm.objective='cross_entropy' for {context.stage}"
        )


def run(context: Context) -> dict[str, Any]:
    """Samples and counts, says what the prover is worth, trains Q, saves `model/`."""
    context = context.of("prm")
    trees = _labelled(context)
    spent = _spent(trees)
    context.spent.sampled_tokens += spent["tokens"]
    _check_spent(context, spent)
    statistics = _statistics(context, trees)
    rows, labels = value_rows(context, trees)
    counts = {
        **spent,
        "questions": len(trees),
        "prefixes": sum(len(tree.nodes) for tree in trees),
        "labels": len(labels),
        "low_labels": int((labels < 0.5).sum()),
    }
    prover = {**dataclasses.asdict(statistics), "reading": statistics.reading}
    summary = {"labels": counts, "prover": _plain(prover)}
    if hosts.leader():
        atomic_write(context.directory / SUMMARY, to_json(summary))
    try:
        weights = class_weights(by_half(labels), 2, context.config.prm.balance)
    except ValueError:
        side = "below" if (labels < 0.5).all() else "at or above"
        raise JobError(
            f"{context.stage}: all {len(labels)} values are {side} 0.5, so there is "
            "nothing to tell apart: take another solver, or other or more pav.problems"
        ) from None
    c = context.config.prm
    params, _ = prm.initial_prm(context, c.init_from, "prm.init_from", c.head)
    size = prm.whole_batch(context)
    batches = packed_batches(context, size, rows, weights, halves=True)
    step_fn = prm.update_step(context, params, batches, _STREAM)
    params = prm.train(context, params, step_fn)
    context.spent.add(Spent.of_metrics(context.directory, "prm"))
    context.save(params, "prm", c.head, aggregation="last", values=True)
    return counts


def _labelled(context: Context) -> list[ValueTree]:
    """The prefixes of all questions with their counts, those that are there among them.

    A batch of questions is redone whole: the rounding of a row depends on who lies
    beside it.
    """
    c = context.config.pav
    problems = [context.domain.train((1 << 40) + i) for i in range(c.problems)]
    file = LabelFile(context, problems)
    known = hosts.from_leader(
        f"labels of {context.stage}", lambda: [tree.to_json() for tree in file.read()]
    )
    trees = [ValueTree.from_json(tree) for tree in known]
    if len(trees) == len(problems):
        return trees
    sampler = _sampler(context)
    for start in range(len(trees), len(problems), c.batch):
        part = problems[start : start + c.batch]
        key = jax.random.fold_in(
            jax.random.wrap_key_data(context.key(_KEY)), start // c.batch
        )
        measured = _share(c, start + len(part)) - _share(c, start)
        new = sampler.trees(part, jax.random.key_data(key), measured)
        file.add(new, sampler.timer)
        trees += new
        spent = _spent(trees)
        if spent["seeds"] >= _HOPELESS and not spent["finished"]:
            break
    return trees


def _share(c: PavConfig, done: int) -> int:
    """How many of the first questions are measured: spread evenly over all."""
    return min(c.measured, c.problems) * done // c.problems


def _sampler(context: Context) -> ValueSampler:
    c = context.config
    base = open_solver(context, c.pav.solver, "pav.solver")
    coverage = Coverage(
        n_cov=c.pav.n_cov,
        n_mc=c.pav.n_mc,
        max_steps=c.builder.max_steps,
        how=c.pav.sampling,
        high=c.pav.high,
        prefixes=c.pav.prefixes,
        temperature=c.pav.temperature,
        seed=c.seed,
    )
    prover = None if _is_base(context) else _prover(context)
    return ValueSampler(base, prover, context.domain, coverage, PhaseTimer())


def _is_base(context: Context) -> bool:
    c = context.config.pav
    return c.prover in ("", c.solver)


def _prover(context: Context) -> Solver:
    """Another policy; a model in this process may have another architecture."""
    source = context.config.pav.prover
    if source in (BACKBONE, ENDPOINT):
        return open_solver(context, source, "pav.prover")
    params, spec, tokenizer = load_model(context.model_path(source, "pav.prover"))
    if spec.kind != "solver":
        raise ConfigError(f"pav.prover={source!r} is a {spec.kind}; it must be solver")
    local = solver_of(context.place(params), spec, tokenizer)
    return dataclasses.replace(local, grader=context.domain)


def _spent(trees: Sequence[ValueTree]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tree in trees:
        total.update(tree.spent)
    return dict(total)


def _check_spent(context: Context, spent: Mapping[str, int]) -> None:
    """There is something to learn from.

    Raises:
      JobError: names what there is none of, and what helps.
    """
    c = context.config
    log.info(
        "%s: %d seed rollouts, %d of them finished; %d completions, %d with an answer; "
        "%d tokens drawn",
        context.stage,
        *(spent[k] for k in ("seeds", "finished", "completions", "answered", "tokens")),
    )
    if not spent["finished"]:
        raise JobError(
            f"none of {spent['seeds']} seed rollouts of pav.solver={c.pav.solver!r} is "
            "finished: it concludes nothing in "
            f"builder.max_steps={c.builder.max_steps} steps of "
            f"builder.max_new_tokens={c.builder.max_new_tokens} tokens. Raise these, "
            f"or take another solver; then delete {context.directory / LABELS}"
        )
    if not spent["answered"]:
        raise JobError(
            f"none of {spent['completions']} completions states an answer, so nothing "
            "can be decided: is it the right solver and the right domain.name? Then "
            f"delete {context.directory / LABELS}"
        )


def _statistics(context: Context, trees: Sequence[ValueTree]) -> ProverStatistics:
    """How the prover goes with the base; says it, with the paper's reading."""
    c = context.config.pav
    other = not _is_base(context)
    starts = np.array([tree.nodes[0].value for tree in trees])
    start = float(np.mean(starts if other else best_of(starts, c.best_of)))
    states = [s for tree in trees for s in tree.siblings(c.best_of, other)]
    same = not other and (c.best_of == 1 or c.prover == c.solver)
    found = prover_statistics(states, start, same)
    who = c.prover if other or c.prover else f"the best of {c.best_of} of {c.solver}"
    log.info(
        "%s: prover: %s; over %d states Var[A^mu] %.4g, E[A^mu A^pi] %.4g (base: "
        "Var[A^pi] %.4g), mean V^mu %.3f",
        context.stage,
        who,
        found.states,
        found.distinguishability,
        found.alignment,
        found.base,
        found.start,
    )
    say = log.info if found.good else log.warning
    say("%s: %s", context.stage, found.reading)
    return found


def value_rows(
    context: Context, trees: Sequence[ValueTree]
) -> tuple[list[StepRow], np.ndarray]:
    """The rows to train on, bare questions among them, and the labels in them.

    Raises:
      JobError: none fits.
    """
    builder, shape = context.builder, row_shape(context)
    if builder.window is not None:
        log.warning(
            "%s: builder.window=%d: a value depends on the question, which the model "
            "does not see behind so many lines: after a mistake it cannot tell a right "
            "step from one that arrives. Set builder.window=0 for this stage",
            context.stage,
            builder.window,
        )
    labels = [(tree.question, *label) for tree in trees for label in tree.labels()]
    # The mean, where a question was drawn twice.
    by_text: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for question, steps, value in labels:
        by_text.setdefault((question, steps), []).append(value)
    values = {place: float(np.mean(found)) for place, found in by_text.items()}
    rows = [builder.bare(q, value) for (q, steps), value in values.items() if not steps]
    stepped = [(q, s, value) for (q, s), value in values.items() if s]
    if builder.window is None:
        tree = PrefixTree()
        known = {tree.add(q, s)[-1]: value for q, s, value in stepped}
        found = tree_rows(
            builder, tree, labels=known, branch=branches(context), **shape
        )
        rows += [t.row for t in found if not np.isnan(t.row.labels).all()]
    else:
        rows += [builder.step(q, s[:-1], s[-1], value) for q, s, value in stepped]
    rows = [row for row in rows if builder.fits(row)]
    learned = np.concatenate([r.labels for r in rows] or [np.zeros(0, np.float32)])
    learned = learned[~np.isnan(learned)].astype(np.float64)
    if not len(learned):
        raise JobError(
            f"{context.stage}: no prefix with a value fits a row: raise builder.buckets"
        )
    log.info(
        "%s: %d values (%d below 0.5) in %d rows; %d do not fit",
        context.stage,
        len(learned),
        int((learned < 0.5).sum()),
        len(rows),
        len(values) - len(learned),
    )
    return rows, learned


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if v != v else v for k, v in found.items()}
