"""How the tests follow the status URL of an export or import."""

from __future__ import annotations

from typing import Any

from tests.served import Answer, Served


def finished(server: Served, token: str, location: str) -> dict[str, Any]:
    """Poll the status until there is a result, and return it."""
    for _ in range(60):
        answer = server.get(token, location, accept="application/json")
        if answer.status != 202:
            return _result(answer)
        assert answer.headers["retry-after"] == "1" and answer.headers["x-progress"]
    raise AssertionError("It came to no end.")


def _result(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return dict(answer.json)
