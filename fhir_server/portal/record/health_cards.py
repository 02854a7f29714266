"""Reads the answer of ``$health-cards-issue`` for pages, and draws cards as QR codes.

https://hl7.org/fhir/uv/smart-health-cards-and-links/cards-specification.html, health cards as QR codes and as files.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import segno

from fhir_server import jsontext
from fhir_server.display.names import name_of
from fhir_server.display.texts import objects, plain
from fhir_server.interactions.vaccine_diseases import against
from fhir_server.web.dates import format_date

MOST_IN_A_CODE: Final = 1195
"""Characters of a card that fit into one QR code.  The guide no longer has several codes for one card."""

_MAKE: Final[Callable[..., segno.QRCode]] = segno.make  # whose annotations do not know of several segments
_FIRST: Final = 45  # each character is two digits: its code less that of "-"
_QUIET: Final = 4  # modules around a code (ISO/IEC 18004)


@dataclass(frozen=True, slots=True)
class HealthCard:
    """A card.

    ``text``    the card itself, a compact JWS
    ``slug``    its name in URLs; ``title``: the diseases that it is about
    ``name``, ``birth_date``  whose card it is, in words
    ``issuer``  who vouches for it: the URL below which the keys are
    ``rows``    the ids of the Immunizations in it, in its order
    """

    text: str
    slug: str
    title: str
    name: str
    birth_date: str
    issuer: str
    rows: tuple[str, ...]

    @property
    def is_for_trial(self) -> bool:
        """Whether no verifier accepts it: issuers have https URLs."""
        return not self.issuer.startswith("https://")

    @property
    def fits(self) -> bool:
        """Whether a QR code can hold it."""
        return len(self.text) <= MOST_IN_A_CODE

    @property
    def code(self) -> str:
        """The QR code as inline SVG; only for a card that fits."""
        return qr_code(self.text).svg_inline(omitsize=True, border=_QUIET, svgclass="picture", lineclass=None)

    @property
    def file(self) -> bytes:
        """The content of a ``.smart-health-card`` file."""
        return jsontext.dumps({"verifiableCredential": [self.text]})


def qr_code(card: str) -> segno.QRCode:
    """The code of a card that fits: ``shc:/`` as bytes, then digits."""
    return _MAKE(["shc:/", digits(card)], error="l", micro=False)


def digits(card: str) -> str:
    """A card in the numeric mode of QR codes."""
    return "".join([f"{ord(character) - _FIRST:02}" for character in card])


def cards_in(parameters: Mapping[str, Any]) -> list[HealthCard]:
    """The cards in an answer, in its order."""
    given = objects(parameters.get("parameter"))
    found = [one["valueString"] for one in given if one.get("name") == "verifiableCredential"]
    rows: dict[int, list[str]] = {}
    for link in given:
        parts = {plain(part.get("name")): part for part in objects(link.get("part"))}
        type, _, id = plain(parts.get("hostedResource", {}).get("valueUri")).rpartition("/")
        if type.endswith("/Immunization"):
            rows.setdefault(int(parts["vcIndex"]["valueInteger"]), []).append(id)
    return [_card(text, tuple(rows.get(index, ()))) for index, text in enumerate(found)]


def _card(text: str, rows: tuple[str, ...]) -> HealthCard:
    payload = text.split(".")[1]
    content = jsontext.parse(zlib.decompress(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), -zlib.MAX_WBITS))
    patient, *doses = [entry["resource"] for entry in content["vc"]["credentialSubject"]["fhirBundle"]["entry"]]
    diseases = against(dose["vaccineCode"]["coding"][0]["code"] for dose in doses)
    return HealthCard(
        text,
        "-".join([disease.slug for disease in diseases]),
        ", ".join([disease.name for disease in diseases]),
        name_of(patient),
        format_date(plain(patient.get("birthDate"))),
        content["iss"],
        rows,
    )
