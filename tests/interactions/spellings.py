"""Ways to write a reference to one resource of this server, and the doors by which a resource comes in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.served import Served

JSON = dict[str, Any]
Door = Callable[[Served, JSON, Path], bool]
BASE: Final = "http://127.0.0.1:8000/fhir"


def legal(name: str) -> tuple[str, ...]:
    """Texts that mean ``Type/id`` by R4."""
    return (name, f"{name}/_history/1", f"{BASE}/{name}", f"{BASE}/{name}/_history/1")


def odd(name: str) -> tuple[str, ...]:
    """Texts that a lenient reader could take for ``Type/id``."""
    type, _, id = name.partition("/")
    return (
        f"/{name}", f"//{name}", f"./{name}", f"../{name}", f"fhir/{name}", f"/fhir/{name}", f"{name}/", f"{name}//", f"{type}//{id}",
        f" {name}", f"{name} ", f"\t{name}", f"{name}\n", f"{type} /{id}", f"{type.lower()}/{id}", f"{type.upper()}/{id}", f"{type}s/{id}",
        f"{name}#part", f"{name}?x=1", f"{name};v=1", f"{name}/_history/", f"{name}/_history", f"{name}/_history/1/", f"{name}/name",
        f"{type}%2F{id}", f"%{ord(type[0]):x}{type[1:]}/{id}", f"{type}\\{id}", f"{type}?_id={id}", f"#{name}",
        f"urn:uuid:{name}", f"urn:{name}",
        f"{BASE}//{name}", f"{BASE}/{name}/", f"{BASE}/{name}//", f"{BASE}/./{name}", f"{BASE}/x/../{name}", f"{BASE}/{type}//{id}",
        f"{BASE.upper()}/{name}", f"HTTP{BASE[4:]}/{name}", f"https{BASE[4:]}/{name}", f"http://someone@{BASE[7:]}/{name}",
        BASE.replace("127.0.0.1", "localhost") + f"/{name}", BASE.replace("127.0.0.1", "LOCALHOST.") + f"/{name}",
        BASE.replace("127.0.0.1", "[::1]") + f"/{name}", BASE.replace(":8000", ":08000") + f"/{name}",
        BASE.replace("/fhir", "//fhir") + f"/{name}", BASE.replace("/fhir", "/%66hir") + f"/{name}", BASE.replace("/fhir",
        "/FHIR") + f"/{name}",
        f"{BASE}/{type}/%{ord(id[0]):x}{id[1:]}", f"{BASE}%2F{name}", f"{BASE}/{name}#part", f"{BASE}/{name}?x=1",
        f"{BASE}/{type}?_id={id}",
        f"{BASE}\\{name}", f"{BASE[5:]}/{name}", f" {BASE}/{name}", f"{BASE}/{name} ", f"{BASE}/{type.lower()}/{id}",
        f"http:{BASE[7:]}/{name}",
    )  # fmt: skip


def _put(served: Served, resource: JSON, _: Path) -> bool:
    return served.request(served.token(), "PUT", _name(resource), body=resource).status in (200, 201)


def _bundle(kind: str, resource: JSON) -> JSON:
    request = {} if kind == "collection" else {"request": {"method": "PUT", "url": _name(resource)}}
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": resource, **request}]}


def _name(resource: JSON) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _transaction(served: Served, resource: JSON, _: Path) -> bool:
    return served.request(served.token(), "POST", "", body=_bundle("transaction", resource)).status == 200


def _batch(served: Served, resource: JSON, _: Path) -> bool:
    answer = served.request(served.token(), "POST", "", body=_bundle("batch", resource))
    return answer.status == 200 and answer.json["entry"][0]["response"]["status"] in ("200", "201")


def _load(name: str, kind: str = "") -> Door:
    def load(served: Served, resource: JSON, folder: Path) -> bool:
        path = folder / name
        path.write_text(json.dumps(_bundle(kind, resource) if kind else resource), encoding="utf-8")
        return not served.load(path).rejects

    return load


DOORS: Final[Mapping[str, Door]] = {
    "update": _put,
    "transaction": _transaction,
    "batch": _batch,
    "load of NDJSON": _load("rows.ndjson"),
    "load of a transaction": _load("bundle.json", "transaction"),
    "load of a collection": _load("bundle.json", "collection"),
}
