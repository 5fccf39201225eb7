"""Answers as terms: mathematics in LaTeX or plain text, by our own small parser."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from aprm_jax.oracle.answers.atoms import text_term
from aprm_jax.oracle.answers.forms import index_text
from aprm_jax.oracle.answers.quantities import Quantities
from aprm_jax.oracle.answers.rules import FLIP, MAX_ITEMS
from aprm_jax.oracle.answers.tokens import (
    ALIASES,
    CONSTANTS,
    FUNCTIONS,
    JOINING,
    MAX_CHARS,
    MAX_DIGITS,
    PERCENT,
    RELATIONS,
    Term,
    TermError,
    literal_value,
    number,
    symbol,
    tokenize,
)
from aprm_jax.oracle.numerals import number_in_words
from aprm_jax.oracle.units import is_unit, read_unit


def parse(text: str) -> Term:
    """Reads a cleaned answer as one term.

    Args:
      text: what `answer_clean.clean` returns.

    Raises:
      TermError: unreadable, or beyond a limit.
    """
    if len(text) > MAX_CHARS:
        raise TermError(f"more than {MAX_CHARS} characters")
    if _is_words(text) or number_in_words(text) is not None:
        return text_term(text)
    based = re.fullmatch(r"([0-9][0-9A-Z]*)_\{([0-9]{1,3})\}", text)
    if based is not None and len(based[1]) <= MAX_DIGITS:
        return Term("based", name=f"{based[1]}_{based[2]}")
    parser = _Parser(text, tokenize(text))
    term = parser.items()
    if parser.at < len(parser.tokens):
        raise TermError(f"unexpected {parser.tokens[parser.at].text!a}")
    return term


def _is_words(text: str) -> bool:
    """Whether several words stand there, and no mathematics in letters."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z'-]*\.?(?: [A-Za-z'-]+\.?)+", text):
        return False
    words = {word.lower() for word in text.split()}
    if words & (FUNCTIONS | JOINING | PERCENT | set(CONSTANTS) | set(ALIASES)):
        return False
    return any(len(word) > 2 and not is_unit(word) for word in words)


def _grouped(term: Term) -> Term:
    """A factor; `\\{1+2\\}` within a product is a bracket and no set."""
    return term.args[0] if term.op == "set" and len(term.args) == 1 else term


def progression(items: tuple[Term, ...]) -> tuple[Term, ...]:
    """`1, 3, \\dots, 9` with what stands between; other items as they are."""
    if _DOTS not in items:
        return items
    at = items.index(_DOTS)
    before, after = items[:at], items[at + 1 :]
    told = [item.value for item in (*before, *after) if item.op == "num"]
    if len(told) != len(items) - 1 or not before or len(after) != 1:
        raise TermError("a list that goes on in a way that is not told")
    step = told[1] - told[0] if len(before) > 1 else Fraction(1)
    last = after[0].value
    if any(told[k + 1] - told[k] != step for k in range(len(before) - 1)):
        raise TermError("a list that is no arithmetic progression")
    count = (last - told[0]) / step + 1 if step else Fraction(0)
    if count.denominator != 1 or not len(before) < count <= MAX_ITEMS:
        raise TermError("a list whose last item is no member of it")
    return tuple(number(told[0] + k * step) for k in range(int(count)))


def transposed(matrix: Term) -> Term:
    """Its rows as columns."""
    columns = zip(*(row.args for row in matrix.args), strict=True)
    rows = tuple(Term("row", column) for column in columns)
    return Term("matrix", rows, name=matrix.name)


_DOTS = symbol("dots")


class _Parser(Quantities):
    """Recursive descent; `items` is the start symbol."""

    def items(self) -> Term:
        """Items between commas, semicolons, `and`, `or`."""
        groups: list[list[Term]] = [[]]
        separated = False
        joins: set[str] = set()
        while True:
            groups[-1].append(self.relation())
            mark = self.separator()
            if mark is None:
                break
            separated = True
            joins.add(mark)
            mark = ";" if mark == ";" else ","
            if self.peek() is None or self.sees(")", "]", "}", "\\}"):
                break  # a comma at the end
            if mark == ";":
                groups.append([])
        if not separated:
            return groups[0][0]
        if len(groups) > 1 and any(len(group) > 1 for group in groups):
            nested = [
                Term("list", tuple(group)) if len(group) > 1 else group[0]
                for group in groups
            ]
            return Term("list", tuple(nested))
        items = progression(tuple(item for group in groups for item in group))
        word = "or" if joins == {"or"} else ""
        if joins == {"and"} and all(map(_is_inequality, items)):
            word = "and"
        return Term("list", items, name=word)

    def separator(self) -> str | None:
        mark = None
        while (token := self.peek()) is not None:
            if token.kind == "op" and token.text in ",;":
                mark = ";" if ";" in (token.text, mark) else ","
            elif token.kind in ("text", "word") and (
                token.text.strip().lower() in JOINING
            ):
                word = token.text.strip().lower().rstrip(",")
                mark = (
                    "or" if word == "or" else mark or (word if word == "and" else ",")
                )
            elif not (token.kind == "op" and token.text == "&" and mark):
                break
            self.at += 1
        return mark

    def relation(self) -> Term:
        self.enter()
        parts: list[Term] = []
        signs: list[str] = []
        names: list[str] = []
        while True:
            start = self.at
            if not parts and self.relation_sign():
                self.take_relation()  # "= 5"
                start = self.at
            side = self.ratio()
            parts.append(side)
            names.append(self.raw(start))
            if not self.relation_sign():
                break
            signs.append(self.take_relation())
        self.depth -= 1
        if not signs:
            return parts[0]
        sides = tuple(
            Term("side", (p,), name=n) for p, n in zip(parts, names, strict=True)
        )
        return Term("rel", sides, name=" ".join(signs))

    def relation_sign(self) -> str | None:
        token = self.peek()
        if token is None or token.kind not in ("op", "cmd"):
            return None
        if token.kind == "op" and token.text not in ("=", "<", ">", "<=", ">=", "!="):
            return None
        return RELATIONS.get(token.text)

    def take_relation(self) -> str:
        sign = self.relation_sign() or ""
        self.at += 1
        while self.take("&"):
            pass
        if sign in ("<", ">") and self.take("="):
            sign += "="
        return sign

    def ratio(self) -> Term:
        parts = [self.union()]
        while self.take(":"):
            parts.append(self.union())
        if len(parts) == 1 or (len(parts) == 2 and parts[0].op == "text"):
            return parts[-1]  # "Total: 5"
        return Term("ratio", tuple(parts))

    def union(self) -> Term:
        left = self.sum()
        while True:
            token = self.peek()
            if token is None:
                return left
            if self.take("cup", "bigcup") or (
                token.text in ("U", "u") and self.follows_set(left)
            ):
                if token.text in ("U", "u"):
                    self.at += 1
                op = "union"
            elif self.take("cap"):
                op = "intersection"
            elif self.take("setminus", "backslash", "-"):
                op = "difference"
            else:
                return left
            left = Term(op, (left, self.sum()))

    def follows_set(self, left: Term) -> bool:
        return left.op in ("tuple", "set", "union") and self.sees("(", "[", ahead=1)

    def sum(self) -> Term:
        self.enter()
        left = self.product()
        while True:
            if self.take("+"):
                left = self.joined("add", (left, self.product()))
            elif left == symbol("set R") and self.sees("-"):  # \\mathbb{R} - \\{1\\}
                self.depth -= 1
                return left
            elif self.take("-"):
                left = self.joined("add", (left, Term("neg", (self.product(),))))
            elif self.sees("pm", "mp"):
                sign = self.tokens[self.at].text
                self.at += 1
                left = self.joined("add", (left, Term(sign, (self.product(),))))
            else:
                self.depth -= 1
                return left

    def product(self) -> Term:
        left = self.signed()
        while True:
            if self.take("*", "cdot", "times", "ast"):
                left = self.joined("mul", (left, self.signed()))
            elif not self.rate(left) and self.take("/", "div"):
                left = self.joined("div", (left, self.signed()))
            elif self.take("mod", "bmod"):
                left = self.joined("mod", (left, self.signed()))
            elif self.take("choose"):
                left = self.joined("binomial", (left, self.signed()))
            elif (size := self.multiple(left)) is not None:
                self.at += 1
                left = self.multiplied(left, number(Fraction(size)))
            elif left.op == "unit" and (part := self.smaller(left)) is not None:
                left = part
            elif self.take("pmod"):
                self.power()  # 9 (mod 11): the modulus is the question's
            elif (unit := self.unit(left)) is not None:
                left = unit
            elif self.starts_atom():
                before, here = self.tokens[self.at - 1], self.tokens[self.at]
                if before.kind == here.kind == "num":
                    raise TermError("two numbers side by side")
                right = self.power()
                left = self.joined("mul", (_grouped(left), _grouped(right)))
            else:
                return left

    def signed(self) -> Term:
        for sign, op in (("-", "neg"), ("+", ""), ("pm", "pm"), ("mp", "mp")):
            if self.take(sign):
                self.enter()
                inner = self.signed()
                self.depth -= 1
                if op == "neg" and inner.op == "unit":  # -5 °C: 5 below 0
                    return replace(inner, args=(Term(op, inner.args),))
                return Term(op, (inner,)) if op else inner
        return self.power()

    def starts_atom(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind in ("num", "word"):
            return token.text.lower() not in JOINING and not (
                token.text in ("U", "u") and self.sees("(", "[", ahead=1)
            )
        if token.kind == "text":
            return token.text.strip().lower() not in JOINING
        if token.kind == "op":
            return token.text in "({[" or (token.text == "|" and not self.bars)
        return token.text not in (
            *RELATIONS,
            *("cup", "cap", "setminus", "rfloor", "rceil", "rvert", "end", "\\"),
            *("}", "%", "$", "&", "cdot", "times", "div", "pm", "mp", "rangle", "mid"),
            *("pmod", "mod", "bmod", "ast", "bigcup", "backslash", "rVert"),
        )

    def power(self) -> Term:
        base = self.atom()
        while True:
            if self.sees("^"):
                if (scale := self.degree()) is not None:
                    base = self.joined("degree", (base,))
                    if scale:
                        base = Term("unit", base.args, unit=read_unit(f"°{scale}"))
                    continue
                self.at += 1
                while self.sees("prime", "'", "ast"):
                    self.at += 1
                    base = symbol(base.name + "'")
                if base.name.endswith("'"):
                    base = self.called(base.name)
                    continue
                if self.sees("{") and self.sees("prime", ahead=1):
                    count = self.argument_text().count("prime")
                    base = self.called(base.name + "'" * count)
                    continue
                exponent = self.exponent()
                if base.op == "tuple" and exponent == symbol("T"):  # a column
                    continue
                if base.op == "matrix" and exponent in (symbol("T"), symbol("top")):
                    base = transposed(base)
                    continue
                if base.op == "sym" and exponent.op == "based":  # v^2_0
                    digits, _, index = exponent.name.partition("_")
                    base = symbol(f"{base.name}_{index_text(index)}")
                    exponent = number(literal_value(digits), digits)
                elif base.op == "sym" and self.sees("_"):
                    base = self.subscripted(base.name)
                base = self.joined("pow", (base, exponent))
            elif self.take("!"):
                base = self.joined("factorial", (base,))
            elif self.take("%"):
                base = self.joined("percent", (base,))
            elif self.take("degree"):
                base = self.joined("degree", (base,))
            elif self.take("'") and base.op == "sym":
                base = self.called(base.name + "'")
            else:
                token = self.peek()
                word = token.text.strip().lower() if token else ""
                if token and token.kind in ("word", "text") and word in PERCENT:
                    self.at += 1
                    base = self.joined("percent", (base,))
                    continue
                return base

    def exponent(self) -> Term:
        """What follows `^`; towers lean to the right."""
        exponent = self.argument(signed=True)
        if self.sees("^") and not self.sees("circ", "{", "prime", ahead=1):
            self.enter()
            self.at += 1
            exponent = Term("pow", (exponent, self.exponent()))
            self.depth -= 1
        return exponent

    def degree(self) -> str | None:
        """Takes `^\\circ` or `^{\\circ}`, with a temperature's letter.

        Returns:
          The letter; "" for an angle, or for degrees of some scale. None for no degree.
        """
        if self.sees("circ", ahead=1):
            width = 2
        elif self.sees("{", ahead=1) and self.sees("circ", ahead=2):
            width = 4
        else:
            return None
        token = self.peek(width)
        letter = token.text.strip(" ~") if token else ""
        letter = letter if letter in ("C", "F") else ""
        self.at += width + len(letter)
        return letter

    def applied(self) -> Term:
        """The argument of a function without brackets: `\\sin 2x`."""
        if self.take("-"):
            return Term("neg", (self.applied(),))
        self.enter()
        inner = self.power()
        while True:
            token = self.peek()
            if not self.starts_atom() or token is None or token.text in "([":
                break
            name = ALIASES.get(token.text, token.text)
            if name in FUNCTIONS or token.kind == "text" or name in PERCENT:
                break
            inner = self.joined("mul", (inner, self.power()))
        self.depth -= 1
        return inner


def _is_inequality(term: Term) -> bool:
    return term.op == "rel" and set(term.name.split()) <= set(FLIP)
