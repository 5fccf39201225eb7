"""The parts of an expression: numbers, names, brackets, functions, commands."""

from __future__ import annotations

import abc
import re
from fractions import Fraction

from aprm_jax.oracle.answers.clean import plain
from aprm_jax.oracle.answers.forms import Forms, index_text
from aprm_jax.oracle.answers.tokens import (
    ALIASES,
    CONSTANTS,
    EMPTY,
    FUNCTION_LETTERS,
    FUNCTIONS,
    GREEK,
    INVERSE,
    OVER,
    REALS,
    UNREAD,
    Term,
    TermError,
    Token,
    literal_value,
    number,
    symbol,
)
from aprm_jax.oracle.numerals import number_in_words
from aprm_jax.oracle.units import read_unit


def text_term(text: str) -> Term:
    """Words as a term: a number, a set where they say that there is none, or any."""
    value = number_in_words(text)
    if value is not None:
        return number(value)
    words = plain(text)
    if words in EMPTY:
        return Term("set", name=text)
    return symbol("set R") if words in REALS else Term("text", name=text)


class Atoms(Forms, abc.ABC):
    """Reads one operand; what stands in brackets is read by the class below it."""

    @abc.abstractmethod
    def signed(self) -> Term:
        """An operand with its signs."""

    @abc.abstractmethod
    def power(self) -> Term:
        """An operand with exponents and other signs behind it."""

    @abc.abstractmethod
    def starts_atom(self) -> bool:
        """Whether the next token can be a factor."""

    @abc.abstractmethod
    def applied(self) -> Term:
        """The argument of a function without brackets: `\\sin 2x`."""

    def argument(self, signed: bool = False) -> Term:
        """A braced group or one token, as after `^`, `\\frac`, `\\sqrt`."""
        token = self.peek()
        if token is None:
            raise TermError("an argument is missing")
        if self.sees("{"):
            return self.atom()
        if signed and self.sees("-", "+"):
            return self.signed()
        if token.kind == "word" and len(token.text) > 1 and "\\" in self.text:
            self.split(1)  # x^ab is x^a b
        return self.atom()

    def digit(self) -> Term:
        """An argument of `\\frac`: one digit of a longer number (`\\frac43`)."""
        token = self.peek()
        if token and token.kind == "num" and len(token.text) > 1:
            self.split(1)
        return self.argument()

    def atom(self) -> Term:
        self.enter()
        term = self.plain_atom()
        self.depth -= 1
        return term

    def plain_atom(self) -> Term:
        token = self.peek()
        if token is None:
            raise TermError("the end comes early")
        if token.kind == "num":
            return self.literal(token)
        if token.kind == "word":
            return self.word(token)
        if token.kind == "text":
            return self.wrapped(token)
        self.at += 1
        if token.kind == "op":
            if token.text in "([":
                return self.bracketed(token.text)
            if token.text == "{":
                inner = self.items()
                self.expect("}")
                return inner
            if token.text == "|":
                return self.bars_until("|")
            if token.text == "$":
                return Term("unit", (self.power(),), unit=read_unit("$"))
            raise TermError(f"unexpected {token.text!a}")
        return self.command(token)

    def literal(self, token: Token) -> Term:
        self.at += 1
        value = literal_value(token.text)
        if "." in token.text and self.sees("overline", "bar", "dot"):
            return number(self.repeating(token.text), "repeating")
        if self.sees("_") and not self.bounds and "." not in token.text:
            self.at += 1
            base = self.argument_text().strip()
            return Term("based", name=f"{token.text}_{base}")
        if "." not in token.text and "," not in token.text:
            mixed = self.mixed(value)
            if mixed is not None:
                return mixed
        return number(value, token.text)

    def repeating(self, start: str) -> Fraction:
        """The value of `0.1\\overline{6}` or `0.\\dot{1}4285\\dot{7}`."""
        dotted = self.sees("dot")
        self.at += 1
        period = self.argument_text().strip()
        if dotted and (token := self.peek()) is not None:
            if token.kind == "num" and self.sees("dot", ahead=1):
                period += token.text
                self.at += 1
            if self.take("dot"):
                period += self.argument_text().strip()
        if not re.fullmatch("[0-9]{1,100}", period):
            raise TermError("a period that is no digits")
        decimals = len(start.replace(",", "").partition(".")[2])
        tail = Fraction(int(period), 10**decimals * (10 ** len(period) - 1))
        return literal_value(start) + tail

    def mixed(self, whole: Fraction) -> Term | None:
        """`1\\frac{4}{5}` and `1 4/5`; None where no proper fraction follows."""
        rest = self.text[self.tokens[self.at - 1].end :]
        match = re.match(
            r"\s*\\frac\s*(?:\{\s*([0-9]{1,6})\s*\}|([0-9]))\s*"
            r"(?:\{\s*([0-9]{1,6})\s*\}|([0-9]))",
            rest,
        )
        if match is None:
            match = re.match(r"\s+([0-9]{1,6})()\s*/\s*([0-9]{1,6})()(?![0-9.])", rest)
        if match is None:
            return None
        top, bottom = int(match[1] or match[2]), int(match[3] or match[4])
        if not 0 < top < bottom:
            return None
        end = self.tokens[self.at - 1].end + match.end()
        while (token := self.peek()) is not None and token.end <= end:
            self.at += 1
        if token is not None and token.start < end:  # \frac 123: half a token
            self.split(end - token.start)
            self.at += 1
        return number(whole + Fraction(top, bottom), "mixed")

    def word(self, token: Token) -> Term:
        text = token.text
        name = ALIASES.get(text.lower(), text)
        if name.lower() in CONSTANTS:
            self.at += 1
            return Term("const", name=CONSTANTS[name.lower()])
        if name in FUNCTIONS and len(name) > 1:
            self.at += 1
            return self.function(name)
        if len(text) > 1:
            for known in ("sqrt", "pi"):
                if text.startswith(known) or (known == "pi" and text.endswith(known)):
                    self.split(len(known) if text.startswith(known) else -len(known))
                    return self.atom()
            if re.fullmatch("[A-Za-z]bar", text):  # a mean
                self.at += 1
                return self.subscripted(f"bar {text[0]}")
            long = len(text) > 3 or (len(text) == 3 and not self.in_formula())
            if long and text not in GREEK:
                self.at += 1
                return text_term(text)
            if len(text) > 2 and text in GREEK:  # alpha, but x times i
                self.at += 1
                return self.subscripted(text)
            self.split(1)
        self.at += 1
        return self.subscripted(text[0])

    def in_formula(self) -> bool:
        """Whether a word stands beside an operator, as a product of letters does."""
        before = self.peek(-1) if self.at else None
        after = self.peek(1)
        return any(
            t is not None
            and (
                (t.kind == "num" and not t.spaced)
                or t.text in ("+", "-", "^", "/", "*")
            )
            for t in (before, after)
        )

    def wrapped(self, token: Token) -> Term:
        """The content of `\\text{...}` where a term is due."""
        self.at += 1
        content = token.text.replace("~", " ").strip()
        choice = re.fullmatch(r"\(?([A-Za-z])\)?\.?", content)
        if choice:
            return self.subscripted(choice[1])
        if len(content) == 1 and not content.isascii() and self.starts_atom():
            return Term("unit", (self.power(),), unit=read_unit(content))  # £7
        name = ALIASES.get(content, content)
        if name in FUNCTIONS:
            return self.function(name)
        if re.fullmatch(r"-?[0-9][0-9,]*(\.[0-9]+)?", content):
            return number(literal_value(content), content)
        if not content:
            return self.atom() if self.starts_atom() else Term("text")
        return text_term(content)

    def subscripted(self, name: str) -> Term:
        if self.sees("_"):
            self.at += 1
            name += "_" + index_text(self.argument_text())
        return self.called(name)

    def called(self, name: str) -> Term:
        """A name, with what it is a function of: `f'(0)` is no product."""
        token = self.peek()
        if (
            name[0] in FUNCTION_LETTERS
            and token is not None
            and token.text == "("
            and not token.spaced
        ):
            start = self.at
            self.skip_brackets()
            return symbol(name + re.sub(r"\s", "", self.raw(start)))
        if name in ("e", "i"):
            return Term("const", name=name)
        return symbol(name)

    def skip_brackets(self) -> None:
        """Passes over what a function is of: `A|B` of `P(A|B)` is no expression."""
        depth = 0
        while (token := self.peek()) is not None:
            self.at += 1
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0:
                return
        raise TermError("expected ), found the end")

    def bracketed(self, opening: str) -> Term:
        bars, self.bars = self.bars, 0
        inner = self.items()
        self.bars = bars
        closing = self.peek()
        self.expect(")", "]")
        mark = opening + (closing.text if closing else "")
        if inner.op == "list":
            return Term("tuple", inner.args, name=mark)
        return inner if mark in ("()", "[]") else Term("tuple", (inner,), name=mark)

    def bars_until(self, closing: str) -> Term:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect(closing)
        return Term("abs", (inner,))

    def command(self, token: Token) -> Term:
        name = ALIASES.get(token.text, token.text)
        if name == "frac":
            return Term("div", (self.digit(), self.digit()))
        if name == "sqrt":
            return self.root()
        if name in ("binom", "dbinom", "tbinom", "choose"):
            return Term("binomial", (self.digit(), self.digit()))
        if name in CONSTANTS:
            return Term("const", name=CONSTANTS[name])
        if name in FUNCTIONS:
            return self.function(name)
        if name in GREEK:
            return self.subscripted(name)
        if name == "{":
            return self.braced()
        if name in ("emptyset", "varnothing"):
            return Term("set")
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.expect("rfloor" if name == "lfloor" else "rceil")
            return Term("floor" if name == "lfloor" else "ceil", (inner,))
        if name in ("lvert", "lVert", "|"):
            return self.bars_until({"lvert": "rvert", "lVert": "rVert"}.get(name, "|"))
        if name == "langle":
            inner = self.items()
            self.expect("rangle")
            return Term("tuple", inner.args, name="()")
        if name == "begin":
            return self.environment()
        if name == "mathbb":
            return symbol("set " + self.argument_text().strip())
        if name in OVER:
            name = "bar" if name == "overline" else name
            inner = re.sub(r"[{}\s]", "", self.argument_text())
            return self.subscripted(f"{name} {inner}")
        if name == "det":
            return Term("fn", (self.argument(),), name="det")
        if name == "int":
            return self.integral()
        if name in ("angle", "triangle", "Delta", "measuredangle"):
            inner = self.argument_text()
            while (after := self.peek()) and (
                after.kind == "word" or after.text == "_"
            ):
                if len(inner) > 12:
                    break
                inner += self.argument_text()
            return symbol(f"{name} " + re.sub(r"\s", "", inner))
        if name == "$":
            if self.starts_atom() or self.sees("-"):
                return Term("unit", (self.signed(),), unit=read_unit("$"))
            raise TermError("a currency sign without a number")
        if name in ("sum", "prod"):
            return self.series(name)
        if name == "dots" and (self.at == len(self.tokens) or self.sees(",")):
            return symbol("dots")
        if name in UNREAD:
            raise TermError(f"the command {name[:20]!a} is not read")
        return self.subscripted(name)

    def root(self) -> Term:
        order = number(Fraction(2))
        if self.take("["):
            order = self.sum()
            self.expect("]")
        return Term("root", (self.argument(), order))

    def function(self, name: str) -> Term:
        if name == "sqrt":
            return self.root()
        base: Term | None = None
        exponent: Term | None = None
        for _ in range(2):
            if name == "log" and self.take("_"):
                base = self.argument()
            if self.take("^"):
                exponent = self.argument(signed=True)
        if exponent == Term("neg", (number(Fraction(1), "1"),)) and name in INVERSE:
            name, exponent = INVERSE[name], None
        if self.sees("("):
            self.at += 1
            inner = self.bracketed("(")
            args = inner.args if inner.op == "tuple" else (inner,)
        elif self.sees("{") and not base:
            inner = self.atom()
            args = inner.args if inner.op in ("list", "set") else (inner,)
        else:
            inner = self.applied()
            args = inner.args if inner.op == "set" else (inner,)
        if base is not None:
            term = Term("log", (args[0], base))
        elif name in ("floor", "ceil", "abs"):
            term = Term(name, args[:1])
        else:
            term = Term("fn", args, name=name)
        return Term("pow", (term, exponent)) if exponent is not None else term
