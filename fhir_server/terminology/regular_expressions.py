"""Regular expressions of value sets, matched in time that grows with the text and never explodes.

The expressions come from whoever wrote a value set.  A backtracking matcher can take hours for some of them, so this one follows all
ways at once (Thompson's construction).  It knows literals, ``.``, classes, groups, ``|``, ``*``, ``+``, ``?``, ``{m,n}`` and the escapes
``\\d \\w \\s``; anything else is refused.  An expression must match the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

MAX_STATES: Final = 200
MAX_TEXT: Final = 1000
_MAX_LENGTH: Final = 500
_MAX_GROUPS: Final = 20
_REPEAT: Final = re.compile(r"\{(\d{1,4})(,)?(\d{1,4})?\}")

Test = Callable[[str], bool]
_ESCAPES: Final[dict[str, Test]] = {
    "d": lambda c: c in "0123456789",
    "w": lambda c: c == "_" or c.isalnum(),
    "s": str.isspace,
    "D": lambda c: c not in "0123456789",
    "W": lambda c: c != "_" and not c.isalnum(),
    "S": lambda c: not c.isspace(),
}
_LITERAL_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}

# A tree: ("test", f), ("all", parts), ("any", parts), ("repeat", part, least, most; most None: without end)
_Node = tuple[Any, ...]


@lru_cache(256)
def compile(expression: str) -> Expression:
    """Compile an expression.  Raises ValueError, with what is wrong, for one that is not supported or is too large."""
    return Expression(expression)


class Expression:
    """A compiled expression."""

    def __init__(self, expression: str) -> None:
        if len(expression) > _MAX_LENGTH:
            raise ValueError(f"it has more than {_MAX_LENGTH} characters")
        self._tests: list[Test | None] = []
        self._next: list[list[int]] = []
        self._end = self._state()
        self._start = self._build(_Reader(expression).whole(), self._end)

    def matches(self, text: str) -> bool:
        """Whether the whole text matches.  A text of more than 1,000 characters does not."""
        if len(text) > MAX_TEXT:
            return False
        states = self._closure({self._start})
        for character in text:
            after = {self._next[state][0] for state in states if (test := self._tests[state]) is not None and test(character)}
            if not after:
                return False
            states = self._closure(after)
        return self._end in states

    def _state(self, test: Test | None = None, *following: int) -> int:
        if len(self._next) >= MAX_STATES:
            raise ValueError("it is too large")
        self._tests.append(test)
        self._next.append(list(following))
        return len(self._next) - 1

    def _closure(self, states: set[int]) -> set[int]:
        found, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            if self._tests[state] is None:
                new = [following for following in self._next[state] if following not in found]
                found.update(new)
                waiting += new
        return found

    def _build(self, node: _Node, end: int) -> int:
        """The state from which what the node matches leads to ``end``."""
        kind = node[0]
        if kind == "test":
            return self._state(node[1], end)
        if kind == "all":
            for part in reversed(node[1]):
                end = self._build(part, end)
            return end
        if kind == "any":
            return self._state(None, *[self._build(part, end) for part in node[1]])
        _, part, least, most = node
        if most is None:
            loop = self._state()
            self._next[loop] = [self._build(part, loop), end]
            end = loop
        else:
            last = end
            for _ in range(most - least):
                end = self._state(None, self._build(part, end), last)
        for _ in range(least):
            end = self._build(part, end)
        return end


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text.removeprefix("^")
        if self._text.endswith("$") and not self._text.endswith("\\$"):
            self._text = self._text[:-1]
        self._at = 0
        self._depth = 0

    def whole(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._text):
            raise ValueError("a parenthesis is not opened")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self) -> _Node:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._take()
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else ("any", parts)

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return ("all", parts)

    def _repeated(self, atom: _Node) -> _Node:
        sign = self._peek()
        if sign in ("*", "+", "?") and sign:
            self._take()
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        elif sign == "{":
            found = _REPEAT.match(self._text, self._at)
            if found is None:
                raise ValueError("a repetition is written {m}, {m,} or {m,n}")
            self._at = found.end()
            least = int(found[1])
            most = (int(found[3]) if found[3] else None) if found[2] else least
            if most is not None and most < least:
                raise ValueError("a repetition ends before it begins")
        else:
            return atom
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise ValueError("a repetition is repeated")
        return ("repeat", atom, least, most)

    def _atom(self) -> _Node:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return ("test", self._class())
        if character == ".":
            return ("test", lambda c: c != "\n")
        if character == "\\":
            return ("test", self._escape())
        if character in "*+?{^$":
            raise ValueError(f"{character} is not supported here")
        return ("test", character.__eq__)

    def _group(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_GROUPS:
            raise ValueError(f"it has more than {_MAX_GROUPS} groups in one another")
        if self._text.startswith("?:", self._at):
            self._at += 2
        node = self._alternatives()
        if self._take() != ")":
            raise ValueError("a parenthesis does not end")
        self._depth -= 1
        return node

    def _escape(self) -> Test:
        character = self._take()
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character.isalnum() and character not in _LITERAL_ESCAPES:
            raise ValueError(f"\\{character} is not supported")
        return _LITERAL_ESCAPES.get(character, character).__eq__

    def _class(self) -> Test:
        is_negated = self._peek() == "^"
        if is_negated:
            self._take()
        tests: list[Test] = []
        while (character := self._take()) != "]" or not tests:
            if character == "\\":
                escaped = self._peek()
                tests.append(self._escape())
                if escaped in _ESCAPES or self._peek() != "-":
                    continue
                character = _LITERAL_ESCAPES.get(escaped, escaped)
                tests.pop()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._take()
                last = self._take()
                last = self._take() if last == "\\" else last
                tests.append(_between(character, last))
            else:
                tests.append(character.__eq__)
        return lambda c: any(test(c) for test in tests) != is_negated


def _between(first: str, last: str) -> Test:
    return lambda c: first <= c <= last
