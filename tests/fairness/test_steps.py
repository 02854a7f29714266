"""What a large request does in the event loop, it does in steps, between which others go on.  The tests count steps, not time.

Every step is taken to be long here, so that a request lets others go on wherever it can.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fhir_server import audit, budget, sending
from fhir_server.interactions import batch, bundle_entries, everything, response_bundle
from tests.seeded import seeded
from tests.served import Served, call

ENTRIES = 120


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(budget, "SLICE", -1.0)
    server = seeded()
    yield server
    server.close()


class Ticks:
    """How often the event loop has come around."""

    now = 0

    async def count(self) -> None:
        while True:
            self.now += 1
            await asyncio.sleep(0)


def most_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, int]:
    """How often a request calls a function, and how often at most while nothing else can run."""
    ticks, calls, right = Ticks(), Counter[int](), getattr(module, name)

    def counted(*args: Any, **named: Any) -> Any:
        calls[ticks.now] += 1
        return right(*args, **named)

    token = served.token()
    monkeypatch.setattr(module, name, counted)

    async def main() -> None:
        counting = asyncio.create_task(ticks.count())
        headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
        answer = await call(served.api, method, path, b"", headers, json.dumps(body).encode() if body else b"")
        assert answer.status == 200
        counting.cancel()

    served.run(main())
    return calls.total(), max(calls.values(), default=0)


def bundle(type: str) -> dict[str, Any]:
    read = {"request": {"method": "GET", "url": "Patient/adult"}}
    create = {"request": {"method": "POST", "url": "Basic"}, "resource": {"resourceType": "Basic", "code": {"text": "x"}}}
    return {"resourceType": "Bundle", "type": type, "entry": [read, create] * (ENTRIES // 2)}


STEPS: list[tuple[str, Any, str]] = [
    ("heads", bundle_entries, "head_of"),
    ("outlines", batch, "_outline"),
    ("texts of the answer", response_bundle, "_response_entry"),
]


@pytest.mark.parametrize("type", ["batch", "transaction"])
@pytest.mark.parametrize(("name", "module", "function"), STEPS, ids=[name for name, *_ in STEPS])
def test_entries_of_a_bundle_are_handled_in_steps(
    served: Served, monkeypatch: pytest.MonkeyPatch, type: str, name: str, module: Any, function: str
) -> None:
    assert most_at_once(served, monkeypatch, module, function, "POST", "/", bundle(type)) == (ENTRIES, 1)


def test_the_audit_line_of_a_batch_is_built_in_steps(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(served, monkeypatch, audit, "bundle_entry", "POST", "/", bundle("batch")) == (ENTRIES, 1)


def test_references_of_a_record_are_looked_for_in_steps(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, most = most_at_once(served, monkeypatch, everything, "references", "GET", "/Patient/adult/$everything")
    assert rows > 10 and most == 1


def test_the_count_finds_a_loop_that_lets_nobody_go_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above."""

    async def at_once(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [function(item) for item in items]

    monkeypatch.setattr(budget, "each", at_once)
    assert most_at_once(served, monkeypatch, bundle_entries, "head_of", "POST", "/", bundle("batch")) == (ENTRIES, ENTRIES)


def test_an_answer_of_many_parts_is_sent_in_pieces(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PART", 10_000)
    ticks, sent = Ticks(), Counter[int]()
    token = served.token()

    async def main() -> None:
        counting = asyncio.create_task(ticks.count())
        scope = {
            "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"",
            "client": ("192.0.2.7", 1), "root_path": "",
            "headers": [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/fhir+json")],
        }  # fmt: skip
        body = json.dumps(bundle("batch")).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and message["body"]:
                sent[ticks.now] += 1

        await served.api(scope, receive, send)
        counting.cancel()

    served.run(main())
    assert sent.total() > 5 and max(sent.values()) == 1
    assert sent.total() < ENTRIES  # of which each has several parts


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [5, 0, 5, 1], [25, 1, 9, 10, 11], [1] * 40, [100]])
def test_pieces_are_the_whole_text(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PART", 10)
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole, kept = b"".join(parts), list(parts)
    pieces = list(sending.pieces(kept))
    assert b"".join(pieces) == whole and not any(kept)
    assert all(len(piece) <= 10 for piece in pieces)
    assert len(pieces) <= 2 * len(whole) / 10 + 1
