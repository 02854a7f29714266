"""Content negotiation: whether a client takes what the server can return (RFC 9110, section 12.5.1; http://hl7.org/fhir/R4/http.html#mime-type)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from fhir_server.errors import Problem
from fhir_server.interactions.messages import ANY, JSON, NDJSON, Request

# What clients call a format, also in ``_format`` and before R4.
_NAMES: Final = {
    JSON: ("application/fhir+json", "application/json", "text/json", "application/json+fhir", "json"),
    NDJSON: ("application/fhir+ndjson", "application/ndjson", "ndjson"),
}


def require_acceptable(request: Request, media: bytes = JSON) -> None:
    """Require that ``_format``, or else the Accept header, allows ``media``.  Raises Problem ``not_acceptable``."""
    if media == ANY:
        return
    accepted = ",".join(value for name, value in request.query if name == "_format") or request.headers.get("accept", "")
    if not is_acceptable(accepted, media):
        raise Problem("not_acceptable", f"The response is available only as {media.decode().partition(';')[0]}.")


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
def is_acceptable(accepted: str, media: bytes) -> bool:
    """Whether a list of media ranges admits ``media``: the most specific range that names it decides.  An empty list admits all."""
    qualities = ranges(accepted)
    if not qualities:
        return True
    names = _NAMES[media]
    if any(qualities.get(name, 0.0) > 0 for name in names):
        return True
    wider = (names[0], "application/*", "*/*")
    return next((qualities[range_] > 0 for range_ in wider if range_ in qualities), False)


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
