"""The arithmetic oracle against Python's own arithmetic, by kind, and under fire."""

from __future__ import annotations

import random

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from aprm_jax.oracle.embedded.arithmetic import (
    KINDS,
    ArithmeticOracle,
    all_contractions,
    legal_contractions,
    value,
)
from aprm_jax.oracle.embedded.rewriting import parse, write
from aprm_jax.oracle.embedded.wording import (
    MalformedStoryError,
    read_story,
    write_story,
)
from aprm_jax.oracle.verdict import Label

ORACLE = ArithmeticOracle()
MODULI = (0, 10)  # ordinary arithmetic, and last digits


def expression(rng: random.Random, numbers: int, largest: int = 99) -> str:
    """An expression written by other code than the package's."""
    parts = [str(rng.randint(1, largest)) for _ in range(numbers)]
    if rng.random() < 0.6:
        first = rng.randint(0, numbers - 2)
        last = rng.randint(first + 1, numbers - 1)
        parts[first] = "(" + parts[first]
        parts[last] = parts[last] + ")"
    text = parts[0]
    for part in parts[1:]:
        text += f" {rng.choice('+-*')} {part}"
    return text.replace("(", "( ").replace(")", " )")


def python_value(line: str, modulus: int = 0) -> int:
    exact = eval(line)  # the test's own text
    return exact % modulus if modulus else exact


EXPRESSIONS = [expression(random.Random(k), 2 + k % 6) for k in range(400)]


@pytest.mark.parametrize("modulus", MODULI)
def test_value_is_pythons(modulus: int):
    for line in EXPRESSIONS:
        assert value(line, modulus) == python_value(line, modulus), line
        assert value(line.replace(" ", ""), modulus) == python_value(line, modulus)
    assert value("3 +") is None


@pytest.mark.parametrize("modulus", MODULI)
def test_legal_contractions_preserve_the_value(modulus: int):
    seen = 0
    for line in EXPRESSIONS:
        for c in legal_contractions(line, modulus):
            same = python_value(line, modulus)
            assert python_value(c.line, modulus) == same, (line, c.line)
            assert write(parse(c.line)) == c.line
            seen += 1
    assert seen > 600


NUMBERS = st.integers(0, 999)
OPERATIONS = st.sampled_from("+-*")


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(NUMBERS, OPERATIONS, NUMBERS, NUMBERS, st.sampled_from(MODULI))
def test_one_operation_is_judged_as_python_computes_it(x, operator, y, given, modulus):
    right = python_value(f"{x} {operator} {y}", modulus)
    oracle, line = ArithmeticOracle(modulus), f"{x} {operator} {y}"
    verdict = oracle.judge(line, (), None, str(given))
    assert (verdict.label == Label.CORRECT) == (given == right)
    if right >= 0:
        assert oracle.judge(line, (), None, str(right)).kind == "correct"
    else:
        assert value(line, modulus) == right
        assert oracle.judge(line, (), None, str(right)).kind == "malformed"
        assert oracle.judge(line, (), None, str(-right)).label == Label.INCORRECT


@pytest.mark.parametrize(
    ("line", "step", "modulus"),
    [
        ("2 + 3 * 4", "2 + 12", 0),
        ("2 + 12", "14", 0),
        ("2+12", "14", 0),
        ("17 + 8 * 9", "17 + 72", 0),
        ("100 - 37", "63", 0),
        ("3 + 1 - 5", "4 - 5", 0),  # 1 - 5 is no number, 3 + 1 is
        ("2 + 3 * 4", "2 + 2", 10),
        ("2 + 2", "4", 10),
        ("3 - 5", "8", 10),
    ],
)
def test_what_a_reader_would_write_is_right(line: str, step: str, modulus: int):
    assert ArithmeticOracle(modulus).judge(line, (), None, step).kind == "correct"
    other = ArithmeticOracle(10 - modulus).judge(line, (), None, step)
    if (line, step) != ("3 + 1 - 5", "4 - 5"):
        assert (other.label == Label.CORRECT) == (line == "2 + 2")


def test_no_line_says_a_number_below_0():
    (contraction,) = all_contractions("3 - 5")
    assert contraction.value == -2
    assert contraction.obstacle == "a line has no numbers below 0"
    assert not legal_contractions("3 - 5")
    (long,) = all_contractions("9999 * 9999")
    assert long.value == 99980001 and not long.legal


def test_legal_is_what_a_bracket_does_not_change():
    """A pair may be contracted exactly if brackets around it change no value.

    Not for the numbers at hand, where it may by chance, but whatever they are.
    """
    rng = random.Random(0)
    seen = {True: 0, False: 0}
    for line in EXPRESSIONS:
        pieces = line.split()
        numbers = [i for i, piece in enumerate(pieces) if piece.isdigit()]
        pairs = [i for i in numbers if i + 2 in numbers]
        contractions = all_contractions(line, 10)  # all results can be written
        assert [c.text.replace(" ", "") for c in contractions] == [
            "".join(pieces[i : i + 3]) for i in pairs
        ]
        for i, c in zip(pairs, contractions, strict=True):
            same = True
            for _ in range(20):
                others = list(pieces)
                for k in numbers:
                    others[k] = str(rng.randint(100, 999))
                bracketed = [
                    *others[:i],
                    "(",
                    *others[i : i + 3],
                    ")",
                    *others[i + 3 :],
                ]
                same = same and eval("".join(others)) == eval("".join(bracketed))
            assert c.legal == same, (line, c.text)
            seen[same] += 1
    assert min(seen.values()) > 100


@pytest.mark.parametrize("modulus", MODULI)
def test_solutions_by_legal_steps_end_at_the_value(modulus: int):
    rng, oracle, ended = random.Random(1), ArithmeticOracle(modulus), 0
    for question in EXPRESSIONS:
        line, prefix = question, []
        while options := legal_contractions(line, modulus):
            step = rng.choice(options).line
            verdict = oracle.judge(question, prefix, None, step)
            assert (verdict.label, verdict.kind) == (Label.CORRECT, "correct")
            copied = oracle.judge(question, prefix, f" {step} ", step)
            assert (copied.label, copied.kind) == (Label.CORRECT, "copied")
            prefix.append(step)
            line = step
        if len(parse(line)) == 1:
            assert line == str(python_value(question, modulus))
            ended += 1
    assert ended == len(EXPRESSIONS) if modulus else ended > 200


STORY = "Ann has 3 pens , gets 4 bags of 5 pens , loses 2 pens ."  # 3 + 4 * 5 - 2
CASES = [
    ("3 + 4 * 2", "3 + 4 * 2", "unchanged"),
    ("3 + 4 * 2", "7 * 2", "illegal_contraction"),  # precedence
    ("9 - 3 + 4", "9 - 7", "illegal_contraction"),  # after a minus
    ("9 - 3 - 2", "9 - 1", "illegal_contraction"),
    ("2 * 3 - 1", "2 * 2", "illegal_contraction"),
    ("5 - 0 + 0", "5 - 0", "illegal_contraction"),  # even where the value survives
    ("3 + 4 * 2", "3 + 6", "wrong_operation"),
    ("5 - 2", "7", "wrong_operation"),
    ("3 + 4 * 2", "3 + 5", "wrong_result"),
    ("7 * 8", "6", "wrong_result"),  # its last digit
    ("17 + 8", "15", "wrong_result"),  # the carry is forgotten
    ("3 - 5", "2", "illegal_and_wrong"),
    ("3 + 4 * 2", "5 * 2", "illegal_and_wrong"),
    ("3 + 4 * 2 - 1", "3 + 8 - 2", "miscopied"),
    ("3 + 4 * 2 - 1", "3 + 8 + 1", "miscopied"),
    ("2 * ( 3 + 4 - 1 )", "2 * 7 - 1", "rebracketed"),
    ("3 + 4 * 2 - 1", "8 + 3 - 1", "reordered"),
    ("3 + 4 * 2 - 1", "3 + 8", "dropped_term"),
    ("2 * 3 * ( 4 + 5 )", "6", "dropped_term"),
    ("3 + 4 * 2", "3 + 8 + 8", "added_term"),
    ("3 + 4 * 2 - 1", "9", "wrong_leap"),
    (STORY, "3 + 4 * 5 + 2", "mistranslated"),
    (STORY, "( 3 + 4 ) * 5 - 2", "mistranslated"),
    (STORY, STORY, "unchanged"),
    (STORY, "Ann has 1 pens .", "malformed"),
    ("3 + 4 * 2", "3 + + 8", "malformed"),
    ("3 + 4 * 2", "", "malformed"),
    ("3 + 4 * 2", "3 + 0 8", "malformed"),
    ("3 + 4 * 2", "3 + 08", "malformed"),
    ("3 * 4", "1 2", "malformed"),
    ("3 * 4", "0000000012", "malformed"),
    ("2 * ( 3 + 4 )", "2 * ( 7 )", "malformed"),
    ("3 + 4", "7 " * 200, "malformed"),
    ("3 + 4", "\u0667", "malformed"),  # a digit, but not one of ours
    ("3 + 4 * 2", "3 + 4 * 9", "other"),
    ("1 + 2 + 3", "9 * 9", "other"),
    ("7", "8", "other"),
]


@pytest.mark.parametrize(("line", "candidate", "kind"), CASES)
def test_names_the_kind_of_error(line: str, candidate: str, kind: str):
    for question, prefix in ((line, ()), ("1 * 2 * 3", ("9 + 9", line))):
        verdict = ORACLE.judge(question, prefix, "1 + 1", candidate)
        assert (verdict.label, verdict.kind) == (Label.INCORRECT, kind)
        assert verdict.reason.endswith(".") and len(verdict.reason) < 200


def test_the_cases_cover_every_kind():
    assert {kind for *_, kind in CASES} == set(KINDS)


@pytest.mark.parametrize(
    ("line", "candidate", "kind"),
    [
        ("3 + 4 * 2 - 1", "10", "leap"),
        ("1 + 2 + 3 + 4", "3 + 7", "leap"),
        ("5 * 6 + 0 + 0", "30 + 0", "leap"),  # a dropped term as well: not decidable
        (STORY, "3 + 20 - 2", "leap"),
        ("what ?", "3", "unreadable"),
        ("1 + " * 12 + "1", "3", "unreadable"),
        ("1 + " * 200 + "1", "3", "unreadable"),
        ("Ann has 3 pens , gets 4 eggs .", "3 + 4", "unreadable"),
    ],
)
def test_undecidable(line: str, candidate: str, kind: str):
    verdict = ORACLE.judge(line, (), None, candidate)
    assert (verdict.label, verdict.kind) == (Label.UNDECIDABLE, kind)


def test_reason_gives_the_numbers():
    verdict = ORACLE.judge("9 - 3 + 4", (), None, "9 - 7")
    assert verdict.reason == "3 + 4 gives 7, but it stands after a '-'."
    verdict = ORACLE.judge("3 + 4 * 2", (), None, "3 + 6")
    assert verdict.reason == "4 * 2 gives 8, not 6: that is 4 + 2."


def test_stories_mean_their_expression():
    rng, written = np.random.default_rng(0), 0
    for line in EXPRESSIONS:
        story = write_story(parse(line), rng)
        if story is not None:
            assert write(read_story(story)) == line
            assert ORACLE.judge(story, (), line, line).kind == "copied"
            written += 1
    assert written > 150
    assert write_story(parse("( 1 + 2 ) * 3"), rng) is None


@pytest.mark.parametrize(
    "text",
    [
        "Ann has 3 pens",
        "Ann has 3 pens . .",
        "Zoe has 3 pens .",
        "Ann has 3 4 5 pens .",
        "Ann has 1234567 pens .",
        "Ann has 07 pens .",
        "Ann has 3 bags .",
        "Ann has a bundle with 3 pens .",
        "Ann has 2 bags each with a bundle with 3 pens and 4 pens .",
        "Ann has 3 pens and 4 pens .",
    ],
)
def test_other_stories_are_refused(text: str):
    with pytest.raises(MalformedStoryError):
        read_story(text)


WORDS = st.sampled_from([*"0123456789+-*()", "Ann", "has", "pens", ",", ".", "<step>"])
TEXT = st.one_of(
    st.text(max_size=300),
    st.lists(WORDS, max_size=30).map(" ".join),
    st.sampled_from([*EXPRESSIONS[:50], STORY]),
)


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(TEXT, st.lists(TEXT, max_size=2), st.none() | TEXT, TEXT)
def test_survives_any_text(question, prefix, original, candidate):
    verdict = ORACLE.judge(question, prefix, original, candidate)
    kinds = {
        Label.CORRECT: {"correct", "copied"},
        Label.INCORRECT: set(KINDS),
        Label.UNDECIDABLE: {"leap", "unreadable"},
    }
    assert verdict.kind in kinds[verdict.label]
    if verdict.label == Label.CORRECT:
        previous = prefix[-1] if prefix else question
        goal = value(previous)
        assert goal is None or goal == value(candidate)
