"""Reads input files as units to load: a Bundle in JSON or XML is one unit, an NDJSON file is split into many.

XML becomes JSON first, as it does when it comes by HTTP.  Files may be gzip-compressed.  A resource without an id gets one from a keyed
digest of its position in the file.  So loading a file again, for example after an interruption, finds the resources already there
and does not store them twice.
"""

from __future__ import annotations

import gzip
import hmac
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.fhir_xml import to_json
from fhir_server.resources import bundle_rules
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import ServerBase
from fhir_server.writing.references import has_readable_references

CHUNK = 250
_DATE = re.compile(rb'"(\d{4}-\d{2}-\d{2})(T[^"\\]{0,40})?"')


@dataclass(frozen=True, slots=True)
class Item:
    """One resource to store: its position in the file ("line 3"), the id to store it under, its JSON text.

    ``problem``: why it cannot be stored, if a link in it cannot be resolved
    """

    position: str
    id: str
    text: bytes
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """Resources that are stored together.

    ``atomic``: if one is refused, all are.  ``bytes_read``: how much of the file is read once this unit is, for progress.
    """

    source: Path
    atomic: bool
    items: list[Item]
    bytes_read: int


def list_files(paths: tuple[Path, ...]) -> list[Path]:
    """Return these files, and for each folder its JSON, XML and NDJSON files, in order."""
    listed: list[Path] = []
    for path in paths:
        listed += sorted(file for file in path.iterdir() if _suffix(file) in (".json", ".xml", ".ndjson")) if path.is_dir() else [path]
    return listed


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def read_units(path: Path, key: bytes, today: date | None, bases: tuple[str, ...] = ()) -> Iterator[Unit]:
    """Yield the units of one file.

    With ``today``, all dates in a Bundle move by the same number of days, so that its timestamp falls on ``today``.  References
    to resources below ``bases``, the FHIR base URLs of the system that the file comes from, become references to this store.

    Raises Problem ``invalid`` for a file that is neither NDJSON nor a valid transaction, batch or collection Bundle, and for one in XML
    that breaks R4's rules for XML, with the place; its entries' resources are validated one by one when they are stored.
    """
    if _suffix(path) == ".ndjson":
        yield from _read_ndjson(path, BundleLinks(ServerBase("", bases)) if bases else None)
        return
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if _suffix(path) == ".xml":
        text = to_json(text)
    bundle = jsontext.parse(text)
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise Problem("invalid", "The file is not a Bundle.")
    if bundle.get("type") not in ("transaction", "batch", "collection"):
        raise Problem("invalid", "Only Bundles of type transaction, batch or collection can be loaded.")
    bundle_rules.require_valid(bundle)
    if today is not None and "timestamp" in bundle:
        text = _shift_dates(text, today - date.fromisoformat(bundle["timestamp"][:10]))
    digest = sha256(text).digest()
    items = list(_bundle_items(bundle, jsontext.compact(text), key, digest, BundleLinks(ServerBase("", bases))))
    yield Unit(path, bundle["type"] == "transaction", items, path.stat().st_size)


def _read_ndjson(path: Path, links: BundleLinks | None) -> Iterator[Unit]:
    """Yield the lines of an NDJSON file in chunks, because a file may be larger than memory."""
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as lines:
        numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
        rows = (Item(f"line {number}", _own_id(line), links.rewrite(line, "") if links else line) for number, line in numbered if line)
        while chunk := list(islice(rows, CHUNK)):
            yield Unit(path, False, chunk, file.tell())


def _own_id(line: bytes) -> str:
    try:
        value = jsontext.parse(line)
    except Problem:
        return ""
    return str(value.get("id", "")) if isinstance(value, dict) else ""


def _bundle_items(bundle: dict[str, Any], text: bytes, key: bytes, digest: bytes, links: BundleLinks) -> Iterator[Item]:
    texts = jsontext.items(jsontext.members(text).get("entry", b"[]"))
    entries = list(zip(bundle.get("entry", []), texts, strict=True))
    ids = [_choose_id(entry, index, key, digest) for index, (entry, _) in enumerate(entries)]
    problems = [_unsuitable(entry) or _add(links, entry, id) for (entry, _), id in zip(entries, ids, strict=True)]
    for index, ((entry, entry_text), id, problem) in enumerate(zip(entries, ids, problems, strict=True)):
        resource = jsontext.members(entry_text).get("resource", b"")
        if not has_readable_references(resource, entry.get("resource")):
            resource = jsontext.unescape(resource)
        try:
            item = Item(f"entry {index}", id, links.rewrite(resource, str(entry.get("fullUrl", ""))), problem)
        except Problem as unresolved:
            item = Item(f"entry {index}", id, resource, unresolved)
        yield item


def _unsuitable(entry: Any) -> Problem | None:
    """The Problem of an entry that is a patch or a conditional update: its resource would be stored as something else."""
    request = entry.get("request", {}) if isinstance(entry, dict) else {}
    if request.get("method") == "PATCH" or (request.get("method") == "PUT" and "?" in str(request.get("url", ""))):
        return Problem("invalid", "Patches and conditional updates cannot be loaded; send them to the server.")
    return None


def _add(links: BundleLinks, entry: Any, id: str) -> Problem | None:
    """Add an entry to the links; return the Problem of one whose fullUrl another entry has."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(resource, dict):
        return None
    full_url = entry["fullUrl"] if isinstance(entry.get("fullUrl"), str) else ""
    try:
        links.add(full_url, resource, f"{resource.get('resourceType')}/{id}", keeps_id=resource.get("id") == id)
    except Problem as problem:
        return problem
    return None


def _choose_id(entry: Any, index: int, key: bytes, digest: bytes) -> str:
    request = entry.get("request", {}) if isinstance(entry, dict) else {}
    resource = entry.get("resource") if isinstance(entry, dict) else None
    own = resource.get("id") if isinstance(resource, dict) else None
    if request.get("method", "PUT") == "PUT" and isinstance(own, str):
        return own
    return hmac.new(key, digest + index.to_bytes(4, "big"), sha256).hexdigest()[:32]


def _shift_dates(text: bytes, by: timedelta) -> bytes:
    def shift(match: re.Match[bytes]) -> bytes:
        day, rest = match.groups()
        try:
            return b'"%s%s"' % ((date.fromisoformat(day.decode()) + by).isoformat().encode(), rest or b"")
        except (ValueError, OverflowError):
            return match.group(0)

    return _DATE.sub(shift, text) if by else text
