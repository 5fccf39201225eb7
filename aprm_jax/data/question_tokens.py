"""What a question says: its words, numbers and signs, without layout.

A sign counts where it changes the question: operators, comparisons, brackets, decimal
points, and those that only formulas have. Spacing, case and the punctuation of prose do
not count. In doubt a sign counts: a question that is kept twice costs less than one
that is lost.
"""

from __future__ import annotations

import re
import unicodedata

_LAYOUT = re.compile(r"\\(?:left|right|displaystyle)\b|(?<!\\)\\[,;:! ]|[$]")
_TEXT = re.compile(r"\\text\b\s*(?:\{([^{}]*)\})?")
_RAISED = re.compile("[⁰¹²³⁴-ⁿ]+")
_LOWERED = re.compile("[₀-₎]+")
_VULGAR = re.compile("[¼½¾⅐-⅟↉]")
# LaTeX's braces round one token: x^{2}. Those of a set, \{2\}, are no layout.
_BRACED = re.compile(r"(?<!\\)\{\s*(\\?[^\W_]+|[^\w\s{}\\])\s*(?<!\\)\}")
_TOKEN = re.compile(
    r"\.{3,}"
    r"|\\[{}]|\\\\(?![^\W\d_])"  # a set's bracket, a matrix's end of row
    r"|\\?[^\W_]+"
    r"|(?<![^\W\d_])\.(?=\d)"  # a decimal point
    # A prime, f'(x) or (fg)': behind no word (Ann's, 'Ann') and no quoted letter.
    r"|(?<!(?:[^\W\d_]|')[^\W\d_])(?<=[^\W_]|[)\]}])'+(?![^\W\d_])"
    r"|[^\w\s.']|(?<!_)_(?!_)"
)
_SAME_SIGN = {
    **dict.fromkeys(["\\times", "\\cdot", "×", "·", "∙", "⋅", "∗"], "*"),
    **dict.fromkeys(["\\div", "÷", "⁄", "∕"], "/"),
    **dict.fromkeys(["−", "–", "‐", "‑", "‒"], "-"),
    **dict.fromkeys(["\\le", "\\leq", "\\leqslant", "⩽", "≦"], "≤"),
    **dict.fromkeys(["\\ge", "\\geq", "\\geqslant", "⩾", "≧"], "≥"),
    **dict.fromkeys(["\\ne", "\\neq"], "≠"),
}
_COUNT_ALWAYS = frozenset([*"-*/^%()[]{}⌊⌋⌈⌉⟨⟩", "\\{", "\\}", "\\\\"])
_CLOSING = frozenset([*")]}|!%⌋⌉⟩", "\\}"])
_BETWEEN_OPERANDS = frozenset(",;:&~")


def question_tokens(question: str) -> tuple[str, ...]:
    """A question's words, numbers and signs, without case, spacing and layout.

    Two questions with the same tokens are the same question.
    """
    found: list[str] = _TOKEN.findall(_plain(question))
    found = [_SAME_SIGN.get(token, token) for token in found]
    around = zip(["", *found], found, [*found[1:], ""], strict=False)
    kept = (now for before, now, after in around if _counts(before, now, after))
    return tuple(_named(token) for token in kept)


def _plain(question: str) -> str:
    """In lower case, characters of one meaning made one, without what is layout."""
    text = _RAISED.sub(r"^{\g<0>}", question)
    text = _LOWERED.sub(r"_{\g<0>}", text)
    text = _VULGAR.sub(r" \g<0>", text)
    text = re.sub("[’′]", "'", unicodedata.normalize("NFKC", text).casefold())
    text = _TEXT.sub(r" \1 ", text).replace("°", r" ^ \circ ")
    return _BRACED.sub(r" \1 ", _LAYOUT.sub(" ", text))


def _counts(before: str, token: str, after: str) -> bool:
    """Whether a token changes the question between its neighbours ("" for none)."""
    if _is_named(token) or token in _COUNT_ALWAYS or token[0] == "'":
        return True
    if token == "!":  # a factorial, or of !=
        return _ends_operand(before) or after == "="
    if token in _BETWEEN_OPERANDS:
        return _ends_operand(before) and not _is_prose(after)
    if token[0] in "._":
        return token == "." or not (_is_prose(before) or _is_prose(after))
    return unicodedata.category(token)[0] == "S" and token != "`"


def _is_named(token: str) -> bool:
    """Whether it is a word, a number or a command of LaTeX's."""
    return token[-1:].isalnum()


def _named(token: str) -> str:
    return token[1:] if _is_named(token) and token[0] == "\\" else token


def _ends_operand(token: str) -> bool:
    return token in _CLOSING or (_is_named(token) and not _is_prose(token))


def _is_prose(token: str) -> bool:
    """Whether it is a word rather than a variable, or nothing at all."""
    return not token or (token.isalpha() and len(token) > 1)
