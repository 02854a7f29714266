"""The groups of ONC (g)(10), tested as its test kit does.  Group 3 is in ``tests/ehr``, groups 7 and 8 in ``tests/bulk_data``."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.smart.core.context import DAY, HOUR
from tests.conformance.suite_client import ASYMMETRIC, BACKEND, CONFIDENTIAL, PUBLIC, Server
from tests.smart.environment import Page, claims_of, query
from tests.smart.test_scope_enforcement import SET_1, SET_2

BASICS = "openid fhirUser launch/patient offline_access"
# The types of the patient compartment that must be granted, and those outside it (US Core 6 and 7).
TYPES = (
    *("Patient", "AllergyIntolerance", "CarePlan", "CareTeam", "Condition", "Coverage", "DiagnosticReport", "DocumentReference", "Goal"),
    *("Immunization", "MedicationDispense", "MedicationRequest", "Observation", "Procedure", "Provenance", "ServiceRequest", "Specimen"),
)
WHOLE = " ".join([BASICS, *(f"patient/{type}.rs" for type in TYPES), "patient/Location.rs"])
STANDALONE = {
    *("launch-standalone", "client-public", "client-confidential-symmetric", "client-confidential-asymmetric", "sso-openid-connect"),
    *("context-standalone-patient", "permission-offline", "permission-patient", "authorize-post", "permission-v2", "permission-v1"),
}
EHR = {
    *("launch-ehr", "client-confidential-symmetric", "client-confidential-asymmetric", "sso-openid-connect", "context-banner"),
    *("context-style", "context-ehr-patient", "context-ehr-encounter", "permission-offline", "permission-user", "authorize-post"),
    *("permission-v1", "permission-v2"),
}


def searched(server: Server, tokens: dict[str, Any], type: str) -> int:
    """The status of a search for the rows of this type that belong to the patient in context."""
    own = "_id" if type == "Patient" else "target" if type == "Provenance" else "patient"
    value = f"Patient/{tokens['patient']}" if type == "Provenance" else tokens["patient"]
    return server.get(tokens, "Location" if type == "Location" else f"{type}?{own}={value}").status_code


def opened(server: Server, tokens: dict[str, Any]) -> bool:
    """Whether the token reads the patient in context."""
    read = server.get(tokens, f"Patient/{tokens['patient']}")
    return read.status_code == 200 and read.json()["resourceType"] == "Patient"


# group 1: standalone launch, confidential app, unrestricted access


def test_group_1_standalone_launch_capabilities_are_advertised(server: Server) -> None:
    assert set(server.configuration()["capabilities"]) >= STANDALONE


def test_group_1_standalone_app_gets_all_scopes_and_reads_every_type(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE)
    assert set(tokens["scope"].split()) == set(WHOLE.split())
    assert {type: searched(server, tokens, type) for type in (*TYPES, "Location")} == dict.fromkeys((*TYPES, "Location"), 200)


def test_group_1_patient_read_requires_a_token(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE)
    assert server.get(None, f"Patient/{tokens['patient']}").status_code == 401
    assert opened(server, tokens)


def test_group_1_id_token_leads_to_discovery_keys_and_readable_user(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE, nonce="n")
    header, claims = claims_of(tokens["id_token"])
    told = server.browser().get(f"{claims['iss']}/.well-known/openid-configuration").json()
    assert (told["issuer"], header["alg"], "RS256" in told["id_token_signing_alg_values_supported"]) == (claims["iss"], "RS256", True)
    keys = server.browser().get(told["jwks_uri"]).json()["keys"]
    assert header["kid"] in {key["kid"] for key in keys if key["kty"] == "RSA"}
    user = server.get(tokens, claims["fhirUser"])
    assert (user.status_code, user.json()["resourceType"]) == (200, "Patient")


def test_group_1_refresh_takes_optional_scope_and_rejects_unknown_token(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE)
    renewed = server.refresh(tokens["refresh_token"])
    again = server.refresh(renewed.json()["refresh_token"], scope=tokens["scope"])
    for answer in (renewed, again):
        assert answer.status_code == 200 and opened(server, answer.json())
        assert set(answer.json()["scope"].split()) <= set(tokens["scope"].split())
        assert "no-store" in answer.headers["cache-control"] and "no-cache" in answer.headers["pragma"]
    assert server.refresh("made-up").status_code in (400, 401)


# group 2: limited app


def test_group_2_limited_app_reads_only_the_selected_types(server: Server) -> None:
    kept = {"Patient", "Condition", "Observation"}
    unticked = frozenset(f"patient/{type}.rs" for type in (*TYPES, "Location") if type not in kept)
    tokens = server.launch("adult", "adult", WHOLE, untick=unticked)
    clinical = {scope for scope in tokens["scope"].split() if "/" in scope and not scope.startswith("launch/")}
    assert clinical == {f"patient/{type}.rs" for type in kept}
    found = {type: searched(server, tokens, type) for type in (*TYPES, "Location")}
    assert {type for type, status in found.items() if status == 200} == kept
    assert {status for type, status in found.items() if type not in kept} == {403}


def test_group_2_deselected_scopes_stay_excluded_after_refresh(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE, untick=frozenset({"patient/Immunization.rs"}))
    renewed = server.refresh(tokens["refresh_token"]).json()
    assert [searched(server, renewed, type) for type in ("Immunization", "Condition")] == [403, 200]
    assert server.refresh(renewed["refresh_token"], scope="patient/Immunization.rs").status_code == 400


# group 3: what the tests in tests/ehr do not cover


def test_group_3_ehr_launch_capabilities_are_advertised(server: Server) -> None:
    assert set(server.configuration()["capabilities"]) >= EHR


def test_group_3_ehr_app_reads_practitioner_and_smart_style(server: Server) -> None:
    visitor = server.ehr.visitor()
    tokens = visitor.token("adult")
    user = server.get(tokens, claims_of(tokens["id_token"])[1]["fhirUser"])
    assert (user.status_code, user.json()["resourceType"]) == (200, "Practitioner")
    style = server.browser().get(tokens["smart_style_url"])
    assert (style.status_code, style.json() != {}) == (200, True)


# groups 7 and 8: the first item; the others are in tests/bulk_data


def test_group_7_8_01_backend_token_requires_a_valid_assertion(server: Server) -> None:
    assert server.backend(grant_type="not_a_grant_type").status_code == 400
    assert server.backend(client_assertion_type="not_an_assertion_type").status_code in (400, 401)
    assert server.backend(client_assertion="x.y.z").status_code in (400, 401)
    sound = server.backend()
    assert (sound.status_code, sound.json()["token_type"].lower(), sound.json()["expires_in"]) == (200, "bearer", 300)
    assert "refresh_token" not in sound.json()
    assert server.get(sound.json(), "Group").status_code == 200


# group 9: additional authorization


def test_group_9_a_public_app_launches_and_gets_an_id_token(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE, client_id=PUBLIC)
    assert claims_of(tokens["id_token"])[1]["aud"] in (PUBLIC, [PUBLIC])
    assert opened(server, tokens)


def test_group_9_revoked_app_loses_access_and_refresh_tokens(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", WHOLE)
    tokens = server.redeem(server.allow(visitor, page)).json()
    assert opened(server, tokens)
    apps = visitor.get("/apps").text
    form = {"token": apps.partition('name="token" value="')[2].partition('"')[0]}
    for handle in {part.partition('"')[0] for part in apps.split('name="app" value="')[1:]}:
        assert visitor.browser.post("/apps", data=form | {"app": handle}).status_code == 303
    assert server.get(tokens, "Patient/adult").status_code == 401
    assert server.refresh(tokens["refresh_token"]).status_code in (400, 401)


def test_group_9_a_wrong_audience_gets_no_code(server: Server) -> None:
    answer = server.ehr.visitor("adult").browser.get(
        "/oauth/authorize", params=server.authorization_parameters(WHOLE, aud="https://elsewhere.example/fhir")
    )
    assert "code" not in query(answer.headers.get("location", ""))


def test_group_9_invalid_code_returns_400_and_unknown_client_is_refused(server: Server) -> None:
    assert server.redeem("BAD_CODE").status_code == 400
    visitor, page = server.open_consent_page("adult", "adult", WHOLE)
    code = server.allow(visitor, page)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": server.authorization_parameters("")["redirect_uri"],
        "code_verifier": "v" * 50,
    }
    assert server.browser().post("/oauth/token", data=form, auth=("BAD_CLIENT_ID", "demo-secret")).status_code in (400, 401)
    assert server.redeem(code).status_code == 200


@pytest.mark.parametrize("verifier", [None, "", "w" * 50])
def test_group_9_pkce_is_required(server: Server, verifier: str | None) -> None:
    visitor, page = server.open_consent_page("adult", "adult", WHOLE)
    code = server.allow(visitor, page)
    assert server.redeem(code, code_verifier=verifier).status_code in (400, 401)
    assert server.redeem(code, code_verifier=server.authorization_parameters("")["code_challenge"]).status_code in (400, 401)
    assert server.redeem(code).status_code == 200


def test_group_9_an_ehr_launch_with_patient_scopes_has_a_patient(server: Server) -> None:
    tokens = server.ehr.visitor().token("adult", scope="openid fhirUser launch offline_access patient/Patient.rs")
    assert (tokens["patient"], "patient/Patient.rs" in tokens["scope"].split()) == ("adult", True)
    assert opened(server, tokens)


def test_group_9_introspection_matches_the_token_response(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE)
    told, claims = server.introspect(tokens["access_token"]), claims_of(tokens["id_token"])[1]
    assert (told["active"], told["client_id"], told["patient"]) == (True, CONFIDENTIAL, "adult")
    assert (sorted(told["scope"].split()), told["iss"], told["sub"]) == (sorted(tokens["scope"].split()), claims["iss"], claims["sub"])
    assert told["exp"] * 1_000_000 > server.smart.now()
    assert server.introspect("invalid_token_value") == {"active": False}


def test_group_9_an_asymmetric_app_launches_and_refreshes(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE, client_id=ASYMMETRIC)
    assert "id_token" in tokens and opened(server, tokens)
    assert opened(server, server.refresh(tokens["refresh_token"], ASYMMETRIC).json())
    assert server.refresh("made-up", ASYMMETRIC).status_code in (400, 401)


def test_group_9_v1_scopes_are_granted_for_every_type(server: Server) -> None:
    asked = " ".join([BASICS, *(f"patient/{type}.read" for type in TYPES)])
    tokens = server.launch("adult", "adult", asked)
    assert set(tokens["scope"].split()) == set(asked.split())
    assert {searched(server, tokens, type) for type in TYPES} == {200}


@pytest.mark.parametrize("scopes", [SET_1, SET_2], ids=["first", "second"])
def test_group_9_fine_grained_scopes_are_granted_literally(server: Server, scopes: tuple[str, ...]) -> None:
    asked = " ".join([BASICS, "patient/Patient.rs", *scopes])
    tokens = server.launch("adult", "adult", asked)
    assert set(tokens["scope"].split()) == set(asked.split())


def test_group_9_the_person_selects_fine_grained_scopes(server: Server) -> None:
    asked = f"{BASICS} patient/Condition.rs patient/Observation.rs patient/Patient.rs"
    tokens = server.launch("adult", "adult", asked, part=(SET_1[0], SET_1[2]))
    granted = set(tokens["scope"].split())
    assert {SET_1[0], SET_1[2], "patient/Patient.rs"} <= granted
    assert not granted & {"patient/Condition.rs", "patient/Observation.rs"}


# group 11: visual inspection


def test_group_11_developer_can_register_an_app(server: Server) -> None:
    assert "Register your app" in server.browser().get("/register-app").text
    assert server.configuration()["registration_endpoint"]


def test_group_11_consent_page_names_app_record_scopes_and_offline_access(server: Server) -> None:
    _, page = server.open_consent_page("adult", "adult", WHOLE)
    for words in ("Demo web app", "Alex Adult", "Vaccinations: read", "Keep access when you are not using the app", "92"):
        assert words in page.text
    assert ("scope", "offline_access") in Page(page.text).sent


@pytest.mark.parametrize("client", [PUBLIC, CONFIDENTIAL])
def test_group_11_refresh_token_is_valid_three_months_after_each_use(server: Server, client: str) -> None:
    tokens = server.launch("adult", "adult", WHOLE, client_id=client)
    for _ in range(3):
        server.ehr.served.at(server.smart.now() + 91 * DAY)
        answer = server.refresh(tokens["refresh_token"], client)
        assert answer.status_code == 200
        tokens = answer.json()
    server.ehr.served.at(server.smart.now() + 93 * DAY)
    assert server.refresh(tokens["refresh_token"], client).status_code == 400


def test_group_11_backend_gets_only_registered_scopes(server: Server) -> None:
    assert server.backend("system/*.rs patient/*.rs user/*.rs openid offline_access").json()["scope"] == "system/*.rs"
    assert server.configuration()["scopes_supported"]
    assert server.token({"grant_type": "client_credentials", "scope": "patient/*.rs"}, BACKEND).json()["error"] == "invalid_scope"


def test_group_11_brand_bundle_publishes_the_fhir_base_url(server: Server) -> None:
    bundle = server.browser().get(server.configuration()["user_access_brand_bundle"])
    endpoints = [entry["resource"] for entry in bundle.json()["entry"] if entry["resource"]["resourceType"] == "Endpoint"]
    assert [one["address"] for one in endpoints] == [server.base]
    assert bundle.headers["access-control-allow-origin"] == "*"
    assert server.get(None, "metadata").status_code == 200


def test_group_11_access_token_expires_within_one_hour(server: Server) -> None:
    tokens = server.launch("adult", "adult", WHOLE)
    server.ehr.served.at(server.smart.now() + HOUR)
    assert server.get(tokens, "Patient/adult").status_code == 401


def test_group_11_clinical_test_category_scope_is_granted(server: Server) -> None:
    scope = "patient/Observation.rs?category=http://hl7.org/fhir/us/core/CodeSystem/us-core-category|clinical-test"
    assert scope in server.launch("adult", "adult", f"{BASICS} {scope}")["scope"].split()
