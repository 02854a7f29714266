"""``Composition/$document``: a valid document of what the caller sees, stored on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.interactions import document_bundle
from fhir_server.resources import validate
from tests.noninterference.planted_leaks import sighted, unlimited
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

LOINC = "http://loinc.org"


def result(id: str, **more: Any) -> dict[str, Any]:
    category = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
    return {"resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": LOINC, "code": "718-7"}]},
            "category": [category], "subject": {"reference": "Patient/adult"}, **more}  # fmt: skip


def composition(*entries: str) -> dict[str, Any]:
    sections = [{"title": "Results", "entry": [{"reference": f"Observation/{id}"}]} for id in entries]
    return {"resourceType": "Composition", "id": "letter", "status": "final", "title": "Letter", "date": "2026-11-01",
            "type": {"coding": [{"system": LOINC, "code": "34133-9"}]}, "subject": {"reference": "Patient/adult"},
            "author": [{"reference": "Organization/mercy-general"}], "section": sections}  # fmt: skip


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    feed = server.token()
    organization = {"resourceType": "Organization", "id": "mercy-general", "name": "Mercy"}
    for row in (organization, result("doc-open"), composition("doc-open")):
        assert server.request(feed, "PUT", f"{row['resourceType']}/{row['id']}", body=row).status in (200, 201)
    yield server
    server.close()


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    bundle = jsontext.parse(answer.body)
    assert bundle["type"] == "document" and validate.check("Bundle", bundle) == ()
    return [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in answer.json["entry"]]


WHOLE = ["Composition/letter", "Observation/doc-open", "Organization/mercy-general", "Patient/adult"]


def test_a_document_begins_with_the_composition_and_has_what_it_names(served: Served) -> None:
    feed = served.token()
    answer = served.get(feed, "Composition/letter/$document")
    assert names(answer) == WHOLE
    assert [entry["fullUrl"] for entry in answer.json["entry"]] == [f"{served.settings.base}/{name}" for name in WHOLE]
    for same in (
        "Composition/$document?id=letter",
        "Composition/$document?id=Composition/letter",
        "Composition/letter/$document?persist=false",
    ):
        assert served.get(feed, same).body == answer.body
    assert served.request(feed, "POST", "Composition/letter/$document").body == answer.body
    entry = {"request": {"method": "GET", "url": "Composition/letter/$document"}}
    batch = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": [entry]}).json
    assert batch["entry"][0]["resource"] == answer.json


def test_what_is_hidden_is_no_part_of_the_document(served: Served) -> None:
    feed, own = served.token(), served.app_token("adult", "adult")
    before = served.get(own, "Composition/letter/$document")
    assert names(before) == WHOLE
    assert served.request(feed, "PUT", "Observation/doc-hidden", body=result("doc-hidden") | {"status": "preliminary"}).status in (200, 201)
    assert served.request(feed, "PUT", "Composition/letter", body=composition("doc-open", "doc-hidden")).status == 200
    after = served.get(own, "Composition/letter/$document")
    assert (names(after), after.body) == (names(before), before.body)
    assert "Observation/doc-hidden" in names(served.get(feed, "Composition/letter/$document"))
    assert {served.get(own, f"Composition/{id}/$document").status for id in ("nothing", "x")} == {404}


def test_the_comparison_finds_a_document_that_holds_what_is_stored(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: the Composition as stored, with what it names."""
    whole = sighted(unlimited)(View.find_included)
    exact = document_bundle.referred

    async def referred(view: View, versions: Any, types: Any = None) -> Any:
        other = View(view._snapshot, view.permissions, view.now)
        other.find_included = whole.__get__(view)  # type: ignore[method-assign]
        stored = [await view._snapshot.read(seen.type, seen.id, await unlimited(view)) for seen in versions]
        return await exact(other, [msgspec.structs.replace(seen, body=row.body) for seen, row in zip(versions, stored, strict=True)], types)

    own = served.app_token("adult", "adult")
    right = served.get(own, "Composition/letter/$document")
    monkeypatch.setattr(document_bundle, "referred", referred)
    planted = served.get(own, "Composition/letter/$document")
    assert planted.body != right.body and "Observation/doc-hidden" in names(planted)


def test_persist_stores_the_bundle_for_who_may_write_it(served: Served) -> None:
    feed, own = served.token(), served.app_token("adult", "adult")
    body = {"resourceType": "Parameters", "parameter": [{"name": "persist", "valueBoolean": True}]}
    answer = served.request(feed, "POST", "Composition/letter/$document", body=body)
    stored = served.get(feed, answer.headers["location"].partition("/_history")[0])
    assert stored.status == 200 and stored.json["entry"] == answer.json["entry"]
    assert served.request(own, "POST", "Composition/letter/$document", body=body).status == 403
    assert served.get(feed, "Composition/letter/$document?persist=true").status == 400


@pytest.mark.parametrize(
    "path", ["Composition/$document", "Composition/letter/$document?id=letter", "Composition/letter/$document?graph=x",
             "Composition/letter/$document?persist=maybe", "Composition/letter/$document?colour=red", "Composition/$document?id=a/b/c"],
)  # fmt: skip
def test_parameters_are_r4s(served: Served, path: str) -> None:
    assert served.get(served.token(), path).status == 400
