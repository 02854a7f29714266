"""Checks each scenario file by read, search, history and include."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fhir_server import jsontext
from fhir_server.consent.security_labels import RESTRAINT
from fhir_server.resources import validate
from tests.seeded import seeded
from tests.served import Served, store_url

FILES = sorted(Path(__file__).parent.glob("*.yaml"))
STORES = ("memory:", "sqlite", "mongodb")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Served]]:
    """By kind of store.  Scenarios only read, so all of them share one; pytest would start another for each."""
    started: dict[str, Served] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(scope="module", params=STORES)
def served(request: pytest.FixtureRequest, servers: dict[str, Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    if request.param not in servers:
        url = store_url(request.param, tmp_path_factory.mktemp("store"))
        servers[request.param] = seeded(url, audit="batched")  # a line for each of the many answers would take as long as the answer
    return servers[request.param]


class Scenario:
    """One file, and the token of its persona."""

    def __init__(self, path: Path, served: Served) -> None:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.persona, self.patient, self.served = said["persona"], said["patient"], served
        self.types: dict[str, dict[str, list[str]]] = said["types"]
        self.redacted: dict[str, list[str]] = said.get("redacted") or {}
        self.unmentioned: dict[str, list[str]] = said.get("unmentioned") or {}
        self.token = self._token()

    def _token(self) -> str:
        if self.persona == "backend":
            return self.served.token()
        scope = "user/*.rs" if self.persona in ("clinician", "billing") else "patient/*.rs"
        return self.served.app_token(self.persona, self.patient, scope)

    def rows(self) -> Iterator[tuple[str, str, bool]]:
        for type, lists in self.types.items():
            yield from ((type, id, True) for id in lists["sees"])
            yield from ((type, id, False) for id in lists["withheld"])

    def sees(self, type: str) -> set[str]:
        return set(self.types[type]["sees"])

    def known(self, type: str) -> set[str]:
        """All rows of a type that concern this patient: what else an answer holds is somebody else's business here."""
        return self.sees(type) | set(self.types[type]["withheld"])

    def get(self, path: str) -> Any:
        return self.served.get(self.token, path)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def scenario(request: pytest.FixtureRequest, served: Served) -> Scenario:
    return Scenario(request.param, served)


def test_reads_return_visible_resources_and_404_for_withheld(scenario: Scenario) -> None:
    never = scenario.get("Observation/never-existed").body.replace(b"Observation/never-existed", b"")
    for type, id, seen in scenario.rows():
        answer = scenario.get(f"{type}/{id}?_format=json")  # a Binary too
        if seen:
            assert (answer.status, answer.json["id"]) == (200, id), f"{type}/{id}"
            assert issues(type, answer.body) == (), f"{type}/{id}"
        else:
            assert (answer.status, answer.body.replace(f"{type}/{id}".encode(), b"")) == (404, never), f"{type}/{id}"


def test_searches_return_exactly_the_visible_resources(scenario: Scenario) -> None:
    for type in scenario.types:
        for size in (2, 1000):
            found = scenario.served.all_ids(scenario.token, f"{type}?_count={size}")
            assert len(found) == len(set(found)), type
            assert set(found) & scenario.known(type) == scenario.sees(type), type


def test_posted_and_batched_searches_match_get_searches(scenario: Scenario) -> None:
    types = list(scenario.types)
    entries = [{"request": {"method": "GET", "url": f"{type}?_count=1000"}} for type in types]
    batch = scenario.served.request(scenario.token, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": entries})
    for type, entry in zip(types, batch.json["entry"], strict=True):
        posted = scenario.served.request(scenario.token, "POST", f"{type}/_search", form=[("_count", "1000")])
        got = scenario.get(f"{type}?_count=1000")
        assert posted.body == got.body, type
        assert entry["resource"] == got.json, type
        assert set(got.ids(type)) & scenario.known(type) == scenario.sees(type)


def test_totals_count_only_visible_resources(scenario: Scenario) -> None:
    for type in scenario.types:
        shown = len(scenario.served.all_ids(scenario.token, f"{type}?_count=1000"))
        counted = scenario.get(f"{type}?_summary=count").json
        assert counted["total"] == shown and "entry" not in counted, type
        assert scenario.get(f"{type}?_total=accurate&_count=1").json["total"] == shown, type


def test_includes_return_only_visible_resources(scenario: Scenario) -> None:
    for type, param in (
        ("Observation", "encounter"),
        ("DiagnosticReport", "result"),
        ("Observation", "subject"),
        ("MedicationStatement", "context"),
    ):
        if type in scenario.types:
            answer = scenario.get(f"{type}?_include={type}:{param}&_count=1000")
            _nothing_withheld(scenario, answer)


def test_reverse_includes_return_only_visible_resources(scenario: Scenario) -> None:
    for other, param in (
        ("Observation", "subject"),
        ("MedicationStatement", "subject"),
        ("Appointment", "patient"),
        ("Encounter", "subject"),
        ("Condition", "subject"),
        ("DocumentReference", "subject"),
    ):
        answer = scenario.get(f"Patient?_id={scenario.patient}&_revinclude={other}:{param}")
        _nothing_withheld(scenario, answer)
        if scenario.sees("Patient") and other in scenario.types:
            assert scenario.sees(other) <= set(answer.ids(other)), other


def test_history_is_available_only_for_visible_resources(scenario: Scenario) -> None:
    for type, id, seen in scenario.rows():
        answer = scenario.get(f"{type}/{id}/_history")
        if seen:
            assert answer.status == 200 and answer.json["total"] == 1 and answer.ids() == [id]
        else:
            assert answer.status in (404, 403), f"{type}/{id}"


def test_everything_returns_exactly_the_visible_resources(scenario: Scenario) -> None:
    path, found = f"Patient/{scenario.patient}/$everything?_count=7", []
    first = scenario.get(path)
    if not scenario.sees("Patient"):
        assert first.status == 404
        return
    while path:
        page = scenario.get(path).json
        found += [
            (entry["resource"]["resourceType"], entry["resource"]["id"]) for entry in page["entry"] if entry["search"]["mode"] == "match"
        ]
        path = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    assert len(found) == len(set(found))
    for type, id, seen in scenario.rows():
        if _owned(scenario, type, id):
            assert ((type, id) in found) is seen, f"{type}/{id}"


def test_withheld_elements_and_references_are_removed(scenario: Scenario) -> None:
    for name, elements in scenario.redacted.items():
        body = scenario.get(name).json
        assert not set(elements) & set(body), name
    for name, texts in scenario.unmentioned.items():
        text = scenario.get(name).body.decode()
        assert not [one for one in texts if one in text], name


def test_security_labels_are_returned_only_to_the_backend(scenario: Scenario) -> None:
    """A clinician sees one kind of label besides: a clinician's restraint."""
    restraint = RESTRAINT if scenario.persona == "clinician" else frozenset()
    for type in scenario.types:
        answer = scenario.get(f"{type}?_count=1000")
        if answer.status == 200 and scenario.persona != "backend":
            labels = [label for entry in answer.json.get("entry", []) for label in entry["resource"]["meta"].get("security", ())]
            assert {label["code"] for label in labels} <= restraint, type


@cache
def issues(type: str, body: bytes) -> tuple[Any, ...]:
    """What is wrong in a resource.  Most callers get the same bytes from all stores."""
    return validate.check(type, jsontext.parse(body))


def _nothing_withheld(scenario: Scenario, answer: Any) -> None:
    for type, lists in scenario.types.items():
        assert not set(lists["withheld"]) & set(answer.ids(type)), type


def _owned(scenario: Scenario, type: str, id: str) -> bool:
    """Whether a row is in the record by its deciding subject (and not, say, an entry of another person's Account)."""
    return True
