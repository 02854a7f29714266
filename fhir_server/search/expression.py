"""Parses the FHIRPath subset of R4's search parameters; any other expression raises ValueError.

The subset: a union of paths, each a chain of members with casts (``x as T``, ``.as(T)``, ``.ofType(T)``), ``extension('url')`` and
the filters below (http://hl7.org/fhir/R4/searchparameter-registry.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|('[^']*')|(!=|[.()|=]))")
_END = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A child element; ``cast`` limits a choice element to one datatype."""

    name: str
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class WhereEquals:
    """``where(name='value')``"""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class WhereRefersTo:
    """``where(resolve() is Type)``, decided by the text of the reference."""

    type: str


@dataclass(frozen=True, slots=True)
class TrueUnlessFalse:
    """``x.exists() and x != false``: true for a value other than ``false``.

    In FHIRPath the expression is false without a value. Here it then has no value, and a search for false becomes "not true", so that
    a hidden element and an absent one give the same answer.
    """


Step = Member | WhereEquals | WhereRefersTo | TrueUnlessFalse
Branch = tuple[Step, ...]


def parse(expression: str) -> tuple[Branch, ...]:
    """The branches of the union, without the leading name of the type."""
    reader = _Reader(expression)
    branches = [reader.term()]
    while reader.take("|"):
        branches.append(reader.term())
    reader.expect(_END)
    return tuple(branches)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError(f"not in the FHIRPath subset: {text}")
            self._tokens.append(match[match.lastindex or 0])
            position = match.end()
        self._tokens.append(_END)

    def take(self, token: str) -> bool:
        matched = self._tokens[0] == token
        if matched:
            self._tokens.pop(0)
        return matched

    def expect(self, *tokens: str) -> None:
        for token in tokens:
            if not self.take(token):
                raise ValueError(f"not in the FHIRPath subset: {self._text} (expected {token!r}, found {self._tokens[0]!r})")

    def name(self) -> str:
        token = self._tokens.pop(0)
        if not token.isidentifier():
            raise ValueError(f"not in the FHIRPath subset: {self._text} (expected a name, found {token!r})")
        return token

    def literal(self) -> str:
        token = self._tokens.pop(0)
        if not token.startswith("'"):
            raise ValueError(f"not in the FHIRPath subset: {self._text} (expected a string, found {token!r})")
        return token[1:-1]

    def term(self) -> Branch:
        if self.take("("):
            steps = self.term()
            self.expect(")")
        else:
            first = self.name()
            steps = () if first[0].isupper() else (Member(first),)
        while self.take("."):
            steps = self._postfix(steps)
        if self.take("as"):
            steps = self._cast(steps, self.name())
        return steps

    def _postfix(self, steps: Branch) -> Branch:
        name = self.name()
        if not self.take("("):
            return (*steps, Member(name))
        if name in ("as", "ofType"):
            steps = self._cast(steps, self.name())
        elif name == "where":
            steps = (*steps, self._condition())
        elif name == "extension":
            steps = (*steps, Member("extension"), WhereEquals("url", self.literal()))
        elif name == "exists":
            self.expect(")", "and")
            if self.term() != steps:
                raise ValueError(f"not in the FHIRPath subset: {self._text}")
            self.expect("!=", "false")
            return (*steps, TrueUnlessFalse())
        else:
            raise ValueError(f"not in the FHIRPath subset: {self._text} (function {name})")
        self.expect(")")
        return steps

    def _condition(self) -> Step:
        name = self.name()
        if self.take("="):
            return WhereEquals(name, self.literal())
        if name != "resolve":
            raise ValueError(f"not in the FHIRPath subset: {self._text} (function {name})")
        self.expect("(", ")", "is")
        return WhereRefersTo(self.name())

    def _cast(self, steps: Branch, datatype: str) -> Branch:
        if not steps or not isinstance(steps[-1], Member):
            raise ValueError(f"not in the FHIRPath subset: {self._text} (cast of no element)")
        return (*steps[:-1], replace(steps[-1], cast=datatype))
