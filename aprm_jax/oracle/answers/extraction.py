"""Finds the final answer in a solution: boxes, `#### N`, `A: N`, phrases, last line."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, get_args

from aprm_jax.oracle.answers.said import NUMBER, count_said, number_said
from aprm_jax.oracle.answers.segments import Segment, segments, without_segments
from aprm_jax.oracle.units import is_unit

Style = Literal["auto", "boxed", "gsm8k", "phrase", "choice", "choices", "last"]
MAX_TEXT = 20_000  # characters, from the end, that are searched
MAX_ANSWER = 2_000
_MAX_PHRASES = 40  # statements of an answer that are looked at, from the last one back

_BOX = re.compile(r"(?:\\b|\x08|\\f)(?:oxed|box)\s*(?P<open>\{|\$?\s*[^\s{$]+)")
_TURN = re.compile(r"<\|[a-z_]{2,20}\|>|</s>|<\|?eot_id\|?>|\n(?:Problem|Question):")
_MARKED = re.compile(r"^[ \t]*(?:####[ \t]*|A:[ \t]*)(.+)$", re.MULTILINE)
_PHRASE = re.compile(
    r"\b(?P<strong>final[ ]answers?|answer|choice|option|solution)s?\b\**[ ]{0,2}"
    r"(?P<verb>(?:\s?(?:(?:is|are|was|(?:should |would |must )?be)(?![a-z])|=|：|:)\**)"
    r"{1,3}"
    r"|\s*\n+)\s*(?P<rest>[^\n]*)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<![0-9])[.](?=\s|$)|(?<=[0-9])[.](?=\s+[A-Z<\[*(]|\s*$)")
_ASIDE = re.compile(r"[\s,(]*(?:where|for|with|if|when|such that|because|since|as)\b")
_TURNS = re.compile(r"[.:]|\b(?:but|not|wait|then|rather|instead|so|actually)\b")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[A-Za-z][a-z'’]+")
_LETTER_PHRASE = re.compile(
    r"(?i:answer|choice|option|correct|select|choose)(?i:s?)\b[^A-Za-z\n(]{0,8}"
    r"(?:(?i:is|are|be|option|choice|options|choices|the|for sure|definitely|clearly"
    r"|probably|most likely)\b[^A-Za-z\n(]{0,8}){0,3}"
    r"(?P<letters>\(?[A-J]\)?(?:\s?(?:,|and|or|&|;|/)?\s?\(?[A-J]\)?){0,9})(?![a-zA-Z])"
)
_LETTER_GUESS = re.compile(
    r"\b(?i:think|believe|go with|going with|pick)\s+"
    r"(?:(?i:it's|it is|that|option)\s+){0,3}(?P<letters>\([A-J]\)|[A-J])(?![a-zA-Z'’])"
)
_DENIED = re.compile(r"\bnot\s+(?:option\s+)?(?:\([A-J]\)|[A-J]\b)[\s,;]*")
_LETTERS = re.compile(r"(?:\(?[A-J]\)?(?:\s*(?:,|and|&|;)\s*(?:and\s+)?|\s*))+\.?")
# `12 in the box`, but `12 in tall`.
_WITHIN = re.compile(r"\s?in\s+(?!tall|wide|long|deep|high|thick|by\b)[A-Za-z0-9]")
_QUIET = frozenset(["and", "or", "percent", "pct", "with", "where"])


@dataclasses.dataclass(frozen=True)
class _Find:
    start: int
    strength: int
    text: str


def extract(text: str, style: Style = "auto") -> str | None:
    """The final answer that a solution states, as written there.

    Args:
      text: a solution. Only its last 20,000 characters are searched.
      style: `auto` takes the last clear statement, or else reads the last line. The
        others take one kind only: `boxed` (nested braces, the last one; neighbours
        such as `\\boxed{1}, \\boxed{2}` together), `gsm8k` (`#### N`, `A: N`),
        `phrase` ("the answer is", "Answer:"), `choice` and `choices` (letters, as
        `C` or `ACD`), `last` (the last line).

    Returns:
      The answer, at most 2,000 characters; None where there is none.

    Raises:
      ValueError: no such style.
    """
    if style not in get_args(Style):
        raise ValueError(f"style is {style!r}; known are {', '.join(get_args(Style))}")
    text = _tail(text)
    if style in ("choice", "choices"):
        return choice_letters(text, several=style == "choices")
    finds: list[_Find] = []
    if style in ("auto", "boxed"):
        finds += _boxes(text)
    if style in ("auto", "gsm8k"):
        finds += [_Find(m.start(), 3, m[1]) for m in _MARKED.finditer(text)]
    if style in ("auto", "phrase"):
        finds += _phrases(text)
    found = _best(finds)
    if found is None and style in ("auto", "last"):
        found = _last_line(text)
    found = found.strip().strip("*").strip() if found else None
    return found[:MAX_ANSWER] or None if found else None


def _tail(text: str) -> str:
    text = text[-MAX_TEXT:]
    text = re.sub(r"[ \t\xa0]{3,}", "  ", re.sub(r"\n\s{2,}", "\n\n", text))
    _, closed, after = text.rpartition("</think>")
    if closed and after.strip():
        text = after
    turn = _TURN.search(text)
    if turn and text[: turn.start()].strip() and turn.start() > 0:
        return text[: turn.start()]
    return text


def _says(find: _Find) -> bool:
    return bool(find.text.strip(" .*:$"))


def _best(finds: list[_Find]) -> str | None:
    """The last of the strong statements, else the last one."""
    finds = [find for find in finds if _says(find)]
    if not finds:
        return None
    strongest = max(find.strength for find in finds)
    chosen = [find for find in finds if find.strength == strongest]
    return max(chosen, key=lambda find: find.start).text


def _boxes(text: str) -> list[_Find]:
    boxes: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        if boxes and match.start() < boxes[-1][1]:
            continue  # within the last one
        if match["open"] != "{":
            boxes.append((match.start(), match.end(), match["open"].strip("$ .")))
            continue
        end = _closing(text, match.end() - 1)
        content = text[match.end() : end]
        if end >= len(text):
            content = content.partition("\n")[0].rstrip("$ .")
        boxes.append((match.start(), end + 1, content))
    if not boxes:
        return []
    last = len(boxes) - 1
    first = last
    while first and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    contents = list(dict.fromkeys(box[2].strip() for box in boxes[first:]))
    box = _innermost(", ".join(contents)) if len(contents) == 1 else ", ".join(contents)
    tail = re.match(r"\$?\s*(?:\\?%|percent\b|pct\b)", text[boxes[last][1] :][:12])
    return [_Find(boxes[first][0], 3, box + (" %" if tail else ""))]


def _innermost(content: str) -> str:
    """The content of a box that is all of a box."""
    match = re.fullmatch(r"\s*\\boxed\s*\{(.*)\}\s*", content, re.DOTALL)
    return match[1] if match else content


def _closing(text: str, at: int) -> int:
    depth = 0
    for end in range(at, len(text)):
        if text[end] in "{}" and text[end - 1] != "\\":
            depth += 1 if text[end] == "{" else -1
            if depth == 0:
                return end
    return len(text)


def _joined(gap: str) -> bool:
    """Whether the text between two boxes makes one answer of them."""
    if len(gap) > 40 or "\n\n" in gap:
        return False
    bare = re.sub(r"\\(?:text|q?quad|mbox)|[{}]", " ", gap)
    bare = re.sub(r"[A-Za-z](?:_\w+)?\s*=", " ", bare)  # \boxed{1}, y = \boxed{2}
    if not re.search("[A-Za-z]", bare):
        return "=" not in bare or "," in bare
    return bool(re.search(r"\b(?:and|or)\b", bare)) and not _TURNS.search(bare)


def _phrases(text: str) -> list[_Find]:
    """The last strong statement, and weaker ones behind it."""
    finds: list[_Find] = []
    for match in [*_PHRASE.finditer(text)][: -_MAX_PHRASES - 1 : -1]:
        find = _phrase(text, match)
        if find is not None:
            finds.append(find)
            if find.strength == 3 and _says(find):
                break
    return finds


def _phrase(text: str, match: re.Match[str]) -> _Find | None:
    """What one statement says the answer is."""
    rest = match["rest"].strip()
    strong = match["strong"].lower().startswith("final")
    if match["verb"].isspace() and not strong:
        return None
    if not match["verb"].isspace() and not rest:
        rest = text[match.end() :].lstrip().partition("\n")[0]
    inner = _PHRASE.search(rest)
    if inner and inner["rest"].strip():
        rest = inner["rest"].strip()
    boxes = _boxes(rest)
    if boxes:
        return _Find(match.start(), 3, boxes[-1].text)
    if re.match(r"\s*(?:\\\[|\$\$)", rest):
        near = text[match.start("rest") :][: 2 * MAX_ANSWER]
        segment = next(segments(near), None)
        rest = segment.content if segment else rest
    rest = rest[: 2 * MAX_ANSWER]
    if match["strong"].lower() in ("solution", "option", "choice") and not re.match(
        r"[-$\\(0-9*A-J](?![a-z])", rest
    ):
        return None
    sentence = _SENTENCE.split(rest, maxsplit=1)[0].strip()
    if not sentence:
        return None
    return _Find(match.start(), 3 if strong else 2, reduced(sentence))


def reduced(sentence: str) -> str:
    """The answer within a sentence; the sentence where it is no more than one."""
    boxes = _boxes(sentence)
    if boxes:
        return boxes[-1].text
    if not _prose(sentence):
        return sentence
    found = list(segments(sentence))
    if (
        found
        and _ASIDE.match(sentence, found[0].end)
        and not sentence[: found[0].start].strip()
    ):
        return sentence[found[0].start : found[0].end]
    after = re.split(r"\b(?:is|are|was|equals)\b:?", sentence)[-1].strip()
    if after != sentence and re.search(r"[0-9$\\]", after) and not _prose(after):
        return after
    if found and not NUMBER.search(sentence, found[-1].end):
        return _cluster(sentence, found)
    after = re.split(r"\b(?:is|are|was|equals|be)\b|(?<![<>!=])=|:(?=\s)", sentence)[-1]
    span = count_said(sentence)
    if span is None and after.strip() and not _prose(after):
        return after.strip()
    span = span or number_said(sentence)
    if span is None:
        return sentence
    return sentence[slice(*span)].strip() + _unit_behind(sentence, span[1])


def _cluster(sentence: str, found: list[Segment]) -> str:
    """The last formula of a sentence, those joined to it, and a unit behind it."""
    first = len(found) - 1
    while first and _only_joins(sentence[found[first - 1].end : found[first].start]):
        first -= 1
    formulas = sentence[found[first].start : found[-1].end]
    return formulas + _unit_behind(sentence, found[-1].end)


def _unit_behind(sentence: str, at: int) -> str:
    """A blank and the unit that stands at a place; "" where none does."""
    if _WITHIN.match(sentence, at):
        return ""
    tail = re.match(r"\s?(\\?%|[A-Za-z]+(?:\^?[23²³])?)", sentence[at:][:40])
    unit = tail[1] if tail else ""
    if unit.lower() in ("%", r"\%", "percent", "pct"):
        return " %"
    return f" {unit}" if is_unit(unit.rstrip("^23²³")) else ""


def _only_joins(gap: str) -> bool:
    return not re.sub(r"\b(?:and|or)\b|[\s,;&.]", "", gap)


def _prose(text: str) -> bool:
    """Whether words stand around the answer."""
    outside = re.sub(r"\\[a-zA-Z]+\s*(?:\{[^{}]*\})?", " ", without_segments(text))
    words = [w for w in _WORDS.findall(outside) if w.lower() not in _QUIET]
    others = [word for word in words if not is_unit(word)]
    if others and next(segments(text), None):
        return True
    verb = re.search(r"\b(?:is|are|was|were|has|have|be|will|equals)\b", outside)
    return bool(verb) or (len(others) > 3 and bool(re.search("[0-9]", outside)))


def _last_line(text: str) -> str | None:
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    if not lines:
        return None
    line = lines[-1]
    if re.fullmatch(r"\\\]|\$\$|\\end\{[a-z*]+\}[.$\\\]]*", line):
        found = list(segments(text))
        if found:
            return found[-1].content.strip()
    if len(line) <= 60 and not _prose(line):
        return line
    sentences = [part for part in _SENTENCE.split(line) if part.strip()]
    answer = reduced(sentences[-1].strip()) if sentences else line
    if re.search(r"[0-9\\$]", answer) or len(sentences) < 2:
        return answer
    for sentence in reversed(sentences):  # the last one that says a number
        if re.search("[0-9]", sentence):
            return reduced(sentence.strip())
    return answer


def choice_letters(text: str, several: bool = True) -> str | None:
    """The options that an answer names, as sorted letters; None where it names none.

    Args:
      text: `(B)`, `A and C`, `ACD`, `C. because ...`, or a whole solution.
      several: whether more than one may be meant; else the last one counts.
    """
    text = text[-MAX_TEXT:]
    boxes = _boxes(text)
    marked = _best(boxes or [_Find(m.start(), 3, m[1]) for m in _MARKED.finditer(text)])
    if marked is None:
        named = _named_letters(text)
        marked = named[-1] if named else text.strip()
        if not named and len(marked) > 200:
            marked = marked.split("\n")[-1].strip()
    found = _options(marked)
    if not found:
        return None
    return "".join(sorted(set(found))) if several else found[-1]


def _named_letters(text: str) -> list[str]:
    """The letters behind phrases such as `the answer is`; guesses where none is."""
    for phrase in (_LETTER_PHRASE, _LETTER_GUESS):
        found = []
        for match in phrase.finditer(text):
            # `A; B or C would ...` goes on about others, `A; B; D` does not.
            whole = match["letters"]
            found += [x for x in (whole, whole.partition(";")[0]) if _options(x)][:1]
        if found:
            return found
    return []


def _options(text: str) -> list[str]:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox|rm|textnormal)\s*", "", text)
    text = re.sub(r"\\[()\[\],;! ]|\\quad|[{}$*\"'~]|\\(?=\))", " ", text).strip()
    text = re.sub(r"^(?:options?|choices?)\s*", "", text, flags=re.IGNORECASE)
    text = _DENIED.sub("", text).rstrip(" ,;")
    if re.fullmatch(r"\(?[a-j]\)?\.?", text):
        return [text.strip("().").upper()]
    if _LETTERS.fullmatch(text):
        return re.findall("[A-J]", text)
    # Behind an option's letter, its content may be repeated: (C) 12, or C. 12.
    head = re.match(r"\(\s*([A-J])\s*\)|([A-J])(?:\s*[.):]|\s+because|\s+since)", text)
    if head and len(re.findall(r"\(\s*[A-J]\s*\)", text)) <= 1:
        return [head[1] or head[2]]
    bracketed = re.findall(r"\(\s*([A-J])\s*\)", text)
    return bracketed if bracketed and len(text) < 200 else []
