"""
Filter language, as in ``has Fe, O and ehull <= 50 meV and not phonon.has_imaginary_modes``.

A recursive-descent parser for this grammar::

    either    = both {"or" both}
    both      = negated {"and" negated}
    negated   = "not" negated | "(" either ")" | condition
    condition = ["elements"] ("has" | "only") symbol {"," symbol}
              | FIELD (relation value | ["not"] "in" "(" value {"," value} ")" | "contains" text
                       | "is" ["not"] ("missing" | "known" | value))
              | FIELD
    relation  = "=" | "!=" | "<" | "<=" | ">" | ">="
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from matris.errors import MatrisError
from matris.stores.documents.fields import Field, field_named
from matris.stores.query.conditions import Among, And, Comparison, Contains, Has, Missing, Not, Only, Or
from matris.stores.query.values import (
    age,
    chemical_system,
    date,
    element,
    in_unit_of,
    reduced_formula,
    space_group,
    split_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from matris.stores.query.conditions import Condition, Value
    from matris.stores.query.values import Span

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|==?|[<>(),])|(?P<word>[^\s()=!<>,"'\0]+)|(?P<end>$))"""
)
_KEYWORDS = {"and", "or", "not", "in", "is", "has", "only", "contains"}
_RELATIONS = {"=", "==", "!=", "<", "<=", ">", ">="}
_READERS: dict[str, Callable[[str], Value]] = {
    "formula_pretty": reduced_formula,
    "chemsys": chemical_system,
    "symmetry.number": space_group,
    "symmetry.crystal_system": str.capitalize,
}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
_MAX_DEPTH = 50  # nested brackets; each level takes a few frames of Python's stack


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def parse_filter(text: str) -> Condition:
    """
    Parse a filter.

    Parameters
    ----------
    text
        Filter in the language described in docs/queries.md.

    Returns
    -------
    Condition
        Condition that `CandidateQuery.meeting` takes.

    Raises
    ------
    MatrisError
        If the filter cannot be parsed. The message marks the position and says what was expected there.

    Examples
    --------
    >>> parse_filter("has Fe, O and ehull <= 50 meV")
    And(parts=(Has(symbols=('Fe', 'O')), Comparison(field='energy_above_hull', relation='<=', value=0.05)))
    >>> parse_filter("ehull <= much")
    Traceback (most recent call last):
    matris.errors.MatrisError: cannot read the filter: expected a number (eV/atom)
      ehull <= much
               ^^^^
    """
    return _Parser(text).whole()


class _Parser:
    """Tokens of a filter, and the position of the parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.position = 0
        self.depth = 0

    def whole(self) -> Condition:
        """Parse the whole filter."""
        condition = self.either()
        if self.token.kind != "end":
            hint = "; text with spaces or brackets goes in quotes" if self.token.text not in {")", ","} else ""
            raise self.error(f"expected 'and', 'or' or the end{hint}")
        return condition

    def either(self) -> Condition:
        parts = [self.both()]
        while self.accept("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Condition:
        parts = [self.negated()]
        while self.accept("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negated(self) -> Condition:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} nested brackets or 'not'")
        if self.accept("not"):
            condition: Condition = Not(self.negated())
        elif self.accept("("):
            condition = self.either()
            self.expect(")")
        else:
            condition = self.condition()
        self.depth -= 1
        return condition

    def condition(self) -> Condition:
        about_elements = self.is_word("elements") and self.tokens[self.position + 1].text.lower() in {"has", "only"}
        self.position += about_elements
        if self.accept("has"):
            return Has(self.symbols())
        if self.accept("only"):
            return Only(self.symbols())
        token = self.token
        field = self.field()
        if self.accept("is"):
            return self.identity(field)
        if field.kind == "group":
            raise self.error(f"{field.name} is a group of fields: name one of them, or write 'is known'", token)
        if field.kind == "list":
            elements = "'has', 'only', " if field.name == "elements" else ""
            raise self.error(f"expected {elements}'is missing' or 'is known' after the list {field.name}")
        return self.test(field)

    def test(self, field: Field) -> Condition:
        """Parse what follows a field with a single value."""
        relation = self.token.text
        if self.token.kind == "sign" and relation in _RELATIONS:
            return self.comparison(field, "=" if relation == "==" else relation)
        if self.accept("in"):
            return self.among(field)
        if self.is_word("not") and self.tokens[self.position + 1].text.lower() == "in":
            self.position += 2
            return Not(self.among(field))
        if field.kind in {"text", "anything"} and self.accept("contains"):
            return Contains(field.name, self.text_value("a text to search for"))
        if field.kind in {"boolean", "anything"}:
            return Comparison(field.name, "=", value=True)
        contains = ", contains" if field.kind == "text" else ""
        relations = "= != < <= > >=" if field.kind != "text" else "= !="
        raise self.error(f"expected {relations}, in{contains} or is after {field.name}")

    def identity(self, field: Field) -> Condition:
        """Parse what follows ``is``."""
        negative = self.accept("not")
        if self.accept("missing"):
            condition: Condition = Missing(field.name)
        elif self.accept("known"):
            condition, negative = Missing(field.name), not negative
        elif field.kind in {"group", "list"}:
            raise self.error("expected 'missing' or 'known'")
        else:
            condition = self.equality(field)
        return Not(condition) if negative else condition

    def comparison(self, field: Field, relation: str) -> Condition:
        if relation not in {"=", "!="} and field.kind in {"text", "boolean"}:
            raise self.error(f"expected = or != or in: {field.name} is neither a number nor a date")
        self.position += 1
        if relation == "=":
            return self.equality(field)
        if relation == "!=":
            return Not(self.equality(field))
        if field.kind == "date":
            span = self.span()
            moment = span.end if relation in {"<=", ">"} else span.start
            if span.end > span.start:  # a whole day: <= includes the day, > excludes it
                relation = {"<=": "<", ">": ">="}.get(relation, relation)
            return Comparison(field.name, relation, moment)
        return Comparison(field.name, relation, self.value(field))

    def equality(self, field: Field) -> Condition:
        if field.kind != "date":
            return Comparison(field.name, "=", self.value(field))
        span = self.span()
        if span.start == span.end:
            return Comparison(field.name, "=", span.start)
        return And((Comparison(field.name, ">=", span.start), Comparison(field.name, "<", span.end)))

    def among(self, field: Field) -> Condition:
        self.expect("(")
        first = self.token
        parts = [self.equality(field)]
        while self.accept(","):
            parts.append(self.equality(field))
        self.expect(")")
        values = tuple(part.value for part in parts if isinstance(part, Comparison))
        if len(values) < len(parts) or field.kind == "boolean":
            return Or(tuple(parts))
        if len({isinstance(value, str) for value in values}) > 1 or any(isinstance(value, bool) for value in values):
            raise self.error("expected values of one kind: all numbers or all texts", first)
        return Among(field.name, values)

    def value(self, field: Field) -> Value:
        """Parse a value of the field's kind other than a date."""
        token = self.token
        reader = _READERS.get(field.name)
        number = split_number(token.text) if token.kind == "word" else None
        if field.kind == "number" and (number or not reader):
            return self.number(field)
        if field.kind == "boolean":
            return self.truth()
        if field.kind == "anything" and number and not number[1]:
            self.position += 1
            return number[0]
        if field.kind == "anything" and token.kind == "word" and token.text.lower() in _TRUTHS:
            return self.truth()
        text = self.text_value("a text, in quotes if it has spaces or brackets")
        if field.choices and text not in field.choices:
            raise self.error(f"expected one of {', '.join(field.choices)}", token)
        return self.converted(token, lambda: reader(text)) if reader else text

    def number(self, field: Field) -> float:
        token = self.word(f"a number{f', such as 0.05 or 50 {_example(field)}' if field.unit else ''}")
        parts = split_number(token.text)
        if parts is None:
            raise self.error(f"expected a number{f' ({field.unit})' if field.unit else ''}", token)
        number, unit = parts
        if not unit and self.token.kind == "word" and self.token.text.lower() not in _KEYWORDS:
            token, unit = self.token, self.token.text
            self.position += 1
        return self.converted(token, lambda: in_unit_of(field, number, unit)) if unit else number

    def truth(self) -> bool:
        token = self.word("true or false")
        if token.text.lower() not in _TRUTHS:
            raise self.error("expected true or false", token)
        return _TRUTHS[token.text.lower()]

    def span(self) -> Span:
        """Parse a date."""
        first = self.token
        next_tokens = self.tokens[self.position : self.position + 3]
        words = [token for token in next_tokens if token.kind in {"word", "quoted"}]
        self.position += 1
        if first.kind == "quoted":
            words = [_Token("word", text, first.start, first.end) for text in first.text.split()]
        number = split_number(words[0].text) if words else None
        span = None
        if len(words) > 2 and words[2].text.lower() == "ago" and number and not number[1]:  # noqa: PLR2004
            span = age(number[0], words[1].text)
            self.position += 2 if first.kind == "word" else 0
        elif len(words) > 1 and words[1].text[:1].isdigit():
            span = date(f"{words[0].text}T{words[1].text}")
            self.position += 1 if first.kind == "word" else 0
        elif words:
            span = date(words[0].text)
        if span is None:
            raise self.error("expected a date: 2026-11-20, 2026-11-20 14:30, today, yesterday, or 3 days ago", first)
        return span

    def symbols(self) -> tuple[str, ...]:
        symbols = [self.symbol()]
        while self.accept(","):
            symbols.append(self.symbol())
        return tuple(dict.fromkeys(symbols))

    def symbol(self) -> str:
        token = self.word("an element")
        return self.converted(token, lambda: element(token.text))

    def field(self) -> Field:
        token = self.word("a field, 'has', 'only', 'not' or (")
        return self.converted(token, lambda: field_named(token.text))

    def text_value(self, expected: str) -> str:
        """Parse a word or a quoted text."""
        if self.token.kind != "quoted":
            return self.word(expected).text
        self.position += 1
        return self.tokens[self.position - 1].text

    def word(self, expected: str) -> _Token:
        """Parse a word that is not a keyword."""
        token = self.token
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            raise self.error(f"expected {expected}")
        self.position += 1
        return token

    @property
    def token(self) -> _Token:
        """Next token."""
        return self.tokens[self.position]

    def is_word(self, text: str) -> bool:
        return self.token.kind in {"word", "sign"} and self.token.text.lower() == text

    def accept(self, text: str) -> bool:
        """Consume a word or sign if it comes next."""
        comes_next = self.is_word(text)
        self.position += comes_next
        return comes_next

    def expect(self, text: str) -> None:
        """Consume a sign that must come next."""
        if not self.accept(text):
            raise self.error(f"expected {text}")

    def converted[T](self, token: _Token, convert: Callable[[], T]) -> T:
        """Convert a token; an error of the conversion gets the position of the token."""
        try:
            return convert()
        except MatrisError as error:
            raise self.error(str(error), token) from None

    def error(self, message: str, token: _Token | None = None) -> MatrisError:
        """Make an error that marks a position in the filter, by default the next token."""
        start, end = (token or self.token)[2:]
        shown = re.sub(r"\s", " ", self.text)
        marks = " " * start + "^" * max(end - start, 1)
        return MatrisError(f"cannot read the filter: {message}\n  {shown}\n  {marks}")

    def _tokens(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while not tokens or tokens[-1].kind != "end":
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                rest = self.text[position:]
                start = position + len(rest) - len(rest.lstrip())
                problem = "this quote is not closed" if self.text[start] in "\"'" else "unexpected sign"
                raise self.error(problem, _Token("", "", start, start + 1))
            kind = match.lastgroup
            text = match[kind][1:-1] if kind == "quoted" else match[kind]
            tokens.append(_Token(kind, text, *match.span(kind)))
            position = match.end()
        return tokens


def _example(field: Field) -> str:
    return "meV" if field.unit and field.unit.startswith("eV") else str(field.unit)
