"""What an answer counts: the apples of `12 red apples left in the basket`."""

from __future__ import annotations

import re
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Where what is counted ends, and how, where or for whom it is counted begins.
TAIL = _words(
    "in on at for to that which who whose with from by after before during until since "
    "than when where while left remaining remain remained over are is were was be "
    "being been would will can could may should have has had do did does not between "
    "among within without inside outside as per each every apiece if because so long "
    "tall wide high deep thick old away apart ago up down out off through across "
    "around above below under together altogether combined overall now today a an"
)
# What says nothing of what is counted; of `pieces of candy` the candy is counted.
_VAGUE = _words(
    "the this these those his her their its our my your more fewer less extra "
    "additional total different distinct possible whole exactly about only such other "
    "all any some unit units number and or time times way ways"
)
_PART = _words("piec item thing object")
_PEOPLE = _words(
    "person student pupil child boy girl man woman adult teacher worker employe friend "
    "guest visitor customer player member passenger voter applicant participant"
)
_SAME = {
    "kid": "child",
    "people": "person",
    "individual": "person",
    "pts": "point",
    "pupil": "student",
}
_IRREGULAR = {
    **{"children": "child", "men": "man", "women": "woman", "feet": "foot"},
    **{"mice": "mouse", "geese": "goose", "teeth": "tooth", "dice": "die"},
    **{"vertices": "vertex", "matrices": "matrix", "indices": "index", "axes": "axis"},
}
# A plural ends what is counted: `17 oranges go bad`. These are no plurals.
_SINGULAR = _words("sports news tennis christmas gas canvas lens always this series")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Noun(NamedTuple):
    """What is counted: its word, words before it, and words behind `of`.

    The first is "" where nothing is told but parts of something.
    """

    head: str = ""
    before: frozenset[str] = frozenset()
    of: frozenset[str] = frozenset()


NOTHING = Noun()


def read_noun(text: str) -> Noun:
    """The noun of the words behind a number."""
    first, _, rest = re.sub(r"\s+", " ", text).strip().partition(" of ")
    if text.startswith("of "):
        first, rest = "", text[3:]
    before, closed = _phrase(first)
    behind = () if closed else _phrase(rest)[0]
    head = before[-1] if before else ""
    if head in _PART:
        head = ""
    return Noun(head, frozenset(before[:-1]), frozenset(behind))


def _phrase(text: str) -> tuple[list[str], bool]:
    """The words that name something, and whether others stand behind them."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if word in TAIL:
            return found, True
        if word in _VAGUE:
            continue
        found.append(stem(word))
        if plural(word):
            return found, match.end() < len(text)
    return found, False


def plural(word: str) -> bool:
    """Whether a word looks like the plural of a noun."""
    word = word.lower()
    regular = len(word) > 3 and word.endswith("s") and word[-2] not in "sui'’"
    return word in _IRREGULAR or word == "people" or (regular and word not in _SINGULAR)


def stem(word: str) -> str:
    """One spelling for a noun and its plural; it need not be a word."""
    word = _SAME.get(word, _IRREGULAR.get(word, word))
    if len(word) > 3 and word.endswith("s") and word[-2] not in "sui'’":
        word = word[:-1]
    word = word.removesuffix("e") if len(word) > 3 else word
    ends = {"v": "f", "i": "y"}
    word = word[:-1] + ends.get(word[-1], word[-1])
    return _SAME.get(word, word)


def contradict(a: Noun, b: Noun) -> bool:
    """Whether two nouns name two things, as far as their words tell.

    Words of one are not held against it where the other says less: `red apples` and
    `apples`. Synonyms are not known, but for a few names of people: a wrong thing that
    passes costs more than a right one in other words that does not.
    """
    if not a.head or not b.head:
        part, whole = (a, b) if not a.head else (b, a)
        of = part.of | part.before
        told = {whole.head, *whole.of} if whole.head else whole.of | whole.before
        return bool(of) and bool(told) and not of & told
    if a.head != b.head:
        return not ("person" in (a.head, b.head) and {a.head, b.head} <= _PEOPLE)
    return bool(a.before - b.before and b.before - a.before) or bool(
        a.of and b.of and not a.of & b.of
    )
