"""Words that make another statement of an equation that the correct step has too.

The oracle does not read prose: whoever finds nothing here has not shown that two texts
mean the same. Found are a negation, one thing of the problem in the place of another
(`May` for `April`, `per hour` for `per minute`), a verb turned into its opposite, and a
total, a rest or a rate in the place of something else.
"""

from __future__ import annotations

import functools
import re

from aprm_jax.oracle.steps.claims import ANNOTATION
from aprm_jax.oracle.steps.prose import word_set
from aprm_jax.oracle.units import everyday, singular

MAX_TEXT = 4_000  # characters that are read of one text

_WORD = re.compile(r"[A-Za-z]+(?:['’]t\b)?")
_FORMULA = re.compile(r"\$[^$]*\$|\\[a-zA-Z]+")
_MONEY = re.compile(r"\$\s?[0-9.]")
_NOT = word_set("not no never cannot neither nor none nobody nothing without")
# Words that say nothing of what is counted, or of whom.
_EMPTY = word_set(
    """a an the this that these those there here it its he his him she her hers they
    their them we our us you your i my me who which what and or but so then thus hence
    therefore now also just only of in on at for to from with by as into up out off if
    when while because since after before during is are was were be been being am has
    have had do does did will would can could should might must get gets got make
    makes made let means mean equal equals giving gives how many much more other words
    first second next finally step answer number amount calculate find need needs
    know have using use"""
)
# What a number is of all: several ways to say so, none of which is another's.
_MEASURES = tuple(
    map(
        word_set,
        (
            "total altogether sum all combined together overall both",
            "left remaining remain remains over rest",
            "each per every apiece",
            "than difference",
            "average mean",
            "area",
            "perimeter circumference",
            "volume",
            "square",
            "cubic",
            "before",
            "after",
        ),
    )
)
# Of which one stands for another thing than the next.
_KINDS = tuple(
    map(
        word_set,
        (
            "first second third fourth fifth sixth last",
            "one two three four five six seven",
            "red blue green yellow black white orange purple pink brown gray grey",
            "monday tuesday wednesday thursday friday saturday sunday",
            "north south east west",
            "left right",
        ),
    )
)
_OPPOSITE = {
    word: frozenset(other.split())
    for pair in (
        ("buy buys bought", "sell sells sold"),
        ("give gives gave given", "receive receives received get gets got take took"),
        ("earn earns earned gain gains gained", "spend spends spent lose loses lost"),
        ("keep keeps kept", "give gives gave given lose loses lost sell sells sold"),
        ("find finds found win wins won", "lose loses lost"),
        ("pay pays paid", "earn earns earned"),
        ("add adds added", "remove removes removed subtract subtracts subtracted"),
        (
            "increase increases increased rise rises rose",
            "decrease decreases decreased",
        ),
        ("fall falls fell drop drops dropped", "rise rises rose increase increases"),
        ("older taller longer heavier larger", "younger shorter lighter smaller"),
        ("more", "less fewer"),
        ("before", "after"),
        ("am", "pm"),
        ("most", "least"),
        ("boy boys", "girl girls"),
        ("man men", "woman women"),
        ("adult adults", "child children"),
        ("earn earns earned", "owe owes owed"),
        ("morning", "evening afternoon"),
        (
            "start starts started begin begins began",
            "end ends ended finish finishes finished",
        ),
    )
    for words, other in (pair, pair[::-1])
    for word in words.split()
}


def another_statement(question: str, original: str, candidate: str) -> str | None:
    """What a text says otherwise than the correct step, by its words; None if nothing.

    Args:
      question: the problem.
      original: the correct step.
      candidate: a step whose equations hold and conclude the same.
    """
    here, there = _words(candidate), _words(original)
    if _denied(here) != _denied(there):
        return "a negation"
    new, gone = here - there, there - here
    for word in sorted(new):
        if _OPPOSITE.get(word, frozenset()) & gone:
            return f"{word!r} in the place of its opposite"
    for measure in _MEASURES:
        if bool(here & measure) != bool(there & measure):
            word = sorted((here ^ there) & measure)[0]
            return f"{word!r}, in one of the two alone"
    for kind in _KINDS:
        if here & kind and there & kind and here & kind != there & kind:
            return f"{sorted((here ^ there) & kind)[0]!r} in the place of another"
    for word in sorted(here ^ there):
        if f"un{word}" in here ^ there or f"in{word}" in here ^ there:
            return f"{word!r} in the place of its opposite"
    counted = _counted(candidate), _counted(original)
    if all(counted) and _stem(counted[0]) != _stem(counted[1]):
        return f"{counted[0]!r} in the place of {counted[1]!r}"
    swapped = _of_problem(question, new), _of_problem(question, gone)
    if all(swapped):
        a, b = (sorted(words)[0] for words in swapped)
        return f"{a!r} in the place of {b!r}"
    return None


@functools.lru_cache(maxsize=1 << 12)
def _words(text: str) -> frozenset[str]:
    text = ANNOTATION.sub("", text[:MAX_TEXT])
    words = [word.lower() for word in _WORD.findall(_FORMULA.sub(" ", text))]
    if _MONEY.search(text):
        words.append("dollar")
    return frozenset(singular(word) if everyday(word) else word for word in words)


_COUNTED = re.compile(r"=\s*\$?[-0-9.,/]*[0-9]\s+([A-Za-z]+)")


def _counted(text: str) -> str:
    """What the last result of a text counts; "" where no noun follows it."""
    found = _COUNTED.findall(ANNOTATION.sub("", text[:MAX_TEXT]))
    word = found[-1].lower() if found else ""
    return "" if word in _EMPTY or any(word in m for m in _MEASURES) else word


def _stem(word: str) -> str:
    """A word without the ending of a plural."""
    for ending, of_one in (("ies", "y"), ("ves", "f"), ("people", "person")):
        if word.endswith(ending) and len(word) > 4:
            return word.removesuffix(ending) + of_one
    if word.endswith(("xes", "shes", "ches", "sses", "zes")):
        return word[:-2]
    return word.removesuffix("s") if len(word) > 2 else word


def _denied(words: frozenset[str]) -> bool:
    return bool(words & _NOT) or any(word.endswith(("n't", "n’t")) for word in words)


def _of_problem(question: str, words: frozenset[str]) -> set[str]:
    """The words that the problem has too, or that are units."""
    of_question = {_stem(word) for word in _words(question)}
    return {
        word
        for word in words.difference(_EMPTY, *_MEASURES)
        if _stem(word) in of_question or (len(word) > 2 and everyday(word))
    }
