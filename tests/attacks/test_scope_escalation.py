"""Attempts to get more than was granted: at refresh, at consent, and by malformed scopes."""

from __future__ import annotations

import pytest

from fhir_server.smart.core.scopes import parse
from tests.smart.environment import Page, World, query


def test_scope_escalation_at_a_refresh_is_refused(world: World) -> None:
    tokens = world.tokens(scope="launch/patient offline_access patient/Observation.rs")
    for scope in (
        "patient/*.rs",
        "patient/Observation.cruds",
        "user/*.rs",
        "system/*.rs",
        "openid",
        "patient/Observation.rs patient/Patient.r",
    ):
        answer = world.refresh(tokens["refresh_token"], scope=scope)
        assert answer.status_code == 400 or set(answer.json()["scope"].split()) <= set(tokens["scope"].split()), scope
        assert answer.status_code == 400, scope
    answer = world.refresh(tokens["refresh_token"], scope="patient/Observation.rs")
    assert answer.json()["scope"] == "patient/Observation.rs"


@pytest.mark.parametrize(
    "scope", ["user/*.cruds", "patient/*.cruds", "system/*.rs", "patient/Observation.rs?category=x|y", "online_access"]
)
@pytest.mark.parametrize("field", ["scope", "part"])
def test_scope_escalation_by_unoffered_scope_at_consent_is_ignored(world: World, scope: str, field: str) -> None:
    page = world.consent_page(scope="launch/patient patient/Observation.rs patient/Patient.r")
    sent = Page(page.text).sent
    form: dict[str, list[str]] = {}
    for name, value in [*sent, (field, scope), ("decision", "allow")]:
        form.setdefault(name, []).append(value)
    code = query(world.http.post("/oauth/consent", data=form).headers["location"])["code"]
    assert world.exchange(code).json()["scope"] == "launch/patient patient/Observation.rs patient/Patient.r"


@pytest.mark.parametrize("patient", ["teen", "senior", "nobody", "", "../teen", "Patient/teen"])
def test_scope_escalation_by_unoffered_patient_at_consent_fails(world: World, patient: str) -> None:
    picker = world.sign_in(world.follow(world.authorize()), "adult")
    assert world.submit(picker, patient=patient).status_code == 400
    handle = dict(Page(picker.text).sent)
    forced = world.http.post("/oauth/consent", data=handle | {"decision": "allow", "patient": patient})
    assert "location" not in forced.headers
    code = query(world.submit(world.submit(picker, patient="adult"), decision="allow", patient=patient).headers["location"])["code"]
    assert world.exchange(code).json()["patient"] == "adult"


MALFORMED = (
    *(
        "patient/*.sr",
        "patient/Observation.rr",
        "patient/Observation.RS",
        "PATIENT/Observation.rs",
        "patient/observation.rs",
        "patient/.rs",
    ),
    *(
        "patient/**.rs",
        "patient/Obs*.rs",
        "patient/Observation.",
        "patient/Observation.*.*",
        "patient/Observation.rs.cud",
        "/*.rs",
        "*/*.rs",
    ),
    *(
        "patient/Observation.rs?",
        "patient/Observation.rs?=",
        "patient/Observation.rs?category",
        "patient/Observation.rs?category=",
        "patient//*.rs",
    ),
    *("patient/Observation.rs?a=b&", "patient/Observation.read?a=b", "patient/../user/*.rs", "patient/Observation.rs\u00a0user/*.rs"),
    *(
        "patient/Observation.rs,user/*.rs",
        "patient/Observation.rs;user/*.rs",
        "pаtient/*.rs",
        "patient/Observation.ｒｓ",
        "patient/Observation.rs\x00",
    ),
)


@pytest.mark.parametrize("scope", MALFORMED, ids=repr)
def test_scope_escalation_by_malformed_scope_is_ignored(world: World, scope: str) -> None:
    assert parse(scope) is None
    assert query(world.authorize(scope=scope).headers["location"])["error"] == "invalid_scope"
    assert world.tokens(scope=f"patient/Patient.r {scope}")["scope"].split() in (
        ["patient/Patient.r"],
        ["patient/Patient.r", "patient/Observation.rs"],
    )


def test_scope_escalation_by_too_many_scopes_is_refused(world: World) -> None:
    flood = " ".join(f"patient/Observation.rs?category=x|{number}" for number in range(250))
    assert query(world.authorize(scope=flood).headers["location"])["error"] == "invalid_scope"
