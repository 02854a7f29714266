"""The record that a request opens, and how its pages are made."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from fastapi import Response

from fhir_server.portal import page_handlers
from fhir_server.portal.preferences import Preferences
from fhir_server.portal.record import addresses, items
from fhir_server.portal.record.kept import Kept
from fhir_server.portal.record.reading import Found, RecordReader, RefusedError
from fhir_server.portal.record.sections import SECTIONS, Listing
from fhir_server.portal.record.seen import Seen
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import RecordChoice

ABSENT: Final = "There is no such page. The record may no longer be open to you: your records are on the first page."
NOT_HERE: Final = "This entry is not in the record that you have open."


@dataclass(frozen=True, slots=True)
class OpenRecord:
    """The record that a request opens, for the person of the session.  ``kept``: what the account keeps about it."""

    smart: SmartContext
    session: Session
    choice: RecordChoice
    key: str
    reader: RecordReader
    kept: Kept
    preferences: Preferences

    @property
    def path(self) -> str:
        return f"{addresses.PATH}/{self.key}"

    @property
    def seal(self) -> str:
        """What a form for this record must send: a form that was made for another record, or in another session, has another."""
        return hmac.new(self.session.token.encode(), self.path.encode(), sha256).hexdigest()

    def seen(self, section: str) -> Seen:
        """What the person has seen of a section."""
        return Seen(self.kept.opened.get(section), self.preferences.ask_since, self.kept.shown, self.smart.zone)

    async def listed(self, listing: Listing, section: str, cursor: str = "", count: int = 0) -> dict[str, Any]:
        """A list for a template; ``is_refused``: the access to the record does not include what it lists.  Raises RefusedError."""
        found = await self.found(listing, cursor, count)
        if found is None:
            return {"listing": listing, "entries": [], "next": "", "is_cut": False, "is_refused": True}
        entries = list(items.items(found, self.seen(section)))
        return {"listing": listing, "entries": entries, "next": found.next, "is_cut": found.is_cut, "is_refused": False}

    async def found(self, listing: Listing, cursor: str = "", count: int = 0) -> Found | None:
        """What a list finds; None if the access does not include it.  Raises RefusedError."""
        try:
            return await (self.reader.find(listing, cursor, count) if count else self.reader.find(listing, cursor))
        except RefusedError as refused:
            if refused.status != 403:
                raise
            return None

    def page(self, template: str, **view: Any) -> Response:
        common: dict[str, Any] = {"session": self.session, "choice": self.choice, "record": self.path, "sections": SECTIONS}
        return page_handlers.render(self.smart, template, **common, seal=self.seal, **view)

    def refusal(self, template: str, problem: str, **view: Any) -> Response:
        """A form that was not filled in right, with status 400."""
        page = self.page(template, problem=problem, **view)
        page.status_code = 400
        return page

    def failure(self, text: str = NOT_HERE, status: int = 404) -> Response:
        return page_handlers.render_failure(self.smart, text, status, self.session)
