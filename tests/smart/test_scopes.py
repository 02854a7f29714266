from __future__ import annotations

import pytest

from fhir_server.smart.authorize.scope_wording import describe_scope
from fhir_server.smart.core.scopes import NAMED_SCOPES, Scope, covering_scopes, narrow_scopes, parse, resource_scopes

PERSONAL = frozenset({"patient", "user"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patient/Observation.rs", Scope("patient", "Observation", "rs")),
        ("user/*.cruds", Scope("user", "*", "cruds")),
        ("system/Patient.r", Scope("system", "Patient", "r")),
        ("patient/*.read", Scope("patient", "*", "rs")),
        ("patient/Condition.write", Scope("patient", "Condition", "cud")),
        ("patient/Condition.*", Scope("patient", "Condition", "cruds")),
        ("patient/Observation.rs?category=a|b", Scope("patient", "Observation", "rs", (("category", "a|b"),))),
        (
            "patient/Observation.rs?category=a%7Cb&code=c",
            Scope("patient", "Observation", "rs", (("category", "a|b"), ("code", "c"))),
        ),
    ],
)
def test_smart_62_63_v1_and_v2_scopes_are_parsed(text: str, expected: Scope) -> None:
    scope = parse(text)
    assert scope == expected
    assert scope is not None
    assert scope.text == text


@pytest.mark.parametrize(
    "text",
    [
        "patient/Observation.sr", "patient/Observation.rr", "patient/Observation.x", "patient/Observation.", "patient/Patient",
        "patient/observation.rs", "patient/.rs", "Patient/Observation.rs", "patient/*.*.rs", "patient/Obs ervation.rs",
        "patient/Observation.rs?", "patient/Observation.rs?category", "patient/Observation.rs?=x", "patient/Observation.rs?a=",
        "patient/Observation.read?category=x", "patient/Observation.rs\n", "patient/Öbs.rs", "group/Observation.rs", "",
        "launch/patient", "patient/Observation.rs?a=\"b", "patient/Observation.rs?a=b\\",
    ],
)  # fmt: skip
def test_smart_63_malformed_scopes_are_dropped_and_never_widened(text: str) -> None:
    assert parse(text) is None
    if " " not in text and "\n" not in text:
        assert narrow_scopes(text, "patient/*.cruds user/*.cruds", PERSONAL) == ()


@pytest.mark.parametrize(
    ("requested", "allowed", "given"),
    [
        ("patient/Observation.rs", "patient/*.cruds", "patient/Observation.rs"),
        ("patient/*.rs", "patient/Observation.rs patient/Patient.r", "patient/Observation.rs patient/Patient.r"),
        ("patient/*.cruds", "patient/*.rs", "patient/*.rs"),
        ("patient/*.read", "patient/*.rs", "patient/*.read"),
        ("patient/*.write", "patient/*.rs", ""),
        ("user/*.rs", "patient/*.rs", ""),
        ("patient/Observation.rs", "patient/Observation.rs?category=a|b", "patient/Observation.rs?category=a|b"),
        ("patient/Observation.rs?code=c", "patient/Observation.rs?category=a|b", "patient/Observation.rs?code=c&category=a|b"),
        ("patient/Observation.rs?category=a|b", "patient/*.rs", "patient/Observation.rs?category=a|b"),
        ("openid fhirUser offline_access", "openid", "openid"),
        ("patient/A1.rs", "patient/*.rs", ""),
        ("patient/Patient.rs patient/Patient.rs", "patient/*.rs", "patient/Patient.rs"),
        ("system/*.rs", "system/*.rs", ""),
        ("", "patient/*.rs", ""),
    ],
)
def test_requested_scopes_are_narrowed_to_the_clients_scopes(requested: str, allowed: str, given: str) -> None:
    assert " ".join(narrow_scopes(requested, allowed, PERSONAL)) == given


def test_more_than_200_scopes_grant_nothing() -> None:
    assert narrow_scopes("patient/Patient.r " * 201, "patient/*.rs", PERSONAL) == ()


def test_covers_finds_the_scopes_that_allow_one_interaction() -> None:
    scopes = resource_scopes("openid patient/Observation.rs?category=a|b patient/*.r user/Observation.c")
    assert [s.text for s in covering_scopes(scopes, "patient", "Observation", "r")] == [
        "patient/Observation.rs?category=a|b",
        "patient/*.r",
    ]
    assert [s.text for s in covering_scopes(scopes, "patient", "Observation", "s")] == ["patient/Observation.rs?category=a|b"]
    assert [s.text for s in covering_scopes(scopes, None, "Observation", "c")] == ["user/Observation.c"]
    assert covering_scopes(scopes, "patient", "Condition", "s") == ()
    assert covering_scopes(scopes, "system", "Observation", "r") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient/Observation.rs", "Lab results and other observations: read"),
        ("patient/*.cruds", "All kinds of health information: read, add, change and delete"),
        ("patient/Condition.cud", "Health problems and diagnoses: add, change and delete"),
        ("patient/BodyStructure.r", "Body structure: read"),
        ("patient/Observation.rs?category=http://x|vital-signs", "Lab results and other observations (only vital signs): read"),
        ("patient/Condition.rs?category=a|x-y,b|z", "Health problems and diagnoses (only x y or z): read"),
        ("patient/Observation.rs?category:not=a|laboratory", "Lab results and other observations (only category:not=a|laboratory): read"),
        ("patient/Observation.rs?code=a|8867-4", "Lab results and other observations (only code=a|8867-4): read"),
        ("patient/Observation.rs?category=a|x&status=final", "Lab results and other observations (only x and status=final): read"),
        ("user/Patient.rs", "Name, birth date and contact details, in every record you may open: read"),
    ],
)
def test_scopes_have_readable_descriptions(text: str, words: str) -> None:
    scope = parse(text)
    assert scope is not None
    assert describe_scope(scope, "clinician") == words
    assert describe_scope(scope, "patient") == words.replace(", in every record you may open", "")


def test_named_scopes_are_no_resource_scopes() -> None:
    assert resource_scopes(" ".join(NAMED_SCOPES)) == ()
