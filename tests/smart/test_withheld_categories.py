"""Withheld categories: the app sees the record as if their resources did not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.consent.visibility_classes import CATEGORIES, UNCLASSIFIED, UNREAD
from fhir_server.search.filters import OfPatient
from fhir_server.search.visibility import Visibility
from fhir_server.smart.authorize import sensitive_categories
from tests.smart.environment import Page, World
from tests.smart.full_environment import Whole

ALL = "launch/patient offline_access patient/*.rs"
MARKED = {"category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]}


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    made = Whole()
    yield made
    made.served.close()


def record(whole: Whole, token: str, patient: str) -> dict[str, list[str]]:
    """Return the ids in a record that this token can find, by type."""
    found: dict[str, list[str]] = {}
    for type in (
        "Patient",
        "Observation",
        "Condition",
        "MedicationRequest",
        "Encounter",
        "DiagnosticReport",
        "DocumentReference",
        "Appointment",
    ):
        param = "_id" if type == "Patient" else "patient"
        found[type] = sorted(whole.served.all_ids(token, f"{type}?{param}={patient}&_count=100"))
    return found


def labelled(whole: Whole, patient: str, labels: set[str]) -> set[str]:
    """Return ``Type/id`` of the resources in a record that have one of ``labels``."""

    async def found() -> set[str]:
        async with whole.store.snapshot() as snapshot:
            keys = await snapshot.classes()
            everything = Visibility.unrestricted(len(keys), whole.clock())
            rows = set()
            for type in (
                "Observation",
                "Condition",
                "MedicationRequest",
                "Encounter",
                "DiagnosticReport",
                "DocumentReference",
                "Appointment",
            ):
                page = await snapshot.find(type, OfPatient(frozenset({patient})), everything, limit=1000)
                rows |= {f"{row.type}/{row.id}" for row in page.rows if labels & set(keys[row.class_id].split("|")[1].split(","))}
            return rows

    return whole.served.run(found())


def flat(found: dict[str, list[str]]) -> set[str]:
    return {f"{type}/{id}" for type, ids in found.items() for id in ids}


def test_withholdable_categories_match_the_policy(world: World) -> None:
    assert set(sensitive_categories.CATEGORY_NAMES) == CATEGORIES
    assert sensitive_categories.UNKNOWN == (UNCLASSIFIED, UNREAD)
    assert sensitive_categories.withheld_labels(["MH", "nonsense", "HIV", "MH"]) == ("HIV", "MH", UNCLASSIFIED, UNREAD)
    assert sensitive_categories.withheld_labels(["nonsense", UNCLASSIFIED]) == ()


def test_app_receives_everything_except_withheld_categories(whole: Whole) -> None:
    everything = flat(record(whole, whole.allowed("adult", "adult", scope=ALL)["access_token"], "adult"))
    less = flat(record(whole, whole.allowed("adult", "adult", scope=ALL, withhold=["HIV", "MH"])["access_token"], "adult"))
    hidden = labelled(whole, "adult", {"HIV", "MH", UNCLASSIFIED, UNREAD})
    assert hidden & everything  # positive control: there is something to withhold
    assert less == everything - hidden
    assert (
        less & labelled(whole, "adult", {"STD", "REPRO", "SUD", "GENETIC", "PREG"})
        == everything & labelled(whole, "adult", {"STD", "REPRO", "SUD", "GENETIC", "PREG"}) - hidden
    )


def test_what_may_belong_to_a_category_is_withheld_with_any_of_them_as_the_page_says(whole: Whole, world: World) -> None:
    smoking = "Observation/adult-tobacco"
    assert whole.get(whole.allowed("adult", "adult", scope=ALL)["access_token"], smoking).status == 200  # the control
    for category in sorted(CATEGORIES):
        token = whole.allowed("adult", "adult", scope=ALL, withhold=[category])["access_token"]
        assert whole.get(token, smoking).status == 404, category
    text = re.sub(r"\s+", " ", Page(world.consent_page(scope="launch/patient patient/*.rs").text).text)
    said = "information without a certain category, such as smoking status, and files that we cannot read."
    assert f"If you check any, it also does not see what may belong to one: {said}" in text


def test_withheld_resources_answer_like_unknown_ids(whole: Whole) -> None:
    token = whole.allowed("adult", "adult", scope=ALL, withhold=["HIV"])["access_token"]
    open_token = whole.allowed("adult", "adult", scope=ALL)["access_token"]
    hidden = sorted(labelled(whole, "adult", {"HIV"}))
    assert hidden
    for name in hidden:
        type, _, id = name.partition("/")
        refused, never = whole.get(token, name), whole.get(token, f"{type}/never-was")
        assert refused.status == never.status == 404
        assert refused.body.replace(id.encode(), b"never-was") == never.body
        assert whole.get(token, f"{name}/_history").status == 404
        assert whole.get(token, f"{type}?patient=adult&_id={id}&_total=accurate").json["total"] == 0
    assert any(whole.get(open_token, name).status == 200 for name in hidden)
    shown = whole.get(token, "Patient/adult/$everything?_count=500").body.decode()
    assert not any(f'"{name}"' in shown for name in hidden)  # and no reference to it


def test_withholding_by_a_proxy_applies_to_that_grant_only(whole: Whole) -> None:
    # Under the default policy a parent of a young child sees its sensitive resources, and can withhold them from an app.
    everything = flat(record(whole, whole.allowed("parent-a", "child", scope=ALL)["access_token"], "child"))
    labels = {label for label in CATEGORIES if labelled(whole, "child", {label}) & everything}
    assert labels, "the child's record has a sensitive row that the parent sees"
    less = flat(record(whole, whole.allowed("parent-a", "child", scope=ALL, withhold=sorted(labels))["access_token"], "child"))
    assert less == everything - labelled(whole, "child", labels | {UNCLASSIFIED, UNREAD})
    assert less != everything
    again = flat(record(whole, whole.allowed("parent-a", "child", scope=ALL)["access_token"], "child"))
    assert again == everything


def test_withholding_less_gives_a_proxy_no_extra_access(whole: Whole) -> None:
    proxy = flat(record(whole, whole.allowed("proxy-standard", "adult", scope=ALL)["access_token"], "adult"))
    narrowed = flat(
        record(whole, whole.allowed("proxy-standard", "adult", scope=ALL, withhold=sorted(CATEGORIES))["access_token"], "adult")
    )
    assert narrowed <= proxy
    assert not proxy & labelled(whole, "adult", {"HIV", "MH"})


def test_withholding_survives_refresh_and_is_not_disclosed(whole: Whole) -> None:
    first = whole.allowed("adult", "adult", scope=ALL, withhold=["HIV", "MH"])
    second = whole.refresh(first["refresh_token"]).json()
    for tokens in (first, second):
        assert not flat(record(whole, tokens["access_token"], "adult")) & labelled(whole, "adult", {"HIV", "MH"})
    plain = whole.allowed("adult", "adult", scope=ALL)
    assert first.keys() == plain.keys()
    assert first["scope"] == plain["scope"]
    states = [
        whole.post("/oauth/introspect", ("demo-confidential", "demo-secret"), token=one["access_token"]).json() for one in (first, plain)
    ]
    assert states[0] == states[1] | {"iat": states[0]["iat"]}


def test_withheld_encounter_and_its_scope_are_not_granted(whole: Whole) -> None:
    hidden = sorted(name.partition("/")[2] for name in labelled(whole, "adult", {"MH"}) if name.startswith("Encounter/"))
    assert hidden
    scope = "launch/patient launch/encounter patient/*.rs"
    plain = whole.allowed("adult", "adult", scope=scope, visit=hidden[0])
    assert plain["encounter"] == hidden[0]
    less = whole.allowed("adult", "adult", scope=scope, visit=hidden[0], withhold=["MH"])
    assert "encounter" not in less
    assert "launch/encounter" not in less["scope"].split()


def test_consent_page_offers_withholding_to_patients_not_to_staff(world: World) -> None:
    page = world.consent_page(scope="launch/patient patient/*.rs")
    text = re.sub(r"\s+", " ", Page(page.text).text)
    for words in (*sensitive_categories.CATEGORY_NAMES.values(), "does not see the categories you check"):
        assert words in text, words
    world.http.cookies.clear()
    assert 'name="withhold"' not in world.consent_page("clinician", scope="user/*.rs", prompt="consent").text


def test_forged_form_does_not_let_staff_withhold_categories(world: World) -> None:
    page = world.consent_page("clinician", scope="user/*.rs", prompt="consent")
    answer: Any = world.submit(page, decision="allow", withhold="HIV")
    code = answer.headers["location"].partition("code=")[2].partition("&")[0]
    assert world.principal(world.exchange(code).json()["access_token"]).withheld_labels == frozenset()
