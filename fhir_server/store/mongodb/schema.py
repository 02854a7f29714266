"""The collections of the MongoDB store, their indexes, and what a server must be for the store to keep its promises."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, AsyncMongoClient, IndexModel, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.failures import BUSY, for_operator, persistent

SCHEMA: Final = 1
OLDEST: Final = (6, 0)

# documents of the collection ``counters``
SECURITY: Final = "security"
CLASSES: Final = "classes"
_SCHEMA: Final = "schema"
MOVING: Final = "moving"

_SURE: Final = 2.0  # seconds for which the primary stays known to be one; well below any sensible electionTimeoutMillis

Primary = tuple[Any, Any] | None  # its address, and the election that made it one


def of_patient(id: str) -> str:
    """The ``_id`` of a patient's counter."""
    return f"patient/{id}"


def _index(name: str, *members: str, **options: Any) -> IndexModel:
    return IndexModel([(member, ASCENDING) for member in members], name=name, **options)


# Each ends in the order of rows, so that one value's rows are one stretch of the index, already in order.  An index
# covers one array only (MongoDB's rule), so "belongs to this patient" is the number of the first patient, a plain member.
INDEXES: Final[dict[str, tuple[IndexModel, ...]]] = {
    "resources": (
        _index("place", "type", "n", "at", "class", "release"),
        _index("name", "type", "id"),
        _index("others", "others", "type", "at", sparse=True),
        _index("token", "tok.v", "tok.p", "type", "n", "at"),
        _index("token_param", "type", "tok.p", "n", "at"),
        _index("reference", "ref.v", "ref.p", "type", "n", "at"),
        _index("reference_param", "type", "ref.p", "n", "at"),
        _index("string", "type", "str.p", "str.v"),
        _index("string_exact", "type", "str.p", "str.e"),
        _index("date_of_patient", "n", "type", "dat.p", "dat.hi"),
        _index("date", "type", "dat.p", "dat.hi"),
        _index("date_lo", "type", "dat.p", "dat.lo"),
        _index("number", "type", "num.p", "num.v"),
    ),
    "history": (
        _index("version", "rid", "version"),
        _index("name", "type", "id"),
        _index("reference", "ref.v", "ref.p", "type", sparse=True),
    ),
    "counters": (),
    "locks": (),
    "secrets": (
        _index("kind", "kind", "key"),
        _index("family", "family", partialFilterExpression={"family": {"$gt": ""}}),
        _index("expires", "expires"),
        _index("gone", "gone", expireAfterSeconds=0),
    ),
    "journal": (_index("line", "journal", "n"),),
}


class Base:
    """The client and the collections.  Everything is read from the primary and written to a majority."""

    def __init__(self, url: str, **options: Any) -> None:
        # A dead member is noticed when its socket closes; these bounds are for one that only falls silent.
        bounds = {"serverSelectionTimeoutMS": 20_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 60_000, "appname": "fhir-server"}
        chosen: dict[str, Any] = {name: bound for name, bound in bounds.items() if name.lower() not in url.lower()}
        self.client: AsyncMongoClient[Document] = AsyncMongoClient(url, **chosen, **options)
        codec: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        self.database = self.client.get_default_database("fhir").with_options(
            codec, ReadPreference.PRIMARY, WriteConcern("majority"), ReadConcern("local")
        )
        self.resources = self.database["resources"]
        self.history = self.database["history"]
        self.counters = self.database["counters"]
        self.locks = self.database["locks"]
        self.secrets = self.database["secrets"]
        self.journal = self.database["journal"]
        raw: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
        self.raw_resources = self.resources.with_options(codec_options=raw)
        self.raw_history = self.history.with_options(codec_options=raw)
        self.class_numbers: dict[str, int] = {}  # of classes that are committed, for those never change
        self.moving = False  # a migration is filling this store
        self._ready = False
        self._readying = asyncio.Lock()
        self._making_sure = asyncio.Lock()
        self._sure: tuple[Primary, float] = (None, 0.0)  # which, and since when

    async def prepare(self) -> None:
        """Check the server, make what is missing; an election meanwhile is waited for.

        Raises ValueError, worded for the operator; OSError if nothing answers, or no member stays primary.
        """
        async with self._readying:
            if not self._ready:
                try:
                    await self._prepared()
                except PyMongoError as error:
                    raise for_operator(error, self.database.name) from None
                self._ready = True

    @persistent
    async def _prepared(self) -> None:
        await self._check()
        await self._make()

    async def _check(self) -> None:
        hello = await self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ValueError(
                "The MongoDB of FHIR_SERVER_STORE is a standalone server, which has no transactions. Start mongod with"
                " --replSet and run rs.initiate() in mongosh (one member will do to begin with), or name a sharded cluster's mongos."
            )
        version = (await self.client.admin.command("buildInfo"))["versionArray"]
        if tuple(version[:2]) < OLDEST:
            found = ".".join(map(str, version[:3]))
            raise ValueError(f"The MongoDB of FHIR_SERVER_STORE is version {found}; 6.0 or later is needed (8.0 is recommended).")

    async def _make(self) -> None:
        there = set(await self.database.list_collection_names())
        for name, indexes in INDEXES.items():
            if name not in there:
                await self._create(name)
            if indexes:
                await self.database[name].create_indexes(list(indexes))
        for name, value in ((SECURITY, {"value": 0}), (CLASSES, {"keys": [], "value": 0}), (_SCHEMA, {"value": SCHEMA})):
            await self.counters.update_one({"_id": name}, {"$setOnInsert": value}, upsert=True)
        schema = await self.counters.find_one({"_id": _SCHEMA})
        if schema is None or schema["value"] > SCHEMA:
            raise ValueError(f"The database {self.database.name} was written by a later version of this program.")
        if not self.moving and await self.counters.find_one({"_id": MOVING}) is not None:
            raise ValueError(f"The migration into the database {self.database.name} is not complete: start it again, and it goes on.")
        async with self.client.start_session() as session:
            await session.with_transaction(self._touched, write_concern=WriteConcern("majority"))

    async def _touched(self, session: AsyncClientSession) -> None:
        """The least transaction, to see that this user may have any."""
        await self.locks.update_one({"_id": "start"}, {"$inc": {"value": 1}}, upsert=True, session=session)

    async def _create(self, name: str) -> None:
        try:
            await self.database.create_collection(name)
        except PyMongoError as error:  # another process was faster
            if name not in await self.database.list_collection_names():
                raise error

    async def ready(self) -> None:
        if not self._ready:
            await self.prepare()

    async def sure(self) -> Primary:
        """Make sure that reading now reads what was acknowledged before: the server that answers is, or lately was, the primary.

        After an election a former primary that has not heard of it, and a new one that has not committed yet, would
        answer from the past.  Neither can commit a write; and one that can will be the only primary for as long as no
        other member can have been elected.  Returns that primary; ask :meth:`require` once the reading is done.
        """
        if self._is_sure():
            return self._sure[0]
        async with self._making_sure:
            while not self._is_sure():
                primary, began = self._primary(), time.monotonic()
                await self.locks.update_one({"_id": "sure"}, {"$inc": {"value": 1}}, upsert=True)
                if primary == self._primary():
                    self._sure = primary, began
        return self._sure[0]

    def _is_sure(self) -> bool:
        primary, since = self._sure
        return primary is not None and time.monotonic() - since < _SURE and primary == self._primary()

    async def require(self, primary: Primary) -> None:
        """Make sure that the reading just done was of this primary, for the driver turns to the next one by itself.

        Raises Problem ``busy`` if there has been an election meanwhile.
        """
        if await self.sure() != primary:
            raise Problem("busy", BUSY)

    def _primary(self) -> Primary:
        for address, server in self.client.topology_description.server_descriptions().items():
            if server.is_writable:
                return address, server.election_id
        return None
