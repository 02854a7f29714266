"""Requests that schemathesis makes of the OpenAPI document: each gets an answer that the document declares, and no fault.

``make test`` sends few of each operation, the slow sweep many; both are the same at every run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from fhir_server.api import FhirApi
from tests.seeded import seeded
from tests.served import Answer, Served, call

Say = Callable[[Any, Answer], None]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    return dict(served.get(None, "openapi.json").json)


def sent(served: Served, case: Any, token: str) -> Answer:
    """The answer to a generated request, with this token in place of a generated one."""
    made = case.as_transport_kwargs(base_url="http://x")
    parts = {name: made[name] for name in ("method", "url", "params", "headers", "json", "data") if name in made}
    request = requests.Request(**parts).prepare()
    path, _, query = str(request.url).removeprefix("http://x").partition("?")
    body = request.body or b""
    named = {name.lower(): value if isinstance(value, str) else value.decode("latin-1") for name, value in request.headers.items()}
    headers = {name: value for name, value in named.items() if name not in ("authorization", "content-length")}
    raw = body.encode() if isinstance(body, str) else body
    return served.run(
        call(served.api, str(request.method), unquote(path), query.encode("ascii"), headers | {"authorization": f"Bearer {token}"}, raw)
    )


def require_declared(document: dict[str, Any], case: Any, answer: Answer) -> None:
    """Require that the status and the media type of an answer are declared, and that a refusal is an OperationOutcome."""
    declared = case.operation.definition.raw["responses"]
    found = declared.get(str(answer.status), declared.get(f"{answer.status // 100}XX"))
    said = f"{case.operation.label}: {answer.status} {answer.body[:300]!r}"
    assert found is not None and answer.status != 500, f"{said} is not declared"
    if "$ref" in found:
        found = document["components"]["responses"][found["$ref"].rpartition("/")[2]]
    media = answer.headers.get("content-type", "").partition(";")[0]
    if answer.body and "content" in found:
        assert media in found["content"] or "*/*" in found["content"], f"{said} has the media type {media}, which is not declared"
    if answer.status >= 400 and case.method != "HEAD":
        assert media in ("application/fhir+json", "application/fhir+xml") and b"OperationOutcome" in answer.body, said


def sweep(served: Served, document: dict[str, Any], token: str, examples: int) -> dict[int, int]:
    """Send generated requests of each operation.  Returns how often each status was the answer."""
    statuses: dict[int, int] = {}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            answer = sent(served, case, token)
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            require_declared(document, case, answer)

        run()
    return statuses


@pytest.mark.parametrize("caller", ["system", "parent"])
def test_every_generated_request_has_a_declared_answer(served: Served, document: dict[str, Any], caller: str) -> None:
    token = served.token() if caller == "system" else served.app_token("parent-a", "teen")
    statuses = sweep(served, document, token, 3)
    assert sum(statuses.values()) > 150 and statuses[200] > 10, statuses


@pytest.mark.slow
@pytest.mark.parametrize("caller", ["system", "parent"])
def test_every_request_of_the_large_sweep_has_a_declared_answer(served: Served, document: dict[str, Any], caller: str) -> None:
    token = served.token() if caller == "system" else served.app_token("parent-a", "teen")
    assert sum(sweep(served, document, token, 60).values()) > 3000


def test_an_undeclared_answer_is_noticed(served: Served, document: dict[str, Any]) -> None:
    planted = copy.deepcopy(document)
    planted["paths"] = {"/metadata": planted["paths"]["/metadata"]}
    del planted["paths"]["/metadata"]["get"]["responses"]["200"]
    with pytest.raises(AssertionError, match="is not declared"):
        sweep(served, planted, served.token(), 5)


def test_a_fault_is_noticed(served: Served, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("planted")

    planted = copy.deepcopy(document)
    planted["paths"] = {"/metadata": planted["paths"]["/metadata"]}
    monkeypatch.setattr(FhirApi, "_handle", fails)
    with pytest.raises(AssertionError, match="500"):
        sweep(served, planted, served.token(), 5)
