"""Search parameters that staff add: used once stored rows are indexed, refused until then, and taken away with their definition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.maintenance.erase import ErasedResource, _erase
from fhir_server.store import Store
from fhir_server.writing import indexing_steps
from fhir_server.writing.indexing_steps import WORK, Indexing, index_all, index_next
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = seeded(store_url(request.param, tmp_path))
    yield made
    made.close()


def definition(id: str = "nick", **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "SearchParameter", "id": id, "url": f"http://x.example/{id}", "name": "X", "status": "active",
        "description": "A parameter.", "code": "nickname", "base": ["Patient"], "type": "string",
        "expression": "Patient.name.where(use='nickname').given", **changes,
    }  # fmt: skip


def put(served: Served, body: dict[str, Any]) -> Answer:
    return served.request(served.token(), "PUT", f"{body['resourceType']}/{body['id']}", body=body)


def patient(id: str, nickname: str, **more: Any) -> dict[str, Any]:
    names = [{"use": "official", "family": "Doe", "given": ["Jonathan"]}, {"use": "nickname", "given": [nickname]}]
    return {"resourceType": "Patient", "id": id, "name": names, "birthDate": "1980-01-01", **more}


def index(served: Served) -> None:
    served.run(index_all(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock))


def step(served: Served) -> Indexing | None:
    return served.run(index_next(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock))


async def erase_record(store: Store, patient: str) -> list[ErasedResource]:
    name = ("Patient", patient)
    return await _erase(store, [name], {name: ""}, patient)


def ids(served: Served, query: str) -> list[str]:
    answer = served.get(served.token(), query)
    assert answer.status == 200, answer.body
    return sorted(answer.ids())


def test_a_parameter_is_refused_until_stored_rows_are_indexed_and_then_finds_them_all(served: Served) -> None:
    assert put(served, patient("before", "Jonny")).status == 201
    assert put(served, definition()).status == 201
    assert put(served, patient("meanwhile", "Jonny")).status == 201
    for query in (
        "Patient?nickname=jon", "Patient?nickname:missing=true", "Patient?_sort=nickname", "Observation?subject:Patient.nickname=jon",
        "Observation?subject.nickname=jon", "Patient?_filter=nickname eq jon", "RelatedPerson?_has:Patient:link:nickname=x",
    ):  # fmt: skip
        answer = served.get(served.token(), query.replace(" ", "%20"), prefer="handling=lenient")
        assert answer.status == 400, (query, answer.body)
    assert "not ready" in served.get(served.token(), "Patient?nickname=jon").body.decode()
    index(served)
    assert put(served, patient("after", "Jonny")).status == 201
    assert ids(served, "Patient?nickname=jon") == ["after", "before", "meanwhile"]
    assert ids(served, "Patient?nickname:exact=Jonny&_id=before") == ["before"]
    assert ids(served, "Patient?nickname=official") == []
    assert {"before", "adult"} & {*ids(served, "Patient?nickname:missing=true&_count=1000")} == {"adult"}
    order = served.get(served.token(), "Patient?_sort=-nickname&_count=3").ids()
    assert {*order} == {"after", "before", "meanwhile"}


def test_the_capability_statement_names_it(served: Served) -> None:
    def parameters() -> dict[str, str]:
        statement = served.get(None, "metadata").json
        one = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Patient")
        return {parameter["name"]: parameter["type"] for parameter in one["searchParam"]}

    assert "nickname" not in parameters()
    put(served, definition())
    assert "nickname" not in parameters()
    index(served)
    assert parameters()["nickname"] == "string"
    assert "nickname" in served.get(None, "openapi.json?type=Patient").body.decode()
    assert served.request(served.token(), "DELETE", "SearchParameter/nick").status == 204
    assert "nickname" not in parameters()


@pytest.mark.parametrize("end", ("delete", "retire", "rename"))
def test_it_ends_with_its_definition(served: Served, end: str) -> None:
    put(served, definition())
    put(served, patient("one", "Jonny"))
    index(served)
    assert ids(served, "Patient?nickname=jon") == ["one"]
    changed = {"retire": definition(status="retired"), "rename": definition(code="petname")}
    ended = served.request(served.token(), "DELETE", "SearchParameter/nick") if end == "delete" else put(served, changed[end])
    assert ended.status in (200, 204)
    answer = served.get(served.token(), "Patient?nickname=jon")
    assert (answer.status, "no search parameter" in answer.body.decode()) == (400, True)
    put(served, patient("two", "Jonny"))
    put(served, definition())
    assert served.get(served.token(), "Patient?nickname=jon").status == 400
    index(served)
    assert ids(served, "Patient?nickname=jon") == ["one", "two"]


def test_another_expression_with_the_same_code_never_finds_by_the_former_one(served: Served) -> None:
    put(served, definition())
    put(served, patient("one", "Jonny"))
    index(served)
    put(served, definition(expression="Patient.name.where(use='official').given"))
    assert served.get(served.token(), "Patient?nickname=jon").status == 400
    index(served)
    assert ids(served, "Patient?nickname=jonny") == []
    assert ids(served, "Patient?nickname=jonathan") == ["one"]


def test_a_change_of_words_alone_needs_no_indexing(served: Served) -> None:
    put(served, definition())
    index(served)
    assert put(served, definition(description="Other words.")).status == 200
    assert step(served) is None
    assert ids(served, "Patient?nickname=jon") == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    (
        ({"expression": "Patient.name.given.first()"}, "not in the FHIRPath subset"),
        ({"expression": "Patient.nam"}, "no element 'nam'"),
        ({"expression": "Person.name.given"}, "begin with one of its bases"),
        ({"expression": "Patient.name.given | Person.name.given"}, "begin with one of its bases"),
        ({"expression": "Patient.contained"}, "no element 'contained'"),
        ({"expression": "Patient.text.div"}, "no element 'text'"),
        ({"code": "family"}, "already has"),
        ({"code": "_text"}, "must be a letter"),
        ({"code": "a.b"}, "must be a letter"),
        ({"type": "date"}, "does not take values of type 'string'"),
        ({"type": "composite"}, "not supported"),
        ({"type": "special"}, "not supported"),
        ({"type": "reference", "expression": "Patient.link.other"}, "target types"),
        ({"base": ["Resource"], "expression": "Resource.id"}, "cannot be its base"),
        ({"base": ["AuditEvent"], "expression": "AuditEvent.outcomeDesc"}, "cannot be its base"),
        ({"base": ["Patient", "Person"]}, "in each of its bases"),
    ),
)
def test_what_cannot_be_answered_exactly_is_refused_with_the_reason(feed_served: Served, changes: dict[str, Any], reason: str) -> None:
    answer = put(feed_served, definition("bad", **changes))
    assert (answer.status, reason in answer.body.decode()) == (422, True), answer.body
    assert feed_served.get(feed_served.token(), "SearchParameter/bad").status in (404, 410)
    assert put(feed_served, definition("bad", **changes, status="draft")).status == 201
    assert feed_served.request(feed_served.token(), "DELETE", "SearchParameter/bad").status == 204


@pytest.fixture(scope="module")
def feed_served() -> Iterator[Served]:
    made = seeded()
    yield made
    made.close()


def test_two_definitions_of_one_code_are_refused_unless_they_say_the_same(served: Served) -> None:
    put(served, definition("one"))
    put(served, patient("p", "Jonny"))
    index(served)
    assert put(served, definition("other", expression="Patient.name.given")).status == 422
    assert put(served, definition("same")).status == 201
    assert ids(served, "Patient?nickname=jon") == ["p"]
    assert served.request(served.token(), "DELETE", "SearchParameter/one").status == 204
    assert ids(served, "Patient?nickname=jon") == ["p"]


def test_values_of_extensions_are_found_by_their_url(served: Served) -> None:
    expression = f"Patient.extension.where(url = '{RACE}').extension.value.code"
    put(served, definition("race", code="race", type="token", expression=expression))
    coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2054-5"}
    race = {"url": RACE, "extension": [{"url": "ombCategory", "valueCoding": coding}, {"url": "text", "valueString": "2028-9"}]}
    other = {"url": "http://x.example/other", "extension": [{"url": "ombCategory", "valueCoding": coding}]}
    put(served, patient("one", "x", extension=[race]))
    put(served, patient("two", "x", extension=[other]))
    index(served)
    assert ids(served, "Patient?race=2054-5") == ["one"]
    assert ids(served, "Patient?race=2028-9") == []


def test_a_transaction_that_defines_it_indexes_its_own_rows(served: Served) -> None:
    parts = [patient("first", "Jonny"), definition(), patient("last", "Jonny")]
    entries = [{"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}} for one in parts]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert served.request(served.token(), "POST", "", body=bundle).status == 200
    index(served)
    assert ids(served, "Patient?nickname=jon") == ["first", "last"]


def test_indexing_goes_on_after_the_row_at_its_place_was_deleted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.writing.indexing_steps._PAGE", 2)
    for number in range(7):
        put(served, patient(f"p{number}", "Jonny"))
    put(served, definition())
    work = step(served)
    assert work is not None and work.after is not None
    assert served.request(served.token(), "DELETE", f"Patient/{work.after.id}").status == 204
    index(served)
    assert len(ids(served, "Patient?nickname=jon&_count=50")) == 7 - work.after.id.startswith("p")


def test_a_server_does_the_work_and_says_how_far_it_is(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, labeler, base = served.parts.store, served.parts.labeler, served.settings.base
    for name, value in (("_PAUSE", 0), ("_PAGE", 2)):
        monkeypatch.setattr(indexing_steps, name, value)
    for number in range(3):
        put(served, patient(f"p{number}", "Jonny"))
    assert served.run(indexing_steps.progress(store)) == ""
    put(served, definition())
    assert "Patient.nickname" in served.run(indexing_steps.progress(store))
    step(served)
    assert "2 resources are indexed, now Patient" in served.run(indexing_steps.progress(store))
    assert served.run(indexing_steps.is_waiting(store))
    with caplog.at_level("INFO"):
        served.run(indexing_steps._work_off(store, labeler, base, served.parts.clock))
    assert "Search parameters are ready: Patient.nickname." in caplog.text
    assert not served.run(indexing_steps.is_waiting(store))
    assert ids(served, "Patient?nickname=jon") == ["p0", "p1", "p2"]


def test_an_erasure_leaves_no_place_in_the_work(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.writing.indexing_steps._PAGE", 1)
    for number in range(3):
        put(served, patient(f"p{number}", "Jonny"))
    put(served, definition())
    work = step(served)
    assert work is not None and work.after is not None
    erased = served.run(erase_record(served.parts.store, work.after.id))
    assert f"Patient/{work.after.id}" in [one.resource for one in erased]
    assert served.run(served.parts.store.key_values.list_all(WORK, 0)) == ()
    index(served)
    assert len(ids(served, "Patient?nickname=jon&_count=50")) == 3 - work.after.id.startswith("p")


@pytest.mark.parametrize("kind", ("sqlite", "mongodb"))
def test_all_servers_of_a_store_follow(kind: str, tmp_path: Path) -> None:
    url = store_url(kind, tmp_path)
    one, other = Served(url), Served(url, seeds=False)
    token = other.token()
    assert other.get(token, "Patient?nickname=jon").status == 400
    put(one, definition())
    put(other, patient("of-other", "Jonny"))
    assert "not ready" in other.get(token, "Patient?nickname=jon").body.decode()
    index(one)
    assert other.get(token, "Patient?nickname=jon").ids() == ["of-other"]
    put(other, patient("later", "Jonny"))
    assert ids(one, "Patient?nickname=jon") == ["later", "of-other"]
    assert one.request(one.token(), "DELETE", "SearchParameter/nick").status == 204
    assert "no search parameter" in other.get(token, "Patient?nickname=jon").body.decode()
    one.close()
    other.close()


def test_work_that_began_before_another_definition_does_not_complete_the_first_one_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing_steps, "_PAGE", 2)
    for number in range(5):
        put(served, patient(f"p{number}", "Jonny"))
    put(served, definition())
    step(served)
    put(served, definition(expression="Patient.name.where(use='official').given"))
    put(served, patient("meanwhile", "Jonny"))
    put(served, definition())
    while (work := step(served)) is not None and work.types:
        pass
    assert served.get(served.token(), "Patient?nickname=jon").status == 400
    index(served)
    assert "meanwhile" in ids(served, "Patient?nickname=jon&_count=50")


def test_a_restart_keeps_it(tmp_path: Path) -> None:
    url = store_url("sqlite", tmp_path)
    first = seeded(url)
    put(first, definition())
    put(first, patient("one", "Jonny"))
    index(first)
    first.close()
    again = Served(url, seeds=False)
    assert ids(again, "Patient?nickname=jon") == ["one"]
    again.close()
