"""Pages of a record under ``/r/{key}/vaccination-proof``: the cards that prove vaccinations, each with its QR code, and their files.

What they show is the answer of ``$health-cards-issue`` to the person, as an app gets it.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from fastapi import Request, Response

from fhir_server.portal.record import items
from fhir_server.portal.record.health_cards import HealthCard, cards_in
from fhir_server.portal.record.items import Item
from fhir_server.portal.record.reading import RecordReader, RefusedError
from fhir_server.portal.record.sections import PROOF
from fhir_server.web.forms import NO_STORE
from fhir_server.web.security_headers import NOT_A_PAGE

_OPERATION: Final = "$health-cards-issue"
_ASKED: Final = (("credentialType", "Immunization"),)
_MEDIA: Final = "application/smart-health-card"


class Opened(Protocol):
    """The record that a request opens."""

    @property
    def reader(self) -> RecordReader: ...

    def page(self, template: str, **view: Any) -> Response: ...


async def show_cards(request: Request, record: Opened) -> Response:
    """All cards; also that the person's access to the record does not include them."""
    try:
        cards = await _cards(record.reader)
    except RefusedError as refused:
        if refused.status != 403:
            raise
        return record.page("vaccination_proof.html", section=PROOF, cards=[], is_refused=True)
    shown = [(card, await _doses(record.reader, card)) for card in cards]
    return record.page("vaccination_proof.html", section=PROOF, cards=shown, is_refused=False)


async def show_card(request: Request, record: Opened) -> Response:
    """One card, to be scanned or printed.  Raises RefusedError."""
    card = await _card(request, record)
    return record.page("vaccination_card.html", section=PROOF, card=card, doses=await _doses(record.reader, card))


async def download(request: Request, record: Opened) -> Response:
    """One card as a file for a wallet.  Raises RefusedError."""
    card = await _card(request, record)
    headers = {
        "Content-Disposition": f'attachment; filename="{card.slug}.smart-health-card"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": NOT_A_PAGE.decode(),
    }
    return Response(card.file, headers=NO_STORE | headers, media_type=_MEDIA)


async def _cards(reader: RecordReader) -> list[HealthCard]:
    return cards_in(await reader.operation(_OPERATION, _ASKED))


async def _card(request: Request, record: Opened) -> HealthCard:
    """The card that the address names.  Raises RefusedError."""
    name = request.path_params["card"]
    card = next((card for card in await _cards(record.reader) if card.slug == name), None)
    if card is None:
        raise RefusedError(404)
    return card


async def _doses(reader: RecordReader, card: HealthCard) -> list[Item]:
    """The vaccinations of a card as the record names them, in the order of the card."""
    found = await reader.search("Immunization", [("_id", ",".join(card.rows))], count=len(card.rows))
    by_id = {item.id: item for item in items.items(found)}
    return [by_id[id] for id in card.rows if id in by_id]


SHOWN: Final = {
    f"/{PROOF.slug}": show_cards,
    f"/{PROOF.slug}/{{card}}": show_card,
    f"/{PROOF.slug}/{{card}}/file": download,
}
"""Address below that of the record -> handler."""
