"""Requirement 22: each advertised capability works."""

from __future__ import annotations

import json

from fhir_server.smart.discovery.documents import CAPABILITIES
from tests.conformance.suite_client import ASYMMETRIC, CONFIDENTIAL, PUBLIC, Server
from tests.smart.environment import Page, claims_of

READ = "launch/patient patient/*.rs"


def test_smart_22_every_advertised_capability_has_a_test(server: Server) -> None:
    names = [name.removeprefix("test_smart_22_capability_") for name in globals() if name.startswith("test_smart_22_capability_")]
    tested = {name.partition("__")[0].replace("_", "-") for name in names}
    assert tested == set(CAPABILITIES) == set(server.configuration()["capabilities"])
    assert len(CAPABILITIES) == len(set(CAPABILITIES))


def test_smart_22_capability_launch_ehr__app_gets_the_chart_patient(server: Server) -> None:
    assert server.ehr.visitor().token("adult", scope="launch patient/*.rs")["patient"] == "adult"


def test_smart_22_capability_launch_standalone__app_starts_the_launch(server: Server) -> None:
    assert server.launch("adult", "adult", READ)["patient"] == "adult"


def test_smart_22_capability_authorize_post__form_request_is_accepted(server: Server) -> None:
    assert server.launch("adult", "adult", READ, post=True)["patient"] == "adult"


def test_smart_22_capability_client_public__app_needs_only_code_verifier(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", READ, client_id=PUBLIC)
    code = server.allow(visitor, page)
    assert server.redeem(code, PUBLIC, code_verifier=None).status_code == 400
    assert server.redeem(code, PUBLIC).status_code == 200


def test_smart_22_capability_client_confidential_symmetric__requires_secret(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", READ)
    code = server.allow(visitor, page)
    assert server.redeem(code, PUBLIC, client_id=CONFIDENTIAL).status_code in (400, 401)
    assert server.redeem(code, CONFIDENTIAL).status_code == 200


def test_smart_22_capability_client_confidential_asymmetric__requires_key(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", READ, client_id=ASYMMETRIC)
    code = server.allow(visitor, page)
    assert server.redeem(code, PUBLIC, client_id=ASYMMETRIC).status_code in (400, 401)
    assert server.redeem(code, ASYMMETRIC).status_code == 200


def test_smart_22_capability_sso_openid_connect__id_token_names_the_user(server: Server) -> None:
    claims = claims_of(server.launch("adult", "adult", f"openid fhirUser {READ}")["id_token"])[1]
    assert claims["fhirUser"] == f"{server.base}/Patient/adult"
    assert claims["aud"] in (CONFIDENTIAL, [CONFIDENTIAL])


def test_smart_22_capability_context_banner__token_has_need_patient_banner(server: Server) -> None:
    assert server.ehr.visitor().token("adult", scope="launch patient/*.rs")["need_patient_banner"] is True


def test_smart_22_capability_context_style__style_url_returns_colors(server: Server) -> None:
    url = server.ehr.visitor().token("adult", scope="launch patient/*.rs")["smart_style_url"]
    assert json.loads(server.browser().get(url).text)["color_background"].startswith("#")


def test_smart_22_capability_context_ehr_patient__token_names_open_chart(server: Server) -> None:
    for patient in ("adult", "teen"):
        assert server.ehr.visitor().token(patient, scope="launch patient/*.rs")["patient"] == patient


def test_smart_22_capability_context_ehr_encounter__token_names_encounter(server: Server) -> None:
    assert server.ehr.visitor().token("teen", "teen-well-visit", scope="launch user/*.rs")["encounter"] == "teen-well-visit"


def test_smart_22_capability_context_standalone_patient__user_selects_record(server: Server) -> None:
    for patient in ("child", "teen"):
        assert server.launch("parent-a", patient, READ)["patient"] == patient


def test_smart_22_capability_context_standalone_encounter__user_selects_visit(server: Server) -> None:
    visitor = server.ehr.visitor("adult")
    asked = server.authorization_parameters("launch/patient launch/encounter patient/*.rs")
    picker = visitor.submit(visitor.follow(visitor.browser.get("/oauth/authorize", params=asked)), patient="adult")
    visit = next(one for one in Page(picker.text).radios if one)
    code = server.allow(visitor, visitor.submit(picker, encounter=visit))
    assert server.redeem(code).json()["encounter"] == visit


def test_smart_22_capability_permission_offline__refresh_survives_sign_out(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", f"offline_access {READ}")
    tokens = server.redeem(server.allow(visitor, page)).json()
    home = visitor.get("/apps")
    visitor.browser.post("/sign-out", data={"token": home.text.partition('name="token" value="')[2].partition('"')[0]})
    assert visitor.get("/apps").status_code == 303  # signed out
    assert server.refresh(tokens["refresh_token"]).status_code == 200
    assert "refresh_token" not in server.launch("adult", "adult", READ)


def test_smart_22_capability_permission_online__refresh_ends_at_sign_out(server: Server) -> None:
    visitor, page = server.open_consent_page("adult", "adult", f"online_access {READ}")
    tokens = server.redeem(server.allow(visitor, page)).json()
    renewed = server.refresh(tokens["refresh_token"])
    assert renewed.status_code == 200
    home = visitor.get("/apps")
    visitor.browser.post("/sign-out", data={"token": home.text.partition('name="token" value="')[2].partition('"')[0]})
    assert server.refresh(renewed.json()["refresh_token"]).status_code == 400


def test_smart_22_capability_permission_patient__scopes_open_one_record(server: Server) -> None:
    tokens = server.launch("parent-a", "child", "launch/patient patient/Patient.rs")
    assert [server.get(tokens, f"Patient/{one}").status_code for one in ("child", "teen")] == [200, 404]


def test_smart_22_capability_permission_user__scopes_follow_user_access(server: Server) -> None:
    patients = ("adult", "child", "teen")
    clinician = server.launch("clinician", "", "user/Patient.rs")
    adult, parent = (server.launch(*who, "user/Patient.rs") for who in (("adult", "adult"), ("parent-a", "child")))
    assert [server.get(clinician, f"Patient/{one}").status_code for one in patients] == [200, 200, 200]
    assert [server.get(adult, f"Patient/{one}").status_code for one in patients] == [200, 404, 404]
    assert [server.get(parent, f"Patient/{one}").status_code for one in patients] == [404, 200, 404]


def test_smart_22_capability_permission_v1__v1_scopes_are_enforced(server: Server) -> None:
    tokens = server.launch("adult", "adult", "launch/patient patient/Patient.read")
    assert tokens["scope"] == "launch/patient patient/Patient.read"
    assert [server.get(tokens, path).status_code for path in ("Patient/adult", "Observation")] == [200, 403]


def test_smart_22_capability_permission_v2__each_interaction_is_enforced(server: Server) -> None:
    tokens = server.launch("adult", "adult", "launch/patient patient/Patient.r patient/Observation.s")
    assert [server.get(tokens, path).status_code for path in ("Patient/adult", "Patient", "Observation")] == [200, 403, 200]


def test_smart_22_capability_smart_app_state__app_stores_and_finds_state(server: Server) -> None:
    tokens = server.launch("adult", "adult", "launch/patient patient/Patient.rs patient/Basic.cruds")
    state = {
        "resourceType": "Basic",
        "meta": {"profile": ["http://hl7.org/fhir/smart-app-launch/StructureDefinition/smart-app-state-basic"]},
        "code": {"coding": [{"system": "https://app.example/state", "code": "settings"}]},
        "subject": {"reference": "Patient/adult"},
        "extension": [{"url": "https://app.example/value", "valueString": "{}"}],
    }
    headers = {"Authorization": f"Bearer {tokens['access_token']}", "Content-Type": "application/fhir+json"}
    made = server.browser().post("/fhir/Basic", content=json.dumps(state), headers=headers)
    assert made.status_code == 201, made.text
    found = server.get(tokens, "Basic?code=https://app.example/state|settings&subject=Patient/adult").json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == [made.json()["id"]]


def test_smart_22_capability_health_cards__patient_gets_a_signed_card(server: Server) -> None:
    answer = server.get(server.launch("adult", "adult", READ), "Patient/adult/$health-cards-issue?credentialType=Immunization").json()
    cards = [part["valueString"] for part in answer["parameter"] if part["name"] == "verifiableCredential"]
    assert cards and {len(card.split(".")) for card in cards} == {3}
