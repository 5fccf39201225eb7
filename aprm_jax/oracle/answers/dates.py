"""Dates, days of the week and times of day, by what they say and not how.

What one answer leaves out (a year, the day of the week, whether it is before noon) is
not held against the other. `03/05/2024` is March 5, as in the data sets' own country,
and the fifth month only where the first number can be none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

from aprm_jax.oracle.answers.rules import MAX_ITEMS, pairing
from aprm_jax.oracle.answers.wordings import bare
from aprm_jax.oracle.numerals import number_in_words

_I = re.IGNORECASE
_Item = TypeVar("_Item")

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)


def _either(names: Sequence[str]) -> str:
    """A pattern of names, and of their first letters from the third on, with a dot."""
    starts = ("(?:".join(name[3:]) + ")?" * (len(name) - 4) for name in names)
    forms = (
        f"{n[:3]}(?:{s})?" if n[3:] else n for n, s in zip(names, starts, strict=True)
    )
    return rf"(?:{'|'.join(forms)})(?![a-z])\.?"


_NUMBERED = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?(?![0-9a-z])"
_MONTH = rf"(?P<month>{_either(_MONTHS)})"
_YEAR = r"(?P<year>[12][0-9]{3})(?![0-9])"
_NAMED = [
    re.compile(
        rf"(?:(?P<weekday>{_either(_DAYS)}),? )?(?:the )?(?:{form})(?:,? {_YEAR})?", _I
    )
    for form in (rf"{_MONTH} (?:the )?{_NUMBERED}", rf"{_NUMBERED} (?:of )?{_MONTH}")
]
_BARE = [
    re.compile(form, _I)
    for form in (rf"{_MONTH}(?:,? {_YEAR})?", rf"(?P<weekday>{_either(_DAYS)})")
]
_IN_FIGURES = (
    re.compile(r"(?P<year>[0-9]{4})([-/.])(?P<a>[0-9]{1,2})\2(?P<b>[0-9]{1,2})"),
    re.compile(r"(?P<a>[0-9]{1,2})([-/.])(?P<b>[0-9]{1,2})\2(?P<year>[0-9]{4})"),
)
_BETWEEN = re.compile(r"(?:\s*[,;&]\s*|\s+)(?:(?:and|or)\s+)?", _I)


class Date(NamedTuple):
    """Numbers from 1, as far as they are told; 0 for the others."""

    month: int = 0
    day: int = 0
    year: int = 0
    weekday: int = 0


def _place(name: str | None, names: Sequence[str]) -> int:
    starts = (k for k, n in enumerate(names) if name and n.startswith(name[:3].lower()))
    return next(starts, -1) + 1


def _date(found: re.Match[str]) -> Date | None:
    parts = found.groupdict()
    day = int(parts.get("day") or 0)
    if day > 31 or (parts.get("day") and not day):
        return None
    year, month = int(parts.get("year") or 0), _place(parts.get("month"), _MONTHS)
    return Date(month, day, year, _place(parts.get("weekday"), _DAYS))


def _in_figures(text: str) -> Date | None:
    for pattern in _IN_FIGURES:
        found = pattern.fullmatch(text)
        if found is None:
            continue
        month, day = int(found["a"]), int(found["b"])
        dotted = found[2] == "." and pattern is _IN_FIGURES[1]
        if dotted or month > 12:
            month, day = day, month
        if 1 <= month <= 12 and 1 <= day <= 31:
            return Date(month, day, int(found["year"]))
    return None


@functools.lru_cache(maxsize=1 << 12)
def dates(text: str) -> tuple[Date, ...]:
    """The dates that a text lists; nothing where it says anything else."""
    text = re.sub(r"^(?:on|in) ", "", bare(text), flags=_I).strip(" .")
    if len(text) > 40 * MAX_ITEMS or not re.search("[a-zA-Z]{3}|[0-9]{4}", text):
        return ()
    alone = _in_figures(text)
    if alone is not None:
        return (alone,)
    found: list[Date] = []
    at = 0
    while at < len(text):
        # A bare name is one only where it is written as one: no `sun`, no `may`.
        patterns = _NAMED + (_BARE if text[at].isupper() else [])
        match = next((m for p in patterns if (m := p.match(text, at))), None)
        one = _date(match) if match else None
        if match is None or one is None or len(found) > MAX_ITEMS:
            return ()
        found.append(one)
        at = match.end()
        gap = _BETWEEN.match(text, at)
        if at < len(text) and gap is None:
            return ()
        at = gap.end() if gap else at
    return tuple(found)


def _same_date(a: Date, b: Date) -> bool:
    told = zip(a, b, strict=True)
    if any(x != y for x, y in told if x and y):
        return False
    if a.day and b.day:  # the year and the day of the week may be left out
        return True
    return all(bool(x) == bool(y) for x, y in zip(a, b, strict=True))


def same_date(a: str, b: str) -> bool | None:
    """Whether two texts say the same dates, in any order; None for other texts."""
    x, y = dates(a), dates(b)
    return _paired(x, y, _same_date) if x and y else None


def _paired(
    a: Sequence[_Item], b: Sequence[_Item], same: Callable[[_Item, _Item], bool]
) -> bool:
    return len(a) == len(b) and pairing([[same(x, y) for y in b] for x in a])


# Times of day.
_HALVES = (
    r"\s*(?P<half>am|pm|in the (?:morning|afternoon|evening)|at night|noon|midnight)?"
)
_DIGITS = re.compile(
    r"(?P<hour>[0-9]{1,2})(?:[:.](?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?)?"
    rf"(?P<sharp>\s*o'? ?clock)?{_HALVES}",
    _I,
)
_OF_24 = re.compile(
    r"(?P<hour>[01][0-9]|2[0-4])(?::?(?P<minute>[0-5][0-9]) ?(?:hours|hrs)"
    r"|h(?P<after>[0-5][0-9]))",
    _I,
)
_PAST = re.compile(
    r"(?P<count>[a-z0-9 -]+?)(?: minutes?)?"
    rf" (?P<way>past|after|to|before|till) (?P<hour>[a-z0-9]+){_HALVES}",
    _I,
)
_DAY = 24 * 60 * 60


class TimeOfDay(NamedTuple):
    """Seconds after midnight, or after midnight or noon where the half is unknown.

    `sure` says whether the words leave no doubt that a time of day is meant.
    """

    seconds: int
    half_known: bool
    sure: bool


@functools.lru_cache(maxsize=1 << 12)
def time_of_day(text: str) -> TimeOfDay | None:
    """The time that `3:45 PM`, `15:45`, `half past seven` say; None for other texts."""
    text = bare(text)
    found = _OF_24.fullmatch(text)
    if found is not None:
        minute = int(found["minute"] or found["after"])
        at = _time(int(found["hour"]), minute, None, True)
        return at and at._replace(half_known=True)
    found = _DIGITS.fullmatch(text)
    if found is not None:
        if not (found["minute"] or found["sharp"] or found["half"]):
            return None
        if "." in text and not found["half"]:
            return None  # a decimal
        sure = bool(found["half"] or found["sharp"])
        at = _time(int(found["hour"]), int(found["minute"] or 0), found["half"], sure)
        of_24 = at is not None and found["hour"].startswith("0")
        if at is not None and found["second"]:
            at = at._replace(seconds=at.seconds + int(found["second"]))
        return at._replace(half_known=True) if at is not None and of_24 else at
    found = _PAST.fullmatch(text)
    return None if found is None else _past(found)


def _past(found: re.Match[str]) -> TimeOfDay | None:
    """`quarter to five` and the like."""
    hour = number_in_words(found["hour"]) if not found["hour"].isdigit() else None
    hour = Fraction(found["hour"]) if found["hour"].isdigit() else hour
    count = found["count"]
    special = {"half": 30, "quarter": 15, "a quarter": 15}
    minutes = special.get(count.lower())
    if minutes is None:
        value = Fraction(count) if count.isdigit() else number_in_words(count)
        minutes = int(value) if value is not None and value.denominator == 1 else -1
    if hour is None or hour.denominator != 1 or not 0 <= minutes < 60:
        return None
    back = found["way"].lower() in ("to", "before", "till")
    at = _time(int(hour), 0, found["half"], True)
    if at is None:
        return None
    moved = at.seconds + 60 * (-minutes if back else minutes)
    return at._replace(seconds=moved % (_DAY if at.half_known else _DAY // 2))


def _time(hour: int, minute: int, half: str | None, sure: bool) -> TimeOfDay | None:
    half = (half or "").lower()
    if hour > 24 or (half and not 1 <= hour <= 12):
        return None
    if half in ("noon", "midnight"):
        return (
            TimeOfDay(_DAY // 2 * (half == "noon"), True, True) if hour == 12 else None
        )
    if half:
        late = half not in ("am", "in the morning")
        seconds = ((hour % 12 + 12 * late) * 60 + minute) * 60
        return TimeOfDay(seconds, True, sure)
    known = hour > 12 or hour == 0
    span = _DAY if known else _DAY // 2
    return TimeOfDay((hour * 60 + minute) * 60 % span, known, sure or hour == 0)


_TIMES = re.compile(r"\s*[,;]\s*(?:and |or )?|\s+(?:and|or)\s+", _I)
_SPAN = re.compile(r"\s+(?:to|until|till)\s+|\s*-\s*", _I)


def _times(text: str, marks: re.Pattern[str]) -> list[TimeOfDay]:
    found = [time_of_day(part) for part in marks.split(bare(text))[: MAX_ITEMS + 1]]
    known = [time for time in found if time is not None]
    return known if len(known) == len(found) else []


def same_time(a: str, b: str) -> bool | None:
    """Whether two texts say one time of day, or the same ones; None for other texts.

    Several may be in any order, but not the ends of a span.
    """
    for marks in (_TIMES, _SPAN):
        x, y = _times(a, marks), _times(b, marks)
        if not x or not y or not any(time.sure for time in (*x, *y)):
            continue
        if marks is _SPAN:
            return len(x) == len(y) and all(map(_same_time, x, y))
        return _paired(x, y, _same_time)
    return None


def _same_time(a: TimeOfDay, b: TimeOfDay) -> bool:
    span = _DAY if a.half_known and b.half_known else _DAY // 2
    return a.seconds % span == b.seconds % span
