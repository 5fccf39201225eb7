"""The work on any text is bounded: calls are counted, at sizes up to the limits."""

from __future__ import annotations

import collections
import random
import sys

import pytest

from aprm_jax.oracle.answers import choice_letters, extract, same_answer
from aprm_jax.oracle.answers.segments import segments

# Calls, of Python and of C, within one comparison. Most texts take some thousands; a
# text that spends the whole budget of the arithmetic takes about a million.
MAX_CALLS = 2_000_000
# Calls for each character of a solution that is searched for its answer.
CALLS_A_CHARACTER = 12

FRAGMENTS = (
    *("0", "9", "1.5", ",", ";", ".", ":", "!", "%", "'", "*", "/", "+", "-", "^", "_"),
    *("=", "<", "(", ")", "[", "]", "{", "}", "|", "$", "$$", "\\", "x", "x_1", "f(x)"),
    *("e", "i", "ab", "\\pi", "\\(", "\\)", "\\[", "\\]", "\\{", "\\}", "\\frac"),
    *("\\frac{", "\\sqrt{", "\\sqrt[3]{", "\\sin", "\\sin^{-1}", "\\boxed{", "\\boxed"),
    *("\\text{", "\\text{a}", "\\left(", "\\cup", "\\cap", "[0,1]", "\\infty", "\\pm"),
    *("\\le", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\lfloor", "\\binom{9}{4}"),
    *("\\sum_{k=1}^{300}", "\\overline{3}", "^\\circ", "\\mid", "2000!", "2^{", "9^"),
    *(
        "{,}000",
        " 000",
        "answer is ",
        "answer: ",
        "Final Answer\n",
        "####",
        "A: ",
        "(A)",
    ),
    *(
        "A, ",
        " and ",
        " or ",
        "\n",
        "\n\n",
        " ",
        "so ",
        "cm",
        "million ",
        "AM",
        "€",
        "½",
    ),
    *("</think>", "<|im_end|>", "=1", "x<"),
)
NESTED = [
    (r"\sum_{k=1}^{300}", "k", ""),
    (r"\sin(", "x", ")"),
    (r"\sqrt{", "2", "}"),
    (r"\frac{1}{1+", "x", "}"),
    ("2^{", "2", "}"),
    ("(", "x+1", ")^2"),
    ("(", "9", "!)!"),
    (r"([0,1]\cup", "[2,3]", r"\cup[4,5])"),
    (r"([0,1]\cap", "[2,3]", r"\cup[4,5])"),
    ("(", "1", ",1)"),
    (r"\{", "1", r",1\}"),
    (r"\pm(1+", "1", ")"),
    (r"\lfloor ", "x", r"+x\rfloor"),
    (r"\overline{", "3", "}"),
]
LISTED = [
    (r"\sin %d", "+"),
    (r"\arcsinh %d", "*"),
    (r"\frac{%d}{7}", "+"),
    ("x^{%d}", "+"),
    ("(x+%d)", ""),
    ("(x-%dy)", ""),
    ("%d!", "+"),
    (r"\binom{2000}{%d}", "*"),
    (r"\sqrt[7]{%d}", "+"),
    (r"([%d,9]\cup[0,1])", r"\cap"),
    (r"[%d,9]", r"\cup"),
    (r"[%d,9]", r"\setminus"),
    ("%d", ","),
    ("(%d,2)", ","),
    ("x_%d=2", ","),
    ("x<%d", r"\text{ or }"),
    ("9%d^{9999}", "+"),
    ("%d.12345x", "+"),
    (r"\begin{pmatrix}%d&2\\3&4\end{pmatrix}^{16}", ""),
    (r"10^{9999}\bmod %d", "+"),
    (r"\gcd(2^{9999},3^{%d})", "*"),
    ("(%d+i)^{99}", "*"),
    ("%d333333333333/7777777777777777", "+"),
]
_SQUARE = r"\\".join("&".join("7" * 15) for _ in range(15))
GREAT = [
    rf"\begin{{pmatrix}}{_SQUARE}\end{{pmatrix}}^{{16}}",
    rf"(\begin{{pmatrix}}{_SQUARE}\end{{pmatrix}}^{{16}})^{{16}}",
    "$" + "1" * 660 + "a" * 660 + "$x",
    r"\cap".join([r"([0,1]\cup[0,1])"] * 100),
    r"\lfloor e^{999999}\rfloor \bmod 7",
    r"\operatorname{lcm}(" + ",".join(f"{p}^{{999}}" for p in range(2, 200)) + ")",
]


def calls(function, *args) -> collections.Counter[str]:
    """What a call calls, by name."""
    counts: collections.Counter[str] = collections.Counter()

    def count(frame, event, arg):
        if event == "call":
            counts[frame.f_code.co_name] += 1
        elif event == "c_call":
            counts[arg.__name__] += 1

    sys.setprofile(count)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return counts


def filled(fragment: str, size: int) -> str:
    return (fragment * (size // len(fragment) + 1))[:size]


def listed(form: str, mark: str, size: int) -> str:
    text = ""
    for k in range(1, size):
        item = form.replace("%d", str(k))
        if len(text) + len(mark) + len(item) > size:
            break
        text += mark * bool(text) + item
    return text


def mixtures(count: int) -> list[str]:
    source = random.Random(7)
    return ["".join(source.choices(FRAGMENTS, k=k % 4 + 2)) for k in range(count)]


@pytest.mark.parametrize("first", range(0, len(FRAGMENTS), 24))
def test_the_work_on_repeated_fragments_is_linear(first):
    fragments = (*FRAGMENTS[first : first + 24], *mixtures(200)[first : first + 5])
    for fragment in fragments:
        for size in (2_000, 8_000):
            text = filled(fragment, size)
            for search in (extract, choice_letters):
                found = calls(search, text).total()
                assert found <= CALLS_A_CHARACTER * size + 2_000, (fragment, size)
        for size in (500, 2_000):
            text = filled(fragment, size)
            found = calls(same_answer, text, text[:-1] + "2").total()
            assert found <= MAX_CALLS, (fragment, size, found)


@pytest.mark.parametrize("form", LISTED, ids=lambda form: "".join(form)[:24])
def test_the_work_on_many_items_is_bounded(form):
    for size in (500, 2_000):
        text = listed(*form, size)
        found = calls(same_answer, text, text.replace("2", "3", 1)).total()
        assert found <= MAX_CALLS, (size, found)


@pytest.mark.parametrize("form", NESTED, ids=lambda form: form[0])
def test_the_work_on_nested_forms_is_bounded(form):
    opening, core, closing = form
    for depth in (8, 40):
        text = opening * depth + core + closing * depth
        found = calls(same_answer, text, text + "+1").total()
        assert found <= MAX_CALLS, (depth, found)


@pytest.mark.parametrize("text", GREAT, ids=lambda text: text[:24])
def test_the_work_on_great_values_is_bounded(text):
    for other in ("7", GREAT[3]):
        assert calls(same_answer, text, other).total() <= MAX_CALLS


@pytest.mark.parametrize("mark", ["\\(", "\\[", "$$", "answer is \\[\n", "$$a\n"])
def test_a_formula_without_an_end_is_looked_for_once(mark):
    counts = calls(lambda: list(segments(mark * 5_000)))
    assert counts["find"] <= 5_000 // 2 + 3 if mark[0] == "$" else counts["find"] == 1
    assert counts.total() < 5 * len(mark) * 5_000
    assert calls(extract, mark * 1_000)["find"] <= 500
