"""R4's own CodeSystems, ValueSets and ConceptMaps, and those of the server's implementation guide.

``scripts/build_terminology.py`` writes R4's to ``resources/r4/terminology.json.gz``: a series of gzip members, one for each resource, of
which the first is the index.  A process reads only what is asked for.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from fhir_server import resources
from fhir_server.package_data import data_folder
from fhir_server.resources.references import ID
from fhir_server.terminology.sources import Kind, Loaded

FILE: Final = Path(resources.__file__).parent / "r4" / "terminology.json.gz"
_GUIDE: Final = "https://fhir-server.example/ig"
_FOLDERS: Final[dict[Kind, str]] = {"CodeSystem": "codesystems", "ValueSet": "valuesets"}


class R4:
    """The definitions of R4."""

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        """As :class:`~fhir_server.terminology.sources.Source`."""
        entry = _index()[0][kind].get(url)
        return _loaded(kind, url) if entry is not None and version in ("", entry[0]) else None

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        """None: these are no resources of this server."""
        return None

    async def supplements(self, url: str) -> Sequence[Loaded]:
        """The supplements to a code system."""
        return [_loaded("CodeSystem", name) for name, entry in _index()[0]["CodeSystem"].items() if entry[3] == url]

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        """The ConceptMaps that map codes of a system."""
        return [_loaded("ConceptMap", url) for url in _maps().get(system, ())]


class Guide:
    """The implementation guide that ships with the server; an institution's own code lists are not in it."""

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        """As :class:`~fhir_server.terminology.sources.Source`."""
        found = _guide(kind, url)
        return found if found is not None and version in ("", found.resource.get("version", "")) else None

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        """None: these are no resources of this server."""
        return None

    async def supplements(self, url: str) -> Sequence[Loaded]:
        """None of them is a supplement."""
        return ()

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        """It has no ConceptMaps."""
        return ()


def r4_resources(kind: Kind) -> Iterable[dict[str, Any]]:
    """All of R4's resources of a kind, for tests and for the statement of what is loaded."""
    return (_loaded(kind, url).resource for url in _index()[0][kind])


def code_systems() -> dict[str, str]:
    """URL -> version of all code systems that ship with the server."""
    found = {url: str(entry[0]) for url, entry in _index()[0]["CodeSystem"].items()}
    own = [f"{_GUIDE}/CodeSystem/{file.stem}" for file in sorted((data_folder("ig") / "codesystems").glob("*.json"))]
    return found | {url: str(one.resource.get("version", "")) for url in own if (one := _guide("CodeSystem", url)) is not None}


@functools.lru_cache(maxsize=128)
def _loaded(kind: Kind, url: str) -> Loaded:
    index, start = _index()
    _, offset, length, _ = index[kind][url]
    with FILE.open("rb") as file:
        file.seek(start + offset)
        return Loaded(("r4", kind, url), json.loads(gzip.decompress(file.read(length))))


@functools.cache
def _maps() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource in r4_resources("ConceptMap"):
        for source in dict.fromkeys(group.get("source", "") for group in resource.get("group", ())):
            found.setdefault(source, []).append(resource["url"])
    return found


@functools.lru_cache(maxsize=128)
def _guide(kind: Kind, url: str) -> Loaded | None:
    """The resource of the guide with this URL, which names its file."""
    id = url.removeprefix(f"{_GUIDE}/{kind}/")
    file = data_folder("ig") / _FOLDERS.get(kind, "") / f"{id}.json"
    if kind not in _FOLDERS or id == url or not ID.fullmatch(id) or not file.is_file():
        return None
    return Loaded(("ig", url), json.loads(file.read_bytes()))


@functools.cache
def _index() -> tuple[dict[str, dict[str, list[Any]]], int]:
    content = FILE.read_bytes()
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    index = json.loads(reader.decompress(content))
    return index, len(content) - len(reader.unused_data)
