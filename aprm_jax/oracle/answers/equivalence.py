"""Whether two answers say the same: their readings, options, parsed terms."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, Protocol, get_args, runtime_checkable

from aprm_jax.oracle.answers.clean import alike, clean, plain
from aprm_jax.oracle.answers.dates import same_date, same_time
from aprm_jax.oracle.answers.extraction import (
    MAX_ANSWER,
    choice_letters,
    extract,
    reduced,
)
from aprm_jax.oracle.answers.match import Matcher
from aprm_jax.oracle.answers.measured import measured
from aprm_jax.oracle.answers.rules import Tolerance
from aprm_jax.oracle.answers.terms import parse
from aprm_jax.oracle.answers.tokens import Term, TermError, is_numeric
from aprm_jax.oracle.answers.wordings import (
    has_way,
    opposed,
    same_residue,
    without_ways,
)

Kind = Literal["math", "number", "choice", "choices", "text"]


class Outcome(enum.Enum):
    """What a comparison says; an answer that cannot be read is neither."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class AnswerVerdict:
    """An outcome with a reason that a person can read."""

    outcome: Outcome
    reason: str = ""

    @property
    def equal(self) -> bool:
        """Whether the answers agree; an unreadable one does not."""
        return self.outcome is Outcome.EQUAL


@runtime_checkable
class Pool(Protocol):
    """Decides what our own rules cannot, in processes that are killed at a deadline."""

    def equal(self, a: str, b: str) -> bool | None:
        """Whether two expressions are one; None for a timeout or an unreadable one."""
        ...


_WITHIN = re.compile(
    r" \(within ([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[-+]?[0-9]{1,2})?)\)\Z"
)


def within(answer: str, gap: str) -> str:
    """A reference that says by how much a number may differ; the answer without.

        >>> grade("4.29", within("4.2", "0.1"))
        True

    Args:
      answer: the right answer.
      gap: a number as text, at least 0 and below 1e20; "" for none.

    Raises:
      ValueError: the gap is no such number.
    """
    if not gap:
        return answer
    if not 0 <= float(gap) < 1e20:
        raise ValueError(f"a tolerance of {gap!r}; it must be a number of at least 0")
    return f"{answer} (within {float(gap)!r})"


def same_answer(
    given: str | None,
    expected: str,
    *,
    kind: Kind | None = None,
    tolerance: float | None = None,
    relative: float | None = None,
    pool: Pool | None = None,
    salt: str = "",
) -> AnswerVerdict:
    """Whether a given answer says the same as the expected one; never raises on text.

    Args:
      given: an answer, or a sentence or a solution with one; None is unreadable.
      expected: the reference answer, likewise; `within` makes one that has a tolerance.
      kind: `number` and `math` read no option letters, `choice` and `choices` nothing
        else, `text` compares words; None goes by what the expected answer looks like.
      tolerance: by how much a number may differ. With this or `relative`, the rules
        for rounded decimals no longer apply.
      relative: by which share of the expected number it may differ.
      pool: asked about expressions that our own parser cannot decide.
      salt: goes with both texts into the points at which expressions are compared. The
        same salt gives the same verdicts; a policy that does not know it cannot aim.

    Raises:
      ValueError: an unknown kind, or a negative tolerance.
    """
    if kind is not None and kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; known are {', '.join(get_args(Kind))}")
    if bounded := _WITHIN.search(expected.rstrip()):
        expected = expected[: bounded.start()]
        if tolerance is None and relative is None:
            tolerance = float(bounded[1])
    bounds = _tolerance(tolerance, relative)
    if given is None or not given.strip():
        return AnswerVerdict(Outcome.UNREADABLE, "no answer is given")
    if not expected.strip():
        return AnswerVerdict(Outcome.UNREADABLE, "no answer is expected")
    if kind in ("choice", "choices"):
        return _choices(given, expected, several=kind == "choices")
    wanted, found = _readings(expected), _readings(given)
    if alike(found[0], wanted[0]) and not opposed(found[-1], wanted[-1]):
        return AnswerVerdict(Outcome.EQUAL, "written alike")
    if kind == "text":
        same = any(plain(a) == plain(b) for a in found for b in wanted)
        return AnswerVerdict(Outcome.EQUAL if same else Outcome.DIFFERENT, "words")
    if kind is None and _means_options(found[-1], wanted[-1]):
        # First the whole: behind the letter, a sentence may speak of other options.
        for text in (given, found[-1]):
            verdict = _choices(text, wanted[-1], several=True)
            if verdict.outcome is not Outcome.UNREADABLE:
                return verdict
    matcher = Matcher(bounds, key=f"{salt}\x00{given}\x00{expected}")
    return _compare(found, wanted, matcher, pool)


def grade(given: str | None, reference: str) -> bool:
    r"""Whether an answer, or a solution that states one, agrees with a reference.

        >>> grade("So the area is $\frac{1}{2}\pi$.", "pi/2")
        True

    An answer that is missing, unreadable or beyond what can be decided is not right;
    `same_answer` tells these apart, as one of three outcomes. Needs no JAX, and never
    raises on any text.

    Args:
      given: an answer or a solution; None for none.
      reference: the right answer; `within` adds a tolerance to it.

    Raises:
      TypeError: something is no text; a number is to be written as one, `str(7)`.
    """
    for name, value in (("given", given or ""), ("reference", reference)):
        if not isinstance(value, str):
            kind = type(value).__name__
            raise TypeError(f"{name} must be text, not {kind} {value!r:.60}")
    return same_answer(given, reference).equal


_LETTERS = re.compile(r"\(?([A-J])\)?|[A-D]{2,4}|[A-J](?:\s*(?:,|and|&)\s*[A-J])+")
_OPTION = re.compile(r"(?:\([A-J]\)|[A-J][.):]) *\w.*")
_CALLED = re.compile(
    r"^(?:option|choice)s?\s+(?=\(?[A-Ja-j]\)?(?![A-Za-z]))", re.IGNORECASE
)


def _means_options(given: str, expected: str) -> bool:
    """Whether letters are options: those expected, or `(C) 12` against a letter."""
    if _LETTERS.fullmatch(_bare_letters(expected)):
        return True
    wanted = _OPTION.fullmatch(_bare_letters(expected))
    return bool(wanted and _LETTERS.fullmatch(_bare_letters(given)))


def _tolerance(absolute: float | None, relative: float | None) -> Tolerance:
    for name, value in (("tolerance", absolute), ("relative", relative)):
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value!r}; it must be a number of at least 0")
    # By its decimal text: 0.01 is meant, not the nearest binary fraction.
    return Tolerance(
        None if absolute is None else Fraction(repr(float(absolute))),
        None if relative is None else Fraction(repr(float(relative))),
    )


def _bare_letters(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox)\b", "", text)
    text = re.sub(r"[{}\\$\s]", " ", text).strip()
    bare = _CALLED.sub("", text)
    return bare.upper() if bare != text and len(bare) <= 3 else bare


def _readings(text: str) -> list[str]:
    """The cleaned answers that a text may state, the likeliest first."""
    answer = text
    if len(text) > 300 or "\n" in text.strip() or re.search(_STATES, text):
        answer = extract(text) or text
    short = answer[:MAX_ANSWER]
    readings = [clean(short)]
    shorter = clean(reduced(short))
    if shorter and shorter != readings[0]:
        # Where words surround it, what they surround is the answer.
        readings.insert(0, shorter)
    return [reading for reading in readings if reading] or [answer.strip()]


_STATES = re.compile(
    r"\\boxed|\\fbox|####|(?i:\banswers?\b\W{0,3}(?:is\b|are\b|:))|^\s*A:\s"
)


def _choices(given: str, expected: str, several: bool) -> AnswerVerdict:
    wanted = choice_letters(expected, several)
    if wanted is None:
        return AnswerVerdict(Outcome.UNREADABLE, "the expected answer names no option")
    found = choice_letters(given, several)
    if found is None:
        return AnswerVerdict(Outcome.UNREADABLE, "the given answer names no option")
    outcome = Outcome.EQUAL if found == wanted else Outcome.DIFFERENT
    return AnswerVerdict(outcome, f"{found}, where {wanted} is expected")


def _compare(
    found: list[str], wanted: list[str], matcher: Matcher, pool: Pool | None
) -> AnswerVerdict:
    unread: list[str] = []
    different = False
    if opposed(found[-1], wanted[-1]):
        return AnswerVerdict(Outcome.DIFFERENT, "the opposite")
    for text in found:
        for reference in wanted:
            if alike(text, reference):
                return AnswerVerdict(Outcome.EQUAL, "written alike")
            verdict, why = _pair(text, reference, matcher)
            if verdict:
                return AnswerVerdict(Outcome.EQUAL, "the same value")
            if verdict is False:
                different = True
            else:
                unread.append(why)
    if different and not unread:
        return AnswerVerdict(Outcome.DIFFERENT, "another value")
    asked = pool.equal(found[0], wanted[0]) if pool is not None else None
    if asked is not None:
        outcome = Outcome.EQUAL if asked else Outcome.DIFFERENT
        return AnswerVerdict(outcome, "by the pool")
    if different:
        return AnswerVerdict(Outcome.DIFFERENT, "another value")
    return AnswerVerdict(Outcome.UNREADABLE, unread[0] if unread else "nothing to read")


def _pair(given: str, expected: str, matcher: Matcher) -> tuple[bool | None, str]:
    for same in (same_time, same_date, same_residue):
        decided = same(given, expected)
        if decided is not None:
            return decided, ""
    if has_way(given) and has_way(expected):  # the same one
        given, expected = without_ways(given), without_ways(expected)
    found, wanted = _read(given), _read(expected)
    here, there = (t if isinstance(t, list) else [] for t in (found, wanted))
    here, there = [*measured(given, there), *here], [*measured(expected, here), *there]
    for side, read, terms in (("expected", wanted, there), ("given", found, here)):
        if not terms:
            return None, f"the {side} answer is not read: {read}"
    verdicts: list[bool | None] = []
    for a in here:
        for b in there:
            try:
                verdicts.append(matcher.same(a, b))
            except RecursionError:
                verdicts.append(None)
            if verdicts[-1]:
                return True, ""
    if None in verdicts:
        return None, "the two expressions could not be compared"
    return False, ""


def _read(text: str) -> list[Term] | TermError:
    try:
        return _terms(text)
    except TermError as error:
        return error


_POINT = re.compile(r"([A-Z]'?(?:_\{?[0-9]\}?)?)\s*(\(.*,.*\))")
_CHOICES = (
    re.compile(r"C\((?P<n>[0-9]{1,4}),\s*(?P<k>[0-9]{1,4})\)"),
    re.compile(r"C_\{?(?P<n>[0-9]{1,4})\}?\^\{?(?P<k>[0-9]{1,4})\}?"),
    re.compile(r"(?:\{ *\})?[_^]\{?(?P<n>[0-9]{1,4})\}? *C_\{?(?P<k>[0-9]{1,4})\}?"),
    re.compile(r"(?<!\w)(?P<n>[0-9]{1,4})C(?P<k>[0-9]{1,4})(?!\w)"),
)
_ORDERED = (
    re.compile(r"P\((?P<n>[0-9]{1,3}),\s*(?P<k>[0-9]{1,3})\)"),
    re.compile(r"(?:\{ *\})?[_^]\{?(?P<n>[0-9]{1,3})\}? *P_\{?(?P<k>[0-9]{1,3})\}?"),
    re.compile(r"(?<!\w)(?P<n>[0-9]{1,3})P(?P<k>[0-9]{1,3})(?!\w)"),
)
# 1.234,56 and 12,34,567, which may be lists as well.
_GROUPED = re.compile(
    r"-?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,2}|-?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}"
)


def _other_spellings(text: str) -> Iterator[str]:
    """What a text may stand for besides: a point `A(1, 2)`, a binomial `C(10, 3)`."""
    point = _POINT.fullmatch(text)
    if point is not None:
        yield f"{point[1]}={point[2]}"
    counted = text
    for pattern in _CHOICES:
        counted = pattern.sub(r"\\binom{\g<n>}{\g<k>}", counted)
    for pattern in _ORDERED:
        counted = pattern.sub(r"\\frac{\g<n>!}{(\g<n>-\g<k>)!}", counted)
    if counted != text:
        yield counted
    if _GROUPED.fullmatch(text):
        whole, _, rest = text.rpartition(",")
        dotted = "." in whole
        yield re.sub("[.,]", "", whole) + (f".{rest}" if dotted else rest)


_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]+),([0-9]+)(?![0-9.,])")
_GROUPS = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3})+")


def _terms(text: str) -> list[Term]:
    """The terms that a cleaned answer may be: `1,22` is a pair or a decimal."""
    others = list(_other_spellings(text))
    try:
        term = parse(text)
    except RecursionError as error:
        raise TermError("nested too deeply") from error
    except TermError:
        if not others:
            raise
        return [*map(parse, others)]
    first = [term, *map(parse, others)]
    if term.op == "rel" and term.name == "~" and is_numeric(term.args[0]):
        first = [term.args[0].args[0], *first]  # 10/3, or 3.33
    if re.search(r"[0-9],[0-9]", text):
        if re.search(r"[\[({]", text) or _GROUPS.fullmatch(text):
            # Within brackets a comma separates; `1,234` alone may do so as well.
            apart = re.sub(r"(?<=[0-9]),(?=[0-9])", ", ", text)
            terms = [parse(apart), *first]
            return terms if re.search(r"[\[({]", text) else [*first, terms[0]]
        apart = len(_DECIMAL_COMMA.findall(text)) == 1 == text.count(",")
        if apart and not re.search(r",[0-9]{3}(?![0-9])", text):
            return [*first, parse(_DECIMAL_COMMA.sub(r"\1.\2", text))]
    return first
