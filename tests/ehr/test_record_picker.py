"""The record picker for clinicians, when an app asks for one of their patients: the same search as the list of charts, one root."""

from __future__ import annotations

import re

import httpx
import pytest

from fhir_server.access import chart_search
from fhir_server.access.record_choices import RecordChoices
from tests.ehr.environment import Ehr, Visitor
from tests.smart.environment import Page, query

STANDALONE = "openid fhirUser launch/patient patient/*.rs"


def picker(clinician: Visitor) -> httpx.Response:
    return clinician.authorized(None, scope=STANDALONE)


def searched(clinician: Visitor, shown: httpx.Response, typed: str, **more: str) -> httpx.Response:
    hidden = {name: value for name, value in Page(shown.text).sent if name in ("token", "request")}
    return clinician.browser.post("/oauth/record/search", data=hidden | {"typed": typed} | more)


def offered(page: httpx.Response) -> list[str]:
    return Page(page.text).radios


def test_picker_offers_the_patients_of_the_charts_with_what_tells_them_apart(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    page = picker(clinician)
    assert offered(page) == clinician.patients() and len(offered(page)) > 2
    assert re.search(r"born 9 March 1984, (fe)?male, number DH-1001", page.text)


@pytest.mark.parametrize("typed", ["adu", "ALEX adult", "DH-1001", "1984-03-09", "alex 1984"])
def test_picker_finds_by_name_number_and_birth_date(ehr: Ehr, typed: str) -> None:
    clinician = ehr.visitor()
    assert offered(searched(clinician, picker(clinician), typed)) == ["adult"]


def test_consent_page_for_staff_says_whose_record_it_is(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    page = clinician.submit(clinician.authorized(None, scope=STANDALONE, prompt="consent"), patient="adult")
    assert re.search(r"born 9 March 1984, (fe)?male, number DH-1001", page.text)
    assert 'action="/oauth/consent"' in page.text


def test_picker_without_a_hit_says_so_and_can_be_searched_again(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    nothing = searched(clinician, picker(clinician), "nobody")
    assert (nothing.status_code, offered(nothing)) == (200, [])
    assert "None of your patients fits" in nothing.text
    assert 'action="/oauth/record/search"' in nothing.text and 'action="/oauth/cancel"' in nothing.text


def test_picker_has_pages_bound_to_the_words(ehr: Ehr, monkeypatch: pytest.MonkeyPatch) -> None:
    clinician = ehr.visitor()
    everybody = clinician.patients()
    monkeypatch.setattr(chart_search, "PAGE", 3)
    page, found = picker(clinician), list[str]()
    while True:
        found += offered(page)
        more = re.findall(r'name="page" value="([^"]+)"', page.text)
        if not more:
            break
        page = searched(clinician, page, "", page=more[0])
    assert found == everybody
    first = re.findall(r'name="page" value="([^"]+)"', picker(clinician).text)[0]
    assert searched(clinician, picker(clinician), "alex", page=first).status_code == 400
    assert searched(clinician, picker(clinician), "", page="x").status_code == 400


def test_picker_takes_no_patient_that_it_does_not_offer(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    answers = [clinician.submit(picker(clinician), patient=patient) for patient in ("nobody", "adult,teen", "")]
    assert {answer.status_code for answer in answers} == {400}
    assert {"Choose" in answer.text for answer in answers} == {True}


def test_choice_leads_to_a_token_for_that_patient(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    chosen = clinician.submit(searched(clinician, picker(clinician), "DH-1001"), patient="adult")
    answer = chosen if chosen.is_redirect else clinician.submit(chosen, decision="allow")
    assert "code" in query(answer.headers["location"])


def test_pages_for_a_clinician_list_no_records_one_by_one(ehr: Ehr, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clinician has thousands of patients: each is looked up in the View, and the list is a search."""

    async def fail(*_: object) -> None:
        raise AssertionError("all records were read")

    clinician = ehr.visitor()
    monkeypatch.setattr(RecordChoices, "__call__", fail)
    page = picker(clinician)
    clinician.submit(page, patient="adult")
    for path in ("/", "/ehr", "/ehr/adult", "/apps"):
        assert clinician.get(path).status_code == 200, path
    assert clinician.opened("adult").is_redirect
    assert clinician.launched("adult").status_code in (200, 302, 303)
    with pytest.raises(AssertionError, match="all records"):  # the control
        ehr.visitor("parent-a").get("/")
