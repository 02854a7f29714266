"""What it costs to store each audit line before its answer: reads and creates in one process, SQLite, by number of clients.

``python -m benchmarks.audit_cost [folder]``.  The folder is on the disk to measure; CPU is that of the process, with all its threads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fhir_server import app
from fhir_server.settings import Settings
from fhir_server.smart.tokens import tokens

_KEY = "a key that is long enough for benchmarks"
_ROUNDS = 5
_REQUESTS = 2000
_PATIENT = {"resourceType": "Patient", "id": "p", "name": [{"family": "Audit"}]}
_RESULT = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p"}}


async def _call(api: Any, method: str, path: str, token: str, body: bytes = b"") -> None:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/fhir+json")]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "client": ("192.0.2.7", 1)}
    await api(scope, receive, send)
    assert status in (200, 201), status


async def _measure(request: Callable[[], Awaitable[None]], clients: int) -> tuple[float, float, float]:
    """CPU and wall time of one request in microseconds, and the 99th percentile of its latency in milliseconds."""
    latencies: list[float] = []

    async def client() -> None:
        for _ in range(_REQUESTS // clients):
            begin = time.perf_counter()
            await request()
            latencies.append(time.perf_counter() - begin)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    count = len(latencies)
    return (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6, sorted(latencies)[int(count * 0.99)] * 1e3


async def _run(mode: str, folder: Path) -> None:
    settings = {"audit": mode} if mode else {}  # an earlier version has no such setting
    components = app.build_components(Settings(store=f"sqlite:///{folder / 'fhir.sqlite'}", mode="test", secret_key=_KEY, **settings))  # type: ignore[arg-type]
    await components.prepare()
    api = app.fhir_api(components)
    token = await tokens.issue_operator_token(components.store, "demo-backend", "system/*.cruds", components.clock())
    await _call(api, "PUT", "/Patient/p", token, json.dumps(_PATIENT).encode())
    result = json.dumps(_RESULT).encode()
    requests: dict[str, Callable[[], Awaitable[None]]] = {
        "read": lambda: _call(api, "GET", "/Patient/p", token),
        "create": lambda: _call(api, "POST", "/Observation", token, result),
    }
    for name, request in requests.items():
        for clients in (1, 4, 16, 64):
            rounds = [await _measure(request, clients) for _ in range(_ROUNDS)]
            cpu, wall, slowest = (min(values) for values in zip(*rounds, strict=True))
            shown = f"CPU {cpu:6.0f} us, wall {wall:6.0f} us a request, p99 {slowest:6.1f} ms"
            print(f"{mode or 'earlier':8} {name:6} {clients:3} clients: {shown}")
    await components.close()


def main() -> None:
    """Measure each mode in a store of its own."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for mode in ("durable", "batched") if "audit" in Settings.__dataclass_fields__ else ("",):
        with tempfile.TemporaryDirectory(dir=base) as folder:
            asyncio.run(_run(mode, Path(folder)))


if __name__ == "__main__":
    main()
