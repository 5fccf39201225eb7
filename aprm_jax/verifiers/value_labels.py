"""Values by Monte-Carlo: trees of a solver's rollouts, and completions of every prefix.

Setlur et al. 2024 (arXiv 2410.08146), appendix D: `n_cov` seed rollouts of the base
policy cover a question, and `n_mc` completions from each distinct prefix, by the policy
whose values are wanted, estimate Q. Counts are kept as they are: a share without its
count does not say how sure it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import comb

from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.problem import Problem
from aprm_jax.solvers.protocol import Solution, Solver
from aprm_jax.tasks.protocols import Grader
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.monte_carlo import Arrivals, completed
from aprm_jax.verifiers.progress import Siblings, best_of

SAMPLINGS = ("all", "first_pit")


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Which prefixes are completed, and how often.

    Attributes:
      n_cov: seed rollouts a question.
      n_mc: completions from each prefix.
      max_steps: most steps of a solution.
      how: "all" prefixes, or those of "first_pit": of a wrong rollout that passes
        through a state of high value, up to the first step from which none arrives.
      high: the value from which a state is one.
      prefixes: so many of a question's, at random, beside the bare one; 0 for all.
      temperature: of all samples.
      seed: of the choice of prefixes.
    """

    n_cov: int
    n_mc: int
    max_steps: int
    how: str = "all"
    high: float = 0.5
    prefixes: int = 0
    temperature: float = 1.0
    seed: int = 0


@dataclasses.dataclass
class ValueNode:
    """A distinct prefix of a question.

    Attributes:
      parent: index of the prefix that it goes on from; -1 of the bare question.
      text: its last step, or the question.
      drawn: seed rollouts that pass through it.
      counts: completions by the policy whose values are wanted: (right, tried).
      base: likewise by the base policy, where that is another one.
      exact: whether it is over: its value is that of its answer.
      wanted: whether it is learned from.
    """

    parent: int
    text: str
    drawn: int = 0
    counts: tuple[int, int] = (0, 0)
    base: tuple[int, int] = (0, 0)
    exact: bool = False
    wanted: bool = True

    @property
    def value(self) -> float:
        """The share that arrives; NaN where nothing was tried."""
        right, tried = self.counts
        return right / tried if tried else np.nan


@dataclasses.dataclass
class ValueTree:
    """The prefixes of a question, the bare question first, parents before children.

    Attributes:
      question: the problem.
      nodes: its prefixes.
      spent: of "seeds", "finished", "completions", "answered" (completions that state
        an answer) and "tokens" that were drawn, how many.
    """

    question: str
    nodes: list[ValueNode]
    spent: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For a file of lines."""
        nodes = [list(dataclasses.astuple(node)) for node in self.nodes]
        return {"question": self.question, "nodes": nodes, "spent": self.spent}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ValueTree:
        """What `to_json` made."""
        nodes = []
        for parent, text, drawn, counts, base, exact, wanted in row["nodes"]:
            pairs = (counts[0], counts[1]), (base[0], base[1])
            nodes.append(ValueNode(parent, text, drawn, *pairs, exact, wanted))
        return cls(row["question"], nodes, dict(row["spent"]))

    def steps(self, node: int) -> tuple[str, ...]:
        """The steps up to and with a prefix's last."""
        out = []
        while node > 0:
            out.append(self.nodes[node].text)
            node = self.nodes[node].parent
        return tuple(out[::-1])

    def labels(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """(steps, value) of what is learned from, the bare question among them."""
        for k, node in enumerate(self.nodes):
            if node.wanted and node.counts[1]:
                yield self.steps(k), node.value

    def siblings(self, best: int, other: bool) -> Iterator[Siblings]:
        """What is known of steps after one prefix, for `progress.prover_statistics`.

        Args:
          best: K of the best of K of the base, which is the prover where `other` is
            not set.
          other: whether counts are those of a prover of its own.
        """
        by_parent: dict[int, list[ValueNode]] = {}
        for node in self.nodes[1:]:
            by_parent.setdefault(node.parent, []).append(node)
        for children in by_parent.values():
            if not all(child.counts[1] for child in children):
                continue  # a choice of siblings, that is no sample of the policy
            drawn = np.array([child.drawn for child in children])
            q, noise = _estimates(children, "counts")
            if other:
                base, of_base = _estimates(children, "base")
                yield Siblings(drawn, base, q, of_base, noise, np.zeros(len(q)))
            else:
                yield Siblings(drawn, q, *_best_of(children, best, q, noise))


def _best_of(
    nodes: Sequence[ValueNode], best: int, q: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What `Siblings` has of the best of K of the base beside its value, unbiased.

    With r of n completions right, C(n - r, K) / C(n, K) is the mean of (1 - Q)^K, which
    a power of r / n is not: near 0 its slope is K, and few completions look like
    differences. Its square and its product with Q have such estimates too, from 2 K
    completions on; with fewer the noise is NaN.

    Args:
      nodes: the steps after a prefix.
      best: K.
      q: their values, r / n.
      noise: the variances of these.

    Returns:
      The prover's value, and `base_noise`, `prover_noise`, `shared_noise`.
    """
    right, tried = np.array([node.counts for node in nodes], float).T
    exact = np.array([node.exact for node in nodes])
    missed = tried - right
    with np.errstate(invalid="ignore", divide="ignore"):
        none = comb(missed, best) / comb(tried, best)
        squared = comb(missed, 2 * best) / comb(tried, 2 * best)
        mixed = right * comb(missed, best) / (tried * comb(tried - 1, best))
    proved = np.where(exact | (tried < best), np.asarray(best_of(q, best)), 1 - none)
    few = tried < 2 * best
    of_prover = np.where(few, np.nan, none**2 - squared)
    shared = np.where(few, np.nan, mixed - q * none)
    return (
        proved,
        noise,
        np.where(exact, 0.0, of_prover),
        np.where(exact, 0.0, shared),
    )


def _estimates(nodes: Sequence[ValueNode], which: str) -> tuple[np.ndarray, np.ndarray]:
    """Values, and the variances of these estimates, unbiased."""
    right, tried = np.array([getattr(node, which) for node in nodes], float).T
    with np.errstate(invalid="ignore"):  # nothing was tried: NaN
        q = right / tried
    noise = q * (1 - q) / np.maximum(tried - 1, 1)
    return q, np.where([node.exact for node in nodes], 0.0, noise)


@dataclasses.dataclass(frozen=True)
class ValueSampler:
    """Estimates values of a policy on the prefixes that a base policy writes.

    Attributes:
      base: writes the seed rollouts.
      prover: completes; None for the base, whose own values are estimated.
      grader: reads and compares answers.
      coverage: how many of what.
      timer: adds up what takes how long.
    """

    base: Solver
    prover: Solver | None
    grader: Grader
    coverage: Coverage
    timer: PhaseTimer = dataclasses.field(default_factory=PhaseTimer)

    def trees(
        self, problems: Sequence[Problem], key: Any, measured: int = 0
    ) -> list[ValueTree]:
        """The prefixes of each problem, with their counts.

        Args:
          problems: side by side, as many as a batch has.
          key: of this batch.
          measured: of how many of them the base completes every prefix too.
        """
        c = self.coverage
        with self.timer("seeds"):
            seeds = self.base.solve(
                [(p.question, ()) for p in problems],
                c.n_cov,
                jax.random.fold_in(key, 0),
                max_steps=c.max_steps,
                temperature=c.temperature,
            )
        work = [_Work.of(*pair, self) for pair in zip(problems, seeds, strict=True)]
        with self.timer("complete"):
            self._complete([(w, 0) for w in work], key, 1)
            if c.how == "first_pit":
                self._first_pits(work, key)
            else:
                self._complete([(w, n) for w in work for n in w.chosen()], key, 2)
        if self.prover is None:
            for w in work:
                w.add_seeds()
        else:
            with self.timer("measure"):
                self._measure(work[:measured], key)
        return [w.tree for w in work]

    def _first_pits(self, work: Sequence[_Work], key: Any) -> None:
        """Completes depth by depth what wrong rollouts pass, up to their first pits."""
        for depth in range(1, self.coverage.max_steps + 1):
            asked = [(w, n) for w in work for n in w.next(depth)]
            self._complete(asked, key, 2 + depth)
        for w in work:
            w.keep_high(self.coverage.high)

    def _measure(self, work: Sequence[_Work], key: Any) -> None:
        asked = [
            (w, k)
            for w in work
            for k, node in enumerate(w.tree.nodes)
            if node.counts[1] and not node.exact
        ]
        found = self._counted(self.base, asked, jax.random.fold_in(key, 1 << 20))
        for (w, k), arrivals in zip(asked, found, strict=True):
            w.spend(arrivals)
            w.tree.nodes[k].base = arrivals.right, arrivals.tried
        for w in work:
            for node in w.tree.nodes:
                if node.exact:
                    node.base = node.counts

    def _complete(
        self, asked: Sequence[tuple[_Work, int]], key: Any, number: int
    ) -> None:
        asked = [(w, k) for w, k in asked if not w.tree.nodes[k].exact]
        key = jax.random.fold_in(key, number)
        found = self._counted(self.prover or self.base, asked, key)
        for (w, k), arrivals in zip(asked, found, strict=True):
            w.spend(arrivals)
            w.tree.nodes[k].counts = arrivals.right, arrivals.tried

    def _counted(
        self, solver: Solver, asked: Sequence[tuple[_Work, int]], key: Any
    ) -> list[Arrivals]:
        if not asked:
            return []
        return completed(
            [(w.tree.question, w.tree.steps(k)) for w, k in asked],
            [w.answer for w, _ in asked],
            solver,
            self.grader,
            key,
            count=self.coverage.n_mc,
            max_steps=self.coverage.max_steps,
            temperature=self.coverage.temperature,
        )


@dataclasses.dataclass
class _Work:
    """A question's tree in the making.

    Attributes:
      tree: what becomes of it.
      answer: the right one.
      paths: of each seed rollout, its nodes from the first step on.
      right: whether each arrives.
      coverage: how many of what.
    """

    tree: ValueTree
    answer: str
    paths: list[list[int]]
    right: list[bool]
    coverage: Coverage
    asked: set[int] = dataclasses.field(default_factory=set)

    @classmethod
    def of(cls, problem: Problem, seeds: Sequence[Solution], by: ValueSampler) -> _Work:
        """The prefixes of the seed rollouts; what is over has its value."""
        grader, most = by.grader, by.coverage.max_steps
        prefixes = PrefixTree()
        root = ValueNode(-1, problem.question, len(seeds))
        whole = [s.steps if s.closed else s.steps[:-1] for s in seeds]
        paths = [prefixes.add(problem.question, steps) for steps in whole]
        nodes = [root] + [
            ValueNode(parent, text)
            for parent, text in zip(
                prefixes.parents[1:], prefixes.texts[1:], strict=True
            )
        ]
        right = []
        for seed, steps, path in zip(seeds, whole, paths, strict=True):
            for node in path:
                nodes[node].drawn += 1
            arrives = seed.finished and grader.same_answer(
                grader.answer(steps), problem.answer
            )
            right.append(arrives)
            if path and (seed.finished or len(steps) >= most):
                over = nodes[path[-1]]
                over.exact, over.counts = True, (int(arrives), 1)
        spent = {
            "seeds": len(seeds),
            "finished": sum(s.finished for s in seeds),
            "completions": 0,
            "answered": 0,
            "tokens": sum(len(ids) for s in seeds for ids in s.tokens),
        }
        tree = ValueTree(problem.question, nodes, spent)
        return cls(tree, problem.answer, paths, right, by.coverage)

    def spend(self, arrivals: Arrivals) -> None:
        """Counts completions."""
        self.tree.spent["completions"] += arrivals.tried
        self.tree.spent["answered"] += arrivals.answered
        self.tree.spent["tokens"] += arrivals.tokens

    def add_seeds(self) -> None:
        """The seed rollouts are completions of the bare question as well."""
        right, tried = self.tree.nodes[0].counts
        counts = right + sum(self.right), tried + len(self.right)
        self.tree.nodes[0].counts = counts

    def chosen(self) -> list[int]:
        """The prefixes to complete: all, or so many at random."""
        nodes = [k for k, n in enumerate(self.tree.nodes) if k and not n.exact]
        most = self.coverage.prefixes
        if not most or len(nodes) <= most:
            return nodes
        text = self.tree.question.encode("utf-8", "surrogatepass")
        rng = np.random.default_rng([self.coverage.seed, *text])
        return sorted(rng.choice(nodes, most, replace=False).tolist())

    @functools.cached_property
    def _wrong(self) -> list[list[int]]:
        pairs = zip(self.paths, self.right, strict=True)
        return [path for path, right in pairs if not right and path]

    def next(self, depth: int) -> list[int]:
        """What wrong rollouts pass at a depth, those that met no pit before."""
        found: dict[int, None] = {}
        for path in self._wrong:
            before = [self.tree.nodes[k] for k in (0, *path[: depth - 1])]
            if len(path) >= depth and all(node.counts[0] for node in before):
                found[path[depth - 1]] = None
        return list(found)

    def keep_high(self, high: float) -> None:
        """Learns from paths alone that pass through a state of high value."""
        for node in self.tree.nodes[1:]:
            node.wanted = False
        for path in self._wrong:
            values = [self.tree.nodes[k].value for k in (0, *path)]
            if np.nanmax(values) < high:
                continue
            for k in path:
                node = self.tree.nodes[k]
                node.wanted = True
                if node.counts[1] and not node.counts[0]:
                    break
