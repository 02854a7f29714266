"""Odd partners over time: tokens, refusals, waits and the budget of a partner."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.linking import links
from fhir_server.linking.queries import QUERIES
from fhir_server.maintenance import reseal
from fhir_server.smart.accounts import users
from fhir_server.smart.core.context import HOUR, MINUTE
from tests.linking.odd_partners import DISCOVERY, HONEST, HTML, ODD, OddWorld, Outline, failing
from tests.linking.odd_table import RATE, UNKNOWN

ENDED = "The other health system no longer accepts this link. Link the account again."
RESULTS = "/fhir/Observation"


def _later(world: OddWorld, micros: int = 2 * HOUR) -> None:
    world.clock.forward(micros)
    world.ours.http.cookies.clear()
    world.ours.sign_in(world.ours.http.get("/sign-in?next=/links"), "adult")


def _linked(instead: dict[str, Any] | None = None, **tokens: Any) -> tuple[OddWorld, str]:
    answer = {name: value for name, value in (HONEST["/token"] | tokens).items() if value is not None}
    world = OddWorld({"/token": answer} | (instead or {}))
    return world, world.linked()


@pytest.mark.parametrize("scopes", ["capabilities", "scopes_supported"])
def test_v1_scopes_are_asked_for_if_discovery_says_so(scopes: str) -> None:
    known = {"capabilities": ["permission-v1"]} if scopes == "capabilities" else {"scopes_supported": ["openid", "patient/*.read"]}
    v1 = OddWorld({"/fhir/.well-known/smart-configuration": DISCOVERY | {"capabilities": ["launch-standalone"]} | known})
    assert v1.asked_for()["scope"] == "launch/patient openid fhirUser offline_access patient/*.read"
    assert OddWorld({}).asked_for()["scope"] == "launch/patient openid fhirUser offline_access patient/*.rs"


@pytest.mark.parametrize(
    "known", [{}, {"capabilities": ["permission-v1", "permission-v2"]}, {"scopes_supported": ["patient/*.read", "patient/*.rs"]}]
)
def test_v2_scopes_are_asked_for_where_both_are_known(known: dict[str, Any]) -> None:
    document = {name: value for name, value in DISCOVERY.items() if name != "capabilities"} | known
    assert "patient/*.rs" in OddWorld({"/fhir/.well-known/smart-configuration": document}).asked_for()["scope"]


LISTED = ["launch/patient", "patient/Observation.{}", "patient/Condition.{}", "user/*.{}", "patient/Slot.{}"]


@pytest.mark.parametrize(
    ("access", "asked"),
    [("read", "patient/Condition.read patient/Observation.read"), ("rs", "patient/Condition.rs patient/Observation.rs")],
)
def test_single_types_are_asked_for_where_there_is_no_wildcard(access: str, asked: str) -> None:
    def scope(*listed: str) -> str:
        document = {name: value for name, value in DISCOVERY.items() if name != "capabilities"}
        document |= {"scopes_supported": [each.format(access) for each in listed]}
        words = OddWorld({"/fhir/.well-known/smart-configuration": document}).asked_for()["scope"].split()
        return " ".join(sorted(word for word in words if word.startswith("patient/")))

    assert scope(*LISTED) == asked
    assert scope(*LISTED, "patient/*.{}") == f"patient/*.{access}"  # control
    for listed in ("patient/Slot.{}", "patient/Patient.{}"):  # nothing that is shown: ask as always
        assert scope(listed) == f"patient/*.{access}"


def test_granted_scopes_hold_until_a_refresh_names_others() -> None:
    world, page = _linked(scope="patient/Observation.read")
    granted = f"This link does not include allergies: no such access was given at the other health system. {UNKNOWN}"
    _later(world)
    assert world.read(page).section("Allergies") == [granted]
    assert world.partner.asked("/fhir/AllergyIntolerance") == 0
    world.partner.instead["/token"] = HONEST["/token"] | {"scope": "patient/*.read"}
    _later(world)
    assert "Peanut" in world.read(page).section("Allergies")


@pytest.mark.parametrize("lifetime", [None, "soon", True, -5, 0], ids=str)
def test_token_without_usable_lifetime_is_used_until_it_is_refused(lifetime: object) -> None:
    world, page = _linked(expires_in=lifetime, refresh_token=None)
    for _ in range(3):
        _later(world)
        assert "Potassium" in world.read(page).section("Test results")
    assert world.partner.asked("/token") == 1
    world.partner.instead |= {"/fhir/*": failing(401), "/fhir/Patient/p1": failing(401)}
    assert ENDED in world.read(page).lines


def test_lifetime_as_text_is_heeded() -> None:
    world, page = _linked(expires_in="3600")
    for _ in range(3):
        world.read(page)
    assert world.partner.asked("/token") == 1
    _later(world)
    world.read(page)
    assert world.partner.asked("/token") == 2


def test_refresh_without_patient_and_refresh_token_keeps_the_link() -> None:
    world, page = _linked()
    world.partner.instead["/token"] = {"access_token": "a2", "token_type": "bearer", "expires_in": 3600}
    for _ in range(2):
        _later(world)
        assert "Potassium" in world.read(page).section("Test results")
    assert [form.get("refresh_token") for form in world.partner.forms("/token")] == [None, "r1", "r1"]


NO_LONGER = {
    "revoked": httpx.Response(400, json={"error": "invalid_grant"}),
    "revoked, 401": httpx.Response(401, json={"error": "invalid_grant"}),
    "HTML": HTML,
    "HTML, 401": failing(401),
}


@pytest.mark.parametrize("refusal", NO_LONGER)
def test_refused_refresh_says_once_to_link_again(refusal: str) -> None:
    world, page = _linked()
    _later(world)
    world.partner.instead["/token"] = NO_LONGER[refusal]
    before = len(world.partner.calls)
    lines = world.read(page).lines
    assert lines.count(ENDED) == 1
    assert not [line for line in lines if "again" in line and line != ENDED]
    assert [request.url.path for request in world.partner.calls[before:]] == ["/token"]


NOT_NOW = {
    "fault": (failing(503), "The other health system has a problem of its own. Try again later."),
    "wait": (failing(503, **{"retry-after": "600"}), "The other health system asked us to wait. Try again in about 10 minutes."),
    "client": (
        httpx.Response(401, json={"error": "invalid_client"}),
        "The other health system does not accept requests of this server at the moment. Contact our health information office.",
    ),
    "page": (httpx.Response(200, content=b"<html>"), "The other health system sent an invalid response. Try again later."),
    "down": (httpx.ConnectError("no"), "The other health system cannot be reached at the moment. Try again later."),
}


@pytest.mark.parametrize("failure", NOT_NOW)
def test_failed_refresh_says_why_and_keeps_the_link(failure: str) -> None:
    world, page = _linked()
    _later(world)
    answer, said = NOT_NOW[failure]
    world.partner.instead["/token"] = answer
    assert said in world.read(page).lines
    del world.partner.instead["/token"]
    _later(world)
    assert "Potassium" in world.read(page).section("Test results")


def test_refused_type_does_not_refresh_tokens() -> None:
    world, page = _linked({"/fhir/Encounter": failing(401)})
    for _ in range(2):
        assert any("did not accept our access to visits (error 401)" in line for line in world.read(page).section("Visits"))
    assert world.partner.asked("/token") == 1


@pytest.mark.parametrize(
    ("retry_after", "minutes"), [("120", 2), ("Wed, 18 Nov 2026 11:09:40 GMT", 3), ("soon", 1), ("", 1), ("99999999999", 60)]
)
def test_retry_after_is_heeded_for_all_and_said(retry_after: str, minutes: int) -> None:
    world, page = _linked({"/fhir/Patient/p1": failing(429, **{"retry-after": retry_after})})
    words = f"Try again in about {minutes} minutes." if minutes > 1 else "Try again in about a minute."
    assert f"The other health system asked us to wait. {words}" in world.read(page).lines
    del world.partner.instead["/fhir/Patient/p1"]
    before = len(world.partner.calls)
    world.read(page)
    assert "asked us to wait" in world.start().text
    assert len(world.partner.calls) == before
    _later(world, minutes * MINUTE)
    assert "Potassium" in world.read(page).section("Test results")


def test_wait_that_begins_on_the_page_ends_its_other_calls() -> None:
    world, page = _linked(RATE)
    world.read(page)
    assert sum(request.url.path.startswith("/fhir/") and "patient" in request.url.params for request in world.partner.calls) <= ODD.at_once
    before = len(world.partner.calls)
    world.read(page)
    assert len(world.partner.calls) == before


def test_limit_of_calls_a_minute_is_kept_and_said() -> None:
    # discovery, code, Patient, the searches, and the one for older prescriptions
    calls = 4 + len(QUERIES)
    world = OddWorld({}, msgspec.structs.replace(ODD, per_minute=calls + 1))
    page = world.linked()
    assert "Potassium" in world.read(page).section("Test results")
    assert len(world.partner.calls) == calls
    lines = world.read(page).lines
    said = "We already ask the other health system as often as we may, so we did not ask for the information in this record."
    assert any(line.startswith(said) for line in lines), lines
    assert len(world.partner.calls) == calls + 1
    world.clock.forward(MINUTE)
    assert "Potassium" in world.read(page).section("Test results")


def test_revocation_does_not_wait_for_a_partner() -> None:
    world, page = _linked({"/fhir/Patient/p1": failing(429, **{"retry-after": "600"})})
    world.read(page)
    world.ours.http.post(f"{page}/unlink", data={"token": world.token()})
    assert world.partner.forms("/revoke")[0]["token"] == "r1"


def test_log_names_the_cause_and_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fhir_server.linking"):
        world, page = _linked({"/fhir/AllergyIntolerance": failing(403), "/fhir/Patient/p1": failing(500)})
        world.read(page)
    assert caplog.messages == [
        "Organization odd: read of the Patient: answered with status 500.",
        "Organization odd: search of AllergyIntolerance: answered with status 403 (forbidden).",
    ]


def test_list_names_person_organization_and_place() -> None:
    world, page = _linked()
    before = Outline(world.ours.http.get("/links").text).lines
    assert "Odd Health has not told us yet whose record this is." in before
    world.read(page)
    after = " ".join(Outline(world.ours.http.get("/links").text).lines)
    assert "Odd Health Springfield, linked on 18 November 2026 Record of Alex Adult, born 3 February 1980" in after


def test_person_is_stored_encrypted_and_removed_with_the_link() -> None:
    world, page = _linked()
    world.read(page)
    kept = repr(vars(world.ours.store)) + repr(vars(world.ours.store.key_values))
    assert "link-person" in kept
    assert "1980-02-03" not in kept
    world.ours.http.post(f"{page}/unlink", data={"token": world.token()})
    assert "link-person" not in repr(vars(world.ours.store))


def test_person_of_a_link_removed_meanwhile_is_not_stored() -> None:
    world, page = _linked()

    async def read(request: httpx.Request) -> Any:
        user = await users.find(world.ours.store, "adult")
        assert user is not None
        for link in await links.list_all(world.ours.context, user):
            await links.unlink(world.ours.context, user, link)
        return HONEST["/fhir/Patient/p1"]

    world.partner.instead["/fhir/Patient/p1"] = read
    world.read(page)
    assert world.partner.asked("/revoke") == 1
    assert "link-person" not in repr(vars(world.ours.store))


def test_stored_person_is_encrypted_anew_with_a_new_key() -> None:
    assert {"link-tokens", "link-person"} <= {sealed.kind for sealed in reseal.SEALED}
