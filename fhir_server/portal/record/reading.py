"""Asks the FHIR API what a page of a record shows, for the person who opened it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from fhir_server import jsontext
from fhir_server.clock import instant_text
from fhir_server.interactions.messages import Request, Response
from fhir_server.portal.record.sections import NOW, Listing
from fhir_server.request_ids import request_id
from fhir_server.smart.tokens.tokens import Principal

Ask = Callable[[Request], Awaitable[Response]]
Json = dict[str, Any]
PAGE: Final = 50
_PAGE_PARAMETER: Final = "_page"
_NO_TOTAL: Final = ("_total", "none")  # no page shows it, and counting a long record costs more than a page of it


class RefusedError(Exception):
    """The API refused what a page asked for.  ``status``: its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search.

    ``resources``  the matches, in the order of the search
    ``included``   all resources of the answer, by ``Type/id``
    ``next``       the cursor of the next page; "" if there is none
    ``is_cut``     whether the answer says that it lacks something, such as resources beyond the most that are included
    """

    resources: tuple[Json, ...]
    included: Mapping[str, Json]
    next: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Reads one record for one person.  ``now`` in microseconds since 1970 UTC; ``address``: the person's IP address."""

    ask: Ask
    caller: Principal
    now: int
    address: str = ""

    async def find(self, listing: Listing, cursor: str = "", count: int = PAGE) -> Found:
        """A page of a list, the first one without a ``cursor``.  Raises RefusedError."""
        query = [(name, value.replace(NOW, instant_text(self.now))) for name, value in listing.query]
        return await self.search(listing.type, query, cursor, count)

    async def search(self, type: str, query: list[tuple[str, str]], cursor: str = "", count: int = PAGE) -> Found:
        """Search the patient's resources of a type.  Raises RefusedError."""
        asked = [("patient", self.caller.patient or ""), *query, ("_count", str(count)), _NO_TOTAL]
        if cursor:
            asked.append((_PAGE_PARAMETER, cursor))
        bundle = jsontext.parse((await self._get((type,), tuple(asked))).body)
        entries: list[Json] = bundle.get("entry", [])
        matches = [entry["resource"] for entry in entries if entry["search"]["mode"] == "match"]
        included = {f"{one['resourceType']}/{one['id']}": one for one in (entry["resource"] for entry in entries) if "id" in one}
        links = {link["relation"]: link["url"] for link in bundle.get("link", ())}
        following = dict(parse_qsl(urlsplit(links.get("next", "")).query)).get(_PAGE_PARAMETER, "")
        return Found(tuple(matches), included, following, any(entry["search"]["mode"] == "outcome" for entry in entries))

    async def read(self, type: str, id: str) -> Json:
        """A resource.  Raises RefusedError."""
        body: Json = jsontext.parse((await self._get((type, id), ())).body)
        return body

    async def answer(self, path: tuple[str, ...], query: tuple[tuple[str, str], ...]) -> bytes:
        """The body of an answer, byte for byte as the API gives it.  Raises RefusedError."""
        return (await self._get(path, query)).body

    async def content(self, name: str) -> Response:
        """The content of a Binary, or of a version of it, by its relative reference; as it is.  Raises RefusedError."""
        return await self._get(tuple(name.split("/")), (), accept="*/*")

    async def operation(self, name: str, query: tuple[tuple[str, str], ...]) -> Json:
        """The answer of an operation on the patient.  Raises RefusedError."""
        body: Json = jsontext.parse((await self._get(("Patient", self.caller.patient or "", name), query)).body)
        return body

    async def _get(self, path: tuple[str, ...], query: tuple[tuple[str, str], ...], accept: str = "application/fhir+json") -> Response:
        request = Request("GET", path, query, {"accept": accept}, b"", self.now, self.address, request_id.get(), caller=self.caller)
        response = await self.ask(request)
        if response.status != 200:
            raise RefusedError(response.status)
        return response
