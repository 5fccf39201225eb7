"""Which number a sentence says, and the words that make another quantity of it.

The last number of `12 to 15 apples` is no answer of its own, and neither is that of
`26 of them did not get 2 hotdogs`.
"""

from __future__ import annotations

import re

from aprm_jax.oracle.numerals import CARDINALS

_NEAR = 60  # characters before a number that can change it
_MOST = 40  # numbers of a sentence that are looked at, from the last one back

NUMBER = re.compile(
    r"(?<![\w.,^_{])-?[ ]?[$€£]?[ ]?-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
    r"(?:[.,][0-9]+)?(?:\s?/\s?[0-9]+(?![0-9]))?|(?<![\w.])-?\.[0-9]+"
)
_FIGURE = rf"(?:[0-9][0-9.,/]*|\b(?:{'|'.join(CARDINALS)}))"
_THAN = r"(?:more|less|fewer|greater|(?:larg|small|high|low|old|young)er) than"
_BETWEEN = rf"(?:plus|times|divided by|multiplied by|out of|(?<!no )(?<!not ){_THAN})"
# Words before a number that make another quantity of it: `one more than 12`.
_CHANGED = re.compile(
    rf"(?:{_FIGURE}\s+(?:minus|{_BETWEEN})|[0-9.]+\s?(?:%|percent) of"
    r"|\b(?:(?:an?|one|two|three)\s+)?(?:half|third|quarter|fourth|fifth|tenth)s? of"
    r"|\b(?:the )?(?:square |cube )?root of|\ball but|\bnone of"
    r"|\b(?:negative|minus|twice|double|thrice|triple|over|under|above|below|between)"
    r"|(?<!from )(?<![0-9.,])[0-9][0-9.,]*\s?(?:to|through|-|–|or))\s*(?:the\s+)?$",
    re.IGNORECASE,
)
# `does not have 12`, and `16 eggs out of the 64`, where another number is what is said.
_NOT_SAID = re.compile(
    r"(?:\b(?:not|never|cannot|without)|n['’]t)"
    r"(?:\s+(?!but\b|exceed|only\b|more\b|less\b|fewer\b)[A-Za-z]+){0,3}\s+$"
    rf"|\b{_BETWEEN}\s+(?:the\s+)?$",
    re.IGNORECASE,
)
# Behind a number that counts, and before one that does not: `the 3 winners are red`.
_ARE_SO = re.compile(
    r"%?(?:\s[a-z'’-]+){0,10}?\s(?:are|were|was|be)(?:\s[a-z'’-]+){1,8}[.]?"
)
_DEFINITE = re.compile(r"\b(?:(?i:the|these|those|all|both)|of|(?<=\s)[A-Z]\w+)\s+$")
_CHANGED_BEHIND = re.compile(
    r"\s?(?:squared|cubed|factorial|dozen|hundred|thousand|million|billion)\b"
)


def count_said(sentence: str) -> tuple[int, int] | None:
    """Where the last number stands that counts: 17 of `17 oranges that are good`."""
    for number in _last(sentence):
        known = _DEFINITE.search(_before(sentence, number))
        if not known and _ARE_SO.fullmatch(sentence, number.end()):
            return number.span()
    return None


def number_said(sentence: str) -> tuple[int, int] | None:
    """Where the number stands that a sentence says, with the words that change it.

    That is the last one, but for those that are refused or compared with, as long as
    there are others. None where there is no number.
    """
    numbers = _last(sentence)
    if not numbers:
        return None
    number = next((m for m in numbers if _is_said(_before(sentence, m))), numbers[0])
    before = _before(sentence, number)
    changed = _CHANGED.search(before) or _NOT_SAID.search(before)
    words = len(before) - changed.start() if changed else 0
    behind = _CHANGED_BEHIND.match(sentence, number.end())
    return number.start() - words, behind.end() if behind else number.end()


def _last(sentence: str) -> list[re.Match[str]]:
    """The numbers of a sentence, the last one first."""
    return [*NUMBER.finditer(sentence)][: -_MOST - 1 : -1]


def _before(sentence: str, number: re.Match[str]) -> str:
    return sentence[max(0, number.start() - _NEAR) : number.start()]


def _is_said(before: str) -> bool:
    return bool(_CHANGED.search(before)) or not _NOT_SAID.search(before)
