"""Scopes on the whole server with the seed records: granted, stored and enforced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.smart.authorize import category_scopes
from tests.smart.environment import Page, World, query
from tests.smart.full_environment import Whole

HL7 = "http://terminology.hl7.org/CodeSystem"
US_CORE = "http://hl7.org/fhir/us/core/CodeSystem"
SET_1 = (
    f"patient/Condition.rs?category={HL7}/condition-category|encounter-diagnosis",
    f"patient/Condition.rs?category={US_CORE}/condition-category|health-concern",
    f"patient/Observation.rs?category={HL7}/observation-category|laboratory",
    f"patient/Observation.rs?category={HL7}/observation-category|social-history",
)
SET_2 = (
    f"patient/Condition.rs?category={HL7}/condition-category|problem-list-item",
    f"patient/Observation.rs?category={HL7}/observation-category|vital-signs",
    f"patient/Observation.rs?category={HL7}/observation-category|survey",
    f"patient/Observation.rs?category={US_CORE}/us-core-category|sdoh",
)
WHOLE = "launch/patient offline_access patient/Patient.rs patient/Condition.rs patient/Observation.rs"
BASICS = "launch/patient offline_access patient/Patient.rs"
CONFIDENTIAL = ("demo-confidential", "demo-secret")


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    made = Whole()
    yield made
    made.served.close()


def resources(whole: Whole, token: str, path: str) -> dict[str, dict[str, Any]]:
    """Return the matches on all pages of a search, by ``Type/id``."""
    found: dict[str, dict[str, Any]] = {}
    while path:
        page = whole.get(token, path)
        assert page.status == 200, path
        found |= {f"{e['resource']['resourceType']}/{e['resource']['id']}": e["resource"] for e in page.json.get("entry", [])}
        path = next((link["url"] for link in page.json["link"] if link["relation"] == "next"), "")
    return found


def within(resource: dict[str, Any], scopes: tuple[str, ...]) -> bool:
    for scope in scopes:
        type, _, condition = scope.removeprefix("patient/").partition(".rs?category=")
        system, _, code = condition.partition("|")
        coded = [coding for concept in resource.get("category", []) for coding in concept.get("coding", [])]
        if resource["resourceType"] == type and any((one.get("system"), one.get("code")) == (system, code) for one in coded):
            return True
    return False


# granted scopes


@pytest.mark.parametrize("scopes", [SET_1, SET_2], ids=["set-1", "set-2"])
def test_smart_65_granular_scopes_stay_literal_through_refresh(world: World, scopes: tuple[str, ...]) -> None:
    asked = f"{BASICS} {' '.join(scopes)}"
    tokens = world.tokens(scope=asked)
    assert tokens["scope"] == asked
    refreshed = world.refresh(tokens["refresh_token"], scope=asked).json()
    assert refreshed["scope"] == asked
    for one in (tokens, refreshed):
        assert world.post("/oauth/introspect", CONFIDENTIAL, token=one["access_token"]).json()["scope"] == asked
    narrower = world.refresh(refreshed["refresh_token"], scope=f"patient/Patient.rs {scopes[0]}").json()
    assert narrower["scope"] == f"patient/Patient.rs {scopes[0]}"
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=narrower["access_token"]).json()["scope"] == narrower["scope"]


@pytest.mark.parametrize(
    "scope",
    ["patient/*.read", "patient/Observation.read patient/Condition.read", "user/*.read", "patient/*.*", "patient/Communication.write"],
)
def test_smart_62_v1_scopes_are_unchanged_in_refresh_and_introspection(world: World, scope: str) -> None:
    asked = f"launch/patient offline_access {scope}"
    tokens = world.tokens(scope=asked)
    refreshed = world.refresh(tokens["refresh_token"]).json()
    states = [world.post("/oauth/introspect", CONFIDENTIAL, token=one["access_token"]).json() for one in (tokens, refreshed)]
    assert [tokens["scope"], refreshed["scope"], *(state["scope"] for state in states)] == [asked] * 4


def test_smart_68_chosen_categories_become_granular_scopes(world: World) -> None:
    page = world.consent_page(scope=WHOLE)
    chosen = [SET_1[2], SET_2[1], SET_2[0]]
    sent = [*Page(page.text).sent, *(("part", text) for text in chosen), ("decision", "allow")]
    fields = {name: [value for n, value in sent if n == name] for name, _ in sent}
    tokens = world.exchange(query(world.http.post("/oauth/consent", data=fields).headers["location"])["code"]).json()
    granted = tokens["scope"].split()
    assert set(granted) == {*BASICS.split(), *chosen}
    assert tokens["scope"] == world.refresh(tokens["refresh_token"]).json()["scope"]


def test_smart_68_consent_page_offers_every_granular_category(world: World) -> None:
    page = world.consent_page(scope=WHOLE)
    for text in (*SET_1, *SET_2):
        assert f'value="{text}"' in page.text, text
    assert {part.text for parts in category_scopes.narrower_scopes(WHOLE).values() for part in parts} == {*SET_1, *SET_2}


def test_smart_68_unoffered_categories_are_not_granted(world: World) -> None:
    page = world.consent_page(scope="launch/patient patient/Observation.rs")
    fields = dict(Page(page.text).sent) | {"part": [SET_1[0], SET_1[2].replace(".rs", ".cruds"), "patient/*.cruds"], "decision": "allow"}
    code = query(world.http.post("/oauth/consent", data=fields).headers["location"])["code"]
    assert world.exchange(code).json()["scope"] == "launch/patient patient/Observation.rs"


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Observation.read",  # the older syntax has no categories
        SET_1[2],  # already narrowed
        "patient/Observation.rs patient/*.rs",  # the wildcard grants the other categories anyway
        "patient/Observation.rs user/*.read",
        "patient/Procedure.rs",
    ],
)
def test_categories_are_not_offered_for_scopes_they_cannot_narrow(scope: str) -> None:
    assert category_scopes.narrower_scopes(scope) == {}


# enforced scopes

SEARCHES = (
    "Observation?patient=adult",
    "Observation?patient=Patient/adult&_count=1",
    "Observation?patient=adult&_count=2&_sort=-date",
    "Observation?subject=Patient/adult&date=ge2000-01-01",
    "Observation?patient=adult&date=lt2026-06-01",
    "Observation?patient=adult&status=final,amended",
    "Observation?patient=adult&category=laboratory",
    "Observation?patient=adult&category=vital-signs",
    "Observation?patient=adult&category=social-history",
    "Observation?patient=adult&category=survey",
    "Observation?patient=adult&category:not=laboratory",
    "Condition?patient=adult",
    "Condition?patient=adult&_count=1",
    "Condition?patient=adult&category=problem-list-item",
    "Condition?patient=adult&category=encounter-diagnosis",
    "Condition?patient=adult&clinical-status=active",
)


@pytest.mark.parametrize("scopes", [SET_1, SET_2], ids=["set-1", "set-2"])
def test_smart_66_search_returns_exactly_the_granted_categories(whole: Whole, scopes: tuple[str, ...]) -> None:
    full = whole.served.app_token("adult", "adult", WHOLE.replace("launch/patient offline_access ", ""))
    part = whole.served.app_token("adult", "adult", f"patient/Patient.rs {' '.join(scopes)}")
    met = 0
    for search in SEARCHES:
        before = resources(whole, full, search)
        expected = {name for name, resource in before.items() if within(resource, scopes)}
        assert resources(whole, part, search).keys() == expected, search
        met += len(expected)
        assert whole.get(part, f"{search}&_summary=count").json["total"] == len(expected), search
    assert met > 4  # positive control


def test_smart_66_post_search_returns_the_same_ids_as_get(whole: Whole) -> None:
    part = whole.served.app_token("adult", "adult", f"patient/Patient.rs {' '.join(SET_1)}")
    for search in SEARCHES[:6]:
        type, _, text = search.partition("?")
        pairs = [tuple(pair.split("=", 1)) for pair in text.split("&")]
        posted = whole.served.request(part, "POST", f"{type}/_search", form=pairs)  # type: ignore[arg-type]
        assert posted.ids() == whole.get(part, search).ids(), search


@pytest.mark.parametrize("scopes", [SET_1, SET_2], ids=["set-1", "set-2"])
def test_smart_67_read_outside_categories_answers_like_an_unknown_id(whole: Whole, scopes: tuple[str, ...]) -> None:
    full = whole.served.app_token("adult", "adult", "patient/Condition.rs patient/Observation.rs")
    part = whole.served.app_token("adult", "adult", " ".join(scopes))
    everything = resources(whole, full, "Observation?patient=adult") | resources(whole, full, "Condition?patient=adult")
    seen = {True: 0, False: 0}
    for name, resource in everything.items():
        inside = within(resource, scopes)
        answer, never = whole.get(part, name), whole.get(part, f"{name.partition('/')[0]}/never-was")
        assert (answer.status == 200) is inside, name
        if not inside:
            assert answer.json["resourceType"] == "OperationOutcome"
            assert answer.body.replace(resource["id"].encode(), b"never-was") == never.body
        assert whole.get(part, f"{name}/_history").status == (200 if inside else 404)
        seen[inside] += 1
    assert all(seen.values()), seen  # positive control: both cases occur


def test_smart_70_batch_include_and_everything_respect_categories(whole: Whole) -> None:
    part = whole.served.app_token("adult", "adult", f"patient/Patient.rs patient/Encounter.rs patient/DiagnosticReport.rs {SET_1[2]}")
    allowed = set(resources(whole, part, "Observation?patient=adult"))
    for path in (
        "DiagnosticReport?patient=adult&_include=DiagnosticReport:result",
        "Encounter?patient=adult&_revinclude=Observation:encounter",
        "Patient?_id=adult&_revinclude=Observation:subject",
        "Patient/adult/$everything?_count=500",
    ):
        names = {f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in whole.get(part, path).json["entry"]}
        assert {name for name in names if name.startswith("Observation/")} <= allowed, path
        assert not any(name.startswith("Condition/") for name in names), path
    entries = [
        {"request": {"method": "GET", "url": url}}
        for url in ("Observation?patient=adult&_count=500", "Condition?patient=adult", "Patient/adult")
    ]
    answers = whole.served.request(part, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": entries}).json["entry"]
    assert [one["response"]["status"][:3] for one in answers] == ["200", "403", "200"]
    found = {f"Observation/{e['resource']['id']}" for e in answers[0]["resource"]["entry"]}
    assert found == allowed


# limited app (group 2)


def test_smart_69_deselected_resource_types_return_403(whole: Whole) -> None:
    asked = "patient/Patient.rs patient/Condition.rs patient/Observation.rs patient/Immunization.rs patient/AllergyIntolerance.read"
    tokens = whole.allowed(
        "adult", "adult", scope=f"launch/patient {asked}", untick=("patient/Immunization.rs", "patient/AllergyIntolerance.read")
    )
    assert tokens["scope"] == "launch/patient patient/Patient.rs patient/Condition.rs patient/Observation.rs"
    for type in ("Patient?_id=adult", "Condition?patient=adult", "Observation?patient=adult"):
        assert whole.get(tokens["access_token"], type).status == 200, type
    for type in ("Immunization", "AllergyIntolerance", "Procedure"):
        for path in (f"{type}?patient=adult", f"{type}/x", f"{type}/x/_history"):
            answer = whole.get(tokens["access_token"], path)
            assert answer.status == 403, path
            assert answer.json["resourceType"] == "OperationOutcome"
        assert whole.served.request(tokens["access_token"], "POST", f"{type}/_search", form=[("patient", "adult")]).status == 403


# interactions and scope levels


def test_smart_63_64_scope_letter_allows_only_its_interaction(whole: Whole) -> None:
    read, search, both = (whole.served.app_token("adult", "adult", f"patient/*.{letters}") for letters in ("r", "s", "rs"))
    for token, reads, searches in ((read, 200, 403), (search, 403, 200), (both, 200, 200)):
        assert whole.get(token, "Patient/adult").status == reads
        assert whole.get(token, "Patient/adult/_history").status == reads
        assert whole.get(token, "Patient?_id=adult").status == searches
    body = {"resourceType": "Communication", "status": "completed", "subject": {"reference": "Patient/adult"}}
    for scope, status in (
        ("patient/*.rs", 403),
        ("patient/Communication.c patient/Patient.r", 201),
        ("patient/Communication.u patient/Patient.r", 403),
    ):
        token = whole.served.app_token("adult", "adult", scope)
        assert whole.served.request(token, "POST", "Communication", body=body).status == status, scope


def test_smart_64_patient_wildcard_is_limited_to_the_context_patient(whole: Whole) -> None:
    token = whole.served.app_token("parent-a", "child", "patient/*.rs")
    assert whole.get(token, "Patient/child").status == 200
    for other in ("teen", "adult", "never-was"):
        assert whole.get(token, f"Patient/{other}").status == 404
        assert whole.get(token, f"Observation?patient={other}").ids() == []


def test_smart_70_user_scopes_are_limited_to_the_persons_access(whole: Whole) -> None:
    clinician = whole.allowed("clinician", "", scope="user/*.rs")["access_token"]
    adult = whole.allowed("adult", "adult", scope="launch/patient user/*.rs")["access_token"]
    assert whole.get(clinician, "Patient").ids("Patient")
    assert whole.get(adult, "Patient").ids("Patient") == ["adult"]
    assert whole.get(adult, "Patient/child").status == 404


def test_smart_70_proxy_chooses_a_record_for_user_scopes(whole: Whole) -> None:
    for chosen, other in (("child", "teen"), ("teen", "child")):
        whole.http.cookies.clear()
        tokens = whole.allowed("parent-a", chosen, scope="user/*.rs")
        assert tokens["patient"] == chosen
        assert whole.get(tokens["access_token"], "Patient").ids("Patient") == [chosen]
        assert whole.get(tokens["access_token"], f"Patient/{other}").status == 404


def test_smart_61_56_85_context_patient_is_readable_only_with_a_token(whole: Whole) -> None:
    tokens = whole.allowed("parent-a", "child", scope="launch/patient offline_access patient/*.rs")
    assert whole.get(tokens["access_token"], f"Patient/{tokens['patient']}").json["id"] == "child"
    second = whole.refresh(tokens["refresh_token"]).json()
    assert whole.get(second["access_token"], f"Patient/{second['patient']}").status == 200
    assert whole.served.get(None, "Patient/child").status == 401


def test_smart_58_visible_encounters_are_offered_and_readable(whole: Whole) -> None:
    scope = "launch/patient launch/encounter patient/*.rs"
    whole.http.cookies.clear()
    offered = [one for one in Page(whole.consent_page("adult", "adult", scope=scope).text).radios if one]
    assert offered
    tokens = whole.allowed("adult", "adult", scope=scope, visit=offered[0])
    assert whole.get(tokens["access_token"], f"Encounter/{tokens['encounter']}").status == 200
    proxy = Page(_visit_page(whole, "proxy-standard", scope).text).radios
    assert set(proxy) < {*offered, ""}  # a proxy is offered only visible encounters


def _visit_page(whole: Whole, username: str, scope: str) -> Any:
    whole.http.cookies.clear()
    return whole.consent_page(username, "adult", scope=scope)


def test_smart_79_fhir_user_is_readable_under_a_patient_launch(whole: Whole) -> None:
    for username, patient in (("adult", "adult"), ("parent-a", "teen"), ("proxy-full", "adult")):
        tokens = whole.allowed(username, patient, scope="openid fhirUser launch/patient patient/*.rs")
        state = whole.post("/oauth/introspect", CONFIDENTIAL, token=tokens["access_token"]).json()
        answer = whole.get(tokens["access_token"], state["fhirUser"])
        assert (answer.status, answer.json["resourceType"]) == (200, state["fhirUser"].split("/")[-2])


def test_smart_100_revocation_ends_record_access_immediately(whole: Whole) -> None:
    tokens = whole.allowed("adult", "adult", scope="launch/patient offline_access patient/*.rs")
    assert whole.get(tokens["access_token"], "Patient/adult").status == 200
    whole.post("/oauth/revoke", token=tokens["refresh_token"], client_id="demo-public")
    assert whole.get(tokens["access_token"], "Patient/adult").status == 401
    assert whole.refresh(tokens["refresh_token"]).status_code == 400
