"""The list of a clinician's patients: birth date, sex and number, search, pages, and nothing of other patients."""

from __future__ import annotations

import re

import httpx
import pytest

from fhir_server.access import chart_search
from tests.ehr.environment import Ehr, Visitor


def searched(clinician: Visitor, typed: str, **more: str) -> httpx.Response:
    token = re.findall(r'name="token" value="([^"]+)"', clinician.get("/ehr").text)[0]
    return clinician.browser.post("/ehr/search", data={"token": token, "typed": typed} | more)


def listed(page: httpx.Response) -> list[str]:
    return re.findall(r'href="/ehr/([^"]+)"', page.text)


def test_list_and_chart_tell_people_of_one_name_apart(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    facts = re.compile(r"born 9 March 1984, (fe)?male, number DH-1001")
    assert facts.search(clinician.get("/ehr").text)
    assert facts.search(clinician.get("/ehr/adult").text)


@pytest.mark.parametrize("typed", ["adu", "ALEX adult", "DH-1001", "1984-03-09", "1984-03", "alex 1984"])
def test_search_finds_by_name_number_and_birth_date(ehr: Ehr, typed: str) -> None:
    assert listed(searched(ehr.visitor(), typed)) == ["adult"]


@pytest.mark.parametrize("typed", ["nobody", "DH-100", "1984-04-09", "alex,child", "a|b", "x\\", "$", "%", "*"])
def test_search_without_a_hit_says_so(ehr: Ehr, typed: str) -> None:
    page = searched(ehr.visitor(), typed)
    assert (page.status_code, [id for id in listed(page) if id]) == (200, [])
    assert "None of your patients fits" in page.text


def test_search_returns_a_page_after_another(ehr: Ehr, monkeypatch: pytest.MonkeyPatch) -> None:
    clinician = ehr.visitor()
    everybody = clinician.patients()
    monkeypatch.setattr(chart_search, "PAGE", 3)
    found, page = [], clinician.get("/ehr")
    while True:
        found += listed(page)
        more = re.findall(r'name="page" value="([^"]+)"', page.text)
        if not more:
            break
        page = searched(clinician, "", page=more[0])
    assert found == everybody and len(found) > 3
    first = re.findall(r'name="page" value="([^"]+)"', clinician.get("/ehr").text)[0]
    assert searched(clinician, "alex", page=first).status_code == 400  # a page belongs to its words
    assert searched(clinician, "", page="x").status_code == 400


def test_search_shows_the_same_whether_others_exist(ehr: Ehr) -> None:
    """A patient of somebody else, and nobody."""
    clinician = ehr.visitor()
    hidden = [name for name in ("teen", "senior", "child", "newly-adult") if name not in clinician.patients()]
    assert hidden
    pages = {searched(clinician, word).text.replace(word, "") for word in ("Zzzzz", *hidden)}
    assert len(pages) == 1
    for patient in (*hidden, "no-such"):
        assert clinician.get(f"/ehr/{patient}").status_code == 404


def test_only_clinicians_search(ehr: Ehr) -> None:
    for username in ("billing", "adult"):
        visitor = ehr.visitor(username)
        token = re.findall(r'name="token" value="([^"]+)"', visitor.get("/apps").text)[0]
        answer = visitor.browser.post("/ehr/search", data={"token": token, "typed": "a"})
        assert (answer.status_code, listed(answer)) == (403, [])
    assert ehr.visitor().get("/ehr/search").headers.get("location", "") == "/ehr"
