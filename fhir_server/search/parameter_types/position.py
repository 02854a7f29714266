"""Location ``near``: positions within a distance of a point (http://hl7.org/fhir/R4/location.html#search).

A position is a point on a sphere of the radius one, so "within a distance" compares the straight line between two points with the chord of
the distance. It needs no trigonometry where rows are compared, and gives the same in every store: the great-circle distance, on a sphere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import NearTo
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext
from fhir_server.search.parameter_types.number import finite_float

DEFAULT_KM: Final = 10.0
EARTH_RADIUS_KM: Final = 6371.0088
KM_OF: Final = {
    "km": 1.0, "m": 0.001, "cm": 0.00001, "[mi_i]": 1.609344, "[mi_us]": 1.609347218694, "[nmi_i]": 1.852, "[yd_i]": 0.0009144,
    "[ft_i]": 0.0003048,
}  # fmt: skip
_ROUNDING: Final = 1 + 1e-9  # a point at just the distance is within it


def point(latitude: float, longitude: float) -> tuple[float, float, float]:
    """The point (x, y, z) of a position in degrees."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def chord(km: float) -> float:
    """The straight line between two points at this distance; that of opposite points for what is farther."""
    return 2 * math.sin(min(km / EARTH_RADIUS_KM, math.pi) / 2) * _ROUNDING


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(x, y, z) of a position; nothing for one that is not on the Earth."""
    if type(value) is not dict:
        return ()
    latitude, longitude = finite_float(value.get("latitude")), finite_float(value.get("longitude"))
    if latitude is None or longitude is None or not _is_on_earth(latitude, longitude):
        return ()
    return ((point(latitude, longitude), ()),)


def parse_value(text: str, context: ValueContext) -> NearTo:
    """``latitude|longitude``, ``latitude|longitude|distance`` (in km) or ``latitude|longitude|distance|unit``."""
    parts = [unescape(part).strip() for part in split(text, "|")]
    if len(parts) not in (2, 3, 4):
        raise ValueError("a place is written latitude|longitude|distance|unit")
    latitude, longitude, *rest = [_number(part) if part else None for part in parts[:3]]
    if latitude is None or longitude is None or not _is_on_earth(latitude, longitude):
        raise ValueError("the latitude is from -90 to 90 and the longitude from -180 to 180")
    distance = rest[0] if rest else None
    unit = (parts[3] if len(parts) == 4 else "") or "km"
    if unit not in KM_OF:
        raise ValueError(f"the unit of the distance is one of {', '.join(KM_OF)}")
    if distance is not None and distance < 0:
        raise ValueError("the distance is 0 or more")
    return NearTo(*point(latitude, longitude), chord(DEFAULT_KM if distance is None else distance * KM_OF[unit]))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise ValueError("latitude, longitude and distance are numbers")
    return number


def _is_on_earth(latitude: float, longitude: float) -> bool:
    return abs(latitude) <= 90 and abs(longitude) <= 180


POSITION = ParameterType("position", (), frozenset(), extract, parse_value)
