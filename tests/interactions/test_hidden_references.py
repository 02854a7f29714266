"""A reference to a hidden row is hidden too: it is not returned, searchable or sortable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served

HIDDEN = {"reference": "Observation/teen-preliminary-crp"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    feed = server.token()
    body = {**server.get(feed, "Observation/teen-hemoglobin").json, "derivedFrom": [HIDDEN]}
    assert server.request(feed, "PUT", "Observation/teen-hemoglobin", body=body).status == 200
    yield server
    server.close()


BASE = "http://127.0.0.1:8000/fhir"
SPELLINGS = (
    "Observation/teen-preliminary-crp",
    r"Observation\/teen-preliminary-crp",
    r"\u004fbservation/teen-preliminary-crp",
    f"{BASE}/Observation/teen-preliminary-crp",
    f"{BASE}/Observation/teen-preliminary-crp".replace("/", r"\/"),
    f"{BASE}/Observation/teen-preliminary-crp".replace("h", r"\u0068"),
)


@pytest.mark.parametrize("name", ['"reference"', r'"ref\u0065rence"'])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("bundled", [False, True])
def test_json_escaped_references_are_recognized(served: Served, name: str, spelling: str, bundled: bool) -> None:
    """Many programs escape the slashes of a URL in JSON."""
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    row = {
        name: value for name, value in served.get(feed, "Observation/teen-hemoglobin").json.items() if name not in ("derivedFrom", "meta")
    }
    text = json.dumps(row | {"id": "spelt", "derivedFrom": "HERE"}).replace(
        '"HERE"', f'[{{{name}: "{spelling}", "display": "caf\\u00e9"}}]'
    )
    entry = f'{{"resource": {text}, "request": {{"method": "PUT", "url": "Observation/spelt"}}}}'
    bundle = f'{{"resourceType": "Bundle", "type": "transaction", "entry": [{entry}]}}'
    method, path, body = ("POST", "", bundle) if bundled else ("PUT", "Observation/spelt", text)
    assert served.request(feed, method, path, body=body.encode()).status in (200, 201)
    assert served.get(feed, "Observation/spelt").json["derivedFrom"] == [HIDDEN | {"display": "café"}]
    assert "derivedFrom" not in served.get(parent, "Observation/spelt").json
    assert served.get(parent, "Observation/spelt").status == 200
    assert served.request(feed, "DELETE", "Observation/spelt").status == 204  # other tests count the rows


def test_reference_with_version_is_guarded_and_other_suffixes_are_refused(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    row = {
        name: value for name, value in served.get(feed, "Observation/teen-hemoglobin").json.items() if name not in ("derivedFrom", "meta")
    }
    for suffix, status in (("/_history/1", 201), ("#part", 400), ("?part=1", 400)):
        body = row | {"id": "spelt", "derivedFrom": [{"reference": HIDDEN["reference"] + suffix}]}
        answer = served.request(feed, "PUT", "Observation/spelt", body=body)
        assert answer.status == status, suffix
        assert status == 201 or answer.json["issue"][0]["expression"] == ["Observation.derivedFrom[0].reference"]
    assert "derivedFrom" in served.get(feed, "Observation/spelt").json
    assert "derivedFrom" not in served.get(parent, "Observation/spelt").json
    assert served.request(feed, "DELETE", "Observation/spelt").status == 204


@pytest.mark.parametrize("base", ["", f"{BASE}/"])
def test_attachment_url_is_shown_only_if_its_target_is_visible(served: Served, base: str) -> None:
    feed, patient = served.token(), served.app_token("adult", "adult")
    about = {"subject": {"reference": "Patient/adult"}}
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"}, **about}
    later = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2030-01-01T00:00:00Z"}]
    for row in (report | {"id": "to-come", "extension": later}, report | {"id": "come"}):
        served.request(feed, "PUT", f"DiagnosticReport/{row['id']}", body=row)
    document = {"resourceType": "DocumentReference", "id": "attached", "status": "current", **about}
    for url, shown in ((f"{base}DiagnosticReport/to-come", False), (f"{base}DiagnosticReport/come", True), ("https://x.example/1", True)):
        body = document | {"content": [{"attachment": {"url": url, "title": "A paper"}}]}
        assert served.request(feed, "PUT", "DocumentReference/attached", body=body).status in (200, 201)
        assert served.get(feed, "DocumentReference/attached").json["content"][0]["attachment"]["url"] == url  # unchanged
        answer = served.get(patient, "DocumentReference/attached")
        # Without its only content the document would not be valid R4.
        assert answer.status == (200 if shown else 404) and (url in answer.body.decode()) is shown, url
    assert served.request(feed, "DELETE", "DocumentReference/attached").status == 204


def test_unresolvable_json_escaped_reference_returns_422(served: Served) -> None:
    token = served.token("demo-public", "user/*.cruds", "clinician")
    seen = r'"http:\/\/127.0.0.1:8000\/fhir\/Observation\/teen-hemoglobin"'
    for spelling, status in ((seen, 201), (seen.replace("teen-hemoglobin", "never-was"), 422), (r'"Observation\/never-was"', 422)):
        text = r'{"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient\/teen"},'
        body = (text + f' "derivedFrom": [{{"reference": {spelling}}}]}}').encode()
        assert served.request(token, "POST", "Observation", body=body).status == status, spelling


def found(served: Served, token: str, query: str) -> bool:
    return "teen-hemoglobin" in served.all_ids(token, f"Observation?{query}&_count=1000")


@pytest.mark.parametrize("user", ["parent-a", "backend"])
def test_search_by_reference_requires_a_visible_target(served: Served, user: str) -> None:
    sees = user == "backend"
    token = served.token() if sees else served.app_token(user, "teen")
    body: dict[str, Any] = served.get(token, "Observation/teen-hemoglobin").json
    assert ("derivedFrom" in body) is sees
    assert found(served, token, "derived-from=Observation/teen-preliminary-crp") is sees
    assert served.get(token, "Observation?derived-from=Observation/teen-preliminary-crp&_summary=count").json["total"] == int(sees)
    assert bool(served.get(token, "Observation?_id=teen-preliminary-crp&_revinclude=Observation:derived-from").ids()) is sees


def test_query_that_depends_on_hidden_targets_returns_400(served: Served) -> None:
    parent, feed = served.app_token("parent-a", "teen"), served.token()
    for query in ("derived-from:missing=true", "derived-from:missing=false", "_sort=derived-from", "encounter:missing=true"):
        assert served.get(parent, f"Observation?{query}").status == 400, query
        assert served.get(feed, f"Observation?{query}").status == 200, query
    assert served.get(parent, "Observation?value-quantity:missing=true&_sort=-date,code").status == 200


def test_references_to_visible_targets_are_searchable(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    assert served.all_ids(parent, "Observation?encounter=Encounter/teen-well-visit")
    assert served.all_ids(parent, "Observation?patient=teen") == served.all_ids(parent, "Observation?subject=Patient/teen") != []
    assert served.all_ids(parent, "Observation?patient=adult") == []


@pytest.mark.parametrize("url", ("Binary/unseen", f"{BASE}/Binary/unseen"))
def test_the_url_of_a_hidden_attachment_has_no_part_in_the_order(url: str) -> None:
    served = seeded()
    feed, own = served.token(), served.app_token("adult", "adult", "patient/*.rs")
    later = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2030-01-01T00:00:00Z"}]
    result = {**served.get(feed, "Observation/adult-hemoglobin").json, "id": "later", "extension": later}
    binary = {"contentType": "text/plain", "securityContext": {"reference": "Observation/later"}, "data": "eA=="}
    category = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
    document = {
        "status": "current", "type": {"coding": [{"system": "http://loinc.org", "code": "34117-2"}]},
        "category": [{"coding": [{"system": category, "code": "clinical-note"}]}], "subject": {"reference": "Patient/adult"},
    }  # fmt: skip

    def put(name: str, body: dict[str, Any]) -> None:
        type, _, id = name.partition("/")
        answer = served.request(feed, "PUT", name, body={**body, "resourceType": type, "id": id})
        assert answer.status in (200, 201), answer.body

    put("Observation/later", {name: value for name, value in result.items() if name != "meta"})
    put("Binary/unseen", binary)
    for id, urls in (("first", ["http://other.example/x"]), ("second", [url, "http://zzz.example/x"])):
        contents = [{"attachment": {"contentType": "text/plain", "url": one, "title": "x"}} for one in urls]
        put(f"DocumentReference/{id}", {**document, "content": contents})
    shown = served.get(own, "DocumentReference/second").json
    assert [one["attachment"]["url"] for one in shown["content"]] == ["http://zzz.example/x"]
    for query, found in (
        ("_sort=location", ["first", "second"]), ("_sort=-location", ["second", "first"]), (f"location={url}", []),
    ):  # fmt: skip
        assert served.get(own, f"DocumentReference?_id=first,second&{query}").ids() == found, query
    assert served.get(feed, "DocumentReference?_id=first,second&location=" + url).ids() == ["second"]
    served.close()
