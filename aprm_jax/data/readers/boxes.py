r"""What a solution has put into its last box: `\boxed{7}`, `\boxed 7`, `\fbox{7}`."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_ARGUMENTS = {
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac", "binom"), 2),
    **dict.fromkeys(("sqrt", "text", "mathrm", "mathbf", "overline", "bar", "hat"), 1),
}
_PAIR = re.compile(r"\\\{.*?\\\}|\\left\b.*?\\right\s*(?:\\.|.)", re.DOTALL)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_PIECE = re.compile(r"\\[{}%$]|[0-9]+(?:[.,][0-9]+)*|[^\s\\]")
_GROUPS = {"{": "}", "(": ")", "[": "]"}
_ENDS = frozenset("$,;.:=<>)]}&?!")


def last_box(text: str) -> str:
    r"""What the last `\boxed{...}` or `\fbox{...}` holds; "" without a closed one.

    Without a brace it holds what stands next to it: `\boxed 3`, `\boxed\frac{3}{4}`.
    """
    boxes = [box.end() for box in _BOX.finditer(text)]
    if not boxes:
        return ""
    at = boxes[-1]
    if text.startswith("{", at):
        end = _closed(text, at)
        return text[at + 1 : end - 1].strip() if end else ""
    return text[at : _formula_end(text, at)].strip()


def _formula_end(text: str, at: int) -> int:
    """Where a formula ends: at a blank, a relation, a point, a bracket not its own."""
    if text[at : at + 1] in ("+", "-"):  # a blank may stand behind the sign
        at = _unspaced(text, at + 1)
    while at < len(text) and text[at] not in _ENDS and not text[at].isspace():
        end = _piece_end(text, at)
        if not end:
            break
        at = end
    return at


def _piece_end(text: str, at: int) -> int:
    """Where a number, sign, group or command with its arguments ends; 0 for none."""
    if text[at] in _GROUPS:
        return _closed(text, at)
    if pair := _PAIR.match(text, at):
        return pair.end()
    if command := _COMMAND.match(text, at):
        return _argued(text, command.end(), _ARGUMENTS.get(command[1], 0))
    piece = _PIECE.match(text, at)
    return piece.end() if piece else 0


def _argued(text: str, at: int, count: int) -> int:
    """Where a command's arguments end: groups, or what stands for one."""
    if count == 1 and text.startswith("[", at):  # of a root
        at = _closed(text, at) or at
    for _ in range(count):
        at = _unspaced(text, at)
        if text.startswith("{", at):
            at = _closed(text, at) or len(text)
        else:
            command = _COMMAND.match(text, at)
            at = command.end() if command else min(at + 1, len(text))
    return at


def _unspaced(text: str, at: int) -> int:
    """Behind the blanks that begin at `at`."""
    return len(text) - len(text[at:].lstrip())


def _closed(text: str, opened: int) -> int:
    """Behind the bracket that closes the one at `opened`; 0 where none does."""
    first, last = text[opened], _GROUPS[text[opened]]
    depth = 0
    for i in range(opened, len(text)):
        depth += {first: 1, last: -1}.get(text[i], 0)
        if not depth:
            return i + 1
    return 0
