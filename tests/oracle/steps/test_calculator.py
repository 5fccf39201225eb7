"""The calculator oracle: hand-made verdicts, exact arithmetic, hostile text."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aprm_jax.oracle.numerals import format_number, read_stated
from aprm_jax.oracle.steps.calculator import CalculatorConfig, CalculatorOracle
from aprm_jax.oracle.steps.formula import FormulaError, exact
from aprm_jax.oracle.steps.parsing import read_expression
from aprm_jax.oracle.steps.quantities import licensed_by
from aprm_jax.oracle.verdict import Label

ORACLE = CalculatorOracle()
QUESTION = (
    "Natalia sold clips to 48 friends in April, and half as many in May. How many?"
)
STEP = "Natalia sold 48/2 = <<48/2=24>>24 clips in May."
PREFIX = (STEP,)
NEXT = "Natalia sold 48+24 = <<48+24=72>>72 clips altogether."
YES, NO, OPEN = Label.CORRECT, Label.INCORRECT, Label.UNDECIDABLE


@pytest.mark.parametrize(
    ("candidate", "label", "kind"),
    [
        (STEP, YES, "copied"),
        ("  Natalia sold 48/2 =  <<48/2=24>>24 clips in May. ", YES, "copied"),
        ("In May it was 48 / 2 = <<48/2=24>>24 clips.", YES, "correct"),
        ("In May it was 48*.5 = <<48*.5=24.0>>24 clips.", YES, "correct"),
        ("In May it was 48 / 2 = 24 clips.", YES, "correct"),
        ("Natalia sold 48/2 = <<48/2=25>>25 clips in May.", NO, "wrong_result"),
        ("Natalia sold 48/2 = 25 clips in May.", NO, "wrong_result"),
        ("Natalia sold 48/2 = <<48/2=24>>25 clips in May.", NO, "miscopied"),
        ("Natalia sold 46/2 = <<48/2=24>>24 clips in May.", NO, "miscopied"),
        ("Natalia sold 48/16 = <<48/16=3>>3 clips in May.", NO, "unlicensed_number"),
        ("Natalia sold 48*2 = <<48*2=96>>96 clips in May.", NO, "different_conclusion"),
        ("Natalia sold 48/2 = <<48/2=24 clips in May.", OPEN, "unreadable"),
        ("Natalia sold 48/2 = <<n/2=24>>24 clips in May.", OPEN, "unreadable"),
        ("Natalia sold <<48/2=24>>24, not <<48/2>>.", OPEN, "unreadable"),
        ("Natalia sold <<48/2=20>>20, not <<48/2>>.", NO, "wrong_result"),
        ("Natalia sold half of them.", OPEN, "no_claim"),
        ("Natalia sold 48/5 = <<48/5=9>>9 clips in May.", NO, "wrong_result"),
        ("#### 24", OPEN, "early_answer"),
        ("", OPEN, "no_claim"),
        ("1" * 5_000, OPEN, "too_long"),
    ],
)
def test_verdicts_with_the_correct_step(candidate, label, kind):
    verdict = ORACLE.judge(QUESTION, (), STEP, candidate)
    assert (verdict.label, verdict.kind) == (label, kind), verdict.reason


@pytest.mark.parametrize(
    ("candidate", "label", "kind"),
    [
        (NEXT, YES, "correct"),
        ("She sold 48*2 = <<48*2=96>>96.", YES, "correct"),  # true: all it can see
        ("She sold 48+24 = <<48+24=71>>71.", NO, "wrong_result"),
        ("She sold 48+17 = <<48+17=65>>65.", OPEN, "unlicensed_number"),
        ("She sold many.", OPEN, "no_claim"),
        ("#### 24", YES, "correct"),
        ("#### 48", OPEN, "early_answer"),
        ("#### many", OPEN, "unreadable"),
    ],
)
def test_verdicts_without_the_correct_step(candidate, label, kind):
    verdict = ORACLE.judge(QUESTION, PREFIX, None, candidate)
    assert (verdict.label, verdict.kind) == (label, kind), verdict.reason


@pytest.mark.parametrize(
    ("original", "candidate", "label", "kind"),
    [
        ("#### 1,080", "#### 1080", YES, "correct"),
        ("#### 1,080", "#### 1081", NO, "wrong_answer"),
        ("#### 72", "So she sold 48+24 = <<48+24=72>>72.", OPEN, "no_claim"),
        ("#### 72", "So she sold 48+24 = <<48+24=73>>73.", NO, "wrong_result"),
        ("An hour has 60 minutes.", "An hour has 61 minutes.", NO, "changed_number"),
        (
            "It costs $.5 because 2 x .25 = <<2*.25=.5>>.5",
            "It costs $.6 because 2 x .25 = <<2*.25=.5>>.5",
            NO,
            "changed_number",
        ),
        ("It is 3 and 4.", "It is 4 and 3.", OPEN, "no_claim"),
    ],
)
def test_answers_and_wording(original, candidate, label, kind):
    verdict = ORACLE.judge(QUESTION, PREFIX, original, candidate)
    assert (verdict.label, verdict.kind) == (label, kind), verdict.reason


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("<<1/3=0.33>>0.33", True),
        ("<<2/3=0.66>>0.66", None),  # cut, not rounded
        ("<<2/3=0.67>>0.67", True),
        ("<<2/3=0.68>>0.68", False),
        ("<<20/100*24=4.800000000000001>>4.8", True),  # floating point
        ("<<1/4=.3>>.3", True),
        ("<<1/4=.4>>.4", False),
        ("<<100/3=33>>33", None),  # cut to an integer: whole boxes, or wrong
        ("<<7/2=3>>3", False),
        ("<<20%*50=10>>10", True),
        ("<<100%-10%=90>>90%", True),
        ("<<1,200+30=1230>>1,230", True),
        ("<<2(3+4)=14>>14", True),
        ("<<2^10=1024>>1024", True),
        ("<<-14+-8+1=-21>>-21", True),
        ("<<560//10=56>>56", True),
        ("8 x 1 1/2 = 12 rolls", True),
        ("60% * 40% = 24%", True),
        ("2 × 3 = 6, and 12 ÷ 4 = 3.", True),
        ("so 5+5 = 10 = 2*5", True),
        ("so 5+5 = 10 = 3*5", False),
        ("16 ounces / 2 ounces/cookie = 8 cookies", True),
        ("16 ounces / 2 ounces/cookie = 9 cookies", False),
        # Not to be misread:
        ("half of 10 + 3 = 8", None),
        ("33 = x + 2x so 3x = 33", None),
        ("w - 20 + 10 = 30", None),
        ("21/7 = 90/x", None),
        ("6:00+48=6:48 PM", None),
        ("$2000 / 2/3 = $3000", None),
        ("650 000/2 = 325 000", None),
        ("$1 / 2 = 50 cents", None),
    ],
)
def test_truth_of_equations(text, truth):
    verdict = ORACLE.judge(text, (text,), None, text)
    expected = {True: YES, False: NO, None: OPEN}[truth]
    assert verdict.label == expected, verdict


@given(
    st.recursive(
        st.integers(0, 50).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
            lambda t: f"({t[0]}{t[1]}{t[2]})"
        ),
        max_leaves=8,
    )
)
@settings(deadline=None, max_examples=60)
def test_expressions_equal_python(text):
    python = "".join(f"Fraction({c})" if c.isdigit() else c for c in _digits(text))
    try:
        # The strategy wrote this text: nothing hostile in it.
        expected = eval(python, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(FormulaError):
            read_expression(text)
        return
    assert exact(read_expression(text).node) == expected


def _digits(text: str) -> list[str]:
    parts: list[str] = []
    for char in text:
        if char.isdigit() and parts and parts[-1].isdigit():
            parts[-1] += char
        else:
            parts.append(char)
    return parts


HOSTILE = [
    "9^" * 60 + "9",
    "9**9**9**9",
    "(" * 1_000_000,
    "(" * 40 + "1" + ")" * 40,
    "-" * 100 + "1",
    "1" * 1_000_000,
    "1/0",
    "0^-1",
    "1/(1-1)",
    "9" * 31 + "*2",
    "*".join(["999999999999999999999999999999"] * 40),
    "\0" * 100,
    "\ud800+1",
    "٣+٤",  # Arabic-Indic digits
    "１+１",  # full-width digits
    "__import__('os')",
    "1e999",
    "",
    "%",
    "," * 1_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_expressions_are_refused(text):
    with pytest.raises(FormulaError):
        read_expression(text)
    for step in (f"<<{text}=1>>1", f"{text} = 1", f"#### {text}", text, f"<<{text}"):
        for original in (None, STEP, step):
            verdict = ORACLE.judge(text, (text, step), original, step)
            verdict.reason.encode("ascii")
            assert verdict.label != NO or original is not None


@given(
    st.lists(
        st.sampled_from(
            [
                "<<",
                ">>",
                "=",
                "1",
                "2,3",
                ".",
                "%",
                "(",
                ")",
                "/",
                "x",
                "####",
                "half",
                "$",
                "²",
                "½",
                "-",
                "*",
                "^9",
                "of",
                "�",
            ]
        )
        | st.sampled_from(" \n\u2028")
        | st.text(max_size=3),
        max_size=24,
    ).map("".join)
)
@settings(deadline=None, max_examples=300)
def test_no_text_raises(text):
    for original in (None, STEP, text):
        ORACLE.judge(text, (text,), original, text + " ")
        ORACLE.judge(QUESTION, (), original, text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("half of 25%", ["1/2", "25", "1/4", "3/4", "75"]),
        ("twenty-five dozen", ["25", "12"]),
        ("two hundred fifty", ["250"]),
        ("three thousand two hundred", ["3200"]),
        ("two-thirds of them", ["2/3", "1/3"]),
        ("5/8 of them, $1,234.50", ["5/8", "3/8", "1234.5"]),
        ("2½ cups", ["5/2"]),
        ("50 cents", ["1/2"]),
    ],
)
def test_licences(text, numbers):
    assert {Fraction(n) for n in numbers} <= licensed_by(text)
    assert Fraction(17) not in licensed_by(text)


def test_stated_numbers():
    assert read_stated("$1,234.50") is not None
    assert read_stated("1,23") is None
    assert read_stated("12 34") is None
    assert format_number(Fraction(1, 3)) == "0.33"
    assert format_number(Fraction(-5, 4)) == "-1.25"
    assert format_number(Fraction(-1, 1000)) == "-0.001"


def test_constants_must_be_numbers():
    with pytest.raises(ValueError, match="constants"):
        CalculatorOracle(CalculatorConfig(constants=("many",)))


def test_human_solutions_are_rarely_called_wrong(shared_data):
    path = shared_data / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}")
    labels = []
    for line in path.read_text(encoding="utf-8").split("\n")[:400]:
        row = json.loads(line)
        steps = row["answer"].split("\n")
        for k, step in enumerate(steps):
            labels.append(ORACLE.judge(row["question"], steps[:k], None, step).label)
    assert labels.count(NO) / len(labels) < 0.01
    assert labels.count(YES) / len(labels) > 0.85
