"""Makes a MongoDB server fail commands on request, as it would during an election."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.mongo.mongod import ReplicaSet

_INTERRUPTED = 11602  # InterruptedDueToReplStateChange: the error of a member that is no longer primary

ELECTION: dict[str, dict[str, Any]] = {
    "refuses": {"errorCode": _INTERRUPTED},
    "cannot confirm": {"writeConcernError": {"code": _INTERRUPTED, "errmsg": "operation was interrupted"}},  # though done
    "hangs up": {"closeConnection": True},
}


def failing_set() -> ReplicaSet:
    return ReplicaSet(1, "--setParameter", "enableTestCommands=1")


def url_of(members: ReplicaSet, name: str) -> str:
    """Return the URL of a database whose clients soon check again whether a failed member has recovered."""
    return members.url.replace("{name}", name) + "&heartbeatFrequencyMS=500"


class Failure:
    """The result of :func:`failing`.  ``struck`` is the number of failed commands, set at the end."""

    struck = 0


@contextmanager
def failing(members: ReplicaSet, mode: Any, commands: tuple[str, ...], how: str) -> Iterator[Failure]:
    """Let ``commands`` fail inside the context.  ``mode`` is ``alwaysOn``, ``{"times": n}`` or another failpoint mode."""
    failure = Failure()
    with members.members[0].client() as client:
        data = {"failCommands": list(commands), **ELECTION[how]}
        before = client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)["count"]
        try:
            yield failure
        finally:
            failure.struck = client.admin.command("configureFailPoint", "failCommand", mode="off")["count"] - before
