"""Page links are opaque, bound to their search, and rejected with the same message in all cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.errors import Problem
from fhir_server.search.cursors import Cursors
from fhir_server.search.rows import STALE_LINK, Position

CURSORS = Cursors(bytes(range(64)))
scalars = st.none() | st.text() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
positions = st.builds(Position, st.lists(scalars, max_size=3).map(tuple), st.text())


def refused(text: str, bound: bytes, cursors: Cursors = CURSORS) -> bool:
    with pytest.raises(Problem) as problem:
        cursors.decrypt(text, bound)
    return (problem.value.kind, str(problem.value)) == ("invalid", STALE_LINK)


@given(positions, st.binary())
def test_cursor_decrypts_to_its_position_for_the_same_search(position: Position, bound: bytes) -> None:
    text = CURSORS.encrypt(position, bound)
    assert CURSORS.decrypt(text, bound) == position
    assert text == CURSORS.encrypt(position, bound)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(positions, st.binary(), st.binary())
def test_cursor_is_refused_for_another_search_or_key(position: Position, bound: bytes, other: bytes) -> None:
    text = CURSORS.encrypt(position, bound)
    assert other == bound or refused(text, other)
    assert refused(text, bound, Cursors(bytes(64)))


@given(positions, st.data())
def test_cursor_with_any_changed_character_is_refused(position: Position, data: st.DataObject) -> None:
    text = CURSORS.encrypt(position, b"search")
    place = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda found: found != text[place]))
    assert refused(text[:place] + char + text[place + 1 :], b"search")
    assert refused(text[:place], b"search")


@given(st.text())
def test_arbitrary_text_is_refused_as_a_cursor(text: str) -> None:
    assert refused(text, b"search")


def test_cursor_does_not_reveal_its_position() -> None:
    assert "secret" not in CURSORS.encrypt(Position(("secret",), "secret"), b"")


def test_cursor_key_of_wrong_length_raises_an_error() -> None:
    with pytest.raises(ValueError, match="bit"):
        Cursors(b"short")
