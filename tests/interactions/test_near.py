"""Locations are found around a point, also after an upgrade and through references."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.maintenance.relabel import relabel_store
from fhir_server.search import index
from fhir_server.search.parameter_types import PARAMETER_TYPES
from tests.served import Served

PLACES = {"berlin": (52.52, 13.405), "potsdam": (52.3906, 13.0645), "boston": (42.36, -71.06)}


def _filled() -> Served:
    server = Served()
    feed = server.token()
    for id, (latitude, longitude) in PLACES.items():
        place: dict[str, Any] = {"resourceType": "Location", "id": id, "position": {"latitude": latitude, "longitude": longitude}}
        assert server.request(feed, "PUT", f"Location/{id}", body=place).status == 201
    visit: dict[str, Any] = {"resourceType": "Encounter", "id": "away", "status": "finished", "class": {"code": "AMB"}}
    visit |= {"subject": {"reference": "Patient/adult"}, "location": [{"location": {"reference": "Location/boston"}}]}
    assert server.request(feed, "PUT", "Encounter/away", body=visit).status == 201
    return server


def _found(server: Served, token: str, value: str) -> set[str]:
    return set(server.get(token, f"Location?near={value}").ids()) & PLACES.keys()


def test_locations_are_found_around_a_point_by_everyone() -> None:
    server = _filled()
    for token in (server.token(), server.app_token("adult", "adult", "patient/*.rs user/Location.rs")):
        assert _found(server, token, "52.4%7C13.1%7C50%7Ckm") == {"berlin", "potsdam"}
        assert _found(server, token, "52.4%7C13.1") == {"potsdam"}
        assert _found(server, token, "52.4%7C13.1,42.36%7C-71.06%7C1%7C%5Bmi_i%5D") == {"potsdam", "boston"}
    feed = server.token()
    assert server.get(feed, "Encounter?location.near=42.36%7C-71.06&_id=away").ids() == ["away"]
    assert server.get(feed, "Encounter?location.near=52.4%7C13.1&_id=away").ids() == []
    assert server.get(feed, "Location?near:missing=true&_id=berlin").ids() == []
    server.close()


def test_locations_of_an_earlier_version_are_found_after_relabel(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = index.entries
    kind = PARAMETER_TYPES["special"].entry
    monkeypatch.setattr(index, "entries", lambda *what: tuple(entry for entry in exact(*what) if entry.kind != kind))
    server = _filled()
    monkeypatch.setattr(index, "entries", exact)
    feed = server.token()
    assert _found(server, feed, "52.4%7C13.1") == set()
    server.run(relabel_store(server.parts.store, server.parts.labeler, server.settings.base, server.parts.clock()))
    assert _found(server, feed, "52.4%7C13.1") == {"potsdam"}
    server.close()
