"""The forms with an inside: sets, series over an index, integrals, matrices."""

from __future__ import annotations

import abc
import re
from fractions import Fraction

from aprm_jax.oracle.answers.names import substitute
from aprm_jax.oracle.answers.tokens import (
    ELEMENT,
    MATRICES,
    Cursor,
    Term,
    TermError,
    number,
    symbol,
)


def index_text(raw: str) -> str:
    """An index without fonts, braces and blanks."""
    return re.sub(r"\\(?:mathrm|text|rm|mathbf)|[{}\s\\~]", "", raw)


class Forms(Cursor, abc.ABC):
    """Reads what stands between the marks of a form; what that is, others read."""

    @abc.abstractmethod
    def items(self) -> Term:
        """Items between commas, semicolons, `and`, `or`."""

    @abc.abstractmethod
    def sum(self) -> Term:
        """Addends."""

    @abc.abstractmethod
    def product(self) -> Term:
        """Factors."""

    @abc.abstractmethod
    def argument(self, signed: bool = False) -> Term:
        """A braced group or one token."""

    def braced(self) -> Term:
        """A set by its items, or the condition of `\\{x \\mid x > 2\\}`."""
        if self.take("}"):
            return Term("set")
        if self.builds_set():
            domain, element = "", self.tokens[self.at].text
            self.at += 1
            if self.take("in"):
                domain = self.raw_until("|", ":", "mid")
            self.at += 1
            if domain and index_text(domain) not in ("mathbbR", "R"):
                raise TermError("a set of other numbers than the real ones")
            inner = self.items()
            self.expect("}")
            # Whatever its elements are called in it.
            return substitute(inner, element, symbol(ELEMENT))
        inner = self.items()
        self.expect("}")
        return Term("set", inner.args if inner.op == "list" else (inner,))

    def builds_set(self) -> bool:
        """Whether `x |`, `x :` or `x \\in S |` stands here."""
        token = self.peek()
        if token is None or token.kind not in ("word", "cmd"):
            return False
        if token.kind == "word" and len(token.text) > 1:
            return False
        ahead = 1
        if self.sees("in", ahead=1):
            while self.peek(ahead) and not self.sees("|", ":", "mid", "}", ahead=ahead):
                ahead += 1
            if self.sees("}", ahead=ahead):  # of \mathbb{R}
                ahead += 1
        if self.sees("mid", ":", ahead=ahead):
            return True
        return self.sees("|", ahead=ahead) and self.bars_ahead() % 2 == 1

    def bars_ahead(self) -> int:
        """How many bars stand before the set's end."""
        count, ahead = 0, 0
        while (token := self.peek(ahead)) is not None:
            if token.kind == "cmd" and token.text == "}":
                break
            count += token.text == "|"
            ahead += 1
        return count

    def raw_until(self, *marks: str) -> str:
        start = self.at
        while self.peek() is not None and not self.sees(*marks):
            self.at += 1
        return self.raw(start)

    def integral(self) -> Term:
        """`\\int_a^b f dx`, which is compared as it stands."""
        bounds: dict[str, Term] = {}
        self.bounds = True
        for mark in "_^_":
            if self.take(mark):
                bounds[mark] = self.argument(signed=True)
        self.bounds = False
        body, name = _integrand(self.sum())
        none = Term("text")
        if not bounds:
            return Term("integral", (body, symbol(name)))
        body = substitute(body, name, Term("const", name="bound"))
        limits = (bounds.get("_", none), bounds.get("^", none))
        return Term("integral", (body, *limits))

    def series(self, name: str) -> Term:
        """`\\sum_{k=1}^{n}` and `\\prod`, of what follows them as one product."""
        bounds: dict[str, Term] = {}
        self.bounds = True
        for mark in "_^_":
            if self.take(mark):
                bounds[mark] = self.argument(signed=True)
        self.bounds = False
        start = bounds.get("_")
        if start is None or start.op != "rel" or start.name != "=" or "^" not in bounds:
            raise TermError(f"the bounds of the {name} are not read")
        variable, low = (side.args[0] for side in start.args)
        if variable.op != "sym" and variable.name != "i":
            raise TermError(f"the index of the {name} is no letter")
        body = self.product()
        return Term(name, (low, bounds["^"], body, symbol(variable.name)))

    def environment(self) -> Term:
        kind = self.argument_text().strip()
        if kind not in MATRICES:
            raise TermError(f"the environment {kind[:20]!a} is not read")
        if kind == "array" and self.sees("{"):
            self.argument_text()
        rows: list[list[Term]] = [[]]
        while not self.sees("end"):
            if self.take("\\"):
                rows.append([])
            elif not self.take("&", "hline"):
                rows[-1].append(self.sum())
        self.at += 1
        self.argument_text()
        matrix = Term(
            "matrix", tuple(Term("row", tuple(row)) for row in rows if row), name=kind
        )
        if len({len(row.args) for row in matrix.args}) != 1:
            raise TermError("a matrix whose rows differ in length")
        return Term("fn", (matrix,), name="det") if kind == "vmatrix" else matrix


def _integrand(term: Term) -> tuple[Term, str]:
    """Splits `f dx`, as it was read, into f and x."""
    if term.op == "add":
        last, name = _integrand(term.args[1])
        return Term("add", (term.args[0], last)), name
    if term.op == "set" and len(term.args) == 1:
        return _integrand(term.args[0])
    if term.op == "neg":
        inner, name = _integrand(term.args[0])
        return Term("neg", (inner,)), name
    if term.op == "mul" and term.args[1].op == "sym":
        head, variable = term.args
        if head.op == "mul" and head.args[1] == symbol("d"):
            return head.args[0], variable.name
        if head == symbol("d"):
            return number(Fraction(1)), variable.name
    raise TermError("an integral without its variable")
