"""Each kind of rule of a profile: what meets it is accepted, and each single defect is refused with its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from fhir_server.errors import Issue, Problem
from fhir_server.packages.loading import Packages
from fhir_server.profiles.elements import Profile
from fhir_server.profiles.held_profiles import HeldProfiles
from fhir_server.resources import validate
from tests.profiles import cases
from tests.profiles.cases import CASES
from tests.profiles.profile_set import SYSTEM, Defect, concept, observation
from tests.served import Served

DEFECTS = [(name, defect) for name, case in CASES.items() for defect in case.defects]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served(seeds=False)
    parts = made.parts
    report = made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(cases.whole_set()))
    assert report.refused == []
    yield made
    made.close()


def verdict(served: Served, resource: dict[str, Any]) -> list[Issue]:
    """The issues of a resource that is valid R4."""
    assert validate.check(resource["resourceType"], resource) == ()
    return served.run(served.parts.service.profiles.issues(resource["resourceType"], resource))


@pytest.mark.parametrize("name", CASES)
def test_what_meets_a_profile_is_accepted(served: Served, name: str) -> None:
    case = CASES[name]
    for changes in ({}, *case.also_valid):
        assert verdict(served, case.resource(changes)) == [], changes


@pytest.mark.parametrize(("name", "defect"), DEFECTS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(DEFECTS)])
def test_a_single_defect_is_refused_with_its_place(served: Served, name: str, defect: Defect) -> None:
    found = verdict(served, CASES[name].resource(defect.changes))
    assert [(issue.severity, issue.code, issue.expression) for issue in found] == [("error", defect.code, (defect.place,))], found


def claim(profile: dict[str, Any], **more: Any) -> dict[str, Any]:
    return observation(meta={"profile": [profile["url"]]}, **more)


def severities(found: list[Issue]) -> list[tuple[str, str]]:
    return [(issue.severity, issue.code) for issue in found]


def test_code_outside_of_an_extensible_value_set_is_a_warning(served: Served) -> None:
    assert severities(verdict(served, claim(cases.EXTENSIBLE))) == [("warning", "code-invalid")]
    red = concept("red", SYSTEM)
    assert verdict(served, claim(cases.EXTENSIBLE) | {"code": red}) == []
    assert verdict(served, claim(cases.EXTENSIBLE) | {"code": {"text": "x"}}) == []


def test_what_cannot_be_checked_is_said_and_refuses_nothing(served: Served) -> None:
    assert severities(verdict(served, claim(cases.WARNING))) == [("warning", "invariant")]
    assert verdict(served, claim(cases.WARNING, note=[{"text": "x"}])) == []
    assert severities(verdict(served, claim(cases.UNEVALUATED))) == [("information", "not-supported")]
    assert verdict(served, claim(cases.NOT_HELD)) == [], "the server does not have the value set"
    (issue,) = verdict(served, claim(cases.UNUSABLE))
    assert (issue.severity, issue.code) == ("warning", "not-supported") and "a snapshot is needed" in issue.text


def test_profile_of_another_type_is_an_error(served: Served) -> None:
    for profile in (CASES["cardinality"].url, "http://hl7.org/fhir/StructureDefinition/Patient"):
        assert severities(verdict(served, observation(meta={"profile": [profile]}))) == [("error", "value")]
    assert verdict(served, observation(meta={"profile": ["http://hl7.org/fhir/StructureDefinition/Observation"]})) == []


def test_a_version_that_is_not_here_is_unknown(served: Served) -> None:
    case = CASES["pattern"]
    defect = case.resource(case.defects[0].changes)
    for version, expected in (("1.0.0", [("error", "value")]), ("9.9.9", [("warning", "not-supported")])):
        assert severities(verdict(served, defect | {"meta": {"profile": [f"{case.url}|{version}"]}})) == expected


def test_many_defects_are_reported_together_up_to_a_limit(served: Served) -> None:
    names = [{"given": ["x"]}] * 200
    found = verdict(served, CASES["cardinality"].resource({"name": names}))
    assert len(found) == 50 and {issue.severity for issue in found} == {"error"}


def test_own_guide_is_there_without_being_added() -> None:
    made = Served(seeds=False)
    try:
        url = "https://fhir-server.example/ig/StructureDefinition/portal-account"
        held = made.run(made.parts.service.profiles.held()).find(url)
        assert held is not None and held.type == "Account"
        bare = {
            "resourceType": "Account",
            "status": "active",
            "meta": {"profile": [url]},
            "extension": [{"url": f"{url}-other", "valueCode": "x"}],
        }
        places = {issue.expression for issue in verdict(made, bare)}
        assert ("Account.subject",) in places
    finally:
        made.close()


@pytest.mark.parametrize("calls", range(1, 4))
def test_a_profile_whose_compilation_was_interrupted_is_compiled_again(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    made = Served(seeds=False)
    parts, exact, left = made.parts, HeldProfiles._compiled, [calls]

    async def interrupted(self: HeldProfiles, canonical: str, label: str) -> Profile | None:
        left[0] -= 1
        if left[0] == 0:
            raise Problem("too_costly", "The request has taken too long.")
        return await exact(self, canonical, label)

    try:
        made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(cases.whole_set()))
        monkeypatch.setattr(HeldProfiles, "_compiled", interrupted)
        for name, defect in DEFECTS:
            left[0] = calls
            changed = CASES[name].resource(defect.changes)
            with suppress(Problem):
                verdict(made, changed)
            left[0] = -1
            assert [(issue.code, issue.expression) for issue in verdict(made, changed)] == [(defect.code, (defect.place,))], name
            made.run(parts.service.profiles.held())._packages.clear()
    finally:
        made.close()
