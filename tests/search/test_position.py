"""Location ``near``: positions within a distance of a point."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from fhir_server.search import index, query
from fhir_server.search.match import matches
from fhir_server.search.parameter_types import position
from fhir_server.search.rows import SearchableRow
from fhir_server.search.sort_keys import sortable

BASE = "http://us.example/fhir"


def near(latitude: float, longitude: float, value: str) -> bool:
    location: dict[str, Any] = {"resourceType": "Location", "id": "x", "position": {"latitude": latitude, "longitude": longitude}}
    row = SearchableRow("Location", "x", (), 0, 0, index.entries("Location", location, BASE))
    return matches(query.condition("Location", [("near", value)], 0, BASE), row, frozenset({0}))


NEAR = [
    (52.52, 13.405, "52.3906|13.0645|28|km", True),  # Berlin, 27.2 km from Potsdam
    (52.52, 13.405, "52.3906|13.0645|27|km", False),
    (52.52, 13.405, "52.3906|13.0645|17|[mi_i]", True),
    (52.52, 13.405, "52.3906|13.0645|16.8|[mi_us]", False),
    (52.52, 13.405, "52.3906|13.0645|27500|m", True),
    (52.52, 13.405, "52.3906|13.0645|28", True),
    (52.52, 13.405, "52.3906|13.0645", False),  # 10 km
    (52.52, 13.405, "52.45|13.40", True),
    (52.52, 13.405, "52.45|13.40||", True),
    (52.52, 13.405, "52.52|13.405|0", True),
    (52.52, 13.405, "0|0|1,52.5|13.4|5", True),
    (0.0, 179.99, "0|-179.99|3", True),  # over the antimeridian
    (89.99, 0.0, "89.99|180|3", True),  # over the pole
    (-90.0, 12.0, "90|0|30000", True),
    (-90.0, 12.0, "90|0|20000", False),
]


@pytest.mark.parametrize(("latitude", "longitude", "value", "expected"), NEAR)
def test_position_is_near_within_the_distance(latitude: float, longitude: float, value: str, expected: bool) -> None:
    assert near(latitude, longitude, value) is expected


def _haversine(a: tuple[float, float], b: tuple[float, float]) -> float:
    (phi, lam), (other, way) = [(math.radians(one[0]), math.radians(one[1])) for one in (a, b)]
    h = math.sin((other - phi) / 2) ** 2 + math.cos(phi) * math.cos(other) * math.sin((way - lam) / 2) ** 2
    return 2 * position.EARTH_RADIUS_KM * math.asin(math.sqrt(h))


def test_distance_is_that_of_the_haversine_formula() -> None:
    random = Random(1)
    for _ in range(3000):
        a, b = [(random.uniform(-90, 90), random.uniform(-180, 180)) for _ in range(2)]
        if random.random() < 0.5:
            b = (max(-90.0, min(90.0, a[0] + random.uniform(-0.1, 0.1))), a[1] + random.uniform(-0.1, 0.1) if abs(a[1]) < 179 else a[1])
        km = _haversine(a, b)
        assert near(*a, f"{b[0]!r}|{b[1]!r}|{km * 1.00001 + 0.00001!r}")
        assert not near(*a, f"{b[0]!r}|{b[1]!r}|{max(0, km * 0.99999 - 0.00001)!r}")


@pytest.mark.parametrize("place", [{"latitude": 91, "longitude": 0}, {"latitude": 0}, {"latitude": 0, "longitude": -181}, {}])
def test_what_is_no_position_on_earth_has_no_entry(place: dict[str, float]) -> None:
    assert index.entries("Location", {"resourceType": "Location", "position": place}, BASE) == ()


def test_distance_is_no_sort_key() -> None:
    assert "near" not in sortable("Location") and "name" in sortable("Location")
