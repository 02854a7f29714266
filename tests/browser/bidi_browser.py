"""Firefox by WebDriver BiDi, which it speaks itself: no driver is needed beside it.

https://w3c.github.io/webdriver-bidi/
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import websocket

from tests.waiting import HANG, wait_until


class BidiBrowser:
    """One window of a browser at the other end of ``socket``."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._ids = socket, count(1)
        self._call("session.new", capabilities={})
        self._window: str = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, address: str) -> None:
        self._call("browsingContext.navigate", context=self._window, url=address, wait="complete")

    def click(self, selector: str) -> None:
        element = self._element(selector)
        move = {"type": "pointerMove", "x": 0, "y": 0, "origin": {"type": "element", "element": element}}
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._act({"type": "pointer", "id": "mouse", "actions": [move, *press]})

    def type(self, selector: str, text: str) -> None:
        self.click(selector)
        keys = [{"type": kind, "value": letter} for letter in text for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": keys})

    def value(self, script: str) -> Any:
        try:
            found = self._call("script.evaluate", expression=script, target={"context": self._window}, awaitPromise=False)
        except BidiError as error:
            if "no such" in str(error) or "unknown error" in str(error):
                return None  # the page was replaced meanwhile
            raise
        return found.get("result", {}).get("value")

    def forget(self) -> None:
        self._call("storage.deleteCookies")

    def _element(self, selector: str) -> dict[str, str]:
        nodes = self._call("browsingContext.locateNodes", context=self._window, locator={"type": "css", "value": selector})["nodes"]
        assert nodes, f"The page has no {selector}."
        element = {"sharedId": nodes[0]["sharedId"]}
        into_view = "element => element.scrollIntoView({ block: 'center', behavior: 'instant' })"
        target = {"context": self._window}
        self._call("script.callFunction", functionDeclaration=into_view, arguments=[element], target=target, awaitPromise=False)
        return element

    def _act(self, *actions: dict[str, Any]) -> None:
        self._call("input.performActions", context=self._window, actions=list(actions))

    def _call(self, method: str, **params: Any) -> Any:
        id = next(self._ids)
        self._socket.send(json.dumps({"id": id, "method": method, "params": params}))
        while True:
            heard = json.loads(self._socket.recv())
            if heard.get("id") == id:
                break
        if heard["type"] == "error":
            raise BidiError(f"{method}: {heard['error']}: {heard['message']}")
        return heard["result"]


class BidiError(Exception):
    """The browser could not do what it was told."""


@contextmanager
def firefox(binary: str, profile: Path) -> Iterator[BidiBrowser]:
    """A headless Firefox with a new profile."""
    command = [binary, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            socket = websocket.create_connection(_address(process, profile), timeout=HANG, suppress_origin=True)
            yield BidiBrowser(socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(HANG)


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Where it listens, which it writes into its profile."""
    written = profile / "WebDriverBiDiServer.json"
    found: dict[str, Any] = {}

    def listens() -> bool:
        assert process.poll() is None, f"Firefox ended with {process.returncode}."
        with suppress(FileNotFoundError, ValueError):
            found.update(json.loads(written.read_text()))
        return bool(found)

    wait_until(listens, "Firefox listens")
    return f"ws://{found['ws_host']}:{found['ws_port']}/session"
