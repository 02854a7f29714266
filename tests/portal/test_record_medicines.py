"""Prescriptions and statements of one medicine are one entry; each of them can still be found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.portal.record_environment import RecordPages
from tests.portal.test_record_home import of

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
Row = dict[str, Any]


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def drug(code: str, text: str) -> Row:
    return {"medicationCodeableConcept": {"coding": [{"system": RXNORM, "code": code}], "text": text}}


def order(id: str, **more: Any) -> Row:
    row = {"resourceType": "MedicationRequest", "id": id, "status": "active", "intent": "order", "authoredOn": "2026-09-01"}
    return row | of("adult") | more


def statement(id: str, **more: Any) -> Row:
    row = {"resourceType": "MedicationStatement", "id": id, "status": "active", "effectiveDateTime": "2026-08-01"}
    return row | of("adult") | more


def entries(site: RecordPages, username: str = "adult", name: str = "Alex") -> tuple[list[set[str]], list[set[str]]]:
    """The ids in each entry: current, then ended."""
    reader = site.reader(username)
    page = reader.page(f"{reader.address(name)}/medicines")
    current, ended = page.partition("<h2>Current</h2>")[2].partition("<h2>Ended</h2>")[::2]
    return ids(current), ids(ended.partition("<h2>")[0])


def ids(part: str) -> list[set[str]]:
    return [set(re.findall(r'id="(Medication[A-Za-z]+-[^"]+)"', entry)) for entry in part.split("<li>")[1:]]


def test_one_medicine_is_one_entry_by_its_coding(site: RecordPages) -> None:
    current, _ = entries(site)
    assert {"MedicationStatement-adult-atorvastatin", "MedicationRequest-adult-atorvastatin-order"} in current
    assert {"MedicationStatement-adult-lisinopril"} in current, "another medicine is another entry"


def test_a_statement_joins_the_order_that_it_is_based_on_whatever_they_call_it(site: RecordPages) -> None:
    site.write(order("o1", **drug("111", "zz brand")))
    site.write(statement("s1", basedOn=[{"reference": "MedicationRequest/o1"}], **drug("222", "zz generic")))
    site.write(statement("s2", derivedFrom=[{"reference": "MedicationStatement/s1"}], **drug("333", "zz own words")))
    assert {"MedicationRequest-o1", "MedicationStatement-s1", "MedicationStatement-s2"} in entries(site)[0]


def test_what_is_current_in_any_part_is_current_once(site: RecordPages) -> None:
    site.write(order("o2", status="completed", **drug("444", "zz drug")))
    site.write(statement("s3", **drug("444", "zz drug")))
    current, ended = entries(site)
    both = {"MedicationRequest-o2", "MedicationStatement-s3"}
    assert both in current and not any(both & entry for entry in ended)


def test_what_has_ended_comes_after_what_is_current(site: RecordPages) -> None:
    assert {"MedicationStatement-adult-doxycycline"} in entries(site)[1]


def test_a_medicine_by_text_alone_joins_nothing(site: RecordPages) -> None:
    site.write(order("o3", medicationCodeableConcept={"text": "zz herb"}))
    site.write(statement("s4", medicationCodeableConcept={"text": "zz herb"}))
    current, _ = entries(site)
    assert {"MedicationRequest-o3"} in current and {"MedicationStatement-s4"} in current


def test_a_prescription_not_to_take_a_medicine_says_so_within_the_entry(site: RecordPages) -> None:
    site.write(order("o4", doNotPerform=True, **drug("555", "zz poison")))
    reader = site.reader("adult")
    assert "Do not take: zz poison" in reader.page(f"{reader.address('Alex')}/medicines")


def test_each_row_that_the_searches_give_is_in_one_entry(site: RecordPages) -> None:
    """Nothing is lost or said twice, also for a parent who sees a part."""
    for username, patient, name in (("adult", "adult", "Alex"), ("parent-a", "teen", "Toni"), ("proxy-standard", "adult", "Alex")):
        token = site.served.app_token(username, patient)
        found: list[str] = []
        for type in ("MedicationRequest", "MedicationStatement"):
            answer = site.served.get(token, f"{type}?patient={patient}&status:not=entered-in-error&_count=200")
            found += [f"{type}-{id}" for id in answer.ids(type)]
        shown = [id for part in entries(site, username, name) for entry in part for id in entry]
        assert sorted(shown) == sorted(found) and found


def test_an_entry_holds_nothing_of_what_the_reader_may_not_see(site: RecordPages) -> None:
    """The teenager's hidden order of a medicine that the parent sees in a statement."""
    secret = {"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}}
    before = entries(site, "parent-a", "Toni")
    site.write(order("hidden-order", subject={"reference": "Patient/teen"}, **drug("435", "albuterol"), **secret))
    assert entries(site, "parent-a", "Toni") == before
