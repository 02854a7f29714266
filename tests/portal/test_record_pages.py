"""The pages of a record show what an app would get, to nobody else, and nothing of what the person may not see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.display import build_row
from fhir_server.portal.record.reading import PAGE
from fhir_server.portal.record.sections import NOW, SECTIONS, Listing
from tests.portal.record_environment import Reader, RecordPages
from tests.served import Answer, micros
from tests.smart.environment import Browser

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
LAB = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
SECRET = "zzsecretword"
OWN = {"reference": "Patient/adult"}


@pytest.fixture(scope="module")
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def asked(site: RecordPages, token: str, patient: str, listing: Listing) -> Answer:
    """What an app gets that asks the same."""
    now = "2026-11-21T17:00:00Z"
    query = "&".join(f"{name}={quote(value.replace(NOW, now))}" for name, value in listing.query)
    return site.served.get(token, f"{listing.type}?patient={patient}&{query}&_count={PAGE}")


def matches(answer: Answer) -> list[dict[str, object]]:
    return [entry["resource"] for entry in answer.json.get("entry", ()) if entry["search"]["mode"] == "match"]


def shown(page: str) -> int:
    """How many entries a page has: rows, and values that are no part of a report."""
    without_members = re.sub(r"<dd>.*?</dd>", "<dd></dd>", page, flags=re.DOTALL)
    return without_members.count("<dd>") + without_members.count('<a class="what"')


@pytest.mark.parametrize(
    ("username", "patient", "name"),
    [("adult", "adult", "Alex"), ("parent-a", "child", "Charlie"), ("parent-a", "teen", "Toni"), ("proxy-standard", "adult", "Alex")],
)
def test_portal_f1_1_each_list_has_what_an_app_gets(site: RecordPages, username: str, patient: str, name: str) -> None:
    reader, token = site.reader(username), site.served.app_token(username, patient)
    path = next(path for known, path in reader.records().items() if name in known)
    total = 0
    for section in SECTIONS:
        for listing in section.listings:
            answer = asked(site, token, patient, listing)
            assert answer.status == 200, answer.body
            found = matches(answer)
            page = reader.page(f"{path}/{section.slug}?list={listing.slug}")
            assert shown(page) == len(found), (section.slug, listing.slug)
            total += len(found)
            for resource in found:
                assert str(resource["id"]) in page or build_row(resource).day in page
    assert total > 10


def test_portal_f1_1_all_lists_together_have_each_resource(site: RecordPages) -> None:
    """The lists of a type leave no resource out, whatever its status and category."""
    token = site.served.app_token("adult", "adult")
    by_type: dict[str, set[str]] = {}
    for listing in (listing for section in SECTIONS for listing in section.listings):
        by_type.setdefault(listing.type, set()).update(str(one["id"]) for one in matches(asked(site, token, "adult", listing)))
    for type, ids in by_type.items():
        answer = site.served.get(token, f"{type}?patient=adult&_count=200")
        withdrawn = {str(one["id"]) for one in matches(answer) if type != "ChargeItem" and "entered-in-error" in str(one)}
        assert ids == set(answer.ids(type)) - withdrawn, type


def all_pages(reader: Reader, path: str) -> dict[str, str]:
    """Every page of a record by its address, also those of values that its lists lead to."""
    pages = {path: reader.page(path)} | {f"{path}/{section.slug}": reader.page(f"{path}/{section.slug}") for section in SECTIONS}
    values = {found for page in pages.values() for found in re.findall(r'class="what" href="([^"]+)"', page)}
    return pages | {value: reader.page(value) for value in sorted(values)}


def hidden(number: int) -> dict[str, object]:
    """A result of the teenager that a parent does not see, in the middle of those the parent sees."""
    return {
        "resourceType": "Observation", "id": f"secret-{number}", "status": "final", "category": [LAB],
        "subject": {"reference": "Patient/teen"},
        "meta": {"security": [{"system": ACT, "code": "HIV"}]}, "effectiveDateTime": f"2026-09-1{number}",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}], "text": SECRET},
        "valueQuantity": {"value": 999, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
    }  # fmt: skip


def test_portal_f1_2_and_3_hidden_results_change_no_page_of_a_proxy() -> None:
    """Two worlds, one with hidden results of a kind that the parent sees: each page is the same, the trend too."""
    with_secrets, without = RecordPages(), RecordPages()
    for number in range(4):
        with_secrets.write(hidden(number))
    for number in range(4):  # as many writes at the same instants, of another patient
        without.write({**hidden(number), "subject": {"reference": "Patient/senior"}})
    seen = []
    for site in (with_secrets, without):
        reader = site.reader("parent-a")
        seen.append(all_pages(reader, reader.address("Toni")))
        site.served.close()
    assert seen[0] == seen[1] and len(seen[0]) > len(SECTIONS) + 5
    assert SECRET not in str(seen)


def test_portal_f1_2_control_the_hidden_result_is_on_the_pages_of_who_may_see_it(site: RecordPages) -> None:
    site.write({**hidden(1), "id": "own-secret", "subject": {"reference": "Patient/adult"}})
    reader = site.reader("adult")
    assert SECRET in reader.page(f"{reader.address('Alex')}/results")


def test_portal_f1_4_units_make_series_and_comparators_no_points(site: RecordPages) -> None:
    code = {"coding": [{"system": "http://loinc.org", "code": "2276-4", "display": "Ferritin"}]}
    values = [
        ("2026-01-01", "ng/mL", {"value": 50}),
        ("2026-02-01", "ng/mL", {"value": 61.50}),
        ("2026-03-01", "ng/mL", {"value": 10, "comparator": "<"}),
        ("2026-04-01", "pmol/L", {"value": 112}),
        ("2026-05-01", "pmol/L", {"value": 115}),
    ]
    for number, (day, unit, value) in enumerate(values):
        body = {"resourceType": "Observation", "id": f"ferritin-{number}", "status": "final", "category": [LAB], "code": code}
        system = {"system": "http://unitsofmeasure.org", "unit": unit, "code": unit}
        site.write({**body, "subject": {"reference": "Patient/adult"}, "effectiveDateTime": day, "valueQuantity": {**value, **system}})
    reader = site.reader("adult")
    page = reader.page(f"{reader.address('Alex')}/results/ferritin-0")
    assert page.count("<svg") == 2 and page.count("<circle") == 4
    assert "&lt; 10 ng/mL" in page and page.count('class="what"') == 1 + len(values)


def test_portal_f1_7_lists_of_visits_are_apart(site: RecordPages) -> None:
    appointment = {"resourceType": "Appointment", "participant": [{"actor": {"reference": "Patient/adult"}, "status": "accepted"}]}
    for id, status in (("to-come", "booked"), ("called-off", "cancelled")):
        site.write(
            {
                **appointment,
                "id": id,
                "status": status,
                "start": "2027-02-03T10:00:00Z",
                "end": "2027-02-03T10:30:00Z",
                "description": f"zz {id}",
            }
        )
    reader = site.reader("adult")
    path = f"{reader.address('Alex')}/visits?list="
    assert "zz to-come" in reader.page(path + "coming") and "zz called-off" not in reader.page(path + "coming")
    assert "zz called-off" in reader.page(path + "off") and "zz to-come" not in reader.page(path + "off")


def test_portal_f2_2_a_key_of_another_account_is_like_an_invented_one(site: RecordPages) -> None:
    parent, adult = site.reader("parent-a"), site.reader("adult")
    foreign, own = adult.open(parent.address("Toni")), adult.open("/r/invented")
    assert foreign.status_code == own.status_code == 404
    assert re.sub('value="[^"]*"', "", foreign.text) == re.sub('value="[^"]*"', "", own.text)
    assert adult.open(adult.address("Alex")).status_code == 200


def test_portal_f2_4_the_record_of_a_child_closes_with_the_18th_birthday() -> None:
    site = RecordPages()
    before = site.reader("parent-a")
    path = before.address("Toni")
    assert before.open(path).status_code == 200
    site.served.at(micros("2031-06-01T12:00:00Z"))
    after = site.reader("parent-a")
    assert after.open(path).status_code == 404 and not any("Toni" in name for name in after.records())
    site.served.close()


def test_files_of_documents_are_attachments_that_a_browser_does_not_open(site: RecordPages) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    links = re.findall(r'href="([^"]+/files/[^"]+)"', reader.page(f"{path}/documents"))
    assert links
    for link in links:
        answer = reader.open(link)
        assert answer.status_code == 200 and answer.content
        assert answer.headers["content-disposition"] == "attachment" and "sandbox" in answer.headers["content-security-policy"]
    assert site.reader("parent-a").open(links[0]).status_code == 404
    absent = ("adult-visit-note/7", "absent/0", "adult-visit-note/x", "adult-visit-note/-1", f"adult-visit-note/{9 * '9'}", "a b/0")
    for wrong in (*(f"documents/{one}" for one in absent), "elsewhere/adult-visit-note/0"):
        assert reader.open(f"{path}/files/{wrong}").status_code == 404


def test_a_file_is_the_version_that_the_document_names(site: RecordPages) -> None:
    for content in ("Zmlyc3Q=", "c2Vjb25k"):
        site.write({"resourceType": "Binary", "id": "letter", "contentType": "text/plain", "data": content, "securityContext": OWN})
    site.write({
        "resourceType": "DocumentReference", "id": "letter", "status": "current", "subject": OWN,
        "type": {"coding": [{"system": "http://loinc.org", "code": "11506-3"}]},
        "content": [{"attachment": {"contentType": "text/plain", "url": f"Binary/letter{version}"}} for version in ("/_history/1", "")],
    })  # fmt: skip
    reader = site.reader("adult")
    path = f"{reader.address('Alex')}/files/documents/letter"
    assert [reader.open(f"{path}/{number}").content for number in (0, 1)] == [b"first", b"second"]


def test_what_is_too_much_for_one_page_is_said(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    assert "too many to show" not in reader.page(f"{path}/results")
    monkeypatch.setattr("fhir_server.interactions.included.MAX_INCLUDED", 2)
    assert reader.page(f"{path}/results").count("too many to show") == 1
    monkeypatch.setattr("fhir_server.portal.record.pages._TREND", 2)
    assert "The latest values" in reader.page(f"{path}/results/ferritin-0")


def test_wrong_addresses_get_pages_that_say_so(site: RecordPages) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    assert reader.open(f"{path}/results?list=values&older=made-up").status_code == 400
    for wrong in ("elsewhere", "results/absent", "results/a%20b", "results/a,b", "elsewhere/absent"):
        assert reader.open(f"{path}/{wrong}").status_code == 404, wrong
    assert reader.open(f"{path}/results?list=absent&older=made-up").status_code == 200


def test_a_fault_of_the_server_is_a_page_without_details_and_leaves_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    site = RecordPages()
    reader = site.reader("adult")
    path = reader.address("Alex")

    async def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("fhir_server.access.view.View.find", broken)
    answer = reader.open(f"{path}/allergies")
    assert answer.status_code == 503 and SECRET not in answer.text
    site.served.run(site.served.parts.auditor.flush())
    assert any(b'"outcomeDesc":"500"' in line for _, line in site.served.run(site.served.parts.store.read_log(LOG_NAME)))
    site.served.close()


def test_each_page_leaves_lines_of_what_it_showed(site: RecordPages) -> None:
    reader = site.reader("parent-a")
    site.served.run(site.served.parts.auditor.flush())
    before = len(site.served.run(site.served.parts.store.read_log(LOG_NAME)))
    reader.page(f"{reader.address('Toni')}/allergies")
    site.served.run(site.served.parts.auditor.flush())
    lines = [line for _, line in site.served.run(site.served.parts.store.read_log(LOG_NAME))][before:]
    assert len(lines) == 2 and all(b"parent-a" in line and b"Patient/teen" in line for line in lines)
    assert sum(b'"AllergyIntolerance/teen-peanut"' in line for line in lines) == 1


def test_without_a_session_a_record_asks_to_sign_in(site: RecordPages) -> None:
    answer = Browser(site.app).get("/r/invented/results")
    assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")


def test_a_work_account_opens_no_record_of_a_patient(site: RecordPages) -> None:
    clinician = site.reader("clinician")
    assert clinician.records() == {} and clinician.open("/r/invented").status_code == 404
