"""Makes a MongoDB server fail commands on request, as members do in an election."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.mongo.mongod import ReplicaSet

_INTERRUPTED = 11602  # InterruptedDueToReplStateChange: what a member says that is no longer the primary

ELECTION: dict[str, dict[str, Any]] = {
    "refuses": {"errorCode": _INTERRUPTED},
    "cannot confirm": {"writeConcernError": {"code": _INTERRUPTED, "errmsg": "operation was interrupted"}},  # and has done it
    "hangs up": {"closeConnection": True},
}


def failing_set() -> ReplicaSet:
    return ReplicaSet(1, "--setParameter", "enableTestCommands=1")


def url_of(members: ReplicaSet, name: str) -> str:
    """Of a database whose clients soon look again whether a member that failed is well."""
    return members.url.replace("{name}", name) + "&heartbeatFrequencyMS=500"


class Failure:
    """``struck``: how often it did, known at the end."""

    struck = 0


@contextmanager
def failing(members: ReplicaSet, mode: Any, commands: tuple[str, ...], how: str) -> Iterator[Failure]:
    """While this lasts, ``commands`` fail: ``alwaysOn``, or ``{"times": n}``, and so on."""
    failure = Failure()
    with members.members[0].client() as client:
        data = {"failCommands": list(commands), **ELECTION[how]}
        before = client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)["count"]
        try:
            yield failure
        finally:
            failure.struck = client.admin.command("configureFailPoint", "failCommand", mode="off")["count"] - before
