"""A patient's app as the "single patient API" groups use it: the table of searches, its rows, and every page of an answer."""

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
LATER = "2026-11-21T14:30:00-05:00"
"""When our rows are written; the seeds' are older."""
PAGES = 20
"""How far the test kit follows ``next``."""

_HERE = Path(__file__).parent
_TABLE: dict[str, Any] = yaml.safe_load((_HERE / "single_patient.yaml").read_text(encoding="utf-8"))
_ROWS: list[dict[str, Any]] = yaml.safe_load((_HERE / "single_patient_rows.yaml").read_text(encoding="utf-8"))
_COMMON = {"_id": Reading.of("token id"), "_lastUpdated": Reading.of("date meta.lastUpdated")}

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type of the table: how parameters read it, what is asked of it, and what finds all of it."""

    type: str
    readings: Mapping[str, Reading]
    searches: tuple[tuple[str, ...], ...]
    first: str
    provenance: bool


def _kind(type: str, said: Mapping[str, Any]) -> Kind:
    searches = tuple(tuple(names.split()) for names in (*said["searches"], *said.get("should", ())))
    readings = {name: Reading.of(text) for name, text in said["reads"].items()}
    return Kind(type, _COMMON | readings, searches, said.get("first", "patient"), said.get("provenance", False))


KINDS = {type: _kind(type, said) for type, said in _TABLE["types"].items()}
SEARCHES = [(type, names) for type, kind in KINDS.items() for names in kind.searches]
INCLUDES = [(type, name, element) for type, said in _TABLE["types"].items() for name, element in said.get("includes", {}).items()]
LEFT_OUT = [tuple(name.split(".")) for name in _TABLE["left_out"]]


class Record:
    """The patient's app on a server that has rows of every type, of this patient and of others."""

    def __init__(self, ehr: Ehr) -> None:
        self.served, self.base = ehr.served, ehr.smart.fhir_base
        self.served.at(LATER)
        self._feed = self.served.token()
        self._write(_ROWS)
        self.token: str = Server(ehr).allowed(PATIENT, PATIENT, SCOPE)["access_token"]
        self._found: dict[str, list[dict[str, Any]]] = {}
        known = [type for type, kind in KINDS.items() if kind.provenance]
        others = {type: self.asked(type, [(KINDS[type].first, OTHER)], token=self._feed) for type in known}
        self._write([_provenance(type, PATIENT, self.own(type)) for type in known])
        self._write([_provenance(type, OTHER, others[type]) for type in known])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        entries = [{"resource": row, "request": {"method": "PUT", "url": f"{row['resourceType']}/{row['id']}"}} for row in rows]
        answer = self.served.request(self._feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status == 200, answer.body

    def own(self, type: str) -> list[dict[str, Any]]:
        """All that the app finds of a type: the first search of a group, on which all others build."""
        if type not in self._found:
            name = KINDS[type].first
            self._found[type] = self.asked(type, [(name, PATIENT)] if name else [])
        return self._found[type]

    @cached_property
    def written(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of each type, as the feed sees them."""
        return {type: self.asked(type, [], token=self._feed) for type in KINDS}

    def others(self, type: str) -> list[dict[str, Any]]:
        """The rows of the type that the app does not find."""
        own = {row["id"] for row in self.own(type)}
        return [row for row in self.written[type] if row["id"] not in own]

    def asked(self, type: str, pairs: Pairs, *, post: bool = False, token: str | None = None) -> list[dict[str, Any]]:
        """The matches on all pages of a search."""
        return [entry["resource"] for entry in self.entries(type, pairs, post=post, token=token) if entry["search"]["mode"] == "match"]

    def entries(self, type: str, pairs: Iterable[tuple[str, str]], *, post: bool = False, token: str | None = None) -> list[dict[str, Any]]:
        """The entries on all pages, each of which must be a sound answer."""
        found: list[dict[str, Any]] = []
        path, form = (f"{type}/_search", list(pairs)) if post else (f"{type}?{urlencode(list(pairs))}", None)
        for _ in range(PAGES):
            answer = self.served.request(token or self.token, "POST" if form is not None else "GET", path, form=form)
            assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "application/fhir+json"), answer.body
            bundle = answer.json
            assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
            found += bundle.get("entry", [])
            path, form = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), ""), None
            if not path:
                return found
        raise AssertionError(f"{type} has more than {PAGES} pages")


def given(type: str, patient: str) -> set[str]:
    """The ids of the rows of this type that are written about this patient."""
    return {row["id"] for row in _ROWS if row["resourceType"] == type and f"'Patient/{patient}'" in str(row)}


def _provenance(type: str, patient: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Who wrote these rows."""
    return {
        "resourceType": "Provenance",
        "id": f"sp-{type}-{patient}",
        "target": [{"reference": f"{type}/{row['id']}"} for row in rows],
        "recorded": "2026-11-20T08:00:00-05:00",
        "agent": [{"who": {"reference": "Organization/demo-health"}}],
    }
