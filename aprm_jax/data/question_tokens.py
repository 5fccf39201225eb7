"""What a question says: its words, numbers and signs, without layout.

A sign counts where it changes the question: operators, comparisons, brackets, decimal
points, and those that only formulas have. So does the case of variables, of units such
as mW and of LaTeX's commands. Spacing, the case of words and the punctuation of prose
do not count. In doubt a sign counts: a question that is kept twice costs less than one
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
# Operators of some problem's own, or a mark of a list: `5 @ 3`, `#A`, `• apples`.
_OWN = frozenset("@#§¶•†‡‖‰‱※⁂")
# A difference of sets: `A \ B`, `A\B`. A backslash and a blank may be LaTeX's space.
_SET_MINUS = re.compile(
    r"(?<=[\w)\]}]\s)\\(?=\s(?:\d|[^\W\d_](?![^\W_])|[(\[{]))"
    r"|(?<=[\w)\]}])\\(?=[A-Z0-9](?![^\W_]))"
)
_DIFFERENCE = "\ue000"  # stands for it, as no text does
_SHOUTED = re.compile(r"[^\W\d_]{2}")
# A name that begins or ends with one letter: O'Brien, Ann's.
_POSSESSIVE = re.compile(r"(?<![^\W_])[^\W\d_]'(?=[^\W\d_]{2})|'[sS](?![^\W_])")
# What stands behind a variable rather than an article.
_BEHIND_NAME = frozenset(
    (
        *("and", "are", "as", "at", "be", "by", "denote", "denotes", "equals", "for"),
        *("from", "had", "has", "have", "if", "in", "is", "of", "on", "or", "than"),
        *("then", "to", "was", "were", "with"),
    )
)
_BEHIND_I = frozenset(["be", "denote", "denotes", "equals", "is", "of"])
_UNIT = 3  # letters of a unit: mW, MHz, kWh


def question_tokens(question: str) -> tuple[str, ...]:
    """A question's words, numbers and signs, without spacing and layout.

    Two questions with the same tokens are the same question.
    """
    text = re.sub("[’′]", "'", unicodedata.normalize("NFKC", _spread(question)))
    if text.upper() == text and _SHOUTED.search(text):  # typed in capitals
        text = text.lower()
    text = _POSSESSIVE.sub(lambda name: name[0].lower(), text)
    found = _found(_SET_MINUS.sub(f" {_DIFFERENCE} ", text))
    around = zip(["", *found], found, [*found[1:], ""], strict=False)
    return tuple(
        _cased(before, now, after)
        for before, now, after in around
        if _counts(before, now, after) or _counts_too(before, now, after)
    )


def split_tokens(question: str) -> tuple[str, ...]:
    """A question's words, numbers and signs, fewer of them told apart.

    Questions whose `question_tokens` are the same have the same of these. Splits are
    drawn by them: what is held out stays so, whichever signs are learned to count.
    """
    plain = unicodedata.normalize("NFKC", _spread(question)).casefold()
    found = _found(re.sub("[’′]", "'", plain))
    around = zip(["", *found], found, [*found[1:], ""], strict=False)
    kept = (now for before, now, after in around if _counts(before, now, after))
    return tuple(_named(token) for token in kept)


def _spread(question: str) -> str:
    """Raised and lowered digits as LaTeX writes them; fractions apart from numbers."""
    text = _RAISED.sub(r"^{\g<0>}", question)
    text = _LOWERED.sub(r"_{\g<0>}", text)
    return _VULGAR.sub(r" \g<0>", text)


def _found(text: str) -> list[str]:
    """The tokens of a text, characters of one meaning made one, without layout."""
    text = _TEXT.sub(r" \1 ", text).replace("°", r" ^ \circ ")
    text = _BRACED.sub(r" \1 ", _LAYOUT.sub(" ", text))
    found: list[str] = _TOKEN.findall(text)
    return [_SAME_SIGN.get(token, token) for token in found]


def _cased(before: str, token: str, after: str) -> str:
    """A token in lower case, but for a variable, a unit, a command, a Greek letter."""
    if not _is_named(token) or token.islower():
        return _named(token)
    folded = _named(token.casefold())
    if token[0] == "\\":
        return _named(token)
    if len(token) == 1:
        if not before and _is_named(after):  # a sentence begins with a capital
            return folded
        behind_name = _BEHIND_I if token == "I" else _BEHIND_NAME
        prose = after and _is_prose(after) and after.casefold() not in behind_name
        return folded if token in "AI" and prose else token
    mixed = not token.isupper() and not token[1:].islower()
    short = len(token) <= (_UNIT if mixed else 2)
    unit = short and (before[-1:].isdigit() or mixed)
    number = any(character.isdigit() for character in token)  # A1 is no a1
    return token if unit or number else folded


def _counts_too(before: str, token: str, after: str) -> bool:
    """Whether a sign counts that splits were drawn without."""
    if token in _OWN:
        return not (_is_prose(before) and _is_prose(after))
    if token == "?":  # what is to be found, `7 ? 2`
        return _ends_operand(before) and _is_named(after) and not _is_prose(after)
    if token == _DIFFERENCE:
        return True
    return unicodedata.category(token[0])[0] == "M"  # a bar or a dot over a letter


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
