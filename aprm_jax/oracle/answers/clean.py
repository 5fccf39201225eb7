"""Makes spellings of one answer alike before it is parsed: signs, spaces, dollars."""

from __future__ import annotations

import re
from fractions import Fraction

from aprm_jax.oracle.answers.spoken import in_signs
from aprm_jax.oracle.answers.wordings import (
    bare,
    feet_and_inches,
    in_figures,
    one_spelling,
)
from aprm_jax.oracle.numerals import number_in_words
from aprm_jax.oracle.units import everyday

_VULGAR = "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_SHARES = (
    *("12", "14", "34", "13", "23", "15", "25", "35", "45", "16", "56", "18", "38"),
    *("58", "78"),
)
_SIGNS = {
    **dict.fromkeys("−–—﹣－", "-"),
    **dict.fromkeys("×·⋅∙✕", "*"),
    "÷": "/",
    "∕": "/",
    "≤": r"\le ",
    "≥": r"\ge ",
    "⩽": r"\le ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∈": r"\in ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "∨": r"\lor ",
    "∧": r"\land ",
    "≮": r"\ge ",
    "≯": r"\le ",
    "∣": r"\mid ",
    "∫": r"\int ",
    "∞": r"\infty ",
    "π": r"\pi ",
    "√": r"\sqrt ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "ℝ": r"\mathbb{R}",
    "→": r"\to ",
    **{
        sign: rf"\frac{{{s[0]}}}{{{s[1:]}}}"
        for sign, s in zip(_VULGAR, _SHARES, strict=True)
    },
    "‰": r"\cdot\frac{1}{1000}",
    "∛": r"\sqrt[3] ",
    "₹": r"\text{₹}",
    "²": "^2",
    "³": "^3",
    "⁴": "^4",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "∶": ":",
    "：": ":",
    "，": ",",
    "；": ";",
    "（": "(",
    "）": ")",
    "％": "%",
    "μ": r"\mu ",
    "µ": r"\mu ",
    "Å": r"\text{Å}",
    "€": r"\text{€}",
    "£": r"\text{£}",
    "¢": r"\text{ cents}",
    "¥": r"\text{¥}",
    "′": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "θ": r"\theta ",
    "\t": " ",
    "\r": " ",
    "\n": " ",
    "\xa0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u200b": None,
}
# 1'234, 1.234.567, 1.234.567,89: thousands as some countries write them.
_LOCAL = re.compile(
    r"(?<![\w.,'])([0-9]{1,3})(?:((?:'[0-9]{3})+)|((?:\.[0-9]{3}){2,})(?:,([0-9]+))?)"
    r"(?![\w.,'][0-9]|['\w])"
)
_CURRENCY = re.compile(
    r"(US(?=\\?\$)|USD|EUR|GBP|INR|JPY|CNY|RMB|Rs\.?)\s?\\?\$?\s?([0-9][0-9.,]*)"
)
_CODES = {
    **{"US": "dollars", "USD": "dollars", "EUR": "euros", "GBP": r"\text{£}"},
    **{"JPY": "yen", "CNY": "yuan", "RMB": "yuan"},
}
_IN_BASE = re.compile(
    r"\(?([0-9][0-9A-Za-z]*)\)?\s*(?:_\s*\{?\s*|\(?\s*base[ -]?)\s*"
    r"([0-9]+|[a-z]+)\s*\}*\)?"
)
_RATIO_OF = re.compile(r"([a-z0-9]+) (?:out of|in) ([a-z0-9]+)", re.IGNORECASE)
_HALF_MORE = re.compile(r"([0-9]+) and a half")
_NUMBERED = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
    *("ninth", "tenth", "eleventh", "twelfth"),
)
_BUILDER = re.compile(r"\{\s*[a-zA-Z]\s*(?:\||:|\\mid).*(?:[<>=]|\\[lgn]e)")
_TIMES = re.compile(r"(?<=[0-9]) times(?=$| (?:as|more|less|the|[a-z]+er)\b)")
_HALF_LINES = re.compile(
    r"\\mathbb\s*\{?R\}?(?:\^\{?\s*([+-])\s*\}?|_\s*\{\s*(>|<|\\g[e]q?|\\l[e]q?)\s*0\s*\})"
)
# A Python string that was not raw has turned \\f and \\b into control signs; some texts
# have lost the backslash.
_ESCAPES = {"\x07": r"\a", "\x08": r"\b", "\x0b": r"\v", "\x0c": r"\f"}
_ESCAPED = re.compile(r"[\x07\x08\x0b\x0c](?=[a-z])")
_LOST = re.compile(
    r"(?<![\\a-zA-Z])(?:[dt]?frac|sqrt|binom|bar|hat|vec|tilde|overline|text|boxed)"
    r"(?=\{)"
)
# A raised number of several signs, or a digit that no single sign stands for above.
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻]{2,}|[⁰¹⁵-⁹]")
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUBSTITUTE = str.maketrans(_SIGNS)
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:!> ]|q?quad|thinspace\b|hspace\{[^{}]*\}|space\b)|~"
)
_STYLE = re.compile(
    r"\\(?:left|right|bigg|Bigg|big|Big|bigl|bigr|Bigl|Bigr|mleft|mright|displaystyle|"
    r"limits|nolimits|textstyle|boldmath|middle)(?![a-zA-Z])\s*\.?"
)
_DELIMITED = re.compile(r"\\[()\[\]]")
_LEADING = re.compile(
    r"^(?:approximately|about|roughly|exactly|only|is|are|at|on|equals|approx\.?|around"
    r"|(?:a )?total of)\s+",
    re.IGNORECASE,
)
_ENDING = re.compile(r"[\s.,;:?\"`]+$")
_THOUSANDS = re.compile(
    r"(?<=[0-9])(?:,\s*\\!\s*|\s*\{\s*,\s*\}\s*)(?=[0-9]{3}(?![0-9]))"
)
_SPACED = re.compile(
    r"(?<![0-9.,^_] )(?<![0-9.,^_])([0-9]{1,3}(?: [0-9]{3})+)(?![0-9])"
)
_BLANKS = re.compile(r"(?<![0-9a-zA-Z]) | (?![0-9a-zA-Z])")
_NUMBER_AS_TEXT = re.compile(r"\\text\s*\{\s*([-+]?[0-9][0-9.,/]*)\s*\}")
_POWER_AS_TEXT = re.compile(
    r"\\(?:mathrm|text)\s*\{\s*(10\s*\^\s*(?:\{[^{}]*\}|-?[0-9]+))\s*\}"
)
_FINAL_DOT = re.compile(
    r"(?<=[0-9])\.(?=\s*(?:$|[}$),;]|\\(?!overline|bar|dot(?![a-z]))))"
)
_REPEATING = re.compile(r"(?<![0-9])([0-9]+\.[0-9]*)\(([0-9]+)\)(?:\.\.\.|\\l?dots)?$")
_BRACKETS = {
    **{r"\lbrack": "[", r"\rbrack": "]", r"\lgroup": "(", r"\rgroup": ")"},
    **{r"\lparen": "(", r"\rparen": ")", r"\lbrace": r"\{", r"\rbrace": r"\}"},
    **{r"\vert": "|", r"\Vert": r"\|", r"\colon": ":"},
}
_BRACKET = re.compile(r"\\(?:[lr](?:brack|group|paren|brace)|[vV]ert|colon)")
_NOON = re.compile(r"\b([aApP])\.\s?[mM]\.?(?![a-zA-Z])")
_AND = re.compile(r"([0-9.]+)\s*([a-z]+)(?:,?\s+and\s+|,\s*)(?=[0-9.]+\s*([a-z]+))")
_WORDED = re.compile(r"(?:[0-9.]+\s*\\text\s*\{[a-z ,]+\}\s*){2,}")
_WRAPPED = re.compile(r"\$?\\(?:text|mbox|textrm)\s*\{([^{}]*[0-9][^{}]*)\}\$?")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[a-zA-Z]+\}")
_TAG = re.compile(r"\\(?:tag|phantom)\*?\s*\{[^{}]*\}")
_OVER = re.compile(r"\{\s*([^{}]+?)\s*\\over\s+([^{}]+?)\s*\}")
_NEGATED = {
    "=": r"\ne ",
    **dict.fromkeys((r"\leqslant", r"\leq", r"\le"), ">"),
    **dict.fromkeys((r"\geqslant", r"\geq", r"\ge"), "<"),
    **{"<": r"\ge ", ">": r"\le "},
}
_NOT = re.compile(r"\\not\s*(=|<|>|\\[lg]e(?:q(?:slant)?)?(?![a-zA-Z]))")
_LOGIC = {r"\lor": " or ", r"\vee": " or ", r"\land": " and ", r"\wedge": " and "}
_CONNECTED = re.compile(r"\\(?:lor|vee|land|wedge)(?![a-zA-Z])")
_LONGEST_PERIOD = 64  # characters of a decimal that goes on
# `0.333...` goes on for ever; a single digit must stand there three times.
_GOES_ON = re.compile(
    r"(-?[0-9]*\.[0-9]*?)(?:([0-9])\2{2,}|([0-9]{2,6})\3+)\s*(?:\.{3,}|…|\\l?dots)\s*\$?"
)
# `$2k$` is a formula.
_THOUSANDS_OF_MONEY = re.compile(
    r"((?:\\\$|^\$(?=[^$]*$))\s?[0-9][0-9.,]*)\s?([kKmMbB])\b"
)
_LARGE = {"k": "thousand", "m": "million", "b": "billion"}
_MANY = "infinitely many"
_WORDS = {
    **{"noon": "12 PM", "midnight": "12 AM"},
    **{"infinity": r"\infty", "negative infinity": r"-\infty"},
    "no": r"\text{no}",  # and no n times o
    **dict.fromkeys(("dne", "d.n.e", "undefined"), "does not exist"),
    **dict.fromkeys(("all integers", "integers"), r"\mathbb{Z}"),
    **dict.fromkeys(("all natural numbers", "natural numbers"), r"\mathbb{N}"),
    **dict.fromkeys(("infinite solutions", "infinitely many solutions"), _MANY),
    **{"converges": "convergent", "diverges": "divergent"},
}
_TEMPERATURE = re.compile(
    r"\s*\\?\bdeg(?:ree)?s? (C|F)(?:elsius|ahrenheit)?\b"
    r"|\s*\\text\s*\{\s*deg(?:ree)?s? (C|F)(?:elsius|ahrenheit)?\s*\}",
    re.IGNORECASE,
)
_PLUS_OR_MINUS = re.compile(r"\+\s?/\s?-|\bplus or minus\b", re.IGNORECASE)
_EXCEPT = re.compile(r"all real numbers except(?: for)? (.+)", re.IGNORECASE)
_ENDS_INSIDE = r"([^()\[\],]+,[^()\[\],]+)"
# Intervals whose open ends have a bracket that is turned away: `[1, 2[`, `]1, 2]`.
_TURNED_AWAY = re.compile(rf"\[{_ENDS_INSIDE}\[|\]{_ENDS_INSIDE}\]|\]{_ENDS_INSIDE}\[")
_ANGLED = re.compile(r"<([^<>=]+(?:,[^<>=]+)+)>")
_ARC = re.compile(
    r"(?<![0-9])([0-9]+)\s*\^\s*\{?\s*\\circ\s*\}?\s*([0-9]{1,2})\s*'(?!')"
    r"(?:\s*([0-9]{1,2})\s*(?:''|\"))?"
)
_MINUS = re.compile(
    r"^(?:(?:negative|minus)\s+(?=[0-9\\])|\\text\s*\{\s*(?:negative|minus)\s*\}\s*)",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"(?<![0-9:])0?([0-9]{1,2})(?::00|(:[0-5][0-9]))(?=\s*(?:\\text\s*\{\s*)?[AaPp][Mm]\b)"
)
_MULTIPLE = re.compile(
    r"\\text\s*\{\s*((?:hundred|thousand|[mb]illion|trillion|dozen)s?)\s+(?=[a-z])"
)


def clean(text: str) -> str:
    """The answer in one spelling; total, and idempotent for what it removes."""
    text = _LOST.sub(r"\\\g<0>", _ESCAPED.sub(lambda m: _ESCAPES[m[0]], text))
    if r"\\begin" in text:  # every backslash was doubled
        text = text.replace("\\\\", "\\")
    text = _RAISED.sub(lambda m: f"^{{{m[0].translate(_DIGITS)}}}", text)
    text = text.translate(_SUBSTITUTE).strip()
    bare_text = text.strip("$ ")
    short = len(bare_text) <= _LONGEST_PERIOD  # or it takes seconds to find none
    goes_on = _GOES_ON.fullmatch(bare_text) if short else None
    if goes_on:
        period = goes_on[2] or goes_on[3]
        return rf"{goes_on[1]}\overline{{{period}}}"
    whole = _WRAPPED.fullmatch(text)
    if whole:
        text = whole[1].strip()
    text = _COLOUR.sub("", _TAG.sub("", text))
    text = _OVER.sub(r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<=[0-9])\s*\^\s*(?:o(?![a-z])|\{o\})", r"^\\circ", text)
    text = re.sub(r"^(-?[0-9./]+) to (-?[0-9./]+)$", r"\1:\2", text)
    text = _ARC.sub(_degrees, text)
    text = _TEMPERATURE.sub(lambda m: rf"^\circ {(m[1] or m[2]).upper()}", text)
    text = _PLUS_OR_MINUS.sub(r"\\pm ", text)
    text = feet_and_inches(text)
    text = _NOT.sub(lambda m: _NEGATED[m[1]], text)
    text = _CONNECTED.sub(lambda m: _LOGIC[m[0]], text)
    text = re.sub(r"\\(?:text)?cent(?![a-zA-Z])", r"\\text{ cents}", text)
    text = _THOUSANDS_OF_MONEY.sub(lambda m: f"{m[1]} {_LARGE[m[2].lower()]}", text)
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z!,%$])", r"\\", text)  # escaped twice
    text = text.replace('\\"', "").replace('"', "")
    text = re.sub(r"(?<=[0-9)}])(or|and)(?=[A-Z0-9(\\])", r" \1 ", text)
    text = _THOUSANDS.sub("", text)
    text = re.sub(r"\\(?:d|t|c)frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:[dt]binom)(?![a-zA-Z])", r"\\binom", text)
    text = _DELIMITED.sub(" ", text) if "\\begin" not in text else _matrix_safe(text)
    text = _STYLE.sub(" ", text)
    text = _BRACKET.sub(lambda m: _BRACKETS[m[0]], text)
    text = _NOON.sub(r"\1M", text)
    text = _CLOCK.sub(lambda m: m[1] + (m[2] or ""), text)  # 09:00 AM is 9 AM
    text = _MULTIPLE.sub(r"\1 \\text{", text)
    return _in_words(_trimmed(re.sub(r"\\(?:boxed|fbox)\s*(?=\{)", "", text)))


def _trimmed(text: str) -> str:
    """Without emphasis, dollars, and what stands around the answer."""
    text = _SPACES.sub(" ", text)
    text = re.sub(r"\\(?:,|\.)?dots[a-z]?\b|\\ldots\b", r"\\dots ", text)
    text = _dollars(text)
    text = re.sub(r"\*\*(?=\s*[-0-9a-zA-Z({])(?<=[0-9a-zA-Z)}]\*\*)", "^", text)
    text = re.sub(r"\*\*|(?<![0-9a-zA-Z)}\s])\*|`", "", text)  # bold
    text = re.sub(r"(?<=[0-9)])\s*[xX]\s*(?=10\s*\^)", "*", text)
    text = _POWER_AS_TEXT.sub(r"\1", text)
    text = re.sub(r"(?<=[0-9]) +(?=10\s*\^)", r" \\times ", text)  # 3.5 10^{-19}
    text = re.sub(r"\{\s*\}\s*(?=\^\s*\{?\s*\\circ)", "", text)
    text = re.sub(r"(?<=[0-9])\s*\{\s*\\circ\s*\}", r"^\\circ", text)
    text = re.sub(r"\\%", "%", text)
    text = _FINAL_DOT.sub("", text)
    text = _SPACED.sub(lambda m: m[1].replace(" ", ""), text)
    text = re.sub(r"\s+", " ", text).strip()
    for _ in range(3):
        text = _LEADING.sub("", _ENDING.sub("", text)).strip()
        if text.endswith("\\"):
            text = text[:-1]
        text = _unwrap(text)
    return _MINUS.sub("-", text)


def _in_words(text: str) -> str:
    """Sets, numbers and quantities that are said in another way."""
    text = in_signs(_EXCEPT.sub(r"\\mathbb{R}\\setminus\{\1\}", text))
    turned = _TURNED_AWAY.fullmatch(text)
    if turned:
        left, right, both = turned.groups()
        text = f"[{left})" if left else f"({right}]" if right else f"({both})"
    text = _ANGLED.sub(r"(\1)", text) if _ANGLED.fullmatch(text) else text
    text = re.sub(r"(?<![a-zA-Z\\])oo(?![a-zA-Z])", r"\\infty", text)
    text = re.sub(r"(?<=,)\s*\.{3,}(?=\s*,)", r"\\dots", text)
    text = _TIMES.sub(r" \\text{times}", text)
    text = re.sub(r"\b(sq|cu)\.|(per) (?=cent\b)", r"\1\2", text)
    text = _HALF_LINES.sub(_half_line, text)
    text = _said(_LOCAL.sub(_thousands, text))
    if _WORDED.fullmatch(text):
        text = bare(text)
    text = in_figures(one_spelling(_AND.sub(_smaller, text)))
    if text.endswith(")") and not re.search(r"[(\[]", text):
        text = text[:-1]  # of a bracket that was opened before the answer
    text = _REPEATING.sub(r"\1\\overline{\2}", text)
    number = _NUMBER_AS_TEXT.fullmatch(text)
    return number[1] if number else _WORDS.get(bare(text).lower(), text)


def _smaller(match: re.Match[str]) -> str:
    """`1 hour and 30 minutes` without the `and`: one quantity, not two."""
    larger, smaller = everyday(match[2]), everyday(match[3])
    if larger and smaller and larger[0] == smaller[0] and larger[1] > smaller[1]:
        return f"{match[1]} {match[2]} "
    return match[0]


def _degrees(match: re.Match[str]) -> str:
    """Degrees with minutes and seconds as a fraction of degrees."""
    seconds = 60 * (60 * int(match[1]) + int(match[2])) + int(match[3] or 0)
    return rf"\frac{{{seconds}}}{{3600}}^\circ"


def _half_line(match: re.Match[str]) -> str:
    """The positive numbers of `\\mathbb{R}^+`, and their like."""
    sign = match[1] or match[2]
    closed = "e" in sign
    if sign == "+" or sign[0] == ">" or "g" in sign:
        return rf"{'[' if closed else '('}0,\infty)"
    return rf"(-\infty,0{']' if closed else ')'}"


def _thousands(match: re.Match[str]) -> str:
    whole = match[1] + re.sub(r"[.']", "", match[2] or match[3])
    return f"{whole}.{match[4]}" if match[4] else whole


def _said(text: str) -> str:
    """A whole answer in words, or in a base or a currency that words tell."""
    if len(text) > _LONGEST_PERIOD:
        return text
    found = _NUMBERED.fullmatch(text)
    if found is not None:
        return found[1]
    if text.lower() in _ORDINALS:
        return str(_ORDINALS.index(text.lower()) + 1)
    found = _HALF_MORE.fullmatch(text)
    if found is not None:
        return rf"{found[1]}\frac{{1}}{{2}}"
    found = _CURRENCY.fullmatch(text)
    if found is not None:
        return f"{found[2]} {_CODES.get(found[1], 'rupees')}"
    found = _RATIO_OF.fullmatch(text)
    if found is not None:
        parts = [
            Fraction(x) if x.isdigit() else number_in_words(x) for x in found.groups()
        ]
        if all(parts):
            return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    found = _IN_BASE.fullmatch(text)
    base = found and (found[2] if found[2].isdigit() else number_in_words(found[2]))
    return f"{found[1].upper()}_{{{base}}}" if found and base else text


def _matrix_safe(text: str) -> str:
    """Removes `\\(` and the like, but no row separator `\\\\` before a bracket."""
    return re.sub(r"(?<!\\)\\[()\[\]]", " ", text)


def _dollars(text: str) -> str:
    r"""Removes `$` that delimit mathematics; one that means money becomes `\$`."""
    bare = re.findall(r"(?<!\\)\$+", text)
    money = re.fullmatch(r"\$([0-9.,][^$]*)\$[0-9.,]+", text)  # $5 and $7
    if len(bare) % 2 == 0 and not (money and re.search(r"[^0-9.,\s]", money[1])):
        return re.sub(r"(?<!\\)\$+", " ", text)
    return re.sub(r"(?<!\\)\$+", r"\\$", text)


def _unwrap(text: str) -> str:
    """Strips a brace pair around everything, and quotes."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].strip()
    if not (text.startswith("{") and text.endswith("}")):
        return text
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0 and at < len(text) - 1:
            return text
    return rf"\{text[:-1]}\}}" if _BUILDER.match(text) else text[1:-1].strip()


def alike(a: str, b: str) -> bool:
    """Whether two cleaned answers differ in blanks only, and in none that count."""
    return a == b or _BLANKS.sub("", a) == _BLANKS.sub("", b)


def plain(text: str) -> str:
    """Words without case, articles and the commands around them."""
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm|textnormal|mathbf|rm)\b", "", text)
    text = re.sub(r"\b[aA]n? (?=[a-z]{2})|(?<=[A-Za-z])\.", "", text)
    return re.sub(r"[\s{}\\$]|\bthe\b", "", text).casefold().rstrip(".")
