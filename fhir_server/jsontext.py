"""JSON texts that keep the digits of decimals as written.

In FHIR the digits of a decimal are significant (http://hl7.org/fhir/R4/datatypes.html#decimal), so the server stores the
text that it received.  :func:`parse` returns Python values for validation and indexing, with decimals as ``Decimal``.
Stored text is split by :func:`members` and :func:`items`, joined by :func:`join_members`, and reduced by
:func:`remove_paths`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec

from fhir_server.errors import Problem

Path = tuple[str | int, ...]

MAX_DEPTH: Final = 200
"""How deep the objects and arrays of a body may nest."""

# A character above U+FFFF is two escapes, a surrogate pair.
_ESCAPES: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\.")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])


def parse(text: bytes, *, inside: int = 0) -> Any:
    """The value of a JSON text, with decimals as ``Decimal``.  ``inside``: the objects and arrays of a larger text in which it is.

    Raises Problem ``invalid`` for text that is not JSON, nests deeper than :data:`MAX_DEPTH`, or repeats a member name: two
    readers of such a text may read different resources, and only one of them would be labeled.
    """
    fast = _parse_fast(text)
    return _not_too_deep(fast[0] if fast is not None else _parse_strictly(text), text, MAX_DEPTH - inside)


def parse_compact(text: bytes) -> tuple[Any, bytes]:
    """The value of a JSON text, as :func:`parse` returns it, and the text as :func:`compact` does.  Raises Problem ``invalid``."""
    value, compacted = _parse_fast(text) or (_parse_strictly(text), compact(text))
    return _not_too_deep(value, text), compacted


def _not_too_deep(value: Any, text: bytes, depth: int = MAX_DEPTH) -> Any:
    if text.count(b"{") + text.count(b"[") > depth and _is_deeper(value, depth):
        raise Problem("invalid", f"The body nests objects and arrays deeper than {MAX_DEPTH} levels.")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether objects and arrays nest deeper than ``depth``.  Looks at one level after the other: a recursion would be slower."""
    level = [value]
    for _ in range(depth):
        inner = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        level = [child for child in inner if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _parse_fast(text: bytes) -> tuple[Any, bytes] | None:
    """Value and compact text; None if the slower parser must accept the text or report its error."""
    try:
        value = _fast_decoder.decode(text)
        compacted = msgspec.json.format(text, indent=-1)
        # Serialized again it is the same text: no repeated name, no lost digit.
        return (value, compacted) if _encoder.encode(value) == compacted else None
    except (ValueError, RecursionError):
        return None


def _parse_strictly(text: bytes) -> Any:
    try:
        value = _strict_decoder.decode(text.decode("utf-8"))
        if b"\\u" in text:
            unescape(text)  # raises for a lone surrogate, which Python's parser accepts
        return value
    except (ValueError, RecursionError) as error:
        detail = f"objects and arrays nest deeper than {MAX_DEPTH} levels" if isinstance(error, RecursionError) else _detail(error)
        raise Problem("invalid", f"The body is not well-formed JSON: {detail}.") from None


def parse_scalar(text: bytes) -> Any:
    """The value of a well-formed JSON text that is no object and no array: one that :func:`parse` would accept."""
    return _fast_decoder.decode(text) if text[:1] == b'"' else parse(text)


def _detail(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "an escape sequence is half of a surrogate pair"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return str(error)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member name is repeated within one object")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_fast_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")
_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique_members, parse_float=Decimal, parse_constant=_refuse_constant)


def members(text: bytes) -> dict[str, bytes]:
    """Member name -> text of its value, in order, of a well-formed JSON object."""
    return {name: bytes(raw) for name, raw in _members.decode(text).items()}


def members_named(text: bytes, names: Container[str]) -> dict[str, bytes]:
    """As :func:`members`, of those with these names."""
    return {name: bytes(raw) for name, raw in _members.decode(text).items() if name in names}


def items(text: bytes) -> list[bytes]:
    """The texts of the items of a well-formed JSON array."""
    return [bytes(raw) for raw in _items.decode(text)]


def compact(text: bytes) -> bytes:
    """A well-formed JSON text without white space between tokens; digits stay as written."""
    return msgspec.json.format(text, indent=-1)


def unescape(text: bytes) -> bytes:
    """A well-formed JSON text without the escapes that JSON does not require.

    Raises UnicodeEncodeError for an escaped lone surrogate.
    """
    return _ESCAPES.sub(_unescape_match, text)


def _unescape_match(match: re.Match[bytes]) -> bytes:
    character: str = json.loads(b'"%s"' % match.group(0))
    required = character in '"\\' or character < " "
    return match.group(0) if required else character.encode()


def join_members(parts: Mapping[str, bytes]) -> bytes:
    """The text of a JSON object with these members, in order.  Values are JSON texts."""
    return b"{" + b",".join([_name_prefix(name) + text for name, text in parts.items()]) + b"}"


@lru_cache(4096)  # all resources use the same few hundred names
def _name_prefix(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def dumps(value: Any) -> bytes:
    """Compact JSON text of a value from :func:`parse`, with the digits of its decimals."""
    return _encoder.encode(value)


def remove_paths(text: bytes, paths: Iterable[Path]) -> bytes:
    """The JSON text without the values at these paths, and without objects and arrays that become empty.

    Paths refer to the *original* text: removing item 1 of an array does not shift item 2.  The result is ``b""`` if nothing
    remains.
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
    return _remove_tree(text, tree) if tree else text


def _remove_tree(text: bytes, tree: dict[str | int, Any]) -> bytes:
    if text.lstrip()[:1] == b"[":
        remaining = [_remove_subtree(raw, tree.get(i)) for i, raw in enumerate(items(text))]
        remaining = [item for item in remaining if item]
        return b"[" + b",".join(remaining) + b"]" if remaining else b""
    parts = {name: _remove_subtree(raw, tree.get(name)) for name, raw in members(text).items()}
    parts = {name: part for name, part in parts.items() if part}
    return join_members(parts) if parts else b""


def _remove_subtree(text: bytes, tree: Any) -> bytes:
    if tree is None:
        return text
    return b"" if tree is True else _remove_tree(text, tree)


def replace_values(text: bytes, values: Mapping[Path, bytes]) -> bytes:
    """The JSON text with the JSON texts ``values`` at their paths, which exist and do not lie within one another."""
    tree: dict[str | int, Any] = {}
    for path, value in values.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = value
    return _replaced(text, tree) if tree else text


def _replaced(text: bytes, tree: Any) -> bytes:
    if isinstance(tree, bytes):
        return tree
    if text.lstrip()[:1] == b"[":
        return b"[" + b",".join([_replaced(raw, tree[i]) if i in tree else raw for i, raw in enumerate(items(text))]) + b"]"
    return join_members({name: _replaced(raw, tree[name]) if name in tree else raw for name, raw in members(text).items()})
