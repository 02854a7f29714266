"""JSON whose digits survive: parse for reading, splice for keeping.

FHIR makes decimal digits significant (http://hl7.org/fhir/R4/datatypes.html#decimal), so the text received
is the text kept.  :func:`parse` gives Python values for validation and indexing (decimals as ``Decimal``);
the text itself is only ever cut and joined, by :func:`members`, :func:`spliced` and :func:`without`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec

from fhir_server.errors import Problem

Path = tuple[str | int, ...]

# A character beyond the first 65,536 takes two.
_ESCAPES: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\.")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])


def parse(text: bytes) -> Any:
    """The value of a JSON text; decimals keep their digits.

    Raises Problem ``invalid`` for text that is not JSON, repeats a member name (two readers of such a
    text may see different resources, and we label only one of them), or nests too deep.
    """
    try:
        value = _quick.decode(text)
        if _encoder.encode(value) == msgspec.json.format(text, indent=-1):
            return value  # written again it is the same text: no name was repeated, no digit lost
    except (ValueError, RecursionError):
        pass  # the thorough reader says what is wrong
    try:
        value = _decoder.decode(text.decode("utf-8"))
        if b"\\u" in text:
            unescape(text)  # Python's reader lets halves of surrogate pairs pass, which no text can hold
        return value
    except (ValueError, RecursionError) as error:
        detail = "the nesting is too deep" if isinstance(error, RecursionError) else _detail(error)
        raise Problem("invalid", f"The body is not well-formed JSON: {detail}.") from None


def _detail(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "an escape stands for half a character"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member name is repeated within one object")
    return value


def _constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_quick = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=Decimal, parse_constant=_constant)


def members(text: bytes) -> dict[str, bytes]:
    """Member name -> its value's text, in order, of a JSON object already known to be well formed."""
    return {name: bytes(raw) for name, raw in _members.decode(text).items()}


def items(text: bytes) -> list[bytes]:
    """The texts of the items of a JSON array already known to be well formed."""
    return [bytes(raw) for raw in _items.decode(text)]


def compact(text: bytes) -> bytes:
    """The same JSON text, already known to be well formed, without white space between its tokens; digits stay as written."""
    return msgspec.json.format(text, indent=-1)


def unescape(text: bytes) -> bytes:
    """The same JSON text, already known to be well formed, with no escapes but those that JSON needs."""
    return _ESCAPES.sub(_unescape_match, text)


def _unescape_match(found: re.Match[bytes]) -> bytes:
    character: str = json.loads(b'"%s"' % found.group(0))
    needed = character in '"\\' or character < " "
    return found.group(0) if needed else character.encode()


def join_members(parts: Mapping[str, bytes]) -> bytes:
    """The object text of these members, in order."""
    return b"{" + b",".join([_named(name) + text for name, text in parts.items()]) + b"}"


@lru_cache(4096)  # the same few hundred names stand in all resources
def _named(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def dumps(value: Any) -> bytes:
    """Compact JSON text of a value that :func:`parse` gave, digits kept."""
    return _encoder.encode(value)


def remove_paths(text: bytes, paths: Iterable[Path]) -> bytes:
    """The JSON text less what stands at these paths; whatever becomes empty goes too.

    Paths index into the *original* text: removing item 1 of an array does not shift item 2.  A text of
    which nothing remains is ``b""``.
    """
    tree: dict[str | int, Any] = {}
    for path in paths:
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
            if node is True:
                break
        else:
            node[path[-1]] = True
    return _without_tree(text, tree) if tree else text


def _without_tree(text: bytes, tree: dict[str | int, Any]) -> bytes:
    if text.lstrip()[:1] == b"[":
        kept = [_part(raw, tree.get(i)) for i, raw in enumerate(items(text))]
        kept = [part for part in kept if part]
        return b"[" + b",".join(kept) + b"]" if kept else b""
    parts = {name: _part(raw, tree.get(name)) for name, raw in members(text).items()}
    parts = {name: part for name, part in parts.items() if part}
    return join_members(parts) if parts else b""


def _part(text: bytes, tree: Any) -> bytes:
    if tree is None:
        return text
    return b"" if tree is True else _without_tree(text, tree)
