"""What files hold, as units to load: a transaction is one unit, a batch or NDJSON file is cut into many.

Files may be gzip-compressed.  Ids for resources that bring none are drawn from a keyed digest of where they stand, so
loading a file again, or going on after an interruption, finds what is already there instead of storing it twice.
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

CHUNK = 250
_DATE = re.compile(rb'"(\d{4}-\d{2}-\d{2})(T[^"\\]{0,40})?"')
_ADDRESS = re.compile(rb'"(reference|url|uri)"(\s*:\s*)"([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Item:
    """One resource to store: where it stands in its file, the id it is to have, its text."""

    place: str
    id: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Unit:
    """Resources stored together.  ``atomic``: if one is refused, so are all.  ``read``: bytes of the file behind it."""

    source: Path
    atomic: bool
    items: list[Item]
    read: int


def files(paths: tuple[Path, ...]) -> list[Path]:
    """The files named, and those in the folders named, in order."""
    found: list[Path] = []
    for path in paths:
        found += sorted(one for one in path.iterdir() if _suffix(one) in (".json", ".ndjson")) if path.is_dir() else [path]
    return found


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def units(path: Path, key: bytes, today: date | None) -> Iterator[Unit]:
    """The units of one file.  With ``today``, dates move by whole days so that the Bundle's timestamp falls on it.

    Raises Problem ``invalid`` for a file that is neither NDJSON nor a transaction, batch or collection Bundle.
    """
    if _suffix(path) == ".ndjson":
        yield from _lines(path)
        return
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    bundle = jsontext.parse(text)
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise Problem("invalid", "The file is not a Bundle.")
    if bundle.get("type") not in ("transaction", "batch", "collection"):
        raise Problem("invalid", "Only Bundles of type transaction, batch or collection can be loaded.")
    if today is not None and "timestamp" in bundle:
        text = _shift_dates(text, today - date.fromisoformat(bundle["timestamp"][:10]))
    yield Unit(path, bundle["type"] == "transaction", list(_items(bundle, text, key, sha256(text).digest())), path.stat().st_size)


def _lines(path: Path) -> Iterator[Unit]:
    """The lines of an NDJSON file in chunks; a file may be larger than memory."""
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as lines:
        numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
        rows = (Item(f"line {number}", _own_id(line), line) for number, line in numbered if line)
        while chunk := list(islice(rows, CHUNK)):
            yield Unit(path, False, chunk, file.tell())


def _own_id(line: bytes) -> str:
    try:
        value = jsontext.parse(line)
    except Problem:
        return ""
    return str(value.get("id", "")) if isinstance(value, dict) else ""


def _items(bundle: dict[str, Any], text: bytes, key: bytes, digest: bytes) -> Iterator[Item]:
    texts = jsontext.items(jsontext.members(text).get("entry", b"[]"))
    entries = list(zip(bundle.get("entry", []), texts, strict=True))
    ids = [_id(entry, place, key, digest) for place, (entry, _) in enumerate(entries)]
    addresses = {
        entry["fullUrl"]: f"{entry['resource']['resourceType']}/{id}"
        for (entry, _), id in zip(entries, ids, strict=True)
        if isinstance(entry.get("fullUrl"), str) and isinstance(entry.get("resource"), dict)
    }
    for place, ((_, entry_text), id) in enumerate(zip(entries, ids, strict=True)):
        resource = jsontext.members(entry_text).get("resource", b"")
        yield Item(f"entry {place}", id, _ADDRESS.sub(lambda found: _with_addresses(found, addresses), resource))


def _id(entry: Any, place: int, key: bytes, digest: bytes) -> str:
    request = entry.get("request", {}) if isinstance(entry, dict) else {}
    resource = entry.get("resource") if isinstance(entry, dict) else None
    own = resource.get("id") if isinstance(resource, dict) else None
    if request.get("method", "PUT") == "PUT" and isinstance(own, str):
        return own
    return hmac.new(key, digest + place.to_bytes(4, "big"), sha256).hexdigest()[:32]


def _with_addresses(found: re.Match[bytes], addresses: dict[str, str]) -> bytes:
    name, colon, address = found.groups()
    target = addresses.get(address.decode())
    return found.group(0) if target is None else b'"%s"%s"%s"' % (name, colon, target.encode())


def _shift_dates(text: bytes, by: timedelta) -> bytes:
    def moved(found: re.Match[bytes]) -> bytes:
        day, rest = found.groups()
        try:
            return b'"%s%s"' % ((date.fromisoformat(day.decode()) + by).isoformat().encode(), rest or b"")
        except (ValueError, OverflowError):
            return found.group(0)

    return _DATE.sub(moved, text) if by else text
