"""Hostile patches, conditional writes, validations and X-Provenance headers, drawn at random."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final
from urllib.parse import quote_plus

from tests.interactions.hostile_requests import GOOD, JSON, Chance, Hostile

POINTERS: Final = (
    "", "/", "/status", "/code/coding/0/code", "/code/coding/-", "/text/div", "/valueQuantity/value", "/~2", "/meta", "/id", "/a/0", "x",
    "/subject/reference", "/code/coding/99999999999999999999", "/code/coding/-1", "/resourceType",
)  # fmt: skip
PATHS: Final = (
    "Observation", "Observation.status", "Observation.code.coding[0]", "Observation.value", "Observation.code.coding", "%resource",
    "Observation.code.coding.where(code = '718-7')", "Observation.meta", "Observation.text.div", "Observation.value.ofType(Quantity)",
    "Observation.extension('x').value", "Observation..x", "status.first().last()[0]", "Observation.subject.resolve()", "Observation.id",
    "Observation.note[999999999]", "`", "Observation.where(status = 'final').code",
)  # fmt: skip


def _json_patch(chance: Chance) -> Any:
    operations = []
    for _ in range(chance.choice((0, 1, 1, 2, 5, 200))):
        one: dict[str, Any] = {"op": chance.choice(("add", "remove", "replace", "move", "copy", "test", "test", chance.text()[:50]))}
        one["path"] = chance.choice((*POINTERS, *POINTERS, "/" + chance.text()[:2000]))
        one["from"] = chance.choice(POINTERS)
        one["value"] = chance.choice((chance.value(), "final", {"reference": "Patient/adult"}))
        operations.append(one)
    return chance.spoilt(operations) if operations and chance.random() < 0.3 else operations


def _fhirpath_patch(chance: Chance) -> Any:
    operations = []
    for _ in range(chance.choice((0, 1, 1, 2, 30))):
        parts: list[Any] = [
            {"name": "type", "valueCode": chance.choice(("add", "insert", "delete", "replace", "move", "x"))},
            {"name": "path", "valueString": chance.choice((*PATHS, *PATHS, chance.text()[:3000]))},
            {"name": "name", "valueString": chance.choice(("note", "value", "status", "text", chance.text()[:60]))},
            {"name": "index", "valueInteger": chance.choice((0, 1, -1, 10**9))},
            {"name": "source", "valueInteger": chance.choice((0, 1, -1))},
            {"name": "destination", "valueInteger": chance.choice((0, 1, 5))},
            chance.choice(({"name": "value", "valueString": "x"}, {"name": "value", "part": [{"name": "text", "valueString": "x"}]},
                           {"name": "value", "valueQuantity": {"value": 1.5}}, {"name": "value"})),
        ]  # fmt: skip
        operations.append({"name": "operation", "part": [part for part in parts if chance.random() < 0.85]})
    body = {"resourceType": "Parameters", "parameter": operations}
    return chance.spoilt(body) if chance.random() < 0.3 else body


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def changes(chance: Chance) -> Hostile:
    """A patch, a conditional write, a validation or a write with X-Provenance."""
    path = chance.choice(
        ("/Observation/hostile", "/Observation/hostile", "/Observation", "/Patient/adult", "/Observation/nobody", "/Nope/x")
    )
    pairs = [
        (chance.choice(("_id", "code", "identifier", "status", "_count", "x", "")), chance.choice(("hostile", "x", chance.text()[:3000])))
    ]
    query = "&".join(f"{quote_plus(name)}={quote_plus(value, errors='replace')}" for name, value in pairs).encode()
    query = query if path == "/Observation" or chance.random() < 0.1 else b""
    match chance.choice(("json", "json", "fhirpath", "fhirpath", "entry", "put", "delete", "validate", "provenance")):
        case "json":
            kind = (
                "content-type",
                chance.choice(("application/json-patch+json", "application/json-patch+json; charset=utf-8", "text/plain")),
            )
            body = _encoded(_json_patch(chance))
            return Hostile("PATCH", path, query, [kind], body[: chance.choice((len(body), len(body), len(body), 5))])
        case "fhirpath":
            return Hostile("PATCH", path, query, [JSON], _encoded(_fhirpath_patch(chance)))
        case "entry":
            data = b64encode(_encoded(_json_patch(chance))).decode()
            binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": chance.choice((data, data, "!", ""))}
            entry = {
                "resource": chance.choice((binary, _fhirpath_patch(chance), GOOD)),
                "request": {"method": "PATCH", "url": path[1:] + ("?" + query.decode() if query else "")},
            }
            bundle = {
                "resourceType": "Bundle",
                "type": chance.choice(("batch", "transaction")),
                "entry": [entry] * chance.choice((1, 1, 2)),
            }
            return Hostile("POST", "/", headers=[JSON], body=_encoded(bundle))
        case "put":
            row = {name: value for name, value in GOOD.items() if name != "id" or chance.random() < 0.5}
            return Hostile("PUT", "/Observation", query, [JSON], _encoded(chance.spoilt(row) if chance.random() < 0.3 else row))
        case "delete":
            return Hostile("DELETE", "/Observation", query)
        case "validate":
            body = {"resourceType": "Parameters", "parameter": [
                {"name": "resource", "resource": chance.spoilt(GOOD)},
                {"name": "mode", "valueCode": chance.choice(("create", "update", "x"))},
                {"name": "profile", "valueUri": chance.text()[:3000]},
            ]}  # fmt: skip
            asked = chance.choice((chance.spoilt(GOOD), chance.spoilt(body), body))
            return Hostile("POST", path + "/$validate", query, [JSON], _encoded(asked))
        case _:
            said = {"resourceType": "Provenance", "recorded": "2026-11-21T12:00:00Z", "agent": [{"who": {"display": "x"}}]}
            text = json.dumps(chance.spoilt(said) if chance.random() < 0.6 else said)[:60_000]
            return Hostile("POST", "/Observation", headers=[JSON, ("x-provenance", text)], body=_encoded(GOOD))
