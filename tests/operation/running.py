"""A whole server in this process with its start and its background tasks, and an operator's commands on the same store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from fhir_server.app import application
from fhir_server.operation.state import Operation, set_operation
from fhir_server.settings import OperationLevel, Settings
from fhir_server.smart.demo import PASSWORD
from fhir_server.store import Store, open_store
from tests.served import KEY, NOON

ORIGIN = "http://127.0.0.1:8000"


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The server on this store, between its start and its stop, and a browser or client of it."""
    app = application(Settings(store=url, mode="test", secret_key=KEY, clock=NOON, **settings))
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    started = await said.get()
    assert started["type"] == "lifespan.startup.complete", started
    try:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"Accept": "text/html"}) as http:
            yield http
    finally:
        await told.put({"type": "lifespan.shutdown"})
        await said.get()
        await lifespan


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store, as another process opens it."""
    store = open_store(url)
    try:
        yield store
    finally:
        await store.close()


async def ask_for(url: str, level: OperationLevel, notice: str = "") -> None:
    """Store what the command ``operation`` stores."""
    async with opened(url) as store:
        await set_operation(store, Operation(level, 1, notice))


async def form_token(http: httpx.AsyncClient, path: str) -> str:
    """The value that a form of this page sends back."""
    found = re.search(r'name="token" value="([^"]+)"', (await http.get(path)).text)
    assert found is not None, path
    return found[1]


async def sign_in(http: httpx.AsyncClient, username: str) -> httpx.Response:
    token = await form_token(http, "/sign-in")
    return await http.post("/sign-in", data={"username": username, "password": PASSWORD, "token": token})
