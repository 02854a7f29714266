"""A subscriber that opens a websocket at the ASGI application, in this process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from fhir_server.interactions.subscription_records import Subscription
from fhir_server.subscriptions.dispatcher import Dispatcher
from fhir_server.web.websockets import CONNECTION
from tests.served import Served
from tests.subscriptions.environment import Subscribing, by_criteria, by_topic, value


def topic_on_websocket(type: str = "Observation", content: str = "id-only", *filters: str, **channel: Any) -> dict[str, Any]:
    """A Subscription to the topic of a type, told on a websocket."""
    body = by_topic(type, content, *filters, **channel)
    body["channel"] = {name: part for name, part in body["channel"].items() if name != "endpoint"} | {"type": "websocket"}
    return body


def criteria_on_websocket(criteria: str, **channel: Any) -> dict[str, Any]:
    """A Subscription to a search, told on a websocket."""
    body = by_criteria(criteria, **channel)
    body["channel"] = {name: part for name, part in body["channel"].items() if name != "endpoint"} | {"type": "websocket"}
    return body


class Subscriber:
    """A client with a websocket.

    ``messages``  what it received; ``closed``: the code with which the server closed it, 0 while it is open
    ``refused``   the status of the answer to its opening request, 0 if it was opened
    ``confirms``  whether it takes what is sent to it
    """

    def __init__(self, world: Subscribing, dispatcher: Dispatcher, *, token: str = "", origin: str = "", bind_seconds: float = 1e6) -> None:
        self._served = served = world.served
        world.at_the_end.append(self.leave)
        self._app = served.parts.subscribers.socket_app(dispatcher.sockets)
        self._app.bind_seconds = bind_seconds
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.closed = self.refused = 0
        self.confirms = True
        self.is_aborted = False
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        headers += [(b"origin", origin.encode())] if origin else []
        self._scope = {
            "type": "websocket", "path": "/websocket", "headers": headers, "client": ("192.0.2.7", 4711), "extensions": {CONNECTION: self}
        }  # fmt: skip
        served.run(self._open())

    async def _open(self) -> None:
        self._idle = asyncio.Event()
        await self._incoming.put({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._app(self._scope, self._receive, self._take))
        await self._settle()

    async def _receive(self) -> dict[str, Any]:
        if self._incoming.empty():
            self._idle.set()
        message = await self._incoming.get()
        self._idle.clear()
        return message

    async def _settle(self) -> None:
        """Wait until the server waits for a message, or is done."""
        if not self._incoming.empty():
            self._idle.clear()
        waiting = asyncio.create_task(self._idle.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    async def _take(self, message: Any) -> None:
        self.sent.append(dict(message))
        match message["type"]:
            case "websocket.send":
                self.messages.append(message["text"])
            case "websocket.close":
                self.closed = message["code"]
                await self._incoming.put({"type": "websocket.disconnect", "code": message["code"]})
            case "websocket.http.response.start":
                self.refused = message["status"]

    async def confirm(self) -> None:
        """See :class:`fhir_server.web.websockets.Connection`."""
        if not self.confirms:
            raise TimeoutError

    def abort(self) -> None:
        """See :class:`fhir_server.web.websockets.Connection`."""
        self.is_aborted = True
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def send(self, text: str) -> None:
        """Send a message, and let the server do what it does at once."""
        self._served.run(self._send({"type": "websocket.receive", "text": text}))

    def leave(self) -> None:
        """Close the websocket."""
        self._served.run(self._send({"type": "websocket.disconnect", "code": 1000}))

    def settle(self) -> None:
        """Let the server do what it does at once."""
        self._served.run(self._settle())

    async def _send(self, message: dict[str, Any]) -> None:
        self._idle.clear()
        await self._incoming.put(message)
        await self._settle()

    def bundles(self, kind: str = "event-notification") -> list[dict[str, Any]]:
        """The notifications of this kind."""
        found = [json.loads(text) for text in self.messages if text.startswith("{")]
        return [bundle for bundle in found if value(bundle, "type") == kind]


def binding(served: Served, token: str, *ids: str) -> str:
    """A binding token for these Subscriptions."""
    answer = served.get(token, f"Subscription/$get-ws-binding-token?{'&'.join(f'id={id}' for id in ids)}")
    assert answer.status == 200, answer.body
    found: str = next(one["valueString"] for one in answer.json["parameter"] if one["name"] == "token")
    return found


def family_of(record: bytes) -> str:
    """The family of the grant on which a stored Subscription rests."""
    return msgspec.json.decode(record, type=Subscription).grant.family
