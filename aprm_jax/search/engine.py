"""One step-synchronous engine: many questions' searches, side by side.

In a round each question's method says which nodes go on; the rows of all of them are
extended in one call, equal siblings merged, and the new steps read by the verifier in
one call. Rows of questions that are done, and of nodes that were given up, are left
out of the next call, so the batch shrinks.

What a question gets depends on the key and on its own text, not on the others.
"""

from __future__ import annotations

import dataclasses
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from aprm_jax.sampling.methods import Truncation
from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.methods import Expand, Method
from aprm_jax.search.tree import ROOT, Tree
from aprm_jax.solvers.protocol import StepSolver
from aprm_jax.verifiers.protocol import StepVerifier, last_scores

Place = tuple[int, int]  # a question's index in the batch, and one of its nodes


@dataclasses.dataclass(frozen=True)
class Engine:
    """Who searches, and how.

    Attributes:
      solver: writes steps.
      verifier: scores them; None for a method that needs no scores, and votes.
      method: says which go on.
      aggregation: of step scores to what a method orders by.
      max_steps: most steps of a solution.
      temperature: of the solver's samples.
      truncation: which tokens may be drawn.
    """

    solver: StepSolver
    verifier: StepVerifier | None
    method: Method
    aggregation: Aggregation
    max_steps: int
    temperature: float = 1.0
    truncation: Truncation | None = None

    def search(
        self,
        questions: Sequence[str],
        key: Any,
        told: Callable[[int], None] = lambda tokens: None,
    ) -> list[Tree]:
        """The tree of each question.

        Args:
          questions: a batch, whose rows are held at the same time.
          key: of the whole run.
          told: is told after each round how many tokens were drawn.
        """
        batch = _Batch(self, [Tree(q, self.max_steps) for q in questions], key)
        while batch.round():
            told(batch.drawn)
        for tree in batch.trees:
            self._sum(tree)
        return batch.trees

    def _sum(self, tree: Tree) -> None:
        """Adds the operations of all tokens to those of attention."""
        ledger = tree.ledger
        read = self.verifier.flops_per_token if self.verifier else 0.0
        tokens = ledger.decoded + ledger.prefilled
        ledger.flops += self.solver.flops_per_token * tokens
        ledger.flops += read * ledger.verifier_tokens


class _Batch:
    """The searches of some questions, while they run."""

    def __init__(self, engine: Engine, trees: list[Tree], key: Any):
        self.trees, self.drawn = trees, 0
        self._engine, self._key = engine, key
        self._running = {i: engine.method.search(t) for i, t in enumerate(trees)}
        self._wanted = {i: next(policy) for i, policy in self._running.items()}
        # Where the rows of a node are, in the state of the solver and the verifier.
        self._written: Any = None
        self._read: Any = None
        self._written_at: dict[Place, int] = {}
        self._read_at: dict[Place, int] = {}

    def round(self) -> bool:
        """Draws what the methods want and tells them; whether there was anything."""
        if not self._running:
            return False
        start = time.perf_counter()
        wanted = [(i, e) for i, expands in self._wanted.items() for e in expands]
        rows = Counter({i: 0 for i in self._running})
        new: dict[int, list[list[int]]] = {i: [] for i in self._running}
        if wanted:
            if self._written is None or any(e.anew for _, e in wanted):
                self._begin(list(dict.fromkeys((i, e.node) for i, e in wanted)))
            rows.update(i for i, e in wanted for _ in e.slots)
            for (i, _), nodes in zip(wanted, self._extend(wanted), strict=True):
                new[i].append(nodes)
            self._score(
                [(i, n) for i, found in new.items() for ns in found for n in ns]
            )
        self._share(rows, time.perf_counter() - start)
        for i in list(self._running):
            self._tell(i, new[i])
        return True

    def _begin(self, places: list[Place]) -> None:
        """Reads the paths of some nodes."""
        engine, trees = self._engine, self.trees
        starts = [(trees[i].question, trees[i].steps(node)) for i, node in places]
        self._written = engine.solver.begin(starts, self._written)
        self._written_at = {place: row for row, place in enumerate(places)}
        for row, (i, _) in enumerate(places):
            self._charge_reading(i, row)
        if engine.verifier is None:
            return
        found = engine.verifier.begin(starts, self._read)
        self._read, scores = last_scores(engine.verifier, found, len(starts))
        self._read_at = dict(self._written_at)
        self._charge(places)
        for (i, node), score in zip(places, scores.tolist(), strict=True):
            if node == ROOT:
                trees[i][ROOT].score = score

    def _extend(self, wanted: list[tuple[int, Expand]]) -> list[list[int]]:
        """The new nodes of each expansion, without repeats."""
        owners = [(i, e, slot) for i, e in wanted for slot in e.slots]
        engine, trees = self._engine, self.trees
        bases = {i: _base(trees[i]) for i, _ in wanted}
        self._written, steps = engine.solver.extend(
            self._written,
            [self._written_at[i, e.node] for i, e, _ in owners],
            [(bases[i] + slot) % (1 << 32) for i, _, slot in owners],
            self._key,
            temperature=engine.temperature,
            truncation=engine.truncation,
        )
        self._written_at = {}
        new: dict[tuple[int, int], dict[int, None]] = {}
        for row, ((i, e, slot), step) in enumerate(zip(owners, steps, strict=True)):
            self._charge_reading(i, row)
            trees[i].ledger.decoded += len(step.tokens)
            self.drawn += len(step.tokens)
            if not step.room:
                trees[i][e.node].closed = False
                continue
            node = trees[i].add(e.node, e.lane, slot, step)
            self._written_at.setdefault((i, node), row)
            new.setdefault((i, id(e)), {})[node] = None
        return [list(new.get((i, id(e)), {})) for i, e in wanted]

    def _score(self, places: list[Place]) -> None:
        """Scores of new nodes, where one can win or go on."""
        engine, trees = self._engine, self.trees
        if engine.verifier is None:
            return
        places = [(i, n) for i, n in places if trees[i].is_usable(n)]
        if not places:
            return
        read = engine.verifier.read(
            self._read,
            [self._read_at[i, trees[i][n].parent] for i, n in places],
            [trees[i][n].text for i, n in places],
        )
        self._read, scores = last_scores(engine.verifier, read, len(places))
        self._read_at = {place: row for row, place in enumerate(places)}
        self._charge(places)
        for (i, n), score in zip(places, scores.tolist(), strict=True):
            trees[i][n].score = score
        paths = [[trees[i][k].score for k in trees[i].path(n)] for i, n in places]
        found = engine.aggregation(engine.verifier.scale, paths)
        for row, ((i, n), order, reward) in enumerate(zip(places, *found, strict=True)):
            if self._read.rewards and order > -math.inf:
                order = reward = self._read.rewards[row]
            trees[i][n].order, trees[i][n].reward = order, reward

    def _charge_reading(self, i: int, row: int) -> None:
        """What the solver read for a row, to the question that it is of."""
        ledger = self.trees[i].ledger
        ledger.prefilled += self._written.prefilled[row]
        ledger.flops += _at(self._written.attention, row)

    def _charge(self, places: list[Place]) -> None:
        """What the verifier read last, to those whom it was for."""
        for row, (i, _) in enumerate(places):
            ledger = self.trees[i].ledger
            ledger.verifier_tokens += self._read.prefilled[row]
            ledger.oracle_calls += _at(self._read.oracle_calls, row)
            ledger.flops += _at(self._read.attention, row)

    def _share(self, rows: Counter[int], seconds: float) -> None:
        """Time and memory of a round, to each question by its rows."""
        total = sum(rows.values())
        held = [x.num_bytes for x in (self._written, self._read) if x is not None]
        for i, count in rows.items():
            tree, share = self.trees[i], count / total if total else 0.0
            tree.ledger.seconds += seconds * share
            mine = round(sum(held) * share)
            tree.ledger.peak_kv_bytes = max(tree.ledger.peak_kv_bytes, mine)
            tree.spent.append(tree.ledger.decoded)

    def _tell(self, i: int, new: list[list[int]]) -> None:
        try:
            self._wanted[i] = self._running[i].send(new)
        except StopIteration:
            del self._running[i], self._wanted[i]


def _at(values: Sequence[Any], row: int) -> Any:
    """A row's value, 0 where nobody counts."""
    return values[row] if values else 0


def _base(tree: Tree) -> int:
    """Where the draws of a round begin: by the question, whoever is beside it."""
    text = f"{tree.round} {tree.question}"
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
