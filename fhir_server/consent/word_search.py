"""Finds words of sensitive content in texts.

A text is read as a sequence of tokens: letters and digits, without accents and case.  A term is one token or several; ``*`` at the end
of a token stands for any ending.  So a term never matches inside another word, and the time is proportional to the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_SEARCHED_TEXT: Final = 100_000  # characters; what follows counts as unread
_MAX_KNOWN_TOKENS: Final = 50_000
_TOKEN: Final = re.compile(r"[a-z0-9]+")
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))


@dataclass(frozen=True, slots=True)
class Word:
    """A term of a word list.

    ``label``   the label that it gives
    ``alone``   whether it gives the label alone, or only beside a second signal
    ``unless``  phrases in which the term means something else; each contains the term
    """

    term: str
    label: str
    alone: bool = True
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WordReading:
    """What the words of a text say.

    ``labels``    labels of its words
    ``possible``  labels that its words give only with a second signal
    ``complete``  whether the whole text was read
    """

    labels: frozenset[str] = frozenset()
    possible: frozenset[str] = frozenset()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Entry:
    word: Word
    tokens: tuple[str, ...]
    exclusions: tuple[tuple[int, tuple[str, ...]], ...]  # (tokens before the term, all tokens of the phrase)
    literal: re.Pattern[str] | None  # a term with a sign that tokens do not have


class WordSearch:
    """Searches texts for the terms of word lists.  Raises ValueError for a term without letters or a phrase without its term."""

    def __init__(self, words: Iterable[Word] = ()) -> None:
        self._first: dict[str, list[_Entry]] = {}
        self._stems: dict[str, list[_Entry]] = {}
        for word in words:
            entry = _compile(word)
            stem = entry.tokens[0].endswith("*")
            (self._stems if stem else self._first).setdefault(entry.tokens[0].rstrip("*"), []).append(entry)
        self._stem_lengths = sorted({len(stem) for stem in self._stems})
        self._known: dict[str, tuple[_Entry, ...]] = {}

    def search(self, text: str) -> WordReading:
        """Read a text, at most its first 100,000 characters."""
        complete = len(text) <= MAX_SEARCHED_TEXT
        folded = fold(text[:MAX_SEARCHED_TEXT])
        tokens = _TOKEN.findall(folded)
        candidates = {token: entries for token in set(tokens) if (entries := self._entries(token))}
        if not candidates:
            return _NOTHING if complete else _UNREAD
        labels: set[str] = set()
        possible: set[str] = set()
        for place, token in enumerate(tokens):
            for entry in candidates.get(token, ()):
                found = labels if entry.word.alone else possible
                if entry.word.label not in found and _stands(entry, tokens, place, folded):
                    found.add(entry.word.label)
        return WordReading(frozenset(labels), frozenset(possible - labels), complete)

    def _entries(self, token: str) -> tuple[_Entry, ...]:
        """The entries whose first token is this one."""
        known = self._known.get(token)
        if known is None:
            if len(self._known) >= _MAX_KNOWN_TOKENS:
                self._known.clear()
            stems = (self._stems.get(token[:length], ()) for length in self._stem_lengths if length <= len(token))
            known = self._known[token] = (*self._first.get(token, ()), *(entry for entries in stems for entry in entries))
        return known


_NOTHING: Final = WordReading()
_UNREAD: Final = WordReading(complete=False)


def fold(text: str) -> str:
    """The text without case, accents and invisible characters, compatibility characters replaced."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_INVISIBLE)).casefold()
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _compile(word: Word) -> _Entry:
    tokens = _tokens(word.term)
    if not tokens or not tokens[0].strip("*"):
        raise ValueError(f"The word list has a term without letters: {word.term!r}.")
    exclusions: list[tuple[int, tuple[str, ...]]] = []
    for phrase in map(_tokens, word.unless):
        bare = [token.rstrip("*") for token in phrase]
        places = [place for place in range(len(bare)) if _follows(tokens, bare, place)]
        if not places:
            raise ValueError(f"The word list excludes a phrase that does not contain {word.term!r}.")
        exclusions += [(place, phrase) for place in places]
    literal = re.compile(rf"(?<![a-z0-9]){re.escape(fold(word.term))}(?![a-z0-9])") if re.search("[&+]", word.term) else None
    return _Entry(word, tokens, tuple(exclusions), literal)


def _tokens(term: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+\*?", fold(term)))


def _stands(entry: _Entry, tokens: Sequence[str], place: int, folded: str) -> bool:
    """Whether the term stands at this place, in none of the phrases where it means something else."""
    if not _follows(entry.tokens, tokens, place) or (entry.literal is not None and not entry.literal.search(folded)):
        return False
    return not any(place >= before and _follows(phrase, tokens, place - before) for before, phrase in entry.exclusions)


def _follows(pattern: tuple[str, ...], tokens: Sequence[str], place: int) -> bool:
    """Whether the tokens from this place on are those of the pattern."""
    if place + len(pattern) > len(tokens):
        return False
    return all(
        tokens[place + step].startswith(part[:-1]) if part.endswith("*") else tokens[place + step] == part
        for step, part in enumerate(pattern)
    )
