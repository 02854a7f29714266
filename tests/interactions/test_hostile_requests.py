"""No request is a 5xx, whatever stands in its path, parameters, headers and body; honest requests between them are answered."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_server.fhir_xml import to_json
from fhir_server.search import result_parameters
from tests.interactions import hostile_requests
from tests.interactions.hostile_changes import changes
from tests.interactions.hostile_operations import operations
from tests.interactions.hostile_requests import Chance, Hostile
from tests.seeded import seeded
from tests.served import Served, store_url

KINDS = {**hostile_requests.KINDS, "changes": changes}
OPERATIONS = {"operations": operations}
SEEDS = (2026, 1130)
EACH = 1000  # requests of each seed; `make test-all` sends LONG
LONG = 30_000
CONTROL = 40  # an honest request after so many


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    made = seeded(store_url("sqlite", tmp_path), search_handling="lenient")  # so that every parameter is read
    yield made
    made.close()


def send(server: Served, request: Hostile, token: str) -> tuple[int, bytes]:
    """The status and body that the server answers."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def deliver(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    scope = {"type": "http", "method": request.method, "path": request.path, "query_string": request.query, "headers": headers}
    server.run(server.api(scope, receive, deliver))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def is_outcome(body: bytes) -> bool:
    value = json.loads(to_json(body) if body[:1] == b"<" else body)
    return bool(value["resourceType"] == "OperationOutcome")


def attacked(
    server: Served, seed: int, count: int, kinds: Mapping[str, Callable[[Chance], Hostile]] = KINDS
) -> tuple[Counter[int], list[str]]:
    """How often each status was answered, and what is wrong: a 5xx, an error without an OperationOutcome, a control that fails."""
    chance = Chance(seed)
    tokens = [server.token(), server.app_token("adult", "adult"), server.token("demo-public", "user/*.cruds", "clinician"), "", "x\0"]
    weights = (6, 4, 1, 1, 1)
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    for number in range(count):
        kind = chance.choice(list(kinds))
        token = random.Random(f"{seed}/{number}").choices(tokens, weights)[0]
        request = kinds[kind](chance)
        status, body = send(server, request, token)
        statuses[status] += 1
        shown = f"{seed}/{number} {kind}: {request!r}"[:700]
        if status >= 500:
            wrong.append(f"{status} {shown}")
        elif status >= 400 and request.method != "HEAD" and not is_outcome(body):
            wrong.append(f"{status} without an OperationOutcome {shown}")
        if number % CONTROL == 0:
            for path, query in (("/Patient/adult", b""), ("/Observation", b"patient=adult&_count=1")):
                control, _ = send(server, Hostile("GET", path, query), tokens[1])
                statuses[control] += 1
                wrong += [f"control {control} after {shown}"] if control != 200 else []
    return statuses, wrong


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_requests_cause_no_server_error(server: Served, seed: int) -> None:
    statuses, wrong = attacked(server, seed, EACH)
    assert wrong == []
    assert {200, 201, 400, 401, 404, 405} <= set(statuses)


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_parameters_of_operations_cause_no_server_error(server: Served, seed: int) -> None:
    statuses, wrong = attacked(server, seed, EACH, OPERATIONS)
    assert wrong == []
    assert {200, 202, 400, 404} <= set(statuses)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_hostile_requests_cause_no_server_error(server: Served, seed: int) -> None:
    statuses, wrong = attacked(server, seed, LONG)
    print(sorted(statuses.items()))
    assert wrong == []


def test_content_length_of_thousands_of_digits_is_refused(server: Served) -> None:
    request = Hostile(
        "POST", "/Observation", headers=[("content-type", "application/fhir+json"), ("content-length", "9" * 5000)], body=b"{}"
    )
    status, _ = send(server, request, server.token())
    assert status in (400, 413)


def test_hostile_requests_reach_every_part_of_the_server() -> None:
    """Each kind is drawn, and no two requests of one kind are alike for long."""
    chance = Chance(1)
    for kind, made in (KINDS | OPERATIONS).items():
        assert len({repr(made(chance)) for _ in range(50)}) > 25, kind


def test_run_finds_a_text_that_is_a_server_error(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: a ``_count`` that is no number, or one of thousands of digits."""
    monkeypatch.setattr(result_parameters, "whole_number", int)
    _, wrong = attacked(server, SEEDS[0], EACH)
    assert any(text.startswith("500 ") and "_count" in text for text in wrong)
