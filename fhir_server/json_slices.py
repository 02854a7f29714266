"""Parses large JSON texts in slices, between which other requests go on."""

from __future__ import annotations

from typing import Any, Final

from fhir_server import budget, jsontext

_SLICE_BYTES: Final = 64 * 1024


async def value_in_steps(text: bytes) -> Any:
    """The value of a well-formed JSON text.  Others go on between slices of a large one."""
    if len(text) <= _SLICE_BYTES:
        return jsontext.parse(text)
    await budget.give_way()
    if text[:1] == b"{":
        return {name: await value_in_steps(part) for name, part in jsontext.members(text).items()}
    if text[:1] != b"[":
        return jsontext.parse_scalar(text)
    values: list[Any] = []
    together: list[bytes] = []
    size = 0
    for item in jsontext.items(text):
        together.append(item)
        size += len(item)
        if size > _SLICE_BYTES:
            values += await _values(together)
            together, size = [], 0
            await budget.give_way()
    return values + await _values(together)


async def _values(items: list[bytes]) -> list[Any]:
    if len(items) == 1:
        return [await value_in_steps(items[0])]
    found: list[Any] = jsontext.parse(b"[" + b",".join(items) + b"]") if all(len(item) <= _SLICE_BYTES for item in items) else []
    return found or [await value_in_steps(item) for item in items]
