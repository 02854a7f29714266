"""The ``mongod`` that the tests of a worker share, started when a test first needs it, and databases in it.

``FHIR_SERVER_TEST_MONGODB`` names another server instead (a URL with ``{name}`` for the database).
"""

from __future__ import annotations

import atexit
import os
from functools import lru_cache
from itertools import count
from typing import Any, Final

from pymongo import MongoClient

from tests.mongo.mongod import ReplicaSet
from tests.waiting import wait_until

_OURS: Final = "fhir-server"  # what the store's client calls itself

_numbers = count()
_made: list[str] = []


def server_url() -> str:
    """URL of the running server, with ``{name}`` where the database's name belongs.  Raises RuntimeError if it does not start."""
    given = os.environ.get("FHIR_SERVER_TEST_MONGODB")
    if given:
        return given
    started = _started()
    if isinstance(started, Exception):
        raise RuntimeError("The tests need a MongoDB server, and it does not start.") from started
    return started.url


@lru_cache(1)
def _started() -> ReplicaSet | Exception:
    """The server, or why there is none: hundreds of tests need not wait for it to fail again."""
    try:
        replica_set = ReplicaSet()
    except Exception as error:
        return error
    atexit.register(replica_set.stop)
    return replica_set


def fresh_url() -> str:
    """URL of a database that is not there yet."""
    name = f"t{os.getpid()}x{next(_numbers)}"
    _made.append(name)
    return server_url().replace("{name}", name)


def end_transactions_of_the_dead() -> None:
    """End what killed processes left undone, as the server itself does after ``transactionLifetimeLimitSeconds``.

    A lower limit would end transactions of the living too, where the machine is slow.  For when no process of ours is connected.
    """
    with MongoClient[Any](server_url().replace("{name}", "")) as client:

        def connected() -> bool:
            """What a dead process sent before it died may still be on its way to the server."""
            asked = {"allUsers": True, "idleConnections": True, "idleSessions": False}
            return bool(list(client.admin.aggregate([{"$currentOp": asked}, {"$match": {"appName": _OURS}}])))

        wait_until(lambda: not connected(), "the server notices that the killed process is gone")
        client.admin.command("killAllSessions", [])


def emptied_url(which: str = "") -> str:
    """URL of a database that holds nothing any more: made once, for its indexes take longer to make than most tests do.

    ``which`` tells those apart that a test needs at the same time.
    """
    name = f"t{os.getpid()}{which}"
    url = server_url().replace("{name}", name)
    with MongoClient(url) as client:
        for collection in client[name].list_collection_names():
            client[name][collection].delete_many({})
    if name not in _made:
        _made.append(name)
    return url


def drop_databases() -> None:
    """Drop every database handed out so far: their indexes are files that the server would keep open."""
    if _made:
        with MongoClient(server_url().replace("{name}", "")) as client:
            while _made:
                client.drop_database(_made.pop())
