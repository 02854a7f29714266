"""A patient's app in the "single patient API" groups: the table of searches, test resources, and all pages of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.conformance.reference_search import Reading
from tests.conformance.suite_client import Server
from tests.ehr.environment import Ehr

PATIENT, OTHER = "adult", "senior"
SCOPE = "openid fhirUser launch/patient offline_access patient/*.rs"
WRITTEN_AT = "2026-11-21T14:30:00-05:00"
"""When the test resources are written, after the seed records."""
MAX_PAGES = 20
"""How many pages the test kit reads."""

_HERE = Path(__file__).parent
_TABLE: dict[str, Any] = yaml.safe_load((_HERE / "single_patient.yaml").read_text(encoding="utf-8"))
_ROWS: list[dict[str, Any]] = yaml.safe_load((_HERE / "single_patient_rows.yaml").read_text(encoding="utf-8"))
_COMMON = {"_id": Reading.parse("token id"), "_lastUpdated": Reading.parse("date meta.lastUpdated")}

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SearchedType:
    """A resource type of the table.

    ``readings``    how each search parameter reads a resource
    ``searches``    the combinations of parameters to test
    ``first``       the parameter that finds all resources that the app can see
    ``provenance``  whether _revinclude=Provenance:target is tested
    """

    type: str
    readings: Mapping[str, Reading]
    searches: tuple[tuple[str, ...], ...]
    first: str
    provenance: bool


def _searched_type(type: str, row: Mapping[str, Any]) -> SearchedType:
    searches = tuple(tuple(names.split()) for names in (*row["searches"], *row.get("should", ())))
    readings = {name: Reading.parse(text) for name, text in row["reads"].items()}
    return SearchedType(type, _COMMON | readings, searches, row.get("first", "patient"), row.get("provenance", False))


SEARCHED_TYPES = {type: _searched_type(type, row) for type, row in _TABLE["types"].items()}
SEARCHES = [(type, names) for type, kind in SEARCHED_TYPES.items() for names in kind.searches]
INCLUDES = [(type, name, element) for type, row in _TABLE["types"].items() for name, element in row.get("includes", {}).items()]
UNSUPPORTED = [tuple(name.split(".")) for name in _TABLE["left_out"]]


class Record:
    """The patient's app on a server with resources of every type, of this patient and of others."""

    def __init__(self, ehr: Ehr) -> None:
        self.served, self.base = ehr.served, ehr.smart.fhir_base
        self.served.at(WRITTEN_AT)
        self._feed = self.served.token()
        self._write(_ROWS)
        self.token: str = Server(ehr).launch(PATIENT, PATIENT, SCOPE)["access_token"]
        self._found: dict[str, list[dict[str, Any]]] = {}
        known = [type for type, kind in SEARCHED_TYPES.items() if kind.provenance]
        others = {type: self.search(type, [(SEARCHED_TYPES[type].first, OTHER)], token=self._feed) for type in known}
        self._write([_provenance(type, PATIENT, self.own_rows(type)) for type in known])
        self._write([_provenance(type, OTHER, others[type]) for type in known])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        entries = [{"resource": row, "request": {"method": "PUT", "url": f"{row['resourceType']}/{row['id']}"}} for row in rows]
        answer = self.served.request(self._feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status == 200, answer.body

    def own_rows(self, type: str) -> list[dict[str, Any]]:
        """All resources of a type that the app finds, by the first search of its group."""
        if type not in self._found:
            name = SEARCHED_TYPES[type].first
            self._found[type] = self.search(type, [(name, PATIENT)] if name else [])
        return self._found[type]

    @cached_property
    def all_rows(self) -> dict[str, list[dict[str, Any]]]:
        """All stored resources of each type."""
        return {type: self.search(type, [], token=self._feed) for type in SEARCHED_TYPES}

    def other_rows(self, type: str) -> list[dict[str, Any]]:
        """The resources of a type that the app does not find."""
        own = {row["id"] for row in self.own_rows(type)}
        return [row for row in self.all_rows[type] if row["id"] not in own]

    def search(self, type: str, pairs: Pairs, *, post: bool = False, token: str | None = None) -> list[dict[str, Any]]:
        """Return the matches on all pages of a search."""
        return [entry["resource"] for entry in self.entries(type, pairs, post=post, token=token) if entry["search"]["mode"] == "match"]

    def entries(self, type: str, pairs: Iterable[tuple[str, str]], *, post: bool = False, token: str | None = None) -> list[dict[str, Any]]:
        """Return the entries on all pages.  Asserts that each page is a valid searchset."""
        found: list[dict[str, Any]] = []
        path, form = (f"{type}/_search", list(pairs)) if post else (f"{type}?{urlencode(list(pairs))}", None)
        for _ in range(MAX_PAGES):
            answer = self.served.request(token or self.token, "POST" if form is not None else "GET", path, form=form)
            assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "application/fhir+json"), answer.body
            bundle = answer.json
            assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
            found += bundle.get("entry", [])
            path, form = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), ""), None
            if not path:
                return found
        raise AssertionError(f"{type} has more than {MAX_PAGES} pages")


def seeded_ids(type: str, patient: str) -> set[str]:
    """The ids of the test resources of this type about this patient."""
    return {row["id"] for row in _ROWS if row["resourceType"] == type and f"'Patient/{patient}'" in str(row)}


def _provenance(type: str, patient: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A Provenance of these resources."""
    return {
        "resourceType": "Provenance",
        "id": f"sp-{type}-{patient}",
        "target": [{"reference": f"{type}/{row['id']}"} for row in rows],
        "recorded": "2026-11-20T08:00:00-05:00",
        "agent": [{"who": {"reference": "Organization/demo-health"}}],
    }
