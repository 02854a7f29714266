"""Friends and family access: sharing a record, and ending access."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.access.access_summary import describe_level
from fhir_server.consent import policy
from fhir_server.portal import sharing
from fhir_server.resources import validate
from fhir_server.smart.core.context import DAY
from tests.portal.environment import World, code_in

SHARED = "Shared with you"
RESULT = {
    "resourceType": "Observation",
    "id": "result",
    "status": "final",
    "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
    "subject": {"reference": "Patient/adult"},
    "valueQuantity": {"value": 14, "unit": "g/dL", "system": "http://unitsofmeasure.org", "code": "g/dL"},
}
NOT_YOURS = "You cannot share a record from this account."


def share_with_proxy(world: World, **fields: str) -> tuple[str, str]:
    """Share with proxy-standard; return the Consent's id and a token that proxy-standard gave an app."""
    before = world.stored("Consent").keys()
    code = code_in(world.signed_in("adult").share(**fields))
    (consent,) = world.stored("Consent").keys() - before
    assert world.signed_in("proxy-standard").send("/accept", "/accept", code=code).status_code == 200
    return consent, world.token("proxy-standard", "adult")


def end(world: World, consent: str) -> int:
    adult = world.signed_in("adult")
    token = adult.get("/sharing").text.partition('name="token" value="')[2].partition('"')[0]
    return adult.post("/sharing/end", token=token, consent=consent).status_code


def test_start_page_lists_shared_record_until_the_grant_ends(world: World) -> None:
    stranger = world.signed_in("proxy-standard")
    assert SHARED not in stranger.get("/").text
    consent, _ = share_with_proxy(world)
    proxy = world.signed_in("proxy-standard")
    assert "Alex Adult" in proxy.get("/").text and SHARED in proxy.get("/").text
    assert end(world, consent) == 303
    assert "Alex Adult" not in proxy.get("/").text


def test_ending_a_proxy_grant_returns_404_to_existing_tokens(world: World) -> None:
    consent, token = share_with_proxy(world)
    assert world.status(token) == 200
    assert end(world, consent) == 303
    assert world.status(token) == 404


def change_level(world: World, consent: str, level: str) -> int:
    return world.signed_in("adult").send("/sharing", "/sharing/level", consent=consent, level=level).status_code


def test_f21_6_a_lower_level_shows_an_existing_token_less_at_once(world: World) -> None:
    consent, token = share_with_proxy(world, level="full")
    row = world.stored("Consent")[consent]
    asyncio.run(world.add(RESULT))
    assert world.status(token, "Observation/result") == 200
    assert change_level(world, consent, "scheduling") == 303
    changed = world.stored("Consent")[consent]
    levels = [coding["code"] for category in changed["category"] for coding in category["coding"] if "proxy-level" in coding["system"]]
    assert levels == ["scheduling"] and changed["meta"]["versionId"] == "2"
    assert {name: value for name, value in changed.items() if name not in ("category", "meta")} == {
        name: value for name, value in row.items() if name not in ("category", "meta")
    }
    assert (world.status(token, "Observation/result"), world.status(token)) == (404, 200)
    assert change_level(world, consent, "full") == 303 and world.status(token, "Observation/result") == 200
    assert end(world, consent) == 303 and world.status(token) == 404


def test_a_category_that_names_more_than_the_level_keeps_the_rest(world: World) -> None:
    """Else the Consent would no longer be a grant of access, and the page would say that its level was changed."""
    consent, token = share_with_proxy(world)
    category = world.stored("Consent")[consent]["category"]
    merged = [category[0], {"coding": [*category[1]["coding"], *category[2]["coding"]]}]
    asyncio.run(world.change("Consent", consent, {"category": merged}))
    assert world.status(token) == 200
    assert change_level(world, consent, "full") == 303
    assert world.status(token) == 200 and "full" in str(world.stored("Consent")[consent]["category"])


def test_a_level_is_changed_by_its_patient_only_and_to_a_known_one(world: World) -> None:
    consent, _ = share_with_proxy(world)
    other = world.signed_in("newly-adult")
    token = other.get("/sharing").text.partition('name="token" value="')[2].partition('"')[0]
    assert other.post("/sharing/level", token=token, consent=consent, level="full").status_code == 400
    assert change_level(world, consent, "everything") == 400
    assert end(world, consent) == 303
    adult = world.signed_in("adult")
    token = adult.get("/sharing").text.partition('name="token" value="')[2].partition('"')[0]
    assert adult.post("/sharing/level", token=token, consent=consent, level="full").status_code == 400
    assert world.stored("Consent")[consent]["status"] == "inactive"


def test_unredeemed_proxy_grant_gives_no_access(world: World) -> None:
    adult = world.signed_in("adult")
    assert code_in(adult.share())
    assert world.status(world.token("proxy-standard", "adult")) == 404
    assert "Not used yet" in adult.get("/sharing").text


def test_proxy_grant_expires_after_its_last_day(world: World) -> None:
    share_with_proxy(world, until="2026-11-22")
    assert "22 November 2026" in world.signed_in("adult").get("/sharing").text
    world.clock.forward(37 * DAY // 24 + DAY // 48)  # 23:30 of the last day in New York
    token = world.token("proxy-standard", "adult")
    assert world.status(token) == 200
    world.clock.forward(DAY // 48)
    assert world.status(token) == 404
    assert "Sam Standard" not in world.signed_in("adult").get("/sharing").text


def test_proxy_grant_resources_are_valid_and_match_the_seeds(world: World) -> None:
    like = world.stored("Consent")["proxy-full-of-adult"]
    consent, _ = share_with_proxy(world, level="full", until="2027-01-31")
    made = world.stored("Consent")[consent]
    grantee = made["provision"]["provision"][0]["actor"][0]["reference"]["reference"]
    person = world.stored("RelatedPerson")[grantee.removeprefix("RelatedPerson/")]
    assert validate.check("Consent", made) == () and validate.check("RelatedPerson", person) == ()
    for name in ("status", "scope", "category", "patient", "performer"):
        assert made[name] == like[name]
    assert made["meta"]["profile"] == like["meta"]["profile"]
    assert made["policy"][0]["uri"] == like["policy"][0]["uri"]
    permit, known = made["provision"]["provision"][0], like["provision"]["provision"][0]
    assert permit["type"] == "permit" and permit["actor"][0]["role"] == known["actor"][0]["role"]
    assert permit["period"] == {"start": "2026-11-21", "end": "2027-01-31"}
    assert person["active"] is True and person["name"] == [{"text": "Sam Standard"}]
    assert person["relationship"][0]["coding"][0]["code"] == "SIB"


def test_ending_a_proxy_grant_changes_only_the_consent_status(world: World) -> None:
    before = world.stored("Consent")["proxy-full-of-adult"]
    assert end(world, "proxy-full-of-adult") == 303
    after = world.stored("Consent")["proxy-full-of-adult"]
    assert (before.pop("status"), after.pop("status")) == ("active", "inactive")
    assert (before.pop("meta")["versionId"], after.pop("meta")["versionId"]) == ("1", "2")
    assert before == after
    assert "Fran Full" not in world.signed_in("adult").get("/sharing").text


@pytest.mark.parametrize("username", ["proxy-full", "parent-a", "clinician"])
def test_sharing_another_persons_record_returns_403(world: World, username: str) -> None:
    other = world.signed_in(username)
    answer = other.get("/sharing")
    assert answer.status_code == 403 and NOT_YOURS in answer.text
    token = other.get("/accept").text.partition('name="token" value="')[2].partition('"')[0]
    sent = {"token": token, "once": "1", "name": "Eve", "level": "full", "patient": "adult", "consent": "proxy-full-of-adult"}
    before = world.stored("Consent"), world.stored("RelatedPerson")
    for action in ("/sharing", "/sharing/end", "/sharing/code"):
        assert other.post(action, **sent).status_code == 403
    assert (world.stored("Consent"), world.stored("RelatedPerson")) == before


def test_a_minor_with_an_account_cannot_share(world: World) -> None:
    assert world.signed_in("newly-adult").get("/sharing").status_code == 200
    world.clock.forward(-400 * DAY)
    young = world.signed_in("newly-adult")
    assert young.get("/sharing").status_code == 403


def test_an_adult_cannot_end_a_grant_on_another_record(world: World) -> None:
    assert end(world, "parent-a-of-child") == 400
    assert world.stored("Consent")["parent-a-of-child"]["status"] == "active"


def test_expired_parent_grants_are_not_shown_to_a_new_adult(world: World) -> None:
    assert "not shared your record with anyone" in world.signed_in("newly-adult").get("/sharing").text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": " "}, sharing._NAME),
        ({"name": "x" * 101}, sharing._NAME),
        ({"name": "a\x00b"}, sharing._NAME),
        ({"level": "everything"}, sharing._LEVEL),
        ({"level": ""}, sharing._LEVEL),
        ({"until": "2026-11-20"}, sharing._UNTIL),
        ({"until": "tomorrow"}, sharing._UNTIL),
        ({"until": "9999-12-31"}, sharing._UNTIL),
    ],
)
def test_invalid_sharing_form_shows_the_error_and_writes_nothing(world: World, fields: dict[str, str], text: str) -> None:
    before = world.stored("Consent")
    answer = world.signed_in("adult").share(**fields)
    assert answer.status_code == 400 and text.replace("'", "&#39;") in answer.text
    assert world.stored("Consent") == before


def test_proxy_name_is_html_escaped(world: World) -> None:
    adult = world.signed_in("adult")
    assert "<b>Bob" not in adult.share(name="<b>Bob").text
    assert "&lt;b&gt;Bob" in adult.get("/sharing").text


def test_resent_sharing_form_creates_one_grant(world: World) -> None:
    adult = world.signed_in("adult")
    page = adult.get("/sharing").text
    token, once = (page.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("token", "once"))
    sent = {"token": token, "once": once, "name": "Sam", "level": "standard"}
    before = len(world.stored("Consent"))
    assert [adult.post("/sharing", **sent).status_code for _ in range(2)] == [200, 400]
    assert len(world.stored("Consent")) == before + 1


@pytest.mark.parametrize("action", ["/sharing", "/sharing/end", "/sharing/code", "/accept", "/apps"])
def test_csrf_portal_form_without_token_returns_403(world: World, action: str) -> None:
    adult = world.signed_in("adult")
    sent = {"once": "1", "name": "Eve", "level": "full", "consent": "proxy-full-of-adult", "code": "x", "app": "x"}
    before = world.stored("Consent")
    assert adult.post(action, **sent).status_code == 403
    assert adult.post(action, **sent, token="0" * 64).status_code == 403
    assert world.stored("Consent") == before


@pytest.mark.parametrize("path", ["/sharing", "/accept", "/apps"])
def test_portal_pages_redirect_visitors_to_sign_in_and_back(world: World, path: str) -> None:
    answer = world.visitor().get(path)
    assert answer.status_code == 303 and answer.headers["location"] == f"/sign-in?next=%2F{path[1:]}"


def test_portal_pages_forbid_caching_framing_and_scripts(world: World) -> None:
    adult = world.signed_in("adult")
    for path in ("/", "/sharing", "/accept", "/apps"):
        answer = adult.get(path)
        assert answer.status_code == 200 and "<script" not in answer.text
        assert answer.headers["cache-control"] == "no-store" and "default-src 'none'" in answer.headers["content-security-policy"]
    assert world.visitor().get("/portal.css").headers["content-type"].startswith("text/css")


def test_start_page_shows_visitors_sign_in_and_no_record(world: World) -> None:
    page = world.visitor().get("/")
    assert page.status_code == 200 and 'href="/sign-in"' in page.text and "Alex Adult" not in page.text


def test_number_of_proxies_per_record_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MAX_GRANTS", 2)
    adult = world.signed_in("adult")
    assert [adult.share().status_code for _ in range(2)] == [200, 400]


def test_access_level_description_follows_the_policy() -> None:
    assert "Does not include" not in describe_level(policy.load("optum"), "full")
    assert "sensitive" in describe_level(policy.load("ssm"), "full").partition("Does not include")[2]
    for name in ("optum", "ssm", "strict"):
        left_out = describe_level(policy.load(name), "standard").partition("Does not include")[2]
        assert "sensitive" in left_out and "notes" in left_out and "visits" not in left_out


def test_sharing_is_authorized_in_the_writing_transaction(world: World) -> None:
    """An adult whose record is closed after the page was opened (here: deceased) cannot share it."""
    adult = world.signed_in("adult")
    page = adult.get("/sharing").text
    token, once = (page.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("token", "once"))
    asyncio.run(world.change("Patient", "adult", {"deceasedBoolean": True}))
    before = world.stored("Consent")
    assert adult.post("/sharing", token=token, once=once, name="Eve", level="full").status_code == 403
    assert world.stored("Consent") == before
