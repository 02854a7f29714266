"""The ``mongod`` that the tests of one worker share, and its databases.  It starts when a test first needs it.

``FHIR_SERVER_TEST_MONGODB`` names another server instead (a URL with ``{name}`` in place of the database name).
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

_OURS: Final = "fhir-server"  # the application name of the store's client

_numbers = count()
_made: list[str] = []


def server_url() -> str:
    """Return the URL of the running server with ``{name}`` in place of the database name.  Raises RuntimeError if it does not start."""
    given = os.environ.get("FHIR_SERVER_TEST_MONGODB")
    if given:
        return given
    started = _started()
    if isinstance(started, Exception):
        raise RuntimeError("The tests need a MongoDB server, and it does not start.") from started
    return started.url


@lru_cache(1)
def _started() -> ReplicaSet | Exception:
    """Return the server, or the error if it does not start.  The error is cached, so that tests do not wait for it repeatedly."""
    try:
        replica_set = ReplicaSet()
    except Exception as error:
        return error
    atexit.register(replica_set.stop)
    return replica_set


def fresh_url() -> str:
    """Return the URL of a database that does not exist yet."""
    name = f"t{os.getpid()}x{next(_numbers)}"
    _made.append(name)
    return server_url().replace("{name}", name)


def end_transactions_of_the_dead() -> None:
    """End the transactions of killed processes now instead of after ``transactionLifetimeLimitSeconds``.

    A lower limit could also end transactions of running processes on a slow machine.  Call this only when no process of the
    tests is connected.
    """
    with MongoClient[Any](server_url().replace("{name}", "")) as client:

        def connected() -> bool:
            """Return whether the server still runs operations that a killed process sent."""
            asked = {"allUsers": True, "idleConnections": True, "idleSessions": False}
            return bool(list(client.admin.aggregate([{"$currentOp": asked}, {"$match": {"appName": _OURS}}])))

        wait_until(lambda: not connected(), "the server notices that the killed process is gone")
        client.admin.command("killAllSessions", [])


def emptied_url(which: str = "") -> str:
    """Return the URL of an empty database.  It is created once and then reused, because creating its indexes is slow.

    ``which`` distinguishes databases that a test needs at the same time.
    """
    name = f"t{os.getpid()}{which}"
    url = server_url().replace("{name}", name)
    with MongoClient[dict[str, Any]](url) as client:
        for collection in client[name].list_collection_names():
            client[name][collection].delete_many({})
    if name not in _made:
        _made.append(name)
    return url


def drop_databases() -> None:
    """Drop every database created so far, because the server keeps the files of their indexes open."""
    if _made:
        with MongoClient[dict[str, Any]](server_url().replace("{name}", "")) as client:
            while _made:
                client.drop_database(_made.pop())
