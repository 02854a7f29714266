"""Starts the replica set of ``compose.yaml`` and makes the server's account in it.  What exists already stays as it is.

Arguments: the addresses of the members, the first one with the account ``root``.  The root password and the URL of the store, with
the account to make, are read from the folder ``SECRETS`` (default ``/run/secrets``).  Runs in the server's image, which has pymongo.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pymongo import MongoClient, uri_parser
from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure

_ALREADY_INITIALIZED = 23
_USER_EXISTS = 51003


def main(members: list[str]) -> None:
    secrets = Path(os.environ.get("SECRETS", "/run/secrets"))
    password = (secrets / "mongodb-root-password").read_text(encoding="utf-8").strip()
    store = uri_parser.parse_uri((secrets / "store").read_text(encoding="utf-8").strip())
    host, _, port = members[0].partition(":")
    with MongoClient(host, int(port or 27017), username="root", password=password, directConnection=True) as client:
        initiate(client, members)
        while not client.admin.command("hello")["isWritablePrimary"]:
            time.sleep(0.5)  # until the members have elected a primary
        make_account(client, store["database"], store["username"], store["password"])


def initiate(client: MongoClient, members: list[str]) -> None:
    described = [{"_id": number, "host": member, "priority": 1 if number else 2} for number, member in enumerate(members)]
    try:
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": described})
        print(f"The replica set rs0 begins with {len(members)} members.")
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise


def make_account(client: MongoClient, database: str, name: str, password: str) -> None:
    """Make the account with the role ``readWrite`` on its own database, and nothing more."""
    while True:
        try:
            client[database].command("createUser", name, pwd=password, roles=[{"role": "readWrite", "db": database}])
            print(f"The account {name} may read and write the database {database}.")
        except OperationFailure as error:
            if error.code == _USER_EXISTS:
                return
            if not isinstance(error, NotPrimaryError):
                raise
        except AutoReconnect:
            pass
        else:
            return
        time.sleep(0.5)  # a new primary needs a moment


if __name__ == "__main__":
    main(sys.argv[1:])
