"""The consent page offers, and a token is granted, only scopes that have an effect for this person in this record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fhir_server.access.permissions import data_classes
from fhir_server.access.scope_effects import effective_scopes
from fhir_server.consent.decision import Actor, may_write, permits
from fhir_server.consent.policy import ActorKind, load
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.resources import catalog
from fhir_server.smart.accounts import users
from fhir_server.smart.authorize.scope_wording import describe_wildcard
from fhir_server.smart.core.persons import Person
from fhir_server.smart.core.scopes import INTERACTIONS, MAX_SCOPES, parse, resource_scopes
from tests.smart.environment import Page
from tests.smart.full_environment import Whole

CRUDS = "launch/patient patient/*.cruds"
ADULT = "patient/*.rs patient/Basic.cud patient/Communication.c patient/Immunization.c patient/Observation.c"


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    made = Whole()
    yield made
    made.served.close()


@pytest.mark.parametrize(
    ("user", "patient", "asked", "granted"),
    [
        ("adult", "adult", "patient/*.cruds", ADULT),
        ("parent-a", "child", "patient/*.cruds", ADULT),
        ("parent-a", "teen", "patient/*.cruds", "patient/*.rs patient/Communication.c"),
        ("proxy-standard", "adult", "patient/*.cruds", "patient/*.rs patient/Communication.c"),
        ("adult", "adult", "patient/*.cud", ADULT.removeprefix("patient/*.rs ")),
        ("adult", "adult", "patient/*.*", ADULT.replace(".rs", ".read")),
        ("adult", "adult", "patient/*.read", "patient/*.read"),
        ("adult", "adult", "patient/Patient.cruds patient/Coverage.u", "patient/Patient.rs"),
        ("adult", "adult", "patient/Observation.crus?category=vital-signs", "patient/Observation.crs?category=vital-signs"),
        ("adult", "adult", "patient/Observation.crs?category=laboratory", "patient/Observation.rs?category=laboratory"),
        (
            "adult",
            "adult",
            "patient/Observation.cs?category=a|laboratory,a|survey",
            "patient/Observation.cs?category=a|laboratory,a|survey",
        ),
        ("parent-a", "teen", "patient/Condition.rs patient/Observation.rs", "patient/Observation.rs"),
        ("parent-a", "teen", "patient/Subscription.cruds patient/Observation.r", "patient/Subscription.cruds patient/Observation.r"),
        ("parent-a", "child", "patient/Condition.rs patient/Observation.rs", "patient/Condition.rs patient/Observation.rs"),
    ],
)
def test_token_has_only_scopes_with_an_effect(whole: Whole, user: str, patient: str, asked: str, granted: str) -> None:
    assert whole.allowed(user, patient, scope=f"launch/patient {asked}")["scope"] == f"launch/patient {granted}"


def test_consent_page_promises_only_what_the_policy_permits(whole: Whole) -> None:
    whole.http.cookies.clear()
    text = whole.consent_page("parent-a", "teen", scope=f"{CRUDS} patient/Coverage.u patient/Condition.rs").text
    assert "All kinds of health information: read. Some kinds of health information: add" in text and "Messages: add" in text
    for absent in ("change", "delete", "coverage", "diagnoses:", "patient/Coverage.u", "patient/Condition.rs"):
        assert absent not in text.partition("Information to share")[2].partition("Sensitive information")[0], absent
    whole.http.cookies.clear()
    text = whole.consent_page("adult", "adult", scope=CRUDS).text
    assert "Home readings, habits and symptoms" in text and "change and delete" in text


def test_request_without_any_effect_can_only_be_denied(whole: Whole) -> None:
    whole.http.cookies.clear()
    page = whole.consent_page("parent-a", "teen", scope="launch/patient patient/Condition.rs patient/Coverage.c")
    assert "cannot give this app anything" in page.text and "patient/Condition.rs" not in page.text
    refused = whole.submit(page, decision="allow")
    assert refused.status_code == 400 and "Choose Deny" in refused.text


def test_form_cannot_bring_back_what_was_not_offered(whole: Whole) -> None:
    whole.http.cookies.clear()
    page = whole.consent_page("parent-a", "teen", scope=f"{CRUDS} patient/Condition.rs")
    sent = dict(Page(page.text).sent) | {"decision": "allow"}
    answer = whole.http.post("/oauth/consent", data=sent | {"scope": ["patient/*.cruds", "patient/Condition.rs", "patient/Observation.c"]})
    code = answer.headers["location"].partition("code=")[2].partition("&")[0]
    assert whole.exchange(code).json()["scope"] == "launch/patient patient/*.rs patient/Communication.c"


def test_granted_letters_are_those_that_the_server_carries_out(whole: Whole) -> None:
    policy = load("optum")
    for kind, levels in (
        (ActorKind.ADULT_SELF, ()),
        (ActorKind.TEEN_PROXY, ()),
        (ActorKind.ADULT_PROXY, ("full",)),
        (ActorKind.CLINICIAN, ()),
    ):
        actor = Actor(kind, frozenset(levels))
        for type in catalog():
            scope = parse(f"patient/{type}.cruds")
            assert scope is not None
            left = "".join(each.interactions for each in resource_scopes(" ".join(effective_scopes(policy, actor, scope))))
            reads = any(permits(policy, actor, VisibilityClass(data)) for data in data_classes(type))
            writes = [letter for letter in "cu" if may_write(policy, actor, type, letter)]
            deletes = ["d"] if type == "Basic" and may_write(policy, actor, type, "d") else []
            # Whoever sees anything may subscribe to it.
            expected = set(INTERACTIONS) if type == "Subscription" else {*writes, *deletes, *("rs" if reads else "")}
            assert left == "".join(letter for letter in INTERACTIONS if letter in expected), (kind, type)


def test_many_types_take_one_line_on_the_consent_page() -> None:
    scope = parse("user/*.cruds")
    assert scope is not None
    granted = effective_scopes(load("optum"), Actor(ActorKind.CLINICIAN), scope)
    assert len(granted) > 40
    words = describe_wildcard(resource_scopes(" ".join(granted)), "clinician")
    assert words.line == (
        "All kinds of health information, in every record you may open: read. Some kinds of health information: add and change"
    )
    assert len(words.details) == 1 and words.details[0].count("in every record you may open") == 1
    assert words.details[0].startswith("Allergies; Appointments; ") and words.details[0].endswith(": add and change")


def test_unknown_person_is_granted_nothing() -> None:
    scope = parse("patient/*.rs")
    assert scope is not None and effective_scopes(load("optum"), None, scope) == ()


def test_many_wildcards_never_exceed_the_scopes_of_a_token(whole: Whole) -> None:
    asked = " ".join(f"user/*.cruds?_id={number}" for number in range(100))
    person = whole.served.run(_person(whole))
    effects = whole.served.run(whole.smart.effective_scopes(person, None, asked, whole.clock()))
    assert len(effects) == sum(map(len, effects.values())) == 100 <= MAX_SCOPES
    assert all(text.startswith("user/*.rs?") for granted in effects.values() for text in granted)


async def _person(whole: Whole) -> Person:
    user = await users.find(whole.store, "clinician")
    assert user is not None
    return user.person()
