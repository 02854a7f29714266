"""A reference leads to its resource however it is written, at every door and in every store; or the write is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.resources.references import parse_reference
from fhir_server.resources.server_base import server_base
from tests.examples import examples
from tests.interactions.spellings import BASE, DOORS, legal, odd
from tests.seeded import seeded
from tests.served import Served, store_url

VISIT, CLINIC, TEST = "Encounter/teen-mh-visit", "Location/mental-health-clinic", "Observation/teen-hiv-screen"
CONDITIONAL = {f"{name.partition('/')[0]}?_id={name.partition('/')[2]}" for name in (VISIT, CLINIC, TEST)}
CONDITIONAL |= {f"{BASE}/{text}" for text in CONDITIONAL}


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


def measurement(reference: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": "spelt", "status": "final", "subject": {"reference": "Patient/teen"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "encounter": {"reference": reference},
    }  # fmt: skip


def visit(reference: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter", "id": "spelt", "status": "finished", "subject": {"reference": "Patient/teen"},
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "serviceType": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/service-type", "code": "124"}]},
        "location": [{"location": {"reference": reference}}],
    }  # fmt: skip


def report(reference: str) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport", "id": "spelt", "status": "final", "subject": {"reference": "Patient/teen"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "58410-2"}]}, "result": [{"reference": reference}],
    }  # fmt: skip


KINDS = {"visit of a measurement": (measurement, VISIT), "clinic of a visit": (visit, CLINIC), "result of a report": (report, TEST)}


def leads_home(served: Served, folder: Path, door: str, kind: str, spelling: str) -> bool:
    """Send it; return whether it was stored.  If so, it has the one spelling, and a parent does not learn of the hidden target."""
    resource, target = KINDS[kind][0](spelling), KINDS[kind][1]
    feed, name = served.token(), f"{resource['resourceType']}/spelt"
    stored = DOORS[door](served, resource, folder)
    found = served.get(feed, name)
    assert (found.status == 200) is stored, (door, spelling)
    if stored:
        text = found.body.decode()
        assert f'"reference":"{target}"' in text or f'"reference":"{target}/_history/1"' in text, (door, spelling)
        assert target.encode() not in served.get(served.app_token("parent-a", "teen"), name).body, (door, spelling)
        assert served.request(feed, "DELETE", name).status == 204
    return stored


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_reference_is_stored_in_one_spelling_or_refused(served: Served, tmp_path: Path, door: str, kind: str) -> None:
    target = KINDS[kind][1]
    every = examples(1, few=3) if served.settings.store == "memory:" else examples(6, few=12)
    spellings = (*legal(target), *odd(target)[::every])
    accepted = {spelling for spelling in spellings if leads_home(served, tmp_path, door, kind, spelling)}
    assert accepted >= set(legal(target)), "the control"
    assert f"/{target}" not in accepted and (f"{BASE}//{target}" in accepted) is (f"{BASE}//{target}" in spellings)
    resolves = "transaction" in door or "load" in door
    assert accepted & CONDITIONAL == (CONDITIONAL & set(spellings) if resolves else set())


PIECES = (
    "Encounter",
    "teen-mh-visit",
    "/",
    "//",
    ".",
    "..",
    "#",
    "?",
    "_history",
    "1",
    " ",
    "%2F",
    "\\",
    "fhir",
    BASE,
    "http:",
    "127.0.0.1:8000",
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(spelling=st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join), door=st.sampled_from(sorted(DOORS)))
def test_generated_spellings_never_open_a_hidden_visit(served: Served, tmp_path: Path, spelling: str, door: str) -> None:
    """What is stored either names the visit, and is hidden with it, or does not lead to it at all."""
    feed = served.token()
    if DOORS[door](served, measurement(spelling), tmp_path):
        reference = served.get(feed, "Observation/spelt").json["encounter"]["reference"]
        shown = served.get(served.app_token("parent-a", "teen"), "Observation/spelt").status == 200
        assert not (shown and reference.startswith(VISIT)), reference
        parsed = parse_reference(reference)
        assert parsed is not None and (reference.startswith(VISIT) or parsed.kind in ("absolute", "relative", "fragment"))
        assert server_base(BASE).relative(reference) is None, reference
        assert served.request(feed, "DELETE", "Observation/spelt").status == 204


@pytest.mark.parametrize(
    "spelling", [f"/{VISIT}", f"{VISIT}#part", "Encounter?_id=teen-mh-visit", "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"]
)
def test_refusal_names_the_place(served: Served, spelling: str) -> None:
    answer = served.request(served.token(), "POST", "Observation", body=measurement(spelling))
    assert answer.status == 400
    assert answer.json["issue"][0]["expression"] == ["Observation.encounter.reference"]


@pytest.mark.parametrize(
    "text", [r"Encounter\\/teen-mh-visit", r"Encounter/teen-mh-visit\"", r"Encounter/teen-mh-visit\n", r"\tEncounter/x"]
)
def test_escapes_that_json_requires_do_not_hide_a_reference(served: Served, text: str) -> None:
    body = str(measurement("HERE")).replace("'", '"').replace("HERE", text)
    assert served.request(served.token(), "POST", "Observation", body=body.encode()).status == 400


@pytest.mark.parametrize("spelling", [f"{BASE}//Binary/spelt-note", f"HTTP{BASE[4:]}/Binary/spelt-note/", f"{BASE}/%42inary/spelt-note"])
@pytest.mark.parametrize("escaped", [False, True])
def test_url_of_this_server_gets_its_one_spelling(served: Served, spelling: str, escaped: bool) -> None:
    feed = served.token()
    attachment = {"contentType": "text/plain", "url": "HERE"}
    row = {"resourceType": "DocumentReference", "id": "spelt", "status": "current", "content": [{"attachment": attachment}]}
    text = str(row | {"description": spelling}).replace("'", '"').replace("HERE", spelling.replace("/", r"\/") if escaped else spelling)
    assert served.request(feed, "PUT", "DocumentReference/spelt", body=text.encode()).status in (200, 201)
    stored = served.get(feed, "DocumentReference/spelt").json
    assert stored["content"][0]["attachment"]["url"] == f"{BASE}/Binary/spelt-note"
    assert stored["description"] == spelling  # a text is not a link


@pytest.mark.parametrize(
    ("url", "status"),
    [("/Binary/x", 400), ("./Binary/x", 400), ("Binary//x", 400), ("binary/x", 400), ("Binary/x/", 400),
    ("//127.0.0.1:8000/fhir/Binary/x", 400),
     ("Binary%2Fx", 400), ("Binary/x", 201), ("Binary/x#page=2", 201), ("letter.pdf", 201), ("scans/letter.pdf", 201)],
)  # fmt: skip
def test_relative_url_that_could_be_a_resource_must_be_exact(served: Served, url: str, status: int) -> None:
    row = {"resourceType": "DocumentReference", "status": "current", "content": [{"attachment": {"contentType": "text/plain", "url": url}}]}
    answer = served.request(served.token(), "POST", "DocumentReference", body=row)
    assert answer.status == status
    assert status == 201 or answer.json["issue"][0]["expression"] == ["DocumentReference.content[0].attachment.url"]


def test_foreign_urls_stay_as_written(served: Served) -> None:
    feed = served.token()
    for url in (
        "https://other.example/fhir/Encounter/teen-mh-visit",
        "https://other.example//fhir/Encounter/x/",
        "http://127.0.0.1:8001/fhir/Encounter/x",
    ):
        stored = served.request(feed, "POST", "Observation", body=measurement(url))
        assert (stored.status, stored.json["encounter"]["reference"]) == (201, url)


@pytest.mark.parametrize("spelling", legal("Patient/teen"))
def test_every_legal_spelling_leads_to_the_same_patient(served: Served, spelling: str) -> None:
    """In the compartment, in searches and includes, in $everything, in a group's export and for a parent."""
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    row = measurement("Encounter/teen-well-visit") | {"subject": {"reference": spelling}}
    assert served.request(feed, "PUT", "Observation/spelt", body=row).status in (200, 201)
    for token in (feed, parent):
        for subject in legal("Patient/teen"):
            assert "spelt" in served.all_ids(token, f"Observation?subject={subject}&_count=1000"), subject
        for query in ("Observation?patient=teen&_count=1000", f"Observation?subject=HTTP{BASE[4:]}//Patient/teen/&_count=1000"):
            assert "spelt" in served.all_ids(token, query)
        assert "spelt" in served.all_ids(token, "Patient/teen/$everything?_count=1000")
        assert "spelt" in served.get(token, "Patient?_id=teen&_revinclude=Observation:subject").ids("Observation")
    group = {"resourceType": "Group", "id": "spelt", "type": "person", "actual": True, "member": [{"entity": {"reference": spelling}}]}
    assert served.request(feed, "PUT", "Group/spelt", body=group).status in (200, 201)
    for query in ("Group/spelt/$export?_type=Observation", f"Patient/$export?_type=Observation&patient={BASE}/Patient/teen/_history/1"):
        started = served.get(feed, query, prefer="respond-async")
        done = served.get(feed, started.headers["content-location"])
        assert done.status == 200 and '"id":"spelt"' in served.get(feed, done.json["output"][0]["url"]).body.decode(), query
    assert served.request(feed, "DELETE", "Observation/spelt").status == 204


@pytest.mark.parametrize("version", ["", "/_history/1"])
def test_grant_counts_whether_or_not_it_names_versions(served: Served, version: str) -> None:
    feed, proxy = served.token(), served.app_token("proxy-full", "adult")
    for name in ("Consent/proxy-full-of-adult", "RelatedPerson/proxy-full-of-adult"):
        text = served.get(feed, name).body.decode()
        for target in ("Patient/adult", "RelatedPerson/proxy-full-of-adult"):
            text = text.replace(f'"reference":"{target}"', f'"reference":"{target}{version}"')
        assert served.request(feed, "PUT", name, body=text.encode()).status == 200
        assert f'Patient/adult{version}"' in served.get(feed, name).body.decode(), name
    assert served.get(proxy, "Patient/adult").status == 200
