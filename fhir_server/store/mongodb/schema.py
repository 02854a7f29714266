"""The collections of the MongoDB store, their indexes, and the checks of the MongoDB server."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import quote

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.logs import HEAD
from fhir_server.store.mongodb.documents import FIRST_PATIENT, Document
from fhir_server.store.mongodb.failures import BUSY, operator_error, retried
from fhir_server.store.mongodb.upgrades import STEPS

SCHEMA: Final = 4  # a step of ``upgrades.STEPS`` leads to each
OLDEST: Final = (6, 0)

# documents of the collection ``counters``
SECURITY: Final = "security"
CLASSES: Final = "classes"
SCHEMA_NUMBER: Final = "schema"
COPY_STATE: Final = "moving"

_CONFIRMED_SECONDS: Final = 2.0  # how long a confirmation of the primary is valid; well below any sensible electionTimeoutMillis

Primary = tuple[Any, Any] | None  # its address and its election id


def patient_counter(id: str) -> str:
    """Return the ``_id`` of a patient's counter."""
    return f"patient/{id}"


def _index(name: str, *members: str, **options: Any) -> IndexModel:
    return IndexModel([(member, ASCENDING) for member in members], name=name, **options)


# Versions by class in the order of time, of any patient and of each.  They begin with a member that no other query names, so that
# the planner tries them for no other.
_OF_TIME: Final = (
    _index("change", "interaction", "type", "class", "updated", "id", "version", "release"),
    _index("change_of_patient", "interaction", "patients", "type", "class", "updated", "id", "version", "release"),
)

# The rows of a patient by class and date, the latest first, for :mod:`~fhir_server.store.mongodb.newest`.  It begins with a member
# that no other index has, too.
_OF_NEWEST: Final = IndexModel(
    [("record", ASCENDING), ("dat.p", ASCENDING), ("class", ASCENDING), ("dat.hi", DESCENDING), ("at", ASCENDING), ("release", ASCENDING)],
    name="newest_of_patient",
)

# Each index ends in the order of rows, so that the rows with one value are contiguous and in order.  MongoDB allows only one
# array per index, so "belongs to this patient" uses the number of the first patient, which is a plain member.  Class and
# release follow, so that the documents of hidden rows are not fetched.  The number is a hash, so a count also needs the first
# patient's id, which the index ``of_first_patient`` ends with.
INDEXES: Final[dict[str, tuple[IndexModel, ...]]] = {
    "resources": (
        _index("place", "type", "n", "at", "class", "release"),
        _index("of_first_patient", "n", "type", "class", "at", "release", FIRST_PATIENT),
        _index("name", "type", "id"),
        _index("of_other_patients", "others", "type", "class", "at", "release", sparse=True),
        _index("token_value", "tok.v", "tok.p", "type", "n", "at", "class", "release"),
        _index("token_param_value", "type", "tok.p", "n", "at", "class", "release"),
        _index("reference_value", "ref.v", "ref.p", "type", "n", "at", "class", "release"),
        _index("reference_param", "type", "ref.p", "n", "at"),
        _index("string", "type", "str.p", "str.v"),
        _index("string_exact", "type", "str.p", "str.e"),
        _index("date_of_patient_value", "n", "type", "dat.p", "dat.hi", "class", "release"),
        _OF_NEWEST,
        _index("date", "type", "dat.p", "dat.hi"),
        _index("date_lo", "type", "dat.p", "dat.lo"),
        _index("number", "type", "num.p", "num.v"),
        _index("position", "type", "geo.p", "geo.z", sparse=True),
        *_OF_TIME,
    ),
    "history": (
        _index("version", "rid", "version"),
        _index("name", "type", "id"),
        _index("reference", "ref.v", "ref.p", "type", sparse=True),
        *_OF_TIME,
    ),
    "purged": (
        _index("name", "rid"),
        _index("change", "type", "updated", "id", "version"),
        _index("change_of_patient", "patients", "type", "updated", "id", "version"),
    ),
    "counters": (),
    "locks": (),
    "secrets": (
        _index("kind", "kind", "key"),
        _index("family", "family", partialFilterExpression={"family": {"$gt": ""}}),
        _index("expires", "expires"),
        _index("gone", "gone", expireAfterSeconds=0),
    ),
    "journal": (_index("line", "journal", "n"), _index("keys", "journal", "keys", "n", sparse=True)),
}


# Indexes of earlier versions of this program, which those above replace.
_FORMER_INDEXES: Final = ("token", "reference", "token_param", "date_of_patient", "others", "of_patient")


def record_id(kind: str, key: str) -> str:
    """The ``_id`` of a key-value record."""
    return f"{quote(kind, safe='')}/{key}"


def head_id(log: str) -> str:
    """The ``_id`` of the record that holds the head of a log."""
    return record_id(HEAD, log)


class Connection:
    """The client and the collections.  All reads go to the primary, all writes to a majority."""

    def __init__(self, url: str, *, is_read_only: bool = False, **options: Any) -> None:
        """``is_read_only``: nothing is created or changed, not even to confirm the primary."""
        # A dead server is detected when its socket closes.  These limits are for one that stops responding.
        limits = {"serverSelectionTimeoutMS": 20_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 60_000, "appname": "fhir-server"}
        options_set: dict[str, Any] = {name: limit for name, limit in limits.items() if name.lower() not in url.lower()}
        self.client: AsyncMongoClient[Document] = AsyncMongoClient(url, **options_set, **options)
        codec: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        self.database = self.client.get_default_database("fhir").with_options(
            codec, ReadPreference.PRIMARY, WriteConcern("majority"), ReadConcern("local")
        )
        self.resources = self.database["resources"]
        self.history = self.database["history"]
        self.purged = self.database["purged"]
        self.counters = self.database["counters"]
        self.locks = self.database["locks"]
        self.secrets = self.database["secrets"]
        self.journal = self.database["journal"]
        raw: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
        self.raw_resources = self.resources.with_options(codec_options=raw)
        self.raw_history = self.history.with_options(codec_options=raw)
        self.class_numbers: dict[str, int] = {}  # of committed classes, which never change
        self.is_copy_target = False  # a copy is being written into this store
        self.is_read_only = is_read_only
        self._ready = False
        self._prepare_lock = asyncio.Lock()
        self._confirm_lock = asyncio.Lock()
        self._confirmed: tuple[Primary, float] = (None, 0.0)  # the primary, and when it was confirmed

    async def prepare(self) -> None:
        """Check the MongoDB server, and create missing collections and indexes.  Waits for elections to end.

        Raises ValueError with a message for the operator, OSError if no server responds or no member stays primary.
        """
        async with self._prepare_lock:
            if not self._ready:
                try:
                    await self._prepare_schema()
                except PyMongoError as error:
                    raise operator_error(error, self.database.name) from None
                self._ready = True

    @retried
    async def _prepare_schema(self) -> None:
        await self.check_server()
        if not self.is_read_only:
            await self._create_missing()

    async def check_server(self) -> None:
        """Raises ValueError, with a message for the operator, for a MongoDB without transactions and for one that is too old."""
        hello = await self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ValueError(
                "The MongoDB of FHIR_SERVER_STORE is a standalone server, which has no transactions. Start mongod with"
                " --replSet and run rs.initiate() in mongosh (one member is enough), or use the mongos of a sharded cluster."
            )
        version = (await self.client.admin.command("buildInfo"))["versionArray"]
        if tuple(version[:2]) < OLDEST:
            found = ".".join(map(str, version[:3]))
            raise ValueError(f"The MongoDB of FHIR_SERVER_STORE is version {found}. Version 6.0 or later is required (8.0 is recommended).")

    async def _create_missing(self) -> None:
        existing = set(await self.database.list_collection_names())
        for name, indexes in INDEXES.items():
            if name not in existing:
                await self._create_collection(name)
            if indexes:
                await self.database[name].create_indexes(list(indexes))
        for name in (await self.resources.index_information()).keys() & set(_FORMER_INDEXES):
            await self._drop_index(name)
        for name, value in ((SECURITY, {"value": 0}), (CLASSES, {"keys": [], "value": 0}), (SCHEMA_NUMBER, {"value": SCHEMA})):
            await self.counters.update_one({"_id": name}, {"$setOnInsert": value}, upsert=True)
        schema = await self.counters.find_one({"_id": SCHEMA_NUMBER})
        found = schema["value"] if schema else 0
        if not 0 < found <= SCHEMA:
            raise ValueError(
                f"The database {self.database.name} was written by a later version of this program (schema {found}, known: {SCHEMA})."
            )
        for step in range(found + 1, SCHEMA + 1):
            await STEPS[step](self.database)
            await self.counters.update_one({"_id": SCHEMA_NUMBER}, {"$max": {"value": step}})
        if not self.is_copy_target and await self.counters.find_one({"_id": COPY_STATE}) is not None:
            raise ValueError(
                f"The copy into the database {self.database.name} is not complete. Run fhir-server copy-store again to continue it."
            )
        async with self.client.start_session() as session:
            await session.with_transaction(self._run_test_transaction, write_concern=WriteConcern("majority"))

    async def _run_test_transaction(self, session: AsyncClientSession) -> None:
        """Run a minimal transaction to check that this user may."""
        await self.locks.update_one({"_id": "start"}, {"$inc": {"value": 1}}, upsert=True, session=session)

    async def _drop_index(self, name: str) -> None:
        try:
            await self.resources.drop_index(name)
        except PyMongoError as error:  # another process may have dropped it
            if name in await self.resources.index_information():
                raise error

    async def _create_collection(self, name: str) -> None:
        try:
            await self.database.create_collection(name)
        except PyMongoError as error:  # another process may have created it
            if name not in await self.database.list_collection_names():
                raise error

    async def ensure_ready(self) -> None:
        """Prepare the database unless that is done."""
        if not self._ready:
            await self.prepare()

    async def confirm_primary(self) -> Primary:
        """Confirm and return the primary, so that a read now sees everything that was acknowledged before.

        After an election, a former primary that does not know of it, and a new one that has not committed anything yet,
        would return old data.  Neither can commit a write.  A member that can is the only primary until another one can
        have been elected.  Call :meth:`require_primary` with the result after the read.
        """
        if self._is_confirmed():
            return self._confirmed[0]
        if self.is_read_only:
            return self._current_primary()
        async with self._confirm_lock:
            while not self._is_confirmed():
                primary, began = self._current_primary(), time.monotonic()
                await self.locks.update_one({"_id": "sure"}, {"$inc": {"value": 1}}, upsert=True)
                if primary == self._current_primary():
                    self._confirmed = primary, began
        return self._confirmed[0]

    def _is_confirmed(self) -> bool:
        primary, since = self._confirmed
        return primary is not None and time.monotonic() - since < _CONFIRMED_SECONDS and primary == self._current_primary()

    async def require_primary(self, primary: Primary) -> None:
        """Check that this is still the primary, because the driver switches to a new one without an error.

        Raises Problem ``busy`` if there was an election meanwhile.
        """
        if await self.confirm_primary() != primary:
            raise Problem("busy", BUSY)

    def _current_primary(self) -> Primary:
        for address, server in self.client.topology_description.server_descriptions().items():
            if server.is_writable:
                return address, server.election_id
        return None
