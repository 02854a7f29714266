"""SMART EHR launch: a clinician opens an app from a patient's chart, and the app reads the record."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from fhir_server.portal import ehr_launch as room
from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import MINUTE
from tests.ehr.environment import APP, SCOPE, Ehr, error
from tests.smart.environment import Browser, claims_of, query


def test_smart_29_app_opens_with_fhir_base_as_iss_and_launch_handle(ehr: Ehr) -> None:
    answer = ehr.visitor().opened("adult")
    assert answer.status_code == 303
    address, _, _ = answer.headers["location"].partition("?")
    given = query(answer.headers["location"])
    assert address == demo.LAUNCH
    assert given["iss"] == ehr.smart.fhir_base
    assert len(given["launch"]) >= 43
    assert set(given) == {"iss", "launch"}
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_group_3_ehr_launch_by_post_gives_context_that_survives_refresh(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    token = clinician.token("teen", "teen-well-visit")
    assert set(token["scope"].split()) == set(SCOPE.split())
    assert (token["patient"], token["encounter"]) == ("teen", "teen-well-visit")
    for path, type in (("Patient/teen", "Patient"), ("Encounter/teen-well-visit", "Encounter")):
        read = clinician.read(token, path)
        assert (read.status_code, read.json()["resourceType"]) == (200, type)
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    renewed = clinician.browser.post("/oauth/token", data=form, auth=APP).json()
    assert {name: renewed[name] for name in ("patient", "encounter", "scope", "need_patient_banner")} == {
        name: token[name] for name in ("patient", "encounter", "scope", "need_patient_banner")
    }
    assert clinician.read(renewed, "Encounter/teen-well-visit").status_code == 200


def test_smart_55_ehr_launch_returns_banner_flag_and_style_url(ehr: Ehr) -> None:
    token = ehr.visitor().token("adult")
    assert token["need_patient_banner"] is True
    style = Browser(ehr.app).get(token["smart_style_url"])
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("application/json")
    assert all(isinstance(value, str) for value in json.loads(style.text).values())


def test_smart_56_79_patient_and_own_practitioner_are_readable(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    token = clinician.token("child")
    claims = claims_of(token["id_token"])[1]
    assert claims["fhirUser"] == f"{ehr.smart.fhir_base}/Practitioner/dr-rivera"
    for path in (claims["fhirUser"], f"Patient/{token['patient']}"):
        assert clinician.read(token, path).status_code == 200


def test_smart_57_launch_without_launch_patient_sets_the_patient(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    token = clinician.token("teen", scope="launch patient/Patient.rs")
    assert token["patient"] == "teen"
    assert token["scope"] == "launch patient/Patient.rs"
    assert clinician.read(token, "Patient/teen").status_code == 200
    assert clinician.read(token, "Patient/adult").status_code == 404  # also a patient of this clinician, but not in context
    assert clinician.read(clinician.token("teen"), "Patient/adult").status_code == 200  # user/ scopes allow other patients


def test_smart_58_encounter_is_present_and_readable_only_if_chosen(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    assert "encounter" not in clinician.token("adult")
    visits = clinician.visits("adult")
    assert len(visits) >= 2
    for visit in visits:
        token = clinician.token("adult", visit)
        assert token["encounter"] == visit
        assert clinician.read(token, f"Encounter/{visit}").status_code == 200


def test_smart_30_a_launch_for_another_client_is_refused(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    handle = query(clinician.opened("adult").headers["location"])["launch"]
    assert error(clinician.authorized(handle, client_id="demo-public")) == "invalid_request"
    assert clinician.allowed(clinician.authorized(handle)).headers["location"].startswith(demo.REDIRECT + "?code=")


@pytest.mark.parametrize("handle", ["unknown", "", None])
def test_smart_30_unknown_or_missing_launch_is_refused(ehr: Ehr, handle: str | None) -> None:
    assert error(ehr.visitor().authorized(handle)) == "invalid_request"


def test_smart_30_launch_is_accepted_once(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    handle = query(clinician.opened("adult").headers["location"])["launch"]
    first, second = (clinician.authorized(handle, prompt="consent") for _ in range(2))
    assert "code" in query(clinician.submit(first, decision="allow").headers["location"])
    assert error(clinician.submit(second, decision="allow")) == "invalid_request"
    assert error(clinician.authorized(handle)) == "invalid_request"


def test_smart_30_launch_expires_after_five_minutes(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    handles = [query(clinician.opened("adult").headers["location"])["launch"] for _ in range(2)]
    now = ehr.smart.now()
    ehr.served.at(now + 5 * MINUTE - 1)
    assert not clinician.authorized(handles[0], prompt="consent").is_redirect
    ehr.served.at(now + 5 * MINUTE)
    assert error(clinician.authorized(handles[1])) == "invalid_request"


def test_smart_30_launch_used_by_another_person_is_denied(ehr: Ehr) -> None:
    handle = query(ehr.visitor().opened("adult", encounter="adult-mh-visit").headers["location"])["launch"]
    other = ehr.visitor("adult")
    assert error(other.allowed(other.authorized(handle))) == "access_denied"


@pytest.mark.parametrize("username", ["adult", "parent-a", "billing", "privacy-officer"])
def test_charts_return_403_to_non_clinicians(ehr: Ehr, username: str) -> None:
    visitor = ehr.visitor(username)
    assert visitor.get("/ehr").status_code == 403
    assert visitor.get("/ehr/adult").status_code == visitor.get("/ehr/nobody").status_code == 403
    form = {"token": dict(_inputs(visitor.get("/").text))["token"], "patient": "adult", "app": APP[0]}
    before = _handles(ehr)
    assert visitor.browser.post("/ehr", data=form).status_code == 403
    assert _handles(ehr) == before
    assert "/ehr" not in visitor.get("/").text
    assert 'href="/ehr"' in ehr.visitor().get("/").text


def _inputs(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', html)


def test_csrf_launch_form_of_another_browser_returns_403(ehr: Ehr) -> None:
    page, before = ehr.visitor().get("/ehr/adult"), _handles(ehr)
    assert ehr.visitor().submit(page, app=APP[0]).status_code == 403
    assert _handles(ehr) == before


def test_charts_redirect_visitors_to_sign_in(ehr: Ehr) -> None:
    for path in ("/ehr", "/ehr/adult"):
        answer = Browser(ehr.app).get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fehr")


def test_clinician_sees_only_charts_of_own_patients(ehr: Ehr) -> None:
    clinician = ehr.visitor()
    hers = clinician.patients()
    assert {"adult", "teen"} <= set(hers)
    assert "senior" not in hers
    not_hers, never_was = clinician.get("/ehr/senior"), clinician.get("/ehr/never-was")
    assert (not_hers.status_code, not_hers.text) == (404, never_was.text)


@pytest.mark.parametrize(
    "wish",
    [
        {"patient": "senior", "encounter": ""},
        {"patient": "never-was", "encounter": ""},
        {"encounter": "teen-well-visit"},
        {"encounter": "never-was"},
        {"app": "demo-public"},
        {"app": "demo-backend"},
        {"app": "never-was"},
    ],
)
def test_unoffered_launch_choice_returns_404_without_a_handle(ehr: Ehr, wish: dict[str, str]) -> None:
    clinician = ehr.visitor()
    page = clinician.get("/ehr/adult")
    before = _handles(ehr)
    given = {"app": "demo-confidential", "encounter": "adult-mh-visit"}
    assert clinician.submit(page, **{**given, **wish}).status_code == 404
    assert _handles(ehr) == before
    assert clinician.submit(page, **given).status_code == 303
    assert _handles(ehr) == before + 1


def _handles(ehr: Ehr) -> int:
    return len(asyncio.run(ehr.store.key_values.list_all("launch", ehr.smart.now())))


def test_launch_form_action_is_limited_to_this_site(ehr: Ehr) -> None:
    policy = ehr.visitor().get("/ehr/adult").headers["content-security-policy"]
    assert policy.endswith("form-action 'self'")


def test_launch_uri_keeps_query_and_apps_without_launch_are_hidden(ehr: Ehr) -> None:
    redirect = ("https://app.example/cb",)
    asking = Client("with-query", "A <b>", "app", "none", "launch user/*.rs", redirect, launch_uri="https://app.example/go?tenant=1")
    deaf = Client("deaf", "Deaf", "app", "none", "user/*.rs", redirect, launch_uri="https://deaf.example/go")
    store = ehr.store

    async def saved() -> str:
        for one in (asking, deaf):
            await clients.save(store, one)
            await staff_apps.approve(store, one, store.key_values.now())
        clinician = await users.find(store, "clinician")
        assert clinician is not None
        return (await room.launch(ehr.smart, clinician, "adult", "with-query"))[1]

    try:
        url = asyncio.run(saved())
        assert url.startswith("https://app.example/go?tenant=1&iss=")
        assert query(url)["iss"] == ehr.smart.fhir_base
        page = ehr.visitor().get("/ehr/adult")
        assert "Open A &lt;b&gt;" in page.text
        assert "Open Deaf" not in page.text
    finally:
        for one in (asking, deaf):
            asyncio.run(clients.remove(store, one.client_id, ehr.smart.now()))


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "http://app.example/launch", "https://app.example/launch#x", "/launch", "https://u:p@app.example/"]
)
def test_an_unsafe_launch_uri_is_not_registered(ehr: Ehr, uri: str) -> None:
    client = Client("unsafe", "Unsafe", "app", "none", "launch", ("https://app.example/cb",), launch_uri=uri)
    with pytest.raises(ValueError, match="launch URI"):
        asyncio.run(clients.save(ehr.store, client))
        asyncio.run(staff_apps.approve(ehr.store, client, ehr.store.key_values.now()))


def test_encounter_option_shows_its_date_in_words(ehr: Ehr) -> None:
    offered = re.findall(r'<option value="[^"]+">([^<]*)</option>', ehr.visitor().get("/ehr/adult").text)
    assert offered
    assert [words for words in offered if not re.match(r"\d{1,2} [A-Z][a-z]+ \d{4}, \w", words)] == []
