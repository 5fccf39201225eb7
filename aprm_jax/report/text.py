"""Text and numbers for the page: cleaning of hostile text, formats, line diffs."""

from __future__ import annotations

import difflib
import math
import re

from markupsafe import Markup, escape

# Typographic signs by name: in a source file they look like a hyphen.
EN_DASH, MINUS, NARROW_SPACE = "\u2013", "\u2212", "\u202f"
MAX_TEXT = 600  # characters of a model's line that the page shows

# Control characters, lone surrogates (not encodable), and bidirectional overrides
# and isolates, which can make a page read differently from what it contains.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff\ufffe\uffff]"
)


def clean(text: object, limit: int | None = MAX_TEXT) -> str:
    """Printable text of bounded length, not yet escaped."""
    text = _UNPRINTABLE.sub("\ufffd", str(text).replace("\r\n", "\n"))
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return text


def number(value: float | int, style: str = "number", *, unit: bool = False) -> str:
    """A number as the page prints it; an en dash where there is none."""
    if value is None or math.isnan(value):
        return EN_DASH
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if style == "percent":
        text = f"{_rounded(100 * value):.1f}" + (f"{NARROW_SPACE}%" if unit else "")
    elif style == "points":
        text = f"{_rounded(100 * value):+.1f}" + (f"{NARROW_SPACE}pp" if unit else "")
    elif style == "count":
        decimals = 0 if float(value).is_integer() else 1  # a mean over seeds
        text = f"{value:,.{decimals}f}".replace(",", NARROW_SPACE)
    elif value == 0:
        text = "0"
    elif abs(value) >= 1e6 or abs(value) < 1e-3:
        text = f"{value:.2e}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", MINUS) if "e" not in text else text


def _rounded(value: float) -> float:
    """To one decimal; what is next to nothing has no sign."""
    return round(value, 1) or 0.0


def duration(seconds: float | int) -> str:
    """Seconds as "3 h 05 min", "4 min 10 s" or "3.2 s"."""
    if not math.isfinite(seconds):
        return EN_DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


_TOKEN = re.compile(r"\d+|[^\W\d]+|\s+|.", re.DOTALL)


def diff(before: str, after: str) -> tuple[Markup, Markup]:
    """Both lines as HTML, what differs marked: <del> in one, <ins> in the other."""
    # Cut before comparing: the comparison is quadratic, and the text is a model's.
    old, new = _TOKEN.findall(clean(before)), _TOKEN.findall(clean(after))
    left, right = [], []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for operation, a, b, c, d in matcher.get_opcodes():
        gone, come = escape("".join(old[a:b])), escape("".join(new[c:d]))
        if operation != "equal":
            gone = gone and Markup("<del>{}</del>").format(gone)
            come = come and Markup("<ins>{}</ins>").format(come)
        left.append(gone)
        right.append(come)
    return Markup("").join(left), Markup("").join(right)
