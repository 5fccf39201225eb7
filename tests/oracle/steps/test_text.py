"""The text oracle: hand-made verdicts, what it reads, hostile text, real steps."""

from __future__ import annotations

import concurrent.futures
import json
import math
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
from aprm_jax.oracle.steps.formula import (
    FormulaError,
    Node,
    approximate,
    exact,
    identical,
    latex,
)
from aprm_jax.oracle.steps.parsing import MAX_DEPTH
from aprm_jax.oracle.steps.relations import read_relations
from aprm_jax.oracle.steps.text import KINDS, TextConfig, TextOracle
from aprm_jax.oracle.verdict import Label, Oracle

ORACLE = TextOracle()
QUESTION = "Ann has 48 clips and sells half of them. Each costs $3. How many are left?"
STEP = "She sells 48 / 2 = 24 clips."
YES, NO, OPEN = Label.CORRECT, Label.INCORRECT, Label.UNDECIDABLE


def test_it_is_an_oracle():
    assert isinstance(ORACLE, Oracle)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("48/2 = 24 clips in May", True),
        ("48/2 = 25 clips in May", False),
        (r"$\frac{1}{2} + \frac13 = \frac{5}{6}$", True),
        (r"$\frac{1}{2} + \frac13 = \frac{2}{5}$", False),
        (r"\[\left(3+4\right)\cdot 2 = 14\]", True),
        (r"\(2 \times 3 \div 4 = 1.5\)", True),
        (r"$2^{10} = 1{,}024$ and $\sqrt{16} = 4$", True),
        (r"$\sqrt{16} = 5$", False),
        (r"$\boxed{3 + 4 = 8}$", False),
        (r"\begin{aligned} 3+4 &= 7 \\ &= 8 \end{aligned}", False),
        (r"$12 \text{ cm} \times 3 \text{ cm} = 36 \text{ cm}^2$", True),
        ("5 apples + 3 apples = 9 apples", False),
        (r"20\% \cdot 50 = 10", True),
        ("$1,200 + $30 = $1,230", True),
        ("$1,200 + $30 = $1,240", False),
        ("1 1/2 + 2 = 3 1/2", True),
        (r"$1\frac{1}{2} + 2 = \frac{7}{2}$", True),
        ("3 x 4 = 12 = 2 · 6", True),
        ("3 x 4 = 12 = 2 · 5", False),
        ("2/3 = 0.67 and 100/3 = 33.33", True),
        (r"$\frac{2}{3} \approx 0.7$", True),
        (r"$\frac{2}{3} \approx 7$", False),
        (r"$\sqrt{2} = 1.41$", True),
        (r"$\sqrt{2} = 1.51$", False),
        ("5! = 120, so", True),
        (r"$\binom{5}{2} = 10$", True),
        (r"$\binom{5}{2} = 12$", False),
        ("24 = 48/2", True),
        (r"$y = 2(x+1) = 2x+1$", False),
        (r"$(x+1)^2 = x^2+2x+1 = x(x+2)+2$", False),
        # Undecided, or no claim at all:
        (r"$y = 2(x+1) = 2x+2$", None),  # whatever y is
        (r"$(x+1)^2 = x^2+2x+1 = x(x+2)+1$", True),
        (r"$(x+1)^2 = x^2+1$", None),  # an equation to solve
        (r"$\sqrt{12} = 2\sqrt{3}$", None),  # asks the pool
        ("half of 10 + 3 = 8", None),
        ("100/3 = 33", None),
        ("0.333 * 3 = 1", None),
        ("1 hour - 20 minutes = 40 minutes", None),
        ("The cost of 5 boxes = 15", None),
        ("Day 1 = 5 + 3", None),
        ("There are 3*2=6!", None),
        ("6:00 + 48 = 6:48", None),
        ("1/2x = 4", None),
        ("2000 / 2/3 = 3000", None),
        (r"$f(3) = 7$", None),
        (r"$17 = 2 \pmod{5}$", None),
        (r"$|3-5| = 2$", None),
        ("0.333... = 1/3", None),
        ("bee-eaters + 50 cheetahs = 670", None),
    ],
)
def test_truth_of_equations(text, truth):
    verdict = ORACLE.judge(text, (text,), None, text)
    assert verdict.label == {True: YES, False: NO, None: OPEN}[truth], verdict


@pytest.mark.parametrize(
    ("candidate", "label", "kind"),
    [
        (STEP, YES, "copied"),
        ("She sells  48 / 2 = 24 clips. ", YES, "copied"),
        ("So she sells 48/2 = 24 clips.", YES, "correct"),
        ("She sells 24 = 48/2 clips.", OPEN, "prose"),
        ("She sells 48 · .5 = 24 clips.", YES, "correct"),
        ("She sells 48 / 2 = 25 clips.", NO, "wrong_result"),
        ("She sells 48 * 2 = 96 clips.", NO, "different_conclusion"),
        ("She sells 408 / 17 = 24 clips.", NO, "changed_number"),
        ("She sells 48 / 16 = 3 clips.", NO, "different_conclusion"),
        ("She sells 48 / <<48/2=25>>25 clips.", NO, "wrong_result"),
        ("Nothing is known of her.", OPEN, "no_reference"),
        ("", OPEN, "no_reference"),
        ("1" * 5_000, OPEN, "too_long"),
    ],
)
def test_verdicts_with_the_correct_step(candidate, label, kind):
    verdict = ORACLE.judge(QUESTION, (), STEP, candidate)
    assert (verdict.label, verdict.kind) == (label, kind), verdict.reason
    assert label != NO or kind in KINDS


@pytest.mark.parametrize(
    ("prefix", "original", "candidate", "label", "kind"),
    [
        ((), "So $x = 5$.", "Thus $x = 6$.", NO, "different_conclusion"),
        ((), "So $x = 5$.", r"Thus $x = \frac{10}{2}$.", YES, "correct"),
        ((), "$y = 2(x+1)$.", "$y = 2x+2$.", YES, "correct"),
        ((), "$y = 2(x+1)$.", "$y = 2x+1$.", NO, "different_conclusion"),
        ((), "Let $x = 5$.", "Let's try $x = 6$.", OPEN, "no_reference"),
        ((), "It is 4.\n\n# Answer\n\n4", "# Answer\n\n5", NO, "wrong_answer"),
        ((), "# Answer\n\n0.5", "It is # Answer\n\n1/2", YES, "correct"),
        ((), "An hour has 60 minutes.", "An hour has 61 minutes.", NO, None),
        (
            (),
            "She has 4 + 5 = 9 and 9 * 2 = 18.",
            "She has 4 + 7 = 11 and 9 * 2 = 18.",
            NO,
            "changed_number",
        ),
        (
            (),
            "She has 4 + 5 = 9, then 9 * 2 = 18 eggs in all of them.",
            "She has 4 * 5 = 20, then 9 * 2 = 18 eggs in all of them.",
            NO,
            "different_operation",
        ),
        (
            (),
            "She sells 48 / 2 = 24, then 24 * 3 = 72 dollars of these clips.",
            "She sells 48 + 19 = 67, then 24 * 3 = 72 dollars of these clips.",
            NO,
            None,
        ),
        (("$2x + 3 = 7$",), None, "So $2x = 5$.", NO, "contradiction"),
        (("$2x + 3 = 7$",), None, "So $2x = 4$.", OPEN, None),
        (("$x = 5$",), None, "$3x + 1 = 17$", NO, "contradiction"),
        (("$x = 5$",), None, "If $x = 4$, it fails.", OPEN, None),
        (("Either $x = 5$ or not.",), None, "$x = 4$", OPEN, None),
        (("$x^2 = 4$",), None, "$x = -2$", OPEN, None),
        # Neither value contradicts the other, nor does what is only wanted.
        (("$2x = 14$",), None, "So $x = 3$ and $x = 5$.", OPEN, None),
        (("$y = 4$",), None, "We want to solve $y = 5$.", OPEN, None),
        # The left sides are not `Q`, and not `f` times a bracket.
        (("$Q = 20$",), None, "Angle P + angle Q = 60", OPEN, None),
        ((r"$f(2) = 7$",), None, r"$f \left(2\right) = 8$", OPEN, None),
        # What a part of an earlier formula gives is known: 9 is the square of -3.
        ((), "So $c = 216+6(-3)^2$.", "So $c = 216+6(9)$.", YES, "correct"),
        ((), "So $c = 216+6(-3)^2$.", "So $c = 216+6(8)$.", NO, None),
        # A restated product or point concludes nothing.
        ((), "It is 2 * (3/4) * (1/1) = 3/2.", "It is 2 * (3/4) * (1/1).", OPEN, None),
        (
            (),
            "The side from (5, 1) to (6, 1).",
            "The side from (5, 2) to (6, -2).",
            OPEN,
            None,
        ),
        (("Let's plug in.",), "Plug in $x = 4$.", "Plug in $x = 5$.", OPEN, None),
    ],
)
def test_verdicts_with_context(prefix, original, candidate, label, kind):
    verdict = ORACLE.judge(QUESTION, prefix, original, candidate)
    assert verdict.label == label, verdict
    assert kind in (None, verdict.kind), verdict


def test_without_the_correct_step_an_unlicensed_number_is_undecidable():
    text = "She sells 48 + 17 = 65 clips."
    assert ORACLE.judge(QUESTION, (), None, text).kind == "unlicensed_number"
    assert ORACLE.judge(QUESTION + " 17", (), None, text).label == YES
    assert ORACLE.judge(QUESTION, ("17 more.",), None, text).label == YES


def test_the_span_is_where_the_false_equation_stands():
    text = r"First $x = 3$, then $\frac{6}{2} = 4$ and $1+1 = 2$."
    verdict = ORACLE.judge("6 and 2", (), None, text)
    assert verdict.span is not None
    assert text[slice(*verdict.span)] == r"\frac{6}{2} = 4"
    assert verdict.reason == r"\frac{6}{2} = 4, but it is 3"
    verdict = ORACLE.judge("", (), None, "24 = 5 * 5")
    assert verdict.reason == "24 = 5 * 5, but 5 * 5 is 25"


def test_strictness_is_configured():
    other = "In total there are 3 + 4 = 7 apples for us."
    strict = TextOracle(config=TextConfig(least_overlap=0.0))
    assert ORACLE.judge("3 and 4", (), STEP, other).label == OPEN
    assert strict.judge("3 and 4", (), STEP, other).label == NO
    with pytest.raises(ValueError, match="least_overlap"):
        TextConfig(least_overlap=2.0)


class _Slow:
    """A pool whose answers come when the test says."""

    def __init__(self):
        self.asked: list[tuple[str, str]] = []
        self.future: concurrent.futures.Future[bool | None]

    def submit(self, a: str, b: str) -> concurrent.futures.Future[bool | None]:
        self.asked.append((a, b))
        self.future = concurrent.futures.Future()
        return self.future


@pytest.mark.parametrize(("answer", "label"), [(True, YES), (False, NO), (None, OPEN)])
def test_submitting_does_not_wait_for_the_pool(answer, label):
    slow = _Slow()
    oracle = TextOracle(slow)
    future = oracle.submit("12, 2, 3", (), None, r"$\sqrt{12} = 2\sqrt{3}$, 1+1 = 2.")
    assert not future.done()
    slow.future.set_result(answer)
    assert future.result(timeout=5).label == label
    assert slow.asked == [(r"\sqrt[2]{12}", r"\left(2\cdot \sqrt[2]{3}\right)")]
    # What exact arithmetic decides never asks.
    assert oracle.submit("", (), None, "1+1 = 3").result(timeout=0).label == NO
    assert len(slow.asked) == 1


def test_a_pool_that_fails_is_an_error_of_the_future():
    class Broken:
        def submit(self, a: str, b: str) -> concurrent.futures.Future[bool | None]:
            raise RuntimeError("no process starts")

    future = TextOracle(Broken()).submit("", (), None, r"$\sqrt{12} = 2\sqrt{3}$")
    with pytest.raises(RuntimeError, match="no process starts"):
        future.result(timeout=5)


def test_roots_and_functions_go_through_the_pool():
    with EquivalencePool(PoolConfig(workers=1, deadline_s=20.0)) as pool:
        oracle = TextOracle(pool)
        texts = {
            r"$\sqrt{12} = 2\sqrt{3}$": YES,
            r"$\sqrt{12} = 3\sqrt{2}$": NO,
            r"$\sin 30^\circ = \frac12$": YES,
            r"$\sin 30^\circ = \frac13$": NO,
            r"$y = \sqrt{4x^2} = 5\sqrt{x^2}$": NO,
        }
        futures = [oracle.submit("12 3 2 30", (), None, text) for text in texts]
        labels = [future.result(timeout=120).label for future in futures]
    assert labels == list(texts.values())


SPELLINGS = st.recursive(
    st.integers(0, 20).map(lambda n: (str(n), f"Fraction({n})")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda t: (f"({t[0][0]}{t[1]}{t[2][0]})", f"({t[0][1]}{t[1]}{t[2][1]})")
        ),
        st.tuples(inner, inner).map(
            lambda t: (rf"\frac{{{t[0][0]}}}{{{t[1][0]}}}", f"({t[0][1]}/{t[1][1]})")
        ),
        st.tuples(inner, st.sampled_from([r"\cdot", r"\times", "×"]), inner).map(
            lambda t: (
                rf"\left({t[0][0]} {t[1]} {t[2][0]}\right)",
                f"({t[0][1]}*{t[2][1]})",
            )
        ),
    ),
    max_leaves=6,
)


@given(SPELLINGS)
@settings(deadline=None, max_examples=60)
def test_formulas_equal_python(spelling):
    text, python = spelling
    relations = read_relations(f"${text} + 0 = 0$").relations
    if not relations:
        assert re.search(r"[0-9)}]\s*\\frac", text) or text.count("{") > MAX_DEPTH
        return
    try:
        # The strategy wrote this text: nothing hostile in it.
        expected = eval(python, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(FormulaError):
            exact(relations[0].left.node)
        return
    assert exact(relations[0].left.node) == expected


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+1", False),
        (r"\frac{x^2-1}{x-1}", "x+1", True),
        (r"\frac{1}{x-x}", "1", None),  # has no value anywhere
        (r"\sqrt{x^2}", "x", None),
        ("x_1 + x_2", "x_2 + x_1", True),
        ("ab", "ba", True),
        ("x^{60}y^{60}", "(xy)^{60}", None),  # beyond the limits
        ("AB", "BA", False),  # names, not products
    ],
)
def test_identity(a, b, answer):
    relation = read_relations(f"${a} = {b}$").relations[0]
    assert identical(relation.left.node, relation.right.node) is answer


def test_approximations_and_latex():
    relation = read_relations(r"$\sqrt[3]{8} = 2$").relations[0]
    assert exact(relation.left.node) == 2
    relation = read_relations(r"$2\pi + \sqrt{8} = \sin 30^\circ$").relations[0]
    assert approximate(relation.left.node) == pytest.approx(2 * math.pi + 8**0.5)
    assert approximate(relation.right.node) == pytest.approx(0.5)
    assert latex(relation.right.node) == (
        r"\sin\left(\left(30\cdot \frac{\pi}{180}\right)\right)"
    )


def test_latex_names_each_variable_by_a_letter_or_an_index():
    names = [Node("variable", name=f"price_{k:02}") for k in range(18)]
    total = names[0]
    for name in names[1:]:
        total = Node("+", (total, name))
    written = latex(total).replace(r"\left(", "").replace(r"\right)", "").split("+")
    assert written[:3] == ["x", "y", "z"]
    assert written[-2:] == ["v_{17}", "v_{18}"]
    assert len(set(written)) == 18
    assert not set(written) & set("deifghcmst"), "constants, functions, units"


HOSTILE = [
    "9^" * 60 + "9",
    "9**9**9**9",
    "((9!)!)!",
    "999999999!",
    r"\binom{999999999}{499999999}",
    r"\frac" * 500,
    r"\sqrt{" * 500,
    "(" * 3_000,
    "(" * 1_000_000,
    "-" * 3_000 + "1",
    "1" * 1_000_000,
    "1/0",
    "0^{-1}",
    "x^{x^{x^x}}",
    "\0" * 100,
    "\ud800+1",
    "٣+٤",  # Arabic-Indic digits
    "１+１",  # full-width digits
    "х = 1",  # a Cyrillic letter
    "__import__('os').system('true')",
    "{0.__class__.__mro__}",
    "%s%s%n",
    r"\def\a{\a\a}\a",
    r"\newcommand{\b}{\b}\b",
    "1e999",
    "",
    "=" * 3_000,
    "$" * 3_000,
    "\\" * 3_000,
    "," * 3_000,
    "1=" * 2_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_never_called_correct_or_raises(text):
    for step in (f"{text} = 1", f"${text}$ = $2$", f"x = {text}", text):
        for original in (None, STEP, step + " ."):
            verdict = ORACLE.judge(text, (text, step), original, step)
            verdict.reason.encode("ascii")
            if len(step) > 100 or "9" in text:
                assert verdict.label != YES or original is not None, verdict


@given(
    st.lists(
        st.sampled_from(
            [
                *("=", "≈", "$", r"\frac", r"\sqrt", "{", "}", "(", ")", "1", "2,3"),
                *(".", "%", "^", "/", "x", "!", "# Answer", "half", r"\\", "&", "½"),
                *(r"\text{", r"\left", "-", "*", "^9", "of", "cm", "f(", "_", "|", "e"),
                *(r"\binom{9}", r"\sin", "<<", ">>", "####", "if", "\ud800", "\0", "٣"),
            ]
        )
        | st.text(max_size=3),
        max_size=30,
    ).map("".join)
)
@settings(deadline=None, max_examples=250)
def test_no_text_raises(text):
    for original in (None, STEP, text):
        verdict = ORACLE.judge(text, (text,), original, text + " ")
        verdict.reason.encode("ascii")
        if verdict.span is not None:
            assert 0 <= verdict.span[0] <= verdict.span[1] <= len(text) + 1
        ORACLE.judge(QUESTION, (text,), original, "x = 3 so 2x = 7")


def test_human_solutions_are_rarely_called_wrong(shared_data):
    path = shared_data / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}")
    labels = []
    for line in path.read_text(encoding="utf-8").split("\n")[:300]:
        row = json.loads(line)
        answer = re.sub("<<.*?>>", "", row["answer"])
        steps = answer.split("\n")
        for k, step in enumerate(steps):
            labels.append(ORACLE.judge(row["question"], steps[:k], None, step).label)
    assert labels.count(NO) / len(labels) < 0.01
    assert labels.count(YES) / len(labels) > 0.6
