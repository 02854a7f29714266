"""Content negotiation: which of the formats that a response can have the client prefers.

RFC 9110, section 12.5.1; http://hl7.org/fhir/R4/http.html#mime-type.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fhir_server.errors import Problem
from fhir_server.interactions.messages import ANY, JSON, NDJSON, PLAIN_JSON, XML, XML_TYPES, Request, media_type

# What clients call a format, also in ``_format`` and before R4.
_NAMES: Final = {
    JSON: ("application/fhir+json", "application/json", "text/json", "application/json+fhir", "json"),
    XML: ("application/fhir+xml", "application/xml+fhir", "xml", "application/xml", "text/xml"),
    NDJSON: ("application/fhir+ndjson", "application/ndjson", "ndjson"),
    PLAIN_JSON: ("application/json", "application/fhir+json", "text/json", "application/json+fhir", "json"),
}
_OFFERED: Final = {JSON: (JSON, XML)}  # what is FHIR's JSON is XML for who prefers it
# A browser takes any XML rather than JSON, but it shows pages; who wants FHIR's XML in one says so with ``_format``.
_PAGE: Final = "text/html"
_GENERIC_XML: Final = ("application/xml", "text/xml")


def require_acceptable(request: Request, media: bytes = JSON) -> bytes:
    """The format of the answer, by ``_format``, or else by the Accept header: ``media``, or XML in place of FHIR's JSON.

    Without both, the answer to a body in XML is XML.  Raises Problem ``not_acceptable``.
    """
    if media == ANY:  # the handler decides; what it answers in JSON may be XML
        return format_of_errors(request)
    offered = _OFFERED.get(media, (media,))
    if (found := preferred(_accepted(request), offered)) is None:
        names = " or ".join(one.decode().partition(";")[0] for one in offered)
        raise Problem("not_acceptable", f"The response is available only as {names}.")
    return found


def format_of_errors(request: Request) -> bytes:
    """The format of an OperationOutcome for this request: JSON if the client takes none of the formats."""
    return preferred(_accepted(request), _OFFERED[JSON]) or JSON


def _accepted(request: Request) -> str:
    if request.query and (formats := ",".join([value for name, value in request.query if name == "_format"])):
        return formats
    if accept := request.headers.get("accept", ""):
        return accept
    return default_of(request.headers.get("content-type", ""))


def default_of(content_type: str) -> str:
    """What a request without an Accept header accepts: first of all the format of its body, if that is XML."""
    sent = media_type(content_type)
    return f"{sent}, */*;q=0.5" if sent in XML_TYPES else ""


def ranges(accepted: str) -> dict[str, float]:
    """The weight of each media range in a list."""
    qualities: dict[str, float] = {}
    for item in accepted.split(","):
        name, *parameters = item.split(";")
        # In a query string, a plus that is not percent-encoded is a blank.
        range_ = name.strip().lower().replace(" ", "+")
        if range_:
            qualities[range_] = max(_quality(parameters), qualities.get(range_, 0.0))
    return qualities


@lru_cache(256)
def preferred(accepted: str, offered: tuple[bytes, ...]) -> bytes | None:
    """Which of the offered formats a list of media ranges prefers, the first among equals; None if it admits none.

    The most specific range that names a format decides about it.  An empty list admits all.
    """
    qualities = ranges(accepted)
    if not qualities:
        return offered[0]
    if _PAGE in qualities and (found := _best({name: q for name, q in qualities.items() if name not in _GENERIC_XML}, offered)):
        return found
    return _best(qualities, offered)


def _best(qualities: dict[str, float], offered: tuple[bytes, ...]) -> bytes | None:
    best = max(offered, key=lambda media: _quality_of(media, qualities))  # the first of equal ones
    return best if _quality_of(best, qualities) > 0 else None


def _quality_of(media: bytes, qualities: dict[str, float]) -> float:
    names = _NAMES[media]
    named = max(qualities.get(name, 0.0) for name in names)
    if named > 0:
        return named
    wider = (names[0], "application/*", "*/*")
    return next((qualities[range_] for range_ in wider if range_ in qualities), 0.0)


def _quality(parameters: list[str]) -> float:
    """The weight of a media range; 1 without one, or if it is no number."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0
