"""The first page of a record: what is next, new, unread, waiting and owed, as the person's own searches give it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.portal.record.reading import PAGE, Found, RecordReader
from fhir_server.smart.core.persons import Person
from tests.portal.record_environment import Reader, RecordPages
from tests.portal.test_record_pages import ACT, LAB, SECRET

MINUTE = 60_000_000
RELEASE = "https://fhir-server.example/ig/StructureDefinition/release-at"
BALANCE = "https://fhir-server.example/ig/StructureDefinition/account-balance"
HELD = [{"url": RELEASE, "valueInstant": "2027-01-01T00:00:00Z"}]
Row = dict[str, Any]


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def of(patient: str) -> Row:
    return {"subject": {"reference": f"Patient/{patient}"}}


def result(id: str, patient: str = "adult", **more: Any) -> Row:
    code = {"coding": [{"system": "http://loinc.org", "code": "2345-7"}], "text": f"zz {id}"}
    when = {"effectiveDateTime": "2026-11-20", "valueString": "zz value"}
    return {"resourceType": "Observation", "id": id, "status": "final", "category": [LAB], "code": code, **when, **of(patient), **more}


def report(id: str, *members: str, patient: str = "adult") -> Row:
    results = [{"reference": f"Observation/{member}"} for member in members]
    coded = {"code": {"coding": [{"system": "http://loinc.org", "code": "24323-8"}], "text": f"zz {id}"}, "conclusion": "zz conclusion"}
    row = {"resourceType": "DiagnosticReport", "id": id, "status": "final", "effectiveDateTime": "2026-11-20", "result": results}
    return row | coded | of(patient)


def message(id: str, patient: str, recipient: str, **more: Any) -> Row:
    row = {"resourceType": "Communication", "id": id, "status": "completed", "sent": "2026-11-20T10:00:00Z", **of(patient), **more}
    return row | {"recipient": [{"reference": recipient}], "payload": [{"contentString": f"zz {id}"}]}


def task(id: str, patient: str, **more: Any) -> Row:
    row = {"resourceType": "Task", "id": id, "status": "requested", "intent": "order", "authoredOn": "2026-11-20T10:00:00Z"}
    return row | {"description": f"zz {id}", "for": {"reference": f"Patient/{patient}"}} | more


def account(id: str, patient: str, amount: str, **more: Any) -> Row:
    owed = [{"url": BALANCE, "valueMoney": {"value": float(amount), "currency": "USD"}}]
    subject = [{"reference": f"Patient/{patient}"}]
    return {"resourceType": "Account", "id": id, "status": "active", "extension": owed, "subject": subject} | more


def later(site: RecordPages, minutes: int = 1) -> None:
    site.served.at(site.served.parts.clock() + minutes * MINUTE)


def marked(page: str) -> list[str]:
    """The sections that the first page of a record marks as new, but for the messages, which are unread from the beginning."""
    return [one for one in re.findall(r'href="[^"]+/([a-z-]+)">[^<]+</a> <span class="mark new">', page) if one != "messages"]


def test_portal_f1_1_the_first_page_says_what_is_next_unread_waiting_and_owed(site: RecordPages) -> None:
    for row in (task("refill-asked", "adult"), task("refill-done", "adult", status="completed")):
        site.write(row)
    reader = site.reader("adult")
    page = reader.page(reader.address("Alex"))
    assert "1 unread message<" in page, "the answer of the practice; the person's own question is none"
    assert "zz refill-asked" in page and "zz refill-done" not in page
    assert "Balance: 124.50 USD" in page
    assert "7 December 2026" in page.partition("Next visit")[2].partition("</section>")[0]
    assert "zz refill-done" in reader.page(f"{reader.address('Alex')}/requests")


def test_what_the_view_leaves_out_is_said_once_on_each_page(site: RecordPages) -> None:
    reader = site.reader("parent-a")
    path = reader.address("Toni")
    for page in (reader.page(path), reader.page(f"{path}/results"), reader.page(f"{path}/medicines")):
        assert page.count('<p class="note">') == 1


def test_messages_are_unread_until_the_person_opens_them(site: RecordPages) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    assert "1 unread message<" in reader.page(path)
    reader.page(f"{path}/messages")
    assert "No unread messages" in reader.page(path)
    later(site)
    site.write(message("news", "adult", "Patient/adult"))
    site.write(message("not-to-me", "adult", "Practitioner/dr-rivera"))
    assert "1 unread message<" in reader.page(path)
    assert "2 unread" not in reader.page(path)


def test_a_section_is_new_for_each_account_apart(site: RecordPages) -> None:
    """What one parent has opened stays new for the other."""
    parents = [site.reader(name) for name in ("parent-a", "parent-b")]
    paths = [parent.address("Charlie") for parent in parents]
    for parent, path in zip(parents, paths, strict=True):
        assert marked(parent.page(path)) == []
        parent.page(f"{path}/results")
    later(site)
    site.write(result("just-in", "child"))
    assert [marked(parent.page(path)) for parent, path in zip(parents, paths, strict=True)] == [["results"], ["results"]]
    assert 'class="mark new"' in parents[0].page(f"{paths[0]}/results"), "the row is marked on the way in"
    later(site)
    assert [marked(parent.page(path)) for parent, path in zip(parents, paths, strict=True)] == [[], ["results"]]
    assert 'class="mark new"' not in parents[0].page(f"{paths[0]}/results")


def test_a_page_of_older_entries_does_not_count_as_opening(site: RecordPages) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    reader.page(f"{path}/results")
    later(site)
    site.write(result("just-in"))
    later(site)
    reader.page(f"{path}/results?list=reports")
    assert marked(reader.page(path)) == ["results"]


def test_portal_f1_5_a_result_appears_on_page_and_api_at_its_release_and_is_new_then(site: RecordPages) -> None:
    site.write(result("waits", extension=[{"url": RELEASE, "valueInstant": "2026-11-21T17:05:00Z"}]))
    reader, token = site.reader("adult"), site.served.app_token("adult", "adult")
    path = reader.address("Alex")
    for instant, seen in (("2026-11-21T17:04:59Z", False), ("2026-11-21T17:05:00Z", True)):
        site.served.at(instant)
        assert (site.served.get(token, "Observation/waits").status == 200) is seen
        page = reader.page(f"{path}/results?list=values")
        assert ("zz waits" in page) is seen
    reader.page(f"{path}/results")
    site.write(result("waits-too", extension=[{"url": RELEASE, "valueInstant": "2026-11-21T17:08:00Z"}]))
    later(site)
    reader.page(f"{path}/results")
    site.served.at("2026-11-21T17:08:00Z")
    page = reader.page(f"{path}/results")
    assert re.search(r"zz waits-too.*?mark new", page, re.DOTALL), "it arrived with its release, after the page was opened"


def test_a_section_is_shown_while_the_server_is_read_only(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> None:
        raise Problem("read_only", "The server is read-only.")

    reader = site.reader("adult")
    path = reader.address("Alex")
    monkeypatch.setattr(site.served.parts.store.key_values, "put_if_absent", refused)
    assert "Test results" in reader.page(f"{path}/results")


def test_portal_f1_2_and_3_hidden_rows_change_no_mark_and_no_number() -> None:
    """Two worlds: in one the teenager gets results, messages, requests and accounts that the parent does not see."""
    seen = []
    for patient in ("teen", "senior"):
        site = RecordPages()
        reader = site.reader("parent-a")
        path = reader.address("Toni")
        pages = [reader.page(path), *(reader.page(f"{path}/{name}") for name in ("results", "messages", "requests", "bills"))]
        later(site)
        secret = {"meta": {"security": [{"system": ACT, "code": "HIV"}]}}
        site.write(result(SECRET, patient, **secret))
        site.write(message(SECRET, patient, "RelatedPerson/parent-a-of-teen", extension=HELD))
        site.write(task(SECRET, patient, **secret))
        site.write(account(SECRET, patient, "1000", **secret))
        pages.append(reader.page(path))
        site.served.close()
        seen.append(pages)
    assert seen[0] == seen[1] and SECRET not in str(seen)


def test_control_visible_rows_change_marks_and_numbers(site: RecordPages) -> None:
    reader = site.reader("parent-a")
    path = reader.address("Toni")
    before = reader.page(path)
    for name in ("results", "messages", "requests", "bills"):
        reader.page(f"{path}/{name}")
    later(site)
    site.write(result("glucose", "teen", code={"coding": [{"system": "http://loinc.org", "code": "2345-7"}]}))
    site.write(message("hello", "teen", "RelatedPerson/parent-a-of-teen"))
    after = reader.page(path)
    assert "results" in marked(after) and "1 unread message<" in after and before != after


def first_pages_of_twins() -> list[str]:
    """What a parent sees of a record with a message that waits for its release, and without it."""
    pages = []
    for patient in ("teen", "senior"):
        site = RecordPages()
        reader = site.reader("parent-a")
        site.write(message(SECRET, patient, "RelatedPerson/parent-a-of-teen", extension=HELD))
        pages.append(reader.page(reader.address("Toni")))
        site.served.close()
    return pages


def test_a_number_that_another_view_counted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted leak: unread messages are counted as the treating clinician sees them."""
    with_secret, without = first_pages_of_twins()
    assert with_secret == without
    search = RecordReader.search

    async def leaking(reader: RecordReader, type: str, query: list[tuple[str, str]], cursor: str = "", count: int = PAGE) -> Found:
        if type != "Communication":
            return await search(reader, type, query, cursor, count)
        clinician = Person("clinician", practitioner="dr-rivera")
        caller = replace(reader.caller, person=clinician, fhir_user="Practitioner/dr-rivera", username="clinician")
        return await search(replace(reader, caller=caller), type, query, cursor, count)

    monkeypatch.setattr(RecordReader, "search", leaking)
    with_secret, without = first_pages_of_twins()
    assert with_secret != without


def test_each_account_of_a_person_who_was_not_there_yet_has_no_marks(site: RecordPages) -> None:
    reader: Reader = site.reader("proxy-full")
    assert marked(reader.page(reader.address("Alex"))) == []


def test_each_request_of_the_first_page_is_of_the_instant_at_which_it_is_opened(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may see what is decided at the instant of the request: one of a month ago would have the access of then."""
    asked: list[int] = []
    get = RecordReader._get

    async def noted(self: RecordReader, *what: Any, **how: Any) -> Any:
        asked.append(self.now)
        return await get(self, *what, **how)

    monkeypatch.setattr(RecordReader, "_get", noted)
    reader = site.reader("parent-a")
    reader.page(reader.address("Charlie"))
    assert len(asked) > 4 and set(asked) == {site.served.parts.smart.now()}


def test_a_sensitive_result_leaves_the_first_page_with_the_12th_birthday() -> None:
    born = date(2018, 6, 1)

    def shown(day: date) -> bool:
        site = RecordPages()
        try:
            child = site.served.get(site.served.token(), "Patient/child").json
            site.write(child | {"birthDate": born.isoformat()})
            when = (born.replace(year=born.year + 12) - timedelta(days=5)).isoformat()
            site.write(result("zz-value", "child", effectiveDateTime=when, meta={"security": [{"system": ACT, "code": "SEX"}]}))
            row = report("zz-secret", "zz-value", patient="child") | {"effectiveDateTime": when}
            site.write(row | {"meta": {"security": [{"system": ACT, "code": "SEX"}]}})
            site.served.at(int(datetime(day.year, day.month, day.day, 15, tzinfo=UTC).timestamp()) * 1_000_000)
            reader = site.reader("parent-a")
            return "zz zz-secret" in reader.page(reader.address("Charlie"))
        finally:
            site.served.close()

    birthday = born.replace(year=born.year + 12)
    assert [shown(birthday - timedelta(days=2)), shown(birthday + timedelta(days=10))] == [True, False]
