"""The ``meta`` of a new version: what the draft says, merged with what the version before it says.

Security labels, tags and profiles of a resource stay until they are removed by ``$meta-delete``; an update adds to them
(http://hl7.org/fhir/R4/resource.html#tag-updates).  The server sets version number and time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.writing.draft import Draft

MERGED: Final = ("profile", "security", "tag")
"""The members of meta that are lists, and of which an update keeps every item."""

INTERNAL_META: Final = ("security", "tag", "source")
"""Members of meta that say how the server handles a resource: who may send and see them depends on the caller."""

DECLASSIFY: Final = "DECLASSIFYLABEL"
"""The v3-ActCode with which staff release a version from its inherited labels; it holds for this one version."""

_SERVER: Final = ("versionId", "lastUpdated")
Meta = Mapping[str, bytes]


def meta_of(parts: Meta) -> dict[str, bytes]:
    """The members of ``meta``, besides version number and time, of a resource with these members."""
    members = jsontext.members(parts["meta"]) if "meta" in parts else {}
    return {name: text for name, text in members.items() if name not in _SERVER}


def merged_meta(sent: Meta, present: Meta) -> dict[str, bytes]:
    """The members of the new version's meta: those sent, with the labels, tags, profiles and source that are present."""
    merged = dict(sent)
    for name in MERGED:
        items = jsontext.items(present.get(name, b"[]"))
        kept = [item for item in items if name != "security" or jsontext.parse(item).get("code") != DECLASSIFY]
        if kept:
            merged[name] = _union(kept, jsontext.items(sent.get(name, b"[]")))
    return merged if "source" in sent or "source" not in present else merged | {"source": present["source"]}


def without_items(present: Meta, removed: Mapping[str, list[Any]]) -> dict[str, bytes]:
    """The members of meta without the profiles, labels and tags ``removed``; codings are compared by system and code."""
    rest = dict(present)
    for name in MERGED:
        gone = {_key(item) for item in removed.get(name, ())}
        items = [item for item in jsontext.items(rest.pop(name, b"[]")) if _key(jsontext.parse(item)) not in gone]
        if items:
            rest[name] = b"[" + b",".join(items) + b"]"
    return rest


def with_meta(draft: Draft, meta: Meta) -> Draft:
    """The draft with these members of meta; the text of everything else stays as received."""
    parts = {name: text for name, text in draft.parts.items() if name != "meta"} | ({"meta": jsontext.join_members(meta)} if meta else {})
    value = {name: value for name, value in draft.value.items() if name != "meta"}
    return Draft(draft.type, value | ({"meta": jsontext.parse(parts["meta"])} if meta else {}), parts, draft.references)


def with_mark(draft: Draft, tag: tuple[str, str], source: str) -> Draft:
    """The draft with a tag (system, code) and a source added to its meta."""
    coding = json.dumps({"system": tag[0], "code": tag[1]}).encode()
    return with_meta(draft, merged_meta({"source": json.dumps(source).encode(), "tag": b"[" + coding + b"]"}, meta_of(draft.parts)))


def changes_nothing(draft: Draft, body: bytes) -> bool:
    """Whether an update of the stored ``body`` by the draft would leave everything as it is."""
    stored = jsontext.members(body)
    present = meta_of(stored)
    rest = [{name: text for name, text in parts.items() if name not in ("id", "meta")} for parts in (stored, draft.parts)]
    return list(rest[0].items()) == list(rest[1].items()) and merged_meta(meta_of(draft.parts), present) == present


def _union(present: list[bytes], sent: list[bytes]) -> bytes:
    """The items of both lists, each once; of an item that is sent again, the text sent."""
    items = {_key(jsontext.parse(item)): item for item in (*present, *sent)}
    return b"[" + b",".join(items.values()) + b"]"


def _key(item: Any) -> tuple[object, ...]:
    """What identifies a profile, or a coding: system and code, or else all of it."""
    if isinstance(item, dict) and "code" in item:
        return item.get("system"), item["code"]
    return (jsontext.dumps(item),)
