"""The planted-subsequence task: values and advantages of any policy, exactly.

Setlur et al. 2024 (arXiv 2410.08146), section 3: a sequence of tokens is rewarded iff a
planted one occurs in it. All that matters of a beginning is how long it is and how much
of the planted sequence it ends with: a dynamic programme over both gives every value.

Axes: T tokens of a sequence, K tokens of the planted one matched so far (0 to all, the
last one for good), A tokens of the vocabulary, the last of which ends a sequence.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from aprm_jax.verifiers.progress import (
    ProverStatistics,
    alignment,
    distinguishability,
)

Policy = Float[np.ndarray, "*T K A"]  # of each token, in each state


@dataclasses.dataclass(frozen=True)
class PlantedTask:
    """Which sequences are rewarded.

    Attributes:
      planted: what must occur.
      tokens: of the vocabulary; the last one ends a sequence.
      length: most tokens of a sequence.
    """

    planted: tuple[int, ...] = (3, 6, 0, 3, 5)
    tokens: int = 15
    length: int = 10

    def __post_init__(self):
        if not self.planted or not all(0 <= a < self.end for a in self.planted):
            raise ValueError(
                f"planted={self.planted}: must be one token or more of 0 to "
                f"{self.end - 1}; {self.end} ends a sequence"
            )
        if self.length < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")

    @property
    def end(self) -> int:
        """The token that ends a sequence."""
        return self.tokens - 1

    @functools.cached_property
    def automaton(self) -> Int[np.ndarray, "K A"]:
        """How much is matched after one more token; all of it stays all."""
        whole = len(self.planted)
        table = np.zeros((whole + 1, self.tokens), int)
        for k in range(whole):
            for token in range(self.tokens):
                seen = (*self.planted[:k], token)
                sizes = range(len(seen), 0, -1)
                fits = (n for n in sizes if seen[-n:] == self.planted[:n])
                table[k, token] = next(fits, 0)
        table[whole] = whole
        return table

    def prover(self, gamma: float | int) -> Policy:
        """The paper's prover: the next planted token weighs gamma, any other 1."""
        weights = np.ones((len(self.planted) + 1, self.tokens))
        weights[np.arange(len(self.planted)), list(self.planted)] = gamma
        return weights / weights.sum(axis=-1, keepdims=True)

    def q_values(self, policy: Policy) -> Float[np.ndarray, "T K A"]:
        """P(reward) after each token, where `policy` goes on from it."""
        whole = len(self.planted)
        policies = np.broadcast_to(policy, (self.length, *self.automaton.shape))
        value = np.zeros(whole + 1)
        value[whole] = 1.0
        out = np.zeros(policies.shape)
        for t in reversed(range(self.length)):
            out[t] = value[self.automaton]
            out[t, :whole, self.end] = 0.0  # it ended without
            value = (policies[t] * out[t]).sum(axis=-1)
        return out

    def values(self, policy: Policy) -> Float[np.ndarray, "T K"]:
        """P(reward) before each token; [0, 0] is that of the whole task."""
        return (policy * self.q_values(policy)).sum(axis=-1)

    def advantages(self, policy: Policy) -> Float[np.ndarray, "T K A"]:
        """What each token changes, as `verifiers.progress.advantages` defines it."""
        return self.q_values(policy) - self.values(policy)[..., None]

    def visits(self, policy: Policy) -> Float[np.ndarray, "T K"]:
        """P(a sequence of the policy goes on from each state)."""
        policies = np.broadcast_to(policy, (self.length, *self.automaton.shape))
        out = np.zeros(policies.shape[:2])
        out[0, 0] = 1.0
        for t in range(self.length - 1):
            moved = out[t][:, None] * policies[t]
            moved[:, self.end] = 0.0
            np.add.at(out[t + 1], self.automaton, moved)
        return out

    def statistics(self, base: Policy, prover: Policy) -> ProverStatistics:
        """How a prover goes with a base policy, over the states that the base visits.

        What has been found needs no prover, so states where it has are left out.
        """
        visits = self.visits(base)[:, :-1]
        visits /= visits.sum()
        policies = np.broadcast_to(base, (self.length, *self.automaton.shape))[:, :-1]
        of_prover, of_base = (self.advantages(p)[:, :-1] for p in (prover, base))
        return ProverStatistics(
            states=visits.size,
            distinguishability=float(
                (visits * distinguishability(policies, of_prover)).sum()
            ),
            alignment=float((visits * alignment(policies, of_prover, of_base)).sum()),
            base=float((visits * distinguishability(policies, of_base)).sum()),
            start=float(self.values(prover)[0, 0]),
            same=bool(np.array_equal(base, prover)),
        )

    def samples(
        self, policy: Policy, count: int, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "N T"], Float[np.ndarray, " N"]]:
        """Sequences of a policy, filled up with the end token, and their rewards."""
        policies = np.broadcast_to(policy, (self.length, *self.automaton.shape))
        tokens = np.full((count, self.length), self.end)
        matched, live = np.zeros(count, int), np.ones(count, bool)
        for t in range(self.length):
            below = policies[t].cumsum(axis=-1)[matched]
            drawn = (rng.random(count)[:, None] > below).sum(axis=-1).clip(0, self.end)
            tokens[live, t] = drawn[live]
            live &= drawn != self.end
            matched = np.where(live, self.automaton[matched, drawn], matched)
        return tokens, (matched == len(self.planted)).astype(float)
