"""Compares a step with the correct step that it replaces."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER
from aprm_jax.oracle.steps import percents
from aprm_jax.oracle.steps.formula import FormulaError, operations, parts, variables
from aprm_jax.oracle.steps.parsing import Formula, parse_formula
from aprm_jax.oracle.steps.quantities import figures
from aprm_jax.oracle.steps.relations import Reading, Relation, read_relations
from aprm_jax.oracle.steps.tokens import Token, tokenize
from aprm_jax.oracle.units import everyday

_ANSWER = re.compile(r"#\s*Answer\s+(\S.{0,200})", re.DOTALL)
# Steps that pick one of several ways on: another choice is no error.
_CHOOSES = re.compile(
    r"\b(let|let's|try|trying|suppose|assume|consider|cases?|if|when|another|other"
    r"|check\w*|possib\w*|example|choose|pick|solutions|option|look|looking|start"
    r"|plug\w*|substitut\w*|set|setting"
    r"|for \$?[b-z])\b|[<>≤≥]|\\[lg]eq?\b|\?",
    re.IGNORECASE,
)
_QUOTIENT = re.compile(
    r"(?<![0-9./:*+=-])([0-9]{1,9})[/:]([1-9][0-9]{0,8})(?![0-9/:*+=-]|\.[0-9])"
)
_FIGURE = re.compile(NUMBER)
_PLACES = re.compile(r"[0-9]+(?:st|nd|rd|th)\b")


@dataclasses.dataclass(frozen=True)
class Step:
    """A step, read; what comparing needs is read when it is asked for.

    Attributes:
      text: as written.
      reading: its relations.
    """

    text: str
    reading: Reading

    @functools.cached_property
    def order(self) -> tuple[str, ...]:
        """Its pieces in order, figures blanked."""
        tokens = tokenize(self.text)
        return tuple("#" if t.kind == "number" else t.text.lower() for t in tokens)

    @functools.cached_property
    def words(self) -> Counter[str]:
        """What it says beside its figures, each piece with its count."""
        return Counter(w for w in self.order if w not in "#(),.;:")

    @functools.cached_property
    def figures(self) -> tuple[Fraction, ...]:
        """Its figures in order."""
        return figures(self.text)

    @functools.cached_property
    def answer(self) -> Formula | None:
        """The final answer that it states, if it does."""
        found = _ANSWER.search(self.text)
        if found is None:
            return None
        return _formula(self.text, found.start(1), found.end(1))

    @functools.cached_property
    def prose(self) -> tuple[Fraction, ...]:
        """Its figures outside its relations and its answer, in order."""
        spans = [r.span for r in self.reading.relations]
        spans += [(v.start, v.end) for v in self.reading.values]
        found = _ANSWER.search(self.text)
        if found is not None:
            spans.append(found.span())
        rest = list(self.text)
        for start, end in spans:
            rest[start:end] = " " * (end - start)
        return figures("".join(rest))

    @property
    def sides(self) -> Iterator[Formula]:
        """Both sides of each relation, in order."""
        for relation in self.reading.relations:
            yield from (relation.left, relation.right)

    @property
    def computes(self) -> bool:
        """Whether it has an equation without variables, or a labelled value."""
        return bool(self.reading.values) or any(
            relation.closed for relation in self.reading.relations
        )

    @property
    def chooses(self) -> bool:
        """Whether it may pick one of several ways to go on."""
        return _CHOOSES.search(self.text) is not None

    @property
    def conclusion(self) -> Formula | None:
        """What it concludes: an answer, the last right side, or the last figure."""
        if self.answer is not None:
            return self.answer
        ends = [r.right for r in self.reading.relations] + list(self.reading.values)
        if ends:
            return max(ends, key=lambda formula: formula.end)
        if "\\" in self.text or "^" in self.text:
            return None
        found = list(_FIGURE.finditer(_PLACES.sub(_blank, self.text)))
        if not found or _is_part(self.text, found[-1]):
            return None
        return _formula(self.text, found[-1].start(), found[-1].end())


@functools.lru_cache(maxsize=1 << 11)
def read_step(text: str) -> Step:
    """A step with its relations."""
    return Step(text, read_relations(text))


def overlap(a: Step, b: Step) -> float:
    """The share of words that two steps have in common, from 0 to 1 (Dice)."""
    total = a.words.total() + b.words.total()
    if total == 0:
        return 1.0 if bool(a.figures) == bool(b.figures) else 0.0
    return 2 * (a.words & b.words).total() / total


def assignments(step: Step) -> dict[str, Relation]:
    """A step's relation for each left side with variables, by its text.

    A left side with several values (`z = -5 and z = -1`) is left out.
    """
    found: dict[str, Relation] = {}
    several = set()
    for relation in step.reading.relations:
        if relation.sign != "=" or not variables(relation.left.node):
            continue
        name = "".join(relation.left.text.split())
        if name in found:
            several.add(name)
        found[name] = relation
    return {name: found[name] for name in found if name not in several}


def _chain(step: Step, first: Relation) -> list[Formula]:
    """What a chain of relations says of its first side, the last right side first."""
    relations = step.reading.relations
    at = next(i for i, relation in enumerate(relations) if relation is first)
    sides = [first.right]
    for relation in relations[at + 1 :]:
        if not relation.chained or relation.sign != "=":
            break
        sides.append(relation.right)
    return sides[::-1]


def values(step: Step) -> list[Fraction]:
    """What a step computes: values of its closed expressions with an operation."""
    found = []
    for relation in step.reading.relations:
        if not relation.closed:
            continue
        for side in (relation.left, relation.right):
            if operations(side.node):
                try:
                    found.append(percents.values(side)[0])
                except FormulaError:
                    continue
    return found


@functools.lru_cache(maxsize=1 << 11)
def computed_by(text: str) -> frozenset[Fraction]:
    """What the operations in a text's relations give: 8 and 2 of `2^3 + x = 1+1`."""
    return frozenset(
        value
        for relation in read_relations(text).relations
        for side in (relation.left, relation.right)
        for value in parts(side.node)
    )


def compared(a: Step, b: Step, least_overlap: float) -> tuple[Formula, Formula] | None:
    """The two formulas, of `a` and `b`, that have to be equal; None where none have to.

    Final answers always have to. Values of one variable have to where they have the
    same other variables: of `g = 3 - 2y = 6 - 8x` the last that has. Conclusions have
    to where the steps say the same otherwise.
    Steps that choose a way on only have to agree in what they compute.
    """
    if a.answer is not None and b.answer is not None:
        return a.answer, b.answer
    if (a.chooses or b.chooses) and not (a.computes and b.computes):
        return None
    theirs = assignments(b)
    for text, relation in assignments(a).items():
        other = theirs.get(text)
        if other is None:
            continue
        pairs = (
            (ours, known)
            for ours in _chain(a, relation)
            for known in _chain(b, other)
            if variables(ours.node) == variables(known.node)
        )
        if (ends := next(pairs, None)) is not None:
            return ends
    if overlap(a, b) < least_overlap or _same_cases(a, b):
        return None
    ends = a.conclusion, b.conclusion
    if ends[0] is None or ends[1] is None or _of_different(a, b):
        return None
    if variables(ends[0].node) != variables(ends[1].node):
        return None
    return ends[0], ends[1]


def only_ends_differ(a: Step, b: Step, ends: tuple[Formula, Formula]) -> bool:
    """Whether two steps have the same figures beside their conclusions."""
    rest = (
        figures(step.text[: end.start] + " " + step.text[end.end :])
        for step, end in zip((a, b), ends, strict=True)
    )
    return Counter(next(rest)) == Counter(next(rest))


def reduced(text: str) -> Counter[Fraction]:
    """The figures of a text, `2/4` and `8:12` as one number each."""
    found: list[Fraction] = []

    def note(match: re.Match[str]) -> str:
        found.append(Fraction(int(match[1]), int(match[2])))
        return " "

    rest = _QUOTIENT.sub(note, text)
    return Counter((*found, *figures(rest)))


def one_quantity(a: Step, b: Step, ends: tuple[Formula, Formula]) -> bool:
    """Whether two conclusions are one quantity in two units: $7 and 700 cents."""
    units = [_unit(step, end) for step, end in zip((a, b), ends, strict=True)]
    if units[0] is None or units[1] is None or units[0][0] != units[1][0]:
        return False
    if any(end.stated is None for end in ends):
        return False
    sizes = [
        end.stated.value * unit[1]
        for end, unit in zip(ends, units, strict=True)
        if end.stated is not None and unit is not None
    ]
    return sizes[0] == sizes[1]


def _unit(step: Step, end: Formula) -> tuple[str, Fraction] | None:
    if end.money or step.text[: end.start].endswith("$"):
        return everyday("dollars")
    word = re.match(r"\s*([A-Za-z]+)", step.text[end.end :])
    return everyday(word[1]) if word else None


def _same_cases(a: Step, b: Step) -> bool:
    """Whether two steps have the same equations in another order: `x = 3 or x = -3`."""
    ours, theirs = (
        [
            "".join(f"{r.left.text}={r.right.text}".split())
            for r in step.reading.relations
        ]
        for step in (a, b)
    )
    return len(ours) > 1 and ours != theirs and Counter(ours) == Counter(theirs)


def _of_different(a: Step, b: Step) -> bool:
    """Whether two conclusions are about different things: `15d^2 = 4` and `d^2 = 4`.

    Of prose only a last figure that the other step does not mention is a conclusion.
    """
    ours, theirs = (s.reading.relations[-1:] for s in (a, b))
    bare = [not (s.reading.relations or s.reading.values) for s in (a, b)]
    if bare[0] != bare[1]:
        bare_one, other = (a, b) if bare[0] else (b, a)
        return bare_one.figures[-1:] != () and bare_one.figures[-1] in other.figures
    if not (ours or a.reading.values) and not (theirs or b.reading.values):
        return a.figures[-1:] != b.figures[-1:] and a.figures[-1] in b.figures
    sides = ["".join(r.left.text.split()) for r in (*ours, *theirs) if not r.closed]
    return len(sides) == 1 or len(set(sides)) > 1


def _is_part(text: str, figure: re.Match[str]) -> bool:
    """Whether a figure belongs to an expression, a point or a list: `(5, 3)`."""
    before = text[: figure.start()].rstrip(" $€£")
    after = text[figure.end() :].lstrip(" $")
    listed = re.search(r"[0-9](?:,|,? and)$", before) is not None
    ratio = before[-1:] == ":" and before[-2:-1].isdigit()
    return (
        listed or ratio or before[-1:] in set("*/+-=(<>×") or after[:1] in set("*/+^=")
    )


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _formula(text: str, start: int, end: int) -> Formula | None:
    tokens: list[Token] = [
        t._replace(start=t.start + start, end=t.end + start)
        for t in tokenize(text[start:end].strip())
        if t.kind not in ("row",) and t.text != "."
    ]
    try:
        return parse_formula(tokens, text)
    except FormulaError:
        return None
