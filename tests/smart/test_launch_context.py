"""Launch context: encounters, launch parameters, style, and online access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from fhir_server.smart.accounts import users
from fhir_server.smart.core.context import HOUR, MINUTE, SESSION_IDLE
from fhir_server.smart.core.persons import EncounterChoice, Person
from fhir_server.smart.tokens.launch import Launch, create_launch
from tests.smart.environment import ORIGIN, Page, World, query

VISIT = "launch/patient launch/encounter patient/*.rs"
ONLINE = "launch/patient online_access patient/*.rs"
LAUNCHED = "launch patient/*.rs"


def launched(world: World, encounter: str | None = None, **parameters: Any) -> dict[str, Any]:
    launch = Launch("demo-public", "adult", "adult", encounter, parameters)
    handle = asyncio.run(create_launch(world.store, launch, world.clock()))
    return world.tokens(scope=LAUNCHED, launch=handle)


@pytest.fixture
def visits(world: World) -> World:
    async def choices(person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
        found = [EncounterChoice(f"{patient}-visit", "4 March 2026, check-up"), EncounterChoice(f"{patient}-private", "5 May 2026, Visit")]
        return [one for one in found if not (withheld and one.encounter.endswith("private"))]

    object.__setattr__(world.smart, "encounters", choices)
    return world


# encounters


def test_smart_58_standalone_app_gets_the_chosen_encounter(visits: World) -> None:
    page = visits.consent_page("parent-a", "teen", scope=VISIT)
    assert Page(page.text).radios == ["teen-visit", "teen-private", ""]
    assert "4 March 2026, check-up" in page.text
    consent = visits.submit(page, encounter="teen-visit")
    tokens = visits.exchange(query(visits.submit(consent, decision="allow").headers["location"])["code"]).json()
    assert (tokens["patient"], tokens["encounter"], tokens["scope"]) == ("teen", "teen-visit", VISIT)
    assert visits.principal(tokens["access_token"]).encounter == "teen-visit"


def test_smart_58_standalone_app_without_choice_gets_no_encounter(visits: World) -> None:
    consent = visits.submit(visits.consent_page(scope=VISIT), encounter="")
    tokens = visits.exchange(query(visits.submit(consent, decision="allow").headers["location"])["code"]).json()
    assert "encounter" not in tokens
    assert tokens["scope"] == "launch/patient patient/*.rs"


@pytest.mark.parametrize("encounter", ["child-visit", "nobody", "adult-visit "])
def test_choosing_an_unoffered_encounter_returns_400(visits: World, encounter: str) -> None:
    refused = visits.submit(visits.consent_page(scope=VISIT), encounter=encounter)
    assert refused.status_code == 400
    assert Page(refused.text).radios == ["adult-visit", "adult-private", ""]


def test_consent_requires_record_choice_then_encounter_choice(visits: World) -> None:
    page = visits.consent_page(scope=VISIT)
    handle = dict(Page(page.text).sent)["request"]
    assert Page(visits.follow(visits.http.get("/oauth/consent", params={"request": handle})).text).radios
    sent = visits.http.post("/oauth/consent", data=dict(Page(page.text).sent) | {"decision": "allow"})
    assert "location" not in sent.headers
    picker = visits.follow(visits.authorize(scope=VISIT))
    fields = dict(Page(picker.text).sent) | {"encounter": "adult-visit"}
    assert visits.http.post("/oauth/visit", data=fields).status_code == 400


def test_changing_record_clears_chosen_encounter(visits: World) -> None:
    page = visits.consent_page("parent-a", "teen", scope=VISIT)
    handle = dict(Page(page.text).sent)["request"]
    visits.submit(page, encounter="teen-visit")
    again = visits.follow(visits.http.get("/oauth/record", params={"request": handle}))
    assert Page(visits.submit(again, patient="child").text).radios == ["child-visit", "child-private", ""]


def test_withheld_encounter_is_not_in_the_launch_context(visits: World) -> None:
    consent = visits.submit(visits.consent_page(scope=VISIT), encounter="adult-private")
    code = query(visits.submit(consent, decision="allow", withhold="MH").headers["location"])["code"]
    assert "encounter" not in visits.exchange(code).json()


def test_record_without_encounters_still_completes_consent(world: World) -> None:
    page = world.consent_page(scope=VISIT)
    assert Page(page.text).radios == [""]
    assert world.submit(world.submit(page, encounter=""), decision="allow").status_code == 303


# launch parameters


GOOD = [
    {"reference": "ImagingStudy/123"},
    {"canonical": "https://example.org/Questionnaire/7|1.0", "type": "Questionnaire"},
    {"identifier": {"system": "urn:x", "value": "1"}, "type": "Practitioner", "role": "https://example.org/role/referrer"},
    {"reference": "Patient/other", "role": "https://example.org/role/donor"},
]


def test_smart_51_52_55_97_launch_parameters_reach_app_and_introspection(world: World) -> None:
    given = {"fhirContext": GOOD, "intent": "reconcile-medications", "tenant": "north", "need_patient_banner": False}
    tokens = launched(world, "adult-visit", **given)
    assert {name: tokens[name] for name in given} == given
    assert (tokens["patient"], tokens["encounter"]) == ("adult", "adult-visit")
    state = world.post("/oauth/introspect", ("demo-confidential", "demo-secret"), token=tokens["access_token"]).json()
    told = {name: value for name, value in tokens.items() if name not in ("access_token", "token_type", "expires_in", "scope")}
    assert told.items() <= state.items()


@pytest.mark.parametrize(
    "parameters",
    [
        {"fhirContext": ["ImagingStudy/123"]},
        {"fhirContext": {"reference": "ImagingStudy/123"}},
        {"fhirContext": [{}]},
        {"fhirContext": [{"role": "launch"}]},
        {"fhirContext": [{"reference": "https://ehr.example/ImagingStudy/123"}]},
        {"fhirContext": [{"reference": "Nonsense/123"}]},
        {"fhirContext": [{"reference": "ImagingStudy/"}]},
        {"fhirContext": [{"reference": "Patient/adult"}]},
        {"fhirContext": [{"reference": "Encounter/1", "role": "launch"}]},
        {"fhirContext": [{"identifier": {"value": "1"}, "type": "Patient"}]},
        {"fhirContext": [{"reference": "ImagingStudy/1", "role": ""}]},
        {"fhirContext": [{"reference": "ImagingStudy/1", "role": "donor"}]},
        {"fhirContext": [{"reference": "ImagingStudy/1", "type": "Nonsense"}]},
        {"fhirContext": [{"canonical": "Questionnaire/7"}]},
        {"fhirContext": [{"canonical": "https://example.org/Questionnaire"}]},
        {"fhirContext": [{"identifier": "1"}]},
        {"fhirContext": [{"reference": "ImagingStudy/1", "nonsense": 1}]},
        {"need_patient_banner": "true"},
        {"intent": ""},
        {"tenant": 7},
        {"smart_style_url": "javascript:alert(1)"},
        {"patient": "other"},
        {"access_token": "x"},
    ],
    ids=json.dumps,
)
def test_smart_51_52_invalid_launch_parameters_are_refused(world: World, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="launch parameter"):
        launched(world, **parameters)


def test_fhir_context_is_omitted_when_categories_are_withheld(world: World) -> None:
    launch = Launch("demo-public", "adult", "adult", None, {"fhirContext": GOOD, "intent": "x"})
    handle = asyncio.run(create_launch(world.store, launch, world.clock()))
    page = world.consent_page(scope=LAUNCHED, launch=handle)
    code = query(world.submit(page, decision="allow", withhold="HIV").headers["location"])["code"]
    tokens = world.exchange(code).json()
    assert (tokens["intent"], "fhirContext" in tokens) == ("x", False)


# style


def test_smart_55_style_url_serves_immutable_public_json(world: World) -> None:
    for tokens in (world.tokens(), launched(world)):
        url = tokens["smart_style_url"]
        assert url.startswith(f"{ORIGIN}/smart-style/")
        answer = world.http.get(url.removeprefix(ORIGIN))
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "immutable" in answer.headers["cache-control"]
        assert {"color_background", "color_text", "font_family_body", "dim_font_size"} <= answer.json().keys()
    assert world.http.get("/smart-style/other.json").status_code == 404
    assert "smart_style_url" not in world.backend().json()


# online access


def test_smart_71_online_access_refreshes_only_within_the_session(world: World) -> None:
    tokens = world.tokens(scope=ONLINE)
    assert tokens["scope"] == ONLINE
    for _ in range(8 * 60 // 9):
        world.clock.forward(9 * MINUTE)
        assert _is_signed_in(world)
        tokens = world.refresh(tokens["refresh_token"]).json()
        assert world.principal(tokens["access_token"])
    world.clock.forward(9 * MINUTE)
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def _is_signed_in(world: World) -> bool:
    """Use the site: this extends the session."""
    page = world.follow(world.authorize(scope="launch/patient patient/*.rs"))
    return "Signed in as" in page.text


def test_smart_71_online_access_ends_when_the_session_lapses(world: World) -> None:
    tokens, other = world.tokens(scope=ONLINE), world.tokens(scope="launch/patient patient/*.rs")
    world.clock.forward(SESSION_IDLE - 1)
    assert world.principal(tokens["access_token"])
    world.clock.forward(1)
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert world.principal(other["access_token"])  # the control


def test_smart_71_sign_out_ends_online_access(world: World) -> None:
    tokens, offline = world.tokens(scope=ONLINE), world.tokens()
    page = world.consent_page()
    token = dict(Page(page.text).sent)["token"]
    world.http.post("/sign-out", data={"token": token})
    assert world.refresh(tokens["refresh_token"]).status_code == 200  # it belongs to another session
    assert world.refresh(offline["refresh_token"]).status_code == 200

    tokens = world.tokens(scope=ONLINE)
    page = world.follow(world.authorize(scope="launch/patient patient/*.rs"))
    assert world.principal(tokens["access_token"])
    world.http.post("/sign-out", data={"token": dict(Page(page.text).sent)["token"]})
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_smart_71_account_change_ends_online_access(world: World) -> None:
    tokens = world.tokens(scope=ONLINE)
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.save(world.store, user))
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).status_code == 400


@pytest.mark.parametrize("scope", [ONLINE, "launch/patient patient/*.rs", "launch/patient offline_access patient/*.rs"])
@pytest.mark.parametrize("how", ["sign-out", "account", "lapse", "never"])
def test_smart_71_code_is_not_redeemed_after_the_session_ends(world: World, scope: str, how: str) -> None:
    code = world.code(scope=scope)
    if how == "sign-out":
        page = world.follow(world.authorize(scope="launch/patient patient/*.rs"))
        world.http.post("/sign-out", data={"token": dict(Page(page.text).sent)["token"]})
    elif how == "account":
        user = asyncio.run(users.find(world.store, "adult"))
        assert user is not None
        asyncio.run(users.save(world.store, user))
    elif how == "lapse":
        (session,) = asyncio.run(world.store.key_values.list_all("session", world.clock()))
        asyncio.run(world.store.key_values.pop("session-seen", session[0], world.clock()))
    answer = world.exchange(code)
    if how == "never":  # the control
        assert world.principal(answer.json()["access_token"])
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert asyncio.run(world.store.key_values.list_all("access", world.clock())) == ()


def test_smart_71_offline_access_outlives_the_session(world: World) -> None:
    tokens = world.tokens(scope="launch/patient online_access offline_access patient/*.rs")
    world.clock.forward(9 * HOUR + MINUTE)
    assert world.refresh(tokens["refresh_token"]).status_code == 200


def test_consent_page_explains_online_access_and_allows_declining(world: World) -> None:
    page = world.consent_page(scope=ONLINE)
    assert "while you are signed in to this site" in page.text
    assert "8 hours" in page.text
    sent = [(name, value) for name, value in Page(page.text).sent if value != "online_access"]
    fields = {name: [v for n, v in sent if n == name] for name, _ in sent} | {"decision": ["allow"]}
    tokens = world.exchange(query(world.http.post("/oauth/consent", data=fields).headers["location"])["code"]).json()
    assert ("refresh_token" in tokens, tokens["scope"]) == (False, "launch/patient patient/*.rs")
