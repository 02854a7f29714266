"""A source of terminology that holds what a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fhir_server.terminology.expansion import Expander, SystemVersions
from fhir_server.terminology.sources import Kind, Loaded, Terminology


class Fixed:
    """Resources by type and canonical URL, the last of each as the latest."""

    def __init__(self, *resources: dict[str, Any]) -> None:
        self._resources = resources

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        found = [
            one for one in self._resources if one["resourceType"] == kind and one["url"] == url and version in ("", one.get("version", ""))
        ]
        return Loaded(repr(found[-1]), found[-1]) if found else None

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        return None

    async def supplements(self, url: str) -> Sequence[Loaded]:
        return [Loaded(repr(one), one) for one in self._resources if one.get("supplements") == url]

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        return [
            Loaded(repr(one), one)
            for one in self._resources
            if one["resourceType"] == "ConceptMap" and any(group.get("source") == system for group in one["group"])
        ]


def code_system(url: str, *concepts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "CodeSystem", "url": url, "status": "active", "content": "complete", "concept": list(concepts), **more}


def concept(code: str, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"code": code, "display": f"The {code}", **({"concept": list(children)} if children else {}), **more}


def value_set(url: str, *include: dict[str, Any], exclude: Sequence[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    compose = {"include": list(include), **({"exclude": list(exclude)} if exclude else {}), **more}
    return {"resourceType": "ValueSet", "url": url, "status": "active", "compose": compose}


def expanded(of: dict[str, Any], *resources: dict[str, Any], versions: SystemVersions | None = None) -> list[str]:
    """The codes of a value set, in order.  Each is also found when it is asked for alone, and no other code is."""
    expander = Expander(Terminology([Fixed(*resources)]), versions)
    codes = asyncio.run(expander.expand(of))
    known = {(one["url"], code) for one in resources if one["resourceType"] == "CodeSystem" for code in _codes(one.get("concept", ()))}
    for system, code in {*known, *codes}:
        alone = asyncio.run(Expander(Terminology([Fixed(*resources)]), versions).find(of, system, code))
        assert (alone is not None) == ((system, code) in codes), code
        if alone is not None:
            assert alone == codes[system, code]
    return [code for _, code in codes]


def _codes(concepts: Sequence[dict[str, Any]]) -> list[str]:
    return [code for one in concepts for code in (one["code"], *_codes(one.get("concept", ())))]
