"""What the server promises, it answers, and nothing else answers: OpenAPI document, CapabilityStatement, OperationDefinitions, routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import jsonschema
import pytest

from fhir_server.interactions import capability, openapi, registry, routing
from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.interactions.registry import REGISTRY, Served
from fhir_server.interactions.routing import Route
from fhir_server.resources import catalog, published
from fhir_server.resources.validate import check
from tests.served import Served as Server

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
NO_ROUTE = "The server has no resource or operation at this URL."
FIRST = (
    "Patient",
    "Group",
    "Observation",
    "Nope",
    "metadata",
    "openapi.json",
    ".well-known",
    "_search",
    "_history",
    "$export-status",
    "$import-status",
    "$async-status",
    "x",
)
NEXT = ("none", "_search", "_history", "smart-configuration", "Observation")
OPERATIONS = sorted(
    {*(f"${one['code']}" for one in published.operations().values()), *(s.operation for s in REGISTRY if s.operation), "$x"}
)
# What the CapabilityStatement says by other members than interaction and operation.
NOT_LISTED = {"discovery", "$export-status", "$export-file", "$import-status", "$import-file", "$async-status"}
ELSEWHERE = {"search-compartment": "compartment"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(seeds=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()


def answers(server: Server, token: str, method: str, path: str) -> bool:
    """Whether something answers there: a route, with whatever answer."""
    answer = server.request(token, method, path)
    return answer.status != 405 and not (answer.status == 404 and NO_ROUTE in answer.body.decode())


def promised(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(method, template) of all that an OpenAPI document promises."""
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"]


def example(template: str) -> str:
    """A path that a template admits."""
    values = {"type": "Observation", "compartment": "Patient", "member": "Observation", "version": "1"}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "none"), template)[1:]


def admits(document: dict[str, Any], template: str, path: tuple[str, ...]) -> bool:
    """Whether a template admits a path, by the schemas of its parameters."""
    shape = [segment for segment in template.split("/") if segment]
    return len(shape) == len(path) and all(
        segment == word if segment[0] != "{" else _fits(document, segment[1:-1], word) for segment, word in zip(shape, path, strict=True)
    )


def _fits(document: dict[str, Any], name: str, word: str) -> bool:
    schema = document["components"]["parameters"][name]["schema"]
    return word[0] not in "$_" and (word in schema["enum"] if "enum" in schema else re.search(schema.get("pattern", ""), word) is not None)


def paths() -> Iterator[tuple[str, ...]]:
    """Paths of all shapes, with the names of all operations that R4 defines."""
    yield ()
    yield from ((first,) for first in (*FIRST, *OPERATIONS))
    yield from product(FIRST, (*NEXT, *OPERATIONS[::4]))
    yield from product(("Patient", "Group", "Observation"), OPERATIONS)
    yield from product(("Patient", "Nope", "Group"), ("none", "_history"), ("*", *NEXT, *OPERATIONS))
    yield from product(
        ("Patient", "$export-file"), ("none", "_history"), ("_history", "Observation", "*", "x"), ("1", "_search", "$meta", "_history")
    )
    yield ("Patient", "none", "_history", "1", "x")


def differences(server: Server, token: str) -> list[str]:
    """What is promised and does not answer, and what answers without a promise."""
    document = openapi.openapi(server.settings.base)
    promises = promised(document)
    found = [f"{method} {path} does not answer" for method, path in promises if not answers(server, token, method, example(path))]
    for path in dict.fromkeys(paths()):
        for method in METHODS:
            is_promised = any(method == one and admits(document, template, path) for one, template in promises)
            if not is_promised and answers(server, token, method, "/".join(path)):
                found.append(f"{method} /{'/'.join(path)} answers")
    return found


def test_all_that_is_promised_answers_and_nothing_else(server: Server, token: str) -> None:
    assert differences(server, token) == [], "see docs/api.md: what answers is in interactions/registry.py"


def test_comparison_finds_a_route_that_is_not_promised(server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = next(route for route in routing.ROUTES if route.code == "read")
    hidden = Route("operation", "GET", ("{type}", "$x"), plain.handle)
    monkeypatch.setitem(routing._BY_KEY, (routing._route_key(("{type}", "$x")), routing._TYPE), [hidden])
    assert "GET /Observation/$x answers" in differences(server, token)


def test_comparison_finds_a_promise_that_is_not_kept(server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "REGISTRY", (*REGISTRY, Served("operation", "GET", ("{type}", "$x"))))
    assert "GET /{type}/$x does not answer" in differences(server, token)


def test_head_is_answered_as_get(server: Server, token: str) -> None:
    for method, path in promised(openapi.openapi(server.settings.base)):
        if method == "GET":
            head = server.request(token, "HEAD", example(path))
            assert (head.status, head.body) == (server.request(token, "GET", example(path)).status, b""), path


def test_capability_statement_and_openapi_document_promise_the_same(server: Server) -> None:
    rest = server.get(None, "metadata").json["rest"][0]
    tags = {
        operation["tags"][0]
        for item in openapi.openapi("").get("paths", {}).values()
        for name, operation in item.items()
        if name != "parameters"
    }
    interactions = {one["code"] for part in (rest, *rest["resource"]) for one in part["interaction"]}
    operations = {f"${one['name']}" for part in (rest, *rest["resource"]) for one in part.get("operation", ())}
    assert all(rest[member] for member in ELSEWHERE.values())
    assert tags == (interactions - {"batch"}) | operations | NOT_LISTED | set(ELSEWHERE)


def test_every_type_answers_what_the_capability_statement_says_of_it(server: Server, token: str) -> None:
    served = {(one.code, one.shape[:1] == ("{type}",)): one for one in REGISTRY}
    for resource in server.get(None, "metadata").json["rest"][0]["resource"]:
        for code in (one["code"] for one in resource["interaction"]):
            route = served[code, True]
            path = example(route.template).replace("Observation", resource["type"], 1)
            assert answers(server, token, route.method, path), (resource["type"], code)


def test_operations_have_definitions_that_allow_them(server: Server) -> None:
    for url, definition in operation_definitions().items():
        names = {one.operation for one in REGISTRY if one.definition == url}
        assert names == {f"${definition['code']}"} and check("OperationDefinition", definition) == ()
        assert all(definition[level] for level in registry.levels(url)), url
        types = {one.shape[0] for one in REGISTRY if one.definition == url and len(one.shape) > 1} - {"{type}"}
        assert types <= set(definition["resource"]), url


def test_openapi_document_is_valid_and_bounded(server: Server) -> None:
    answer = server.get(None, "openapi.json")
    assert answer.status == 200 and len(answer.body) < 150_000
    _require_resolved(answer.json)
    assert server.get(None, "openapi.json", **{"If-None-Match": answer.headers["etag"]}).status == 304
    one = server.get(None, "openapi.json?type=Observation")
    _require_resolved(one.json)
    names = {parameter["name"] for parameter in one.json["paths"]["/Observation"]["get"]["parameters"] if "name" in parameter}
    listed = next(entry for entry in server.get(None, "metadata").json["rest"][0]["resource"] if entry["type"] == "Observation")
    assert names >= {parameter["name"] for parameter in listed["searchParam"]} and len(one.body) < 100_000
    refused = server.get(None, "openapi.json?type=Observations")
    assert refused.status == 400 and "Did you mean 'Observation'?" in refused.json["issue"][0]["diagnostics"]


def _require_resolved(document: dict[str, Any]) -> None:
    """Require that each reference leads to something, that ids are unique, and that each schema is one."""
    ids = [one["operationId"] for item in document["paths"].values() for name, one in item.items() if name != "parameters"]
    assert len(ids) == len(set(ids)) and document["openapi"] == "3.1.0"
    for kind, name in re.findall(r"'\$ref': '#/components/(\w+)/([\w-]+)'", repr(document)):
        assert name in document["components"][kind], (kind, name)
    for parameter in document["components"]["parameters"].values():
        jsonschema.Draft202012Validator.check_schema(cast(dict[str, Any], parameter["schema"]))


def test_capability_statement_is_small(server: Server) -> None:
    assert len(server.get(None, "metadata").body) < 300_000
    assert len(catalog()) == len(capability.capability_statement("", {}, 0)["rest"][0]["resource"])
