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
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from aprm_jax.config.groups import AUTHORS
from aprm_jax.data.problem import Problem
from aprm_jax.data.word_tokenizer import build_word_tokenizer
from aprm_jax.oracle.embedded.arithmetic import KINDS, ArithmeticOracle
from aprm_jax.oracle.embedded.rewriting import (
    OPERATORS,
    Contraction,
    MalformedExpressionError,
    Tokens,
    apply,
    contractions_of,
    count_numbers,
    is_number,
    is_single_number,
    parse,
    simplify,
    value,
    write,
)
from aprm_jax.oracle.embedded.wording import (
    WORDS,
    MalformedStoryError,
    read_story,
    write_story,
)

MODULI = (0, 10)
SPLITS = ("dev", "test", "longer", "larger", "worded")

# Every seed of a run is evaluated on the same problems and meets the same wrong facts.
_EVALUATION_SEED = 2511_22888
_FACTS_SEED = 2410_08146
_CORPUS_STREAM, _TRAIN_STREAM, _EVALUATION_STREAM = 0, 1, 2
_HASH_BUCKETS = 10
_SOLUTION_DRAWS = 8  # for one expression, before another is drawn
_TRAIN_BUCKETS = frozenset(range(8))
_SPLIT_BUCKETS = {split: frozenset({9}) for split in SPLITS} | {"dev": frozenset({8})}


@dataclasses.dataclass(frozen=True)
class ArithmeticConfig:
    """What problems look like and who writes the corpus. Shares are of 1.

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
        self.facts = _wrong_facts(
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
        try:
            tokens = parse(step)
        except MalformedExpressionError:
            return None
        for k in rng.permutation(len(_CORRUPTIONS)):
            corrupted = _CORRUPTIONS[k](rng, tokens)
            if corrupted is not None:
                return write(corrupted)
        return None

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
                lines = _solve(rng, tokens, author, largest, c.modulus)
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


def _solve(
    rng: np.random.Generator, tokens: Tokens, author: Author, largest: int, modulus: int
) -> list[Tokens]:
    """The lines after the first, to a single number, in the author's random order.

    None where the author gets to a line that has no next one below `largest`.
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
def _wrong_facts(count: int, modulus: int, population: int) -> Facts:
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


def _change_number(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """Another digit in the place of one digit."""
    at = _pick(rng, [i for i, t in enumerate(tokens) if is_number(t)])
    digits = list(tokens[at])
    k = int(rng.integers(len(digits)))
    digits[k] = str((int(digits[k]) + int(rng.integers(1, 10))) % 10)
    changed = str(int("".join(digits)))  # without a zero in front
    return (*tokens[:at], changed, *tokens[at + 1 :])


def _change_operator(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    places = [i for i, t in enumerate(tokens) if t in OPERATORS]
    if not places:
        return None
    at = _pick(rng, places)
    others = [operator for operator in OPERATORS if operator != tokens[at]]
    return (*tokens[:at], others[int(rng.integers(2))], *tokens[at + 1 :])


def _drop_term(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """An operator and the number after it are left out."""
    places = _terms(tokens)
    if not places:
        return None
    at = _pick(rng, places)
    return simplify((*tokens[:at], *tokens[at + 2 :]))


def _duplicate_term(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """An operator and the number after it are written twice."""
    places = _terms(tokens)
    if not places:
        return None
    at = _pick(rng, places)
    return (*tokens[: at + 2], *tokens[at : at + 2], *tokens[at + 2 :])


def _swap_numbers(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """Two different numbers change places."""
    numbers = [i for i, t in enumerate(tokens) if is_number(t)]
    pairs = [(i, j) for i in numbers for j in numbers if i < j]
    pairs = [(i, j) for i, j in pairs if tokens[i] != tokens[j]]
    if not pairs:
        return None
    i, j = pairs[int(rng.integers(len(pairs)))]
    swapped = list(tokens)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return tuple(swapped)


def _drop_brackets(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    del rng
    bare = tuple(t for t in tokens if t not in ("(", ")"))
    return bare if bare != tokens else None


def _pick(rng: np.random.Generator, places: Sequence[int]) -> int:
    return places[int(rng.integers(len(places)))]


def _terms(tokens: Tokens) -> list[int]:
    """Places of operators that have a number after them."""
    return [
        i
        for i, (operator, after) in enumerate(itertools.pairwise(tokens))
        if operator in OPERATORS and is_number(after)
    ]


_CORRUPTIONS: tuple[Callable[[np.random.Generator, Tokens], Tokens | None], ...] = (
    _change_number,
    _change_operator,
    _drop_term,
    _duplicate_term,
    _swap_numbers,
    _drop_brackets,
)
