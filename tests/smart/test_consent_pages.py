from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from fhir_server.smart.core.persons import Person, RecordChoice, Records
from tests.smart.environment import Page, World, query

SCOPE = "launch/patient offline_access patient/Patient.rs patient/Observation.rs patient/Condition.rs"


def test_record_picker_lists_the_persons_records_with_notes(world: World) -> None:
    page = world.sign_in(world.follow(world.authorize()), "parent-a")
    assert Page(page.text).radios == ["child", "teen"]
    assert "Some visits are private." in page.text
    assert "Your child" in page.text


@pytest.mark.parametrize("patient", ["adult", "newly-adult", "", "nobody"])
def test_choosing_an_unoffered_record_returns_400(world: World, patient: str) -> None:
    page = world.sign_in(world.follow(world.authorize()), "parent-a")
    refused = world.submit(page, patient=patient)
    assert refused.status_code == 400
    assert Page(refused.text).radios == ["child", "teen"]


def test_account_without_records_sees_why_and_app_is_denied(world: World) -> None:
    page = world.sign_in(world.follow(world.authorize()), "billing")
    assert "not have access to any health record" in page.text
    assert "work account" in page.text and "turned 18" not in page.text
    assert query(world.submit(page, decision="deny").headers["location"])["error"] == "access_denied"


def test_consent_page_shows_app_record_scopes_and_duration(world: World) -> None:
    page = world.consent_page("parent-a", "teen", scope=SCOPE)
    text = re.sub(r"\s+", " ", Page(page.text).text)
    for words in (
        "Demo phone app",
        "this device (127.0.0.1)",
        "Teen",
        "Your child",
        "Lab results and other observations: read",
        "92 days",
        "You can end access at any time under Connected apps at http://127.0.0.1:8000/apps",
    ):
        assert words in text, words
    assert page.headers["content-security-policy"].endswith("form-action 'self'")


def test_smart_69_deselected_scopes_are_not_granted(world: World) -> None:
    page = world.consent_page(scope=SCOPE)
    sent = [(name, value) for name, value in Page(page.text).sent if value not in ("patient/Condition.rs", "offline_access")]
    fields = {name: [v for n, v in sent if n == name] for name, _ in sent} | {"decision": ["allow"]}
    answer = world.http.post("/oauth/consent", data=fields)
    tokens = world.exchange(query(answer.headers["location"])["code"]).json()
    assert tokens["scope"] == "launch/patient patient/Patient.rs patient/Observation.rs"
    assert "refresh_token" not in tokens


def test_unoffered_scope_is_not_granted(world: World) -> None:
    page = world.consent_page(scope="patient/Patient.rs")
    fields = {name: [value] for name, value in Page(page.text).sent} | {"decision": ["allow"]}
    fields["scope"] = ["patient/Patient.rs", "patient/*.cruds", "system/*.rs", "offline_access"]
    code = query(world.http.post("/oauth/consent", data=fields).headers["location"])["code"]
    assert world.exchange(code).json()["scope"] == "patient/Patient.rs"


def test_deselecting_all_scopes_returns_400(world: World) -> None:
    page = world.consent_page(scope=SCOPE)
    fields = {name: value for name, value in Page(page.text).sent if name != "scope"} | {"decision": "allow"}
    refused = world.http.post("/oauth/consent", data=fields)
    assert refused.status_code == 400
    assert "at least one" in refused.text
    assert world.submit(refused, decision="allow").status_code == 400
    assert world.submit(refused, decision="allow", scope="patient/Observation.rs").status_code == 303


def test_invalid_consent_form_is_shown_again_with_all_choices(world: World) -> None:
    page = world.consent_page(scope=SCOPE)
    asked = Page(page.text).sent
    assert {("scope", "offline_access"), ("scope", "patient/Condition.rs")} <= set(asked) and not named(asked, "withhold")
    kept = {name: value for name, value in asked if name != "scope"}
    refused = world.http.post("/oauth/consent", data=kept | {"decision": "allow", "withhold": ["HIV", "MH"]})
    again = Page(refused.text).sent
    assert (refused.status_code, named(again, "scope"), named(again, "withhold")) == (400, [], ["HIV", "MH"])
    folded = refused.text.partition("Hide sensitive information")[0].rpartition("<details")[2]
    assert folded.startswith(" open>")
    answer = world.submit(refused, decision="allow", scope="patient/Observation.rs")
    token = world.exchange(query(answer.headers["location"])["code"]).json()["access_token"]
    assert world.principal(token).withheld_labels == {"HIV", "MH", "UNCLASSIFIED", "UNREAD"}


def named(sent: list[tuple[str, str]], name: str) -> list[str]:
    return [value for one, value in sent if one == name]


def test_invalid_consent_form_keeps_category_choices(world: World) -> None:
    page = world.consent_page(scope=SCOPE)
    fields = {name: value for name, value in Page(page.text).sent if name != "scope"} | {"decision": "allow"}
    part = "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    object.__setattr__(world.smart, "records", nothing_then(world.smart.records))
    refused = world.http.post("/oauth/consent", data=fields | {"part": part})
    assert refused.status_code == 400
    assert named(Page(refused.text).sent, "part") == [part]


def nothing_then(after: Records) -> Records:
    """Return a query that finds no records the first time, and then those of ``after``."""
    asked: list[int] = []

    async def records(person: Person, now: int) -> Sequence[RecordChoice]:
        asked.append(now)
        return [] if len(asked) == 1 else await after(person, now)

    return records


def test_allow_without_scope_fields_grants_the_requested_scope(world: World) -> None:
    page = world.consent_page(scope=SCOPE)
    fields = {name: value for name, value in Page(page.text).sent if name in ("token", "request", "shown")} | {"decision": "allow"}
    code = query(world.http.post("/oauth/consent", data=fields).headers["location"])["code"]
    assert world.exchange(code).json()["scope"] == SCOPE


def test_consent_before_a_record_choice_grants_nothing(world: World) -> None:
    picker = world.sign_in(world.follow(world.authorize()), "parent-a")
    fields = dict(Page(picker.text).sent) | {"decision": "allow"}
    assert "location" not in world.http.post("/oauth/consent", data=fields).headers


def test_record_choice_does_not_carry_over_to_another_person(world: World) -> None:
    page = world.consent_page("parent-a", "teen")
    handle = dict(Page(page.text).sent)["request"]
    world.http.cookies.clear()
    again = world.sign_in(world.follow(world.http.get("/oauth/continue", params={"request": handle})), "parent-b")
    assert Page(again.text).radios == ["child", "teen"]


def test_record_lost_before_consent_is_not_granted(world: World) -> None:
    page = world.consent_page("parent-a", "teen")

    async def none(person: Person, now: int) -> list[RecordChoice]:
        return []

    object.__setattr__(world.smart, "records", none)
    assert "location" not in world.submit(page, decision="allow").headers


def test_unknown_authorization_request_returns_400_page(world: World) -> None:
    for path in ("/oauth/continue", "/oauth/record", "/oauth/consent"):
        answer = world.http.get(path, params={"request": "unknown"})
        assert (answer.status_code, "location" in answer.headers) == (400, False)


def test_sign_in_page_escapes_query_parameters(world: World) -> None:
    page = world.http.get("/sign-in", params={"request": '"><script>alert(1)</script>', "next": "<b>"})
    assert "<script" not in page.text


def test_authorization_pages_have_accessible_markup(world: World) -> None:
    pages = [world.follow(world.authorize()), world.sign_in(world.follow(world.authorize()), "parent-a")]
    pages += [world.submit(pages[-1], patient="teen"), world.http.get("/signed-out")]
    for page in pages:
        assert '<html lang="en">' in page.text
        assert page.text.count("<h1>") == 1
        assert "<main" in page.text
        assert "<script" not in page.text
        shown = [tag for tag in re.findall(r"<input[^>]*>", page.text) if 'type="hidden"' not in tag and " hidden" not in tag]
        for tag in shown:
            found = re.search(r'\bid="([^"]+)"', tag)
            assert found, tag
            assert f'<label for="{found[1]}"' in page.text, tag


@pytest.mark.parametrize(("name", "status"), [("style.css", 200), ("logo.svg", 200), ("base.html", 404), ("..%2fcore.py", 404)])
def test_only_the_named_static_files_are_served(world: World, name: str, status: int) -> None:
    assert world.http.get(f"/static/{name}").status_code == status
