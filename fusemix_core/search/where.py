"""Conditions on the columns of a collection: `year > 2020 and kind = 'map'`.

A language of its own, small enough to be safe: it becomes SQL in which values are parameters and
columns are those that the collection has.

    condition   := all ("or" all)*
    all         := one ("and" one)*
    one         := "not" one | "(" condition ")" | column test
    test        := ("=" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "(" value, … ")"
                 | ["not"] "like" text | ["not"] "between" value "and" value | "is" ["not"] "null"

Values are numbers, and texts in single quotes, in which `''` is a quote. A column is a word, or any
name in double quotes. As in SQL, a missing value passes no test but `is null`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from fusemix_core.errors import ConfigError, short

NUMBER, TEXT = "number", "text"
Value = int | float | str
_MOST = 10_000
_DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")+")
  | (?P<word>[^\W\d]\w*)
  | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in", "like", "between", "is", "null")
_COMPARES = {
    "=": "=",
    "==": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_LARGEST = 2**63 - 1
_EXAMPLE = "Example: year > 2020 and kind in ('map', 'chart')"


@dataclass(frozen=True)
class Column:
    """A column of the collection: what it is in SQL, and whether it has numbers or texts."""

    sql: str
    kind: str


@dataclass(frozen=True)
class Condition:
    """SQL with `?` for each of the parameters."""

    sql: str
    parameters: tuple[Value, ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str, columns: Mapping[str, Column]) -> Condition:
    """The condition that a text means.

    Args:
        text: Such as `year > 2020 and not kind in ('map', 'chart')`.
        columns: Name → column.

    Raises:
        ConfigError: It can't be understood, or names a column that isn't there.

    Example:
        parse("year > 2020", {"year": Column("c0", "number")}).sql
    """
    if len(text) > _MOST:
        raise ConfigError(f"The condition has {len(text):,} characters; at most {_MOST:,} may be.")
    return _Parser(text, columns).parse()


class _Parser:
    def __init__(self, text: str, columns: Mapping[str, Column]) -> None:
        self.text, self.columns = text, columns
        self.tokens = self._tokens()
        self.at = 0
        self.parameters: list[Value] = []

    def _tokens(self) -> list[_Token]:
        tokens, at, end = [], 0, len(self.text.rstrip())
        while at < end:
            found = _TOKEN.match(self.text, at)
            if found is None:
                start = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                self._fail("this can't be read", start)
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            at = found.end()
        return [*tokens, _Token("end", "", end)]

    def parse(self) -> Condition:
        sql = self._any(0)
        if self._next.kind != "end":
            self._fail("expected 'and' or 'or'")
        return Condition(sql, tuple(self.parameters))

    # -- grammar ---------------------------------------------------------------------------------

    def _any(self, depth: int) -> str:
        parts = [self._all(depth)]
        while self._takes("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _all(self, depth: int) -> str:
        parts = [self._one(depth)]
        while self._takes("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def _one(self, depth: int) -> str:
        if depth > _DEEPEST:
            self._fail("this is nested too deeply")
        if self._takes("not"):
            return f"(NOT {self._one(depth + 1)})"
        if self._takes("("):
            inner = self._any(depth + 1)
            self._needs(")")
            return inner
        return self._test(self._column())

    def _test(self, column: Column) -> str:
        token = self._next
        if token.text in _COMPARES and token.kind == "sign":
            self.at += 1
            sign = _COMPARES[token.text]
            return f"({column.sql} {sign} {self._value(column, equal=sign in ('=', '!='))})"
        if self._takes("is"):
            negated = "NOT " if self._takes("not") else ""
            self._needs("null")
            return f"({column.sql} IS {negated}NULL)"
        negated = "NOT " if self._takes("not") else ""
        if self._takes("in"):
            self._needs("(")
            values = [self._value(column)]
            while self._takes(","):
                values.append(self._value(column))
            self._needs(")")
            return f"({column.sql} {negated}IN ({', '.join(values)}))"
        if self._takes("like"):
            if column.kind != TEXT:
                self._fail("only texts can be compared by 'like'")
            return f"({column.sql} {negated}LIKE {self._value(column)})"
        if self._takes("between"):
            low = self._value(column, equal=False)
            self._needs("and")
            high = self._value(column, equal=False)
            return f"({column.sql} {negated}BETWEEN {low} AND {high})"
        self._fail("expected a comparison such as =, <, in, like, between or is null")

    def _column(self) -> Column:
        token = self._next
        if token.kind not in ("word", "quoted") or self._is_keyword(token):
            self._fail("expected the name of a column")
        name = token.text if token.kind == "word" else token.text[1:-1].replace('""', '"')
        found = self.columns.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.columns, n=1)
            close = f"Did you mean {near[0]}?\n" if near else ""
            raise ConfigError(
                f"There is no column '{short(name)}'.",
                f"{close}Columns: {', '.join(map(short, self.columns)) or '(none)'}.",
            )
        self.at += 1
        return found

    def _value(self, column: Column, equal: bool = True) -> str:
        """A value that fits the column, as a parameter. equal: it need only be the same or not."""
        token = self._next
        if token.kind == "text":
            if column.kind == NUMBER:
                self._fail("this column has numbers: write the value without quotes")
            self.parameters.append(token.text[1:-1].replace("''", "'"))
        elif token.kind == "number":
            if column.kind == TEXT and not equal:
                self._fail("this column has texts: write the value in single quotes")
            is_text = column.kind == TEXT
            self.parameters.append(token.text if is_text else _number(token.text))
        elif token.kind == "quoted":
            self._fail("write a text in single quotes")
        else:
            self._fail("expected a number, or a text in single quotes")
        self.at += 1
        return "?"

    # -- tokens ----------------------------------------------------------------------------------

    @property
    def _next(self) -> _Token:
        return self.tokens[self.at]

    def _is_keyword(self, token: _Token) -> bool:
        return token.kind == "word" and token.text.lower() in _KEYWORDS

    def _takes(self, word: str) -> bool:
        """Whether the next token is this sign or keyword; then it is taken."""
        token = self._next
        hit = token.kind == "sign" and token.text == word
        hit = hit or (self._is_keyword(token) and token.text.lower() == word)
        self.at += hit
        return hit

    def _needs(self, word: str) -> None:
        if not self._takes(word):
            self._fail(f"expected '{word}'")

    def _fail(self, why: str, at: int | None = None) -> NoReturn:
        at = self._next.at if at is None else at
        before, after = self.text[max(0, at - 40) : at], self.text[at : at + 40]
        shown = f"{before}>>{after}" if after else f"{before}>> (the end)"
        raise ConfigError(
            f"The condition can't be read at: {shown}", f"{why[:1].upper()}{why[1:]}.\n{_EXAMPLE}"
        )


def _number(text: str) -> int | float:
    """The number as SQLite can have it."""
    if text.lstrip("+-").isdigit() and abs(int(text)) <= _LARGEST:
        return int(text)
    return float(text)
