"""Who writes solutions of the embedded arithmetic: authors with habits and beliefs.

They ignore precedence, add first, or believe wrong facts, so that a solver that learns
from them errs in systematic ways, with confidence.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from aprm_jax.oracle.embedded.rewriting import (
    Contraction,
    Tokens,
    apply,
    contractions_of,
)

_FACTS_SEED = 2410_08146  # every run meets the same wrong facts

Facts = dict[tuple[str, int, int], int]  # (operator, x, y), digits -> believed result


@dataclasses.dataclass(frozen=True)
class Author:
    """How one solution of the corpus is written.

    Attributes:
      habit: "clean", "careless" or "add_first".
      facts: the wrong facts that the author believes.
    """

    habit: str
    facts: Facts

    def next_lines(self, tokens: Tokens, largest: int, modulus: int) -> list[Tokens]:
        """The lines that the author could write next, no number above `largest`."""
        results = [(c, self.result(c, modulus)) for c in self._options(tokens, modulus)]
        return [c.tokens(result) for c, result in results if 0 <= result <= largest]

    def _options(self, tokens: Tokens, modulus: int) -> Sequence[Contraction]:
        """The contractions that the author would do next."""
        contractions = contractions_of(tokens, modulus)
        if self.habit == "clean":
            return [c for c in contractions if c.legal]
        if self.habit == "add_first":
            return [c for c in contractions if c.operator != "*"] or contractions
        return contractions

    def result(self, c: Contraction, modulus: int) -> int:
        """What the author takes for the contraction's value.

        A wrong fact about digits is used on the last ones of longer numbers too: who
        believes that 7 + 8 is 14 writes 24 for 17 + 8.
        """
        x, y = int(c.x) % 10, int(c.y) % 10
        believed = self.facts.get((c.operator, x, y))
        if believed is None:
            return c.value
        error = believed - apply(c.operator, str(x), str(y), modulus)
        return (c.value + error) % modulus if modulus else c.value + error


CLEAN = Author("clean", {})


def solve(
    rng: np.random.Generator, tokens: Tokens, author: Author, largest: int, modulus: int
) -> list[Tokens]:
    """The lines after the first, to a single number, in the author's random order.

    Empty where the author gets to a line that has no next one below `largest`.
    """
    lines = []
    while len(tokens) > 1:
        options = author.next_lines(tokens, largest, modulus)
        if not options:
            return []
        tokens = options[int(rng.integers(len(options)))]
        lines.append(tokens)
    return lines


@functools.lru_cache(maxsize=8)
def wrong_facts(count: int, modulus: int, population: int) -> Facts:
    """The same wrong sums and products in every run; operands from 2 to 9.

    Populations of authors are numbered from 0; no two believe the same one.
    """
    rng = np.random.default_rng(_FACTS_SEED)
    pairs = [(op, x, y) for op in "+*" for x in range(2, 10) for y in range(x, 10)]
    found: list[tuple[tuple[str, int, int], int]] = []
    for k in rng.permutation(len(pairs))[: (population + 1) * count]:
        op, x, y = pairs[k]
        right = apply(op, str(x), str(y), modulus)
        if modulus:
            believed = (right + int(rng.integers(1, 10))) % modulus
        else:
            slips = _slips(op, x, y)
            believed = slips[int(rng.integers(len(slips)))]
        found.append((pairs[k], believed))
    facts: Facts = {}
    for (op, x, y), believed in found[population * count :]:
        facts[op, x, y] = facts[op, y, x] = believed
    return facts


def _slips(operator: str, x: int, y: int) -> list[int]:
    """What people take for a sum or product of digits."""
    if operator == "*":
        return [x * (y - 1), x * (y + 1), (x - 1) * y, (x + 1) * y]  # its neighbours
    right = x + y
    carry = [right - 10] if right >= 10 else []  # forgotten
    return [right - 1, right + 1, *carry]
