"""The exact step oracle of the embedded arithmetic problems.

A correct step rewrites the line before it by exactly one licensed contraction
(`rewriting.py`); the first step of a worded problem writes its expression
(`wording.py`). A line that several licensed contractions lead to is a leap: nothing in
it is wrong and it is not one step, so it is undecidable. Every other line is incorrect,
and the verdict names the most specific kind of error that explains it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from aprm_jax.oracle.embedded import rewriting
from aprm_jax.oracle.embedded.rewriting import (
    MAX_CHARS,
    Contraction,
    MalformedExpressionError,
    Tokens,
    all_contractions,
    contractions_of,
    count_numbers,
    is_number,
    legal_contractions,
    parse,
    simplify,
    value,
    write,
)
from aprm_jax.oracle.embedded.wording import MalformedStoryError, read_story
from aprm_jax.oracle.verdict import Label, Verdict

__all__ = [
    "KINDS",
    "ArithmeticOracle",
    "all_contractions",
    "legal_contractions",
    "value",
]

# Kinds of wrong step. Where several explain a line, the first in this order is named:
# one error is likelier than two.
KINDS = (
    "unchanged",  # the line before, again
    "illegal_contraction",  # arithmetically true, but the rules do not license it
    "wrong_operation",  # a licensed pair, the result of another operator
    "wrong_result",  # a licensed pair, another wrong result
    "miscopied",  # one number or operator beside a right contraction was changed
    "rebracketed",  # brackets beside a right contraction were dropped or moved
    "reordered",  # the tokens of a right step in another order
    "illegal_and_wrong",  # an unlicensed pair, a wrong result
    "dropped_term",  # a right step less one number
    "added_term",  # a right step and one number more
    "wrong_leap",  # several operations at once that the rules do not lead to
    "mistranslated",  # another expression than the one that the words mean
    "malformed",  # not an expression
    "other",
)


class ArithmeticOracle:
    """Judges one line after another. Never raises; work per verdict is bounded.

    Args:
      modulus: of the arithmetic; 0 for the ordinary one.
    """

    def __init__(self, modulus: int = 0):
        self.modulus = modulus

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> Verdict:
        """The verdict on `candidate` after `prefix`; see `Oracle.judge`."""
        previous = prefix[-1] if prefix else question
        if len(candidate) > MAX_CHARS:
            return _wrong(
                "malformed", f"The line has more than {MAX_CHARS} characters."
            )
        if len(previous) > MAX_CHARS:
            return _unreadable(f"more than {MAX_CHARS} characters")
        verdict = _judge(previous, candidate, self.modulus)
        if (
            verdict.label == Label.CORRECT
            and original is not None
            and original.split() == candidate.split()
        ):
            return Verdict(Label.CORRECT, "copied", verdict.reason)
        return verdict


def _wrong(kind: str, reason: str) -> Verdict:
    return Verdict(Label.INCORRECT, kind, reason)


def _unreadable(reason: str) -> Verdict:
    return Verdict(
        Label.UNDECIDABLE, "unreadable", f"The line before cannot be read: {reason}."
    )


@functools.lru_cache(maxsize=1 << 16)
def _judge(previous: str, candidate: str, modulus: int) -> Verdict:
    try:
        before, worded = parse(previous), False
    except MalformedExpressionError as not_expression:
        try:
            before, worded = read_story(previous), True
        except MalformedStoryError:
            return _unreadable(str(not_expression))
    if candidate.split() == previous.split():
        return _wrong("unchanged", "The line repeats the one before it.")
    try:
        after = parse(candidate)
    except MalformedExpressionError as error:
        return _wrong("malformed", f"The line is not an expression: {error}.")
    if worded:
        return _judge_translation(before, after, modulus)
    return _judge_rewrite(before, after, modulus)


def _judge_translation(goal: Tokens, after: Tokens, modulus: int) -> Verdict:
    if after == goal:
        return Verdict(
            Label.CORRECT, "correct", f"The words mean {write(goal)}, as written."
        )
    if after in _reachable(goal, modulus):
        return Verdict(
            Label.UNDECIDABLE,
            "leap",
            f"The words mean {write(goal)}; the line has already worked on it.",
        )
    return _wrong("mistranslated", f"The words mean {write(goal)}.")


def _judge_rewrite(before: Tokens, after: Tokens, modulus: int) -> Verdict:
    """Checks explanations from a right step to the loosest error, in KINDS' order."""
    contractions = contractions_of(before, modulus)
    for c in contractions:
        if c.legal and after == c.tokens():
            return Verdict(
                Label.CORRECT, "correct", f"{c.text} gives {c.value} and may be done."
            )
    lost = count_numbers(before) - count_numbers(after)
    if lost == 1:
        return (
            _explain_as_contraction(contractions, after, modulus, right_licence=True)
            or _explain_as_copy(contractions, after)
            or _explain_as_contraction(
                contractions, after, modulus, right_licence=False
            )
            or _wrong("other", "No single contraction explains the line.")
        )
    if lost > 1:
        return _judge_shorter(contractions, after, _reachable(before, modulus))
    for c in contractions:
        if c.legal and c.tokens() in _drops(after):
            return _wrong("added_term", f"{c.text} was done, but a number was added.")
    return _wrong("other", "No operation was carried out.")


def _explain_as_contraction(
    contractions: Sequence[Contraction],
    after: Tokens,
    modulus: int,
    *,
    right_licence: bool,
) -> Verdict | None:
    """The line as one contraction with some result.

    With `right_licence` only explanations with one error: an unlicensed pair with its
    right result, or a licensed pair with a wrong one.
    """
    found: dict[str, Verdict] = {}
    for c in contractions:
        result = _result(c, after)
        if result is None:
            continue
        if not c.legal:
            if result == str(c.value):
                reason = f"{c.text} gives {result}, but {c.obstacle}."
                found["illegal_contraction"] = _wrong("illegal_contraction", reason)
            elif not right_licence:
                reason = f"{c.text} gives {c.value}, not {result}, and {c.obstacle}."
                found["illegal_and_wrong"] = _wrong("illegal_and_wrong", reason)
        elif right_licence:
            reason = f"{c.text} gives {c.value}, not {result}"
            for operator in rewriting.OPERATORS:
                if result == str(rewriting.apply(operator, c.x, c.y, modulus)):
                    reason = f"{reason}: that is {c.x} {operator} {c.y}."
                    found["wrong_operation"] = _wrong("wrong_operation", reason)
                    break
            else:
                found["wrong_result"] = _wrong("wrong_result", f"{reason}.")
    return next((found[kind] for kind in KINDS if kind in found), None)


def _result(c: Contraction, after: Tokens) -> str | None:
    """What the line writes for the pair, if all around the pair is copied."""
    at = len(c.left)
    if len(after) != at + 1 + len(c.right) or not is_number(after[at]):
        return None
    if after[:at] != c.left or after[at + 1 :] != c.right:
        return None
    return after[at]


def _explain_as_copy(
    contractions: Sequence[Contraction], after: Tokens
) -> Verdict | None:
    """The line as a right contraction beside which something was copied wrongly."""
    legal = [(c, c.tokens()) for c in contractions if c.legal]
    for c, right in legal:
        if len(right) != len(after):
            continue
        changed = [(a, b) for a, b in zip(right, after, strict=True) if a != b]
        if len(changed) == 1 and not set("()") & {*changed[0]}:
            was, now = changed[0]
            reason = f"{c.text} was done, but {was} was copied as {now}."
            return _wrong("miscopied", reason)
    for c, right in legal:
        if _without_brackets(right) == _without_brackets(after):
            reason = f"{c.text} was done, but the brackets were changed."
            return _wrong("rebracketed", reason)
    for c, right in legal:
        if sorted(right) == sorted(after):
            reason = f"{c.text} was done, but the rest was put in another order."
            return _wrong("reordered", reason)
    return None


def _judge_shorter(
    contractions: Sequence[Contraction], after: Tokens, reachable: frozenset[Tokens]
) -> Verdict:
    if after in reachable:
        return Verdict(
            Label.UNDECIDABLE, "leap", "Several licensed operations at once lead here."
        )
    for c in contractions:
        if c.legal and after in _drops(c.tokens()):
            return _wrong("dropped_term", f"{c.text} was done, but a number is gone.")
    return _wrong("wrong_leap", "No licensed operations lead to this line.")


def _without_brackets(tokens: Tokens) -> Tokens:
    return tuple(t for t in tokens if t not in ("(", ")"))


@functools.lru_cache(maxsize=1 << 12)
def _reachable(tokens: Tokens, modulus: int) -> frozenset[Tokens]:
    """All lines that one or more licensed contractions lead to.

    At most 2^(n-1) lines of n numbers: contracted pieces are intervals.
    """
    seen: set[Tokens] = set()
    frontier = [tokens]
    while frontier:
        for c in contractions_of(frontier.pop(), modulus):
            if c.legal and (line := c.tokens()) not in seen:
                seen.add(line)
                frontier.append(line)
    return frozenset(seen)


@functools.lru_cache(maxsize=1 << 14)
def _drops(tokens: Tokens) -> frozenset[Tokens]:
    """All lines with one number or bracket and an operator beside it left out."""
    return frozenset(_each_drop(tokens))


def _each_drop(tokens: Tokens) -> Iterator[Tokens]:
    for i, token in enumerate(tokens):
        if is_number(token):
            end = i + 1
        elif token == "(":
            end = tokens.index(")") + 1
        else:
            continue
        if i and tokens[i - 1] in rewriting.OPERATORS:
            yield simplify((*tokens[: i - 1], *tokens[end:]))
        if end < len(tokens) and tokens[end] in rewriting.OPERATORS:
            yield simplify((*tokens[:i], *tokens[end + 1 :]))
