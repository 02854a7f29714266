"""Compiles the value of ``_text`` and ``_content`` to the condition language (http://hl7.org/fhir/R4/search.html#content).

``(bone OR liver) and metastases``: words must all occur, wherever they are; ``or`` and a comma separate alternatives, ``and`` may be left
out, and parentheses group. Signs within a word separate it: ``8480-6`` asks for the words ``8480`` and ``6``.
"""

from __future__ import annotations

import re
from typing import Final

from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, WordIs
from fhir_server.search.words import CONTENT, MAX_WORD, NARRATIVE, words

MAX_WORDS: Final = 30
_MAX_DEPTH: Final = 20
_TOKEN: Final = re.compile(r"[()]|[^\s()]+")
# The words of the narrative are indexed once, and belong to both.
_ENTRIES: Final = {NARRATIVE: (NARRATIVE,), CONTENT: (CONTENT, NARRATIVE)}


def condition(param: str, value: str) -> Filter:
    """The condition of a value, still escaped.  Raises ValueError that says what is wrong."""
    texts = [unescape(text) for text in split(value, ",")]
    if any('"' in text for text in texts):
        raise ValueError('words are searched one by one: phrases in "quotes" are not supported')
    parts = [_Reader(param, text).whole() for text in texts]
    if sum(len(words(text)) for text in texts) > MAX_WORDS:
        raise ValueError(f"it has more than {MAX_WORDS} words")
    return _any_of(parts)


class _Reader:
    def __init__(self, param: str, text: str) -> None:
        self._param = param
        self._tokens: list[str] = _TOKEN.findall(text)

    def whole(self) -> Filter:
        found = self._alternatives(0)
        if self._tokens:
            raise ValueError("a parenthesis does not begin")
        return found

    def _alternatives(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise ValueError(f"it has more than {_MAX_DEPTH} levels of parentheses")
        parts = [self._all(depth)]
        while self._next() == "or":
            self._tokens.pop(0)
            parts.append(self._all(depth))
        return _any_of(parts)

    def _all(self, depth: int) -> Filter:
        parts: list[Filter] = []
        while (following := self._next()) not in ("", ")", "or"):
            token = self._tokens.pop(0)
            if following == "(":
                parts.append(self._alternatives(depth + 1))
                if self._next() != ")":
                    raise ValueError("a parenthesis does not end")
                self._tokens.pop(0)
            elif following != "and":
                parts += self._words(token)
        if not parts:
            raise ValueError("it needs at least one word")
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _words(self, token: str) -> list[Filter]:
        if len(token) > MAX_WORD:
            raise ValueError(f"a word has at most {MAX_WORD} characters")
        return [_any_of([Has(param, WordIs(word)) for param in _ENTRIES[self._param]]) for word in words(token)]

    def _next(self) -> str:
        return self._tokens[0].lower() if self._tokens else ""


def _any_of(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))
