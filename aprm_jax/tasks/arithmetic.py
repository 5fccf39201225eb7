"""The embedded arithmetic problems: drawn from a seed, with splits and noisy authors.

A problem is an expression such as `2 + 3 * 4`, and a solution its lines, each with one
operation carried out: `2 + 12`, `14`. Arithmetic is ordinary, in natural numbers; with
a `modulus` of 10 every result is its last digit instead, as in the first published
tables. `oracle.embedded.rewriting` has expressions and rules,
`oracle.embedded.wording` the worded form. Training problems are in distribution: four
or five numbers of one digit, no result above 99. The solver's corpus is written by
authors who may ignore precedence, add first, or believe wrong facts, so that the solver
errs in systematic ways, with confidence.

Splits: `dev` and `test` in distribution, `longer`, `larger` and `worded` out of it.
They are disjoint from corpus and training problems by construction: an expression's
hash decides on which side it may occur. That holds for every line of a solution
that is long enough to be a question itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from aprm_jax.config.groups import AUTHORS
from aprm_jax.data.problem import Problem
from aprm_jax.data.word_tokenizer import build_word_tokenizer
from aprm_jax.oracle.embedded.arithmetic import KINDS, ArithmeticOracle
from aprm_jax.oracle.embedded.rewriting import (
    OPERATORS,
    MalformedExpressionError,
    Tokens,
    count_numbers,
    is_single_number,
    parse,
    value,
    write,
)
from aprm_jax.oracle.embedded.wording import (
    WORDS,
    MalformedStoryError,
    read_story,
    write_story,
)
from aprm_jax.tasks.arithmetic_authors import CLEAN, Author, solve, wrong_facts
from aprm_jax.tasks.arithmetic_corruption import corrupt

MODULI = (0, 10)
SPLITS = ("dev", "test", "longer", "larger", "worded")

# Every seed of a run is evaluated on the same problems.
_EVALUATION_SEED = 2511_22888
_CORPUS_STREAM, _TRAIN_STREAM, _EVALUATION_STREAM = 0, 1, 2
_HASH_BUCKETS = 10
_SOLUTION_DRAWS = 8  # for one expression, before another is drawn
_TRAIN_BUCKETS = frozenset(range(8))
_SPLIT_BUCKETS = {split: frozenset({9}) for split in SPLITS} | {"dev": frozenset({8})}


@dataclasses.dataclass(frozen=True)
class ArithmeticConfig:
    """What problems look like and who writes the corpus. Shares are of 1.

    Those of operators and brackets are of what is drafted. A draft that no solution
    keeps below `largest` is drawn again: of 2000 training problems 0.51, 0.15 and 0.34
    of the operators were left, and 0.37 had a bracket.

    Attributes:
      modulus: of the arithmetic, 10; 0 for the ordinary one.
      authors: whose wrong facts are believed, of `AUTHORS`; the second population
        shares none with the first. See `of_authors`.
      largest: the largest number on any line of a solution; 0 is the least.
      larger_largest: the same for `larger` expressions.
      numbers: fewest and most numbers of an expression in distribution.
      longer_numbers: the same for the split `longer`.
      operator_shares: of `+`, `-` and `*`. With few `-` several steps are licensed at
        most points (at 55 % of lines of three numbers or more).
      bracket_share: expressions with a bracket.
      bracket_numbers: most numbers in a bracket.
      two_digit_share: numbers of two digits in a `larger` expression, beside one that
        always has two. With most of them that long the solver is near chance.
      worded_share, larger_share: problems of these forms in the corpus.
      careless_share: authors who contract any adjacent pair.
      add_first_share: authors for whom + and - bind tighter than `*`.
      wrong_fact_share: authors, of any habit, who believe the wrong facts.
      wrong_facts: how many sums and products those have wrong, either way round.
    """

    modulus: int = 0
    authors: str = "first"
    largest: int = 99
    larger_largest: int = 199
    numbers: tuple[int, int] = (4, 5)
    longer_numbers: tuple[int, int] = (6, 7)
    operator_shares: tuple[float, float, float] = (0.4, 0.2, 0.4)
    bracket_share: float = 0.4
    bracket_numbers: int = 3
    two_digit_share: float = 0.2
    worded_share: float = 0.12
    larger_share: float = 0.12
    careless_share: float = 0.44
    add_first_share: float = 0.20
    wrong_fact_share: float = 0.40
    wrong_facts: int = 12

    def __post_init__(self):
        if self.modulus not in MODULI:
            raise ValueError(f"modulus must be 0 or 10, not {self.modulus}")
        if self.authors not in AUTHORS:
            raise ValueError(f"authors must be first or second, not {self.authors!r}")
        if not 99 <= self.largest <= self.larger_largest <= 999:
            raise ValueError(
                "it must be 99 <= largest <= larger_largest <= 999: "
                f"{self.largest}, {self.larger_largest}"
            )
        for name in ("numbers", "longer_numbers"):
            low, high = getattr(self, name)
            if not 3 <= low <= high <= 8:
                raise ValueError(f"{name} must be 3 <= low <= high <= 8: {low}, {high}")
        values = dataclasses.asdict(self)
        shares = {k: v for k, v in values.items() if k.endswith("share")}
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {share}")
        if min(self.operator_shares) < 0 or not np.isclose(
            sum(self.operator_shares), 1
        ):
            raise ValueError(f"operator_shares must sum to 1: {self.operator_shares}")
        if self.bracket_numbers < 2:
            raise ValueError(f"bracket_numbers must be >= 2: {self.bracket_numbers}")
        for one, other in (
            ("worded_share", "larger_share"),
            ("careless_share", "add_first_share"),
        ):
            if shares[one] + shares[other] > 1.0:
                raise ValueError(f"{one} + {other} must be at most 1")
        if not 0 <= self.wrong_facts <= 36:  # of 72, for two populations
            raise ValueError(f"wrong_facts must be 0 to 36, not {self.wrong_facts}")
        if self.numbers[1] >= self.longer_numbers[0]:
            raise ValueError("longer_numbers must lie above numbers")

    @classmethod
    def of_authors(cls, authors: str, modulus: int = 0) -> ArithmeticConfig:
        """A population of authors: its wrong facts, and how its habits are shared out.

        In the second more add first, fewer are careless and more believe wrong facts:
        a solver that learns from it errs as none does that learnt from the first.
        """
        config = cls(modulus=modulus, authors=authors)
        if authors == "second":
            shares = {"careless_share": 0.24, "add_first_share": 0.36}
            config = dataclasses.replace(config, **shares, wrong_fact_share=0.6)
        return config


class ArithmeticDomain:
    """The embedded problems as a `Domain`; everything is a function of the seed.

    Args:
      seed: of the corpus and the training problems. Evaluation splits do not
        depend on it.
      config: what problems look like and who writes the corpus.
    """

    kinds = KINDS
    splits = SPLITS
    held_out: frozenset[str] = frozenset()  # they have no end: see `is_held_out`

    def __init__(self, seed: int, config: ArithmeticConfig | None = None):
        if seed < 0:
            raise ValueError(f"seed must not be negative: {seed}")
        self.seed = seed
        self.config = ArithmeticConfig() if config is None else config
        modulus = self.config.modulus
        # A model says what it was trained on: one arithmetic is wrong in the other.
        self.name = f"arithmetic modulo {modulus}" if modulus else "arithmetic"
        words = (*"0123456789", *OPERATORS, "(", ")", *WORDS)
        self.tokenizer = build_word_tokenizer(words)
        self.oracle = ArithmeticOracle(modulus)
        self.facts = wrong_facts(
            self.config.wrong_facts, modulus, AUTHORS.index(self.config.authors)
        )
        self._drawn: dict[str, dict[str, Problem]] = {split: {} for split in SPLITS}
        self._attempts = dict.fromkeys(SPLITS, 0)

    def corpus(self, index: int) -> Problem:
        """A text that the solver learns from; its author may be wrong."""
        rng = np.random.default_rng([self.seed, _CORPUS_STREAM, index])
        author = self.author(rng)
        form, u = "plain", rng.random()
        if u < self.config.worded_share:
            form = "worded"
        elif u < self.config.worded_share + self.config.larger_share:
            form = "larger"
        return self._draw(rng, form, author, _TRAIN_BUCKETS)

    def train(self, index: int) -> Problem:
        """A problem in distribution, solved by licensed steps in random order."""
        rng = np.random.default_rng([self.seed, _TRAIN_STREAM, index])
        return self._draw(rng, "plain", CLEAN, _TRAIN_BUCKETS)

    def problems(self, split: str, count: int) -> Sequence[Problem]:
        """The first `count` problems of a split, all different, solved correctly."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}: there are {', '.join(SPLITS)}")
        drawn = self._drawn[split]
        form = split if split in ("longer", "larger", "worded") else "plain"
        stream = _EVALUATION_STREAM + SPLITS.index(split)
        while len(drawn) < count:
            rng = np.random.default_rng(
                [_EVALUATION_SEED, stream, self._attempts[split]]
            )
            self._attempts[split] += 1
            problem = self._draw(rng, form, CLEAN, _SPLIT_BUCKETS[split])
            # Stories of one expression count as one problem.
            key = problem.steps[0] if form == "worded" else problem.question
            drawn.setdefault(key, problem)
        return tuple(drawn.values())[:count]

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> str | None:
        """A random mechanical corruption of a step, knowing nothing of the rules."""
        del question, prefix
        return corrupt(rng, step)

    def is_final(self, step: str) -> bool:
        """Whether a step is a single number."""
        return is_single_number(step)

    def answer(self, steps: Sequence[str]) -> str | None:
        """The number that a solution ends with; None where it does not end."""
        if not steps or not self.is_final(steps[-1]):
            return None
        return write(parse(steps[-1]))

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Whether two numbers are written alike: `1 2` is not 2."""
        return given is not None and given.split() == expected.split()

    def is_held_out(self, question: str) -> bool:
        """Whether an expression, or a story of one, may be a question of a split."""
        try:
            tokens = parse(question)
        except MalformedExpressionError:
            try:
                tokens = read_story(question)
            except MalformedStoryError:
                return False
        enough = count_numbers(tokens) >= self.config.numbers[0]
        return enough and hash_bucket(tokens) not in _TRAIN_BUCKETS

    def author(self, rng: np.random.Generator) -> Author:
        """Draws the author of one solution of the corpus."""
        c, u = self.config, rng.random()
        facts = self.facts if rng.random() < c.wrong_fact_share else {}
        if u < c.careless_share:
            return Author("careless", facts)
        if u < c.careless_share + c.add_first_share:
            return Author("add_first", facts)
        return Author("clean", facts)

    def _draw(
        self,
        rng: np.random.Generator,
        form: str,
        author: Author,
        buckets: frozenset[int],
    ) -> Problem:
        """Draws until question and solution may occur on this side."""
        c = self.config
        largest = c.larger_largest if form == "larger" else c.largest
        while True:
            tokens = self._expression(rng, form)
            if hash_bucket(tokens) not in buckets:
                continue
            if not 0 <= (value(write(tokens), c.modulus) or 0) <= largest:
                continue  # no solution could end there
            story = write_story(tokens, rng) if form == "worded" else None
            if form == "worded" and story is None:
                continue
            for _ in range(_SOLUTION_DRAWS):
                lines = solve(rng, tokens, author, largest, c.modulus)
                if not lines:
                    continue
                if buckets != _TRAIN_BUCKETS or self._keeps_off_evaluation(lines):
                    steps = tuple(write(line) for line in lines)
                    if story is not None:
                        return Problem(story, (write(tokens), *steps), steps[-1])
                    return Problem(write(tokens), steps, steps[-1])

    def _keeps_off_evaluation(self, lines: Sequence[Tokens]) -> bool:
        """Whether no line of a solution is a question of an evaluation split.

        A line with as many numbers as the shortest question could be one.
        """
        return all(
            hash_bucket(line) in _TRAIN_BUCKETS
            for line in lines
            if count_numbers(line) >= self.config.numbers[0]
        )

    def _expression(self, rng: np.random.Generator, form: str) -> Tokens:
        c = self.config
        low, high = c.longer_numbers if form == "longer" else c.numbers
        count = int(rng.integers(low, high + 1))
        plus, minus, _ = c.operator_shares
        large = np.zeros(count, bool)
        if form == "larger":
            large = rng.random(count) < c.two_digit_share
            large[rng.integers(count)] = True
        tokens: list[str] = []
        for k in range(count):
            if k:
                u = rng.random()
                operator = "+" if u < plus else "-" if u < plus + minus else "*"
                tokens.append(operator)
            low, high = (10, 100) if large[k] else (1, 10)
            tokens.append(str(rng.integers(low, high)))
        if rng.random() < c.bracket_share:
            inside = int(rng.integers(2, min(count, c.bracket_numbers + 1)))
            first = int(rng.integers(0, count - inside + 1))
            tokens.insert(2 * (first + inside) - 1, ")")
            tokens.insert(2 * first, "(")
        return tuple(tokens)


def hash_bucket(tokens: Tokens) -> int:
    """Which of ten sides an expression belongs to; the same on every machine."""
    text = " ".join("".join(tokens))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _HASH_BUCKETS
