"""The demo records against US Core, by HL7's packages of the versions 6.1.0, 7.0.0 and 8.0.0: rows, elements, searches, Provenance.

Every requirement is shown by a request for a record of the demo: none is skipped for lack of data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from fhir_server import jsontext
from fhir_server.packages.archive import read_archive
from fhir_server.packages.loading import Packages
from fhir_server.writing.indexing_steps import index_all
from tests.profiles import us_core_searches
from tests.profiles.must_support import missing
from tests.profiles.test_us_core import GUIDES, US_CORE
from tests.sample_data import needs_samples, samples
from tests.seeded import seeded
from tests.served import Served

pytestmark = needs_samples(GUIDES)

Json = dict[str, Any]
ADULT: Final = "us-core-adult"
VITAL_SIGNS: Final = f"{US_CORE}/StructureDefinition/us-core-vital-signs"
# Profiles that all rows of a type or of an observation's category must meet, whether they claim them or not.
PROFILES: Final = {
    "AllergyIntolerance": "allergyintolerance", "CareTeam": "careteam", "Coverage": "coverage", "Encounter": "encounter",
    "Immunization": "immunization", "Location": "location", "Medication": "medication", "MedicationRequest": "medicationrequest",
    "Organization": "organization", "Patient": "patient", "Practitioner": "practitioner", "PractitionerRole": "practitionerrole",
    "Procedure": "procedure", "Provenance": "provenance", "RelatedPerson": "relatedperson", "ServiceRequest": "servicerequest",
    "Condition?category=problem-list-item": "condition-problems-health-concerns",
    "DiagnosticReport?category=LAB": "diagnosticreport-lab", "DocumentReference?category=clinical-note": "documentreference",
    "Observation?category=laboratory": "observation-lab", "Observation?category=vital-signs": "vital-signs",
    "Observation?category=social-history": "simple-observation",
}  # fmt: skip
# What a panel has in its components, and a measurement in its value: shown by rows of the base profile of vital signs.
OF_ANY_VITAL_SIGN: Final = {
    "value[x]",
    "dataAbsentReason",
    "component",
    "component.code",
    "component.value[x]",
    "component.dataAbsentReason",
}


class Guide(NamedTuple):
    """A server with the demo records and one version of US Core; the package's resources by URL, and the rows by type."""

    served: Served
    version: str
    definitions: dict[str, Json]
    rows: list[Json]

    def profiles(self) -> list[Json]:
        kinds = [one for one in self.definitions.values() if one["resourceType"] == "StructureDefinition" and one["kind"] == "resource"]
        return [one for one in kinds if one["derivation"] == "constraint"]

    def claiming(self, profile: str) -> list[Json]:
        """The rows that claim a profile, of any version or of this one."""
        return [row for row in self.rows if {profile, f"{profile}|{self.version}"} & set(row.get("meta", {}).get("profile", ()))]

    def is_of_another_version(self, row: Json, profile: str) -> bool:
        """Whether a row claims the profile of other versions only: US Core 8 gave the extension for sex another type."""
        claims = [one for one in row.get("meta", {}).get("profile", ()) if one.partition("|")[0] == profile]
        return bool(claims) and not {profile, f"{profile}|{self.version}"} & set(claims)

    def missing(self, profile: Json) -> set[str]:
        return missing(profile, self.claiming(profile["url"]), self.definitions)

    def errors(self, row: Json, *profiles: str) -> list[str]:
        value = jsontext.parse(json.dumps(row).encode())
        issues = self.served.run(self.served.parts.service.profiles.issues(row["resourceType"], value, *profiles))
        return [f"{row['resourceType']}/{row['id']}: {issue.text}" for issue in issues if issue.severity == "error"]


@pytest.fixture(scope="module", params=("6.1.0", "7.0.0", "8.0.0"))
def guide(request: pytest.FixtureRequest) -> Iterator[Guide]:
    served = seeded()
    parts = served.parts
    package = read_archive(*samples(GUIDES.replace("*", request.param)))
    served.run(Packages(parts.store, parts.labeler, served.settings.base, parts.clock).add(package))
    served.run(index_all(parts.store, parts.labeler, served.settings.base, parts.clock))
    texts = [json.loads(text) for text in package.definitions.values()]
    definitions = {one["url"]: one for one in texts if "url" in one}
    types = sorted(
        {one["type"] for one in definitions.values() if one["resourceType"] == "StructureDefinition" and one["kind"] == "resource"}
    )
    rows = [entry["resource"] for type in types for entry in served.get(served.token(), f"{type}?_count=500").json.get("entry", ())]
    yield Guide(served, request.param, definitions, rows)
    served.close()


@pytest.mark.parametrize("query", PROFILES)
def test_demo_rows_meet_their_profile(guide: Guide, query: str) -> None:
    answer = guide.served.get(guide.served.token(), f"{query}{'&' if '?' in query else '?'}_count=500").json
    profile = f"{US_CORE}/StructureDefinition/us-core-{PROFILES[query]}"
    rows = [entry["resource"] for entry in answer["entry"] if not guide.is_of_another_version(entry["resource"], profile)]
    assert rows and [error for row in rows for error in guide.errors(row, profile)] == []


def test_demo_rows_meet_the_profiles_that_they_claim(guide: Guide) -> None:
    claimed = [row for row in guide.rows if row.get("meta", {}).get("profile")]
    assert len(claimed) > 90
    assert [error for row in claimed for error in guide.errors(row)] == []


def test_each_profile_that_the_server_claims_has_demo_rows(guide: Guide) -> None:
    answer = guide.served.get(None, "metadata").json
    claimed = {url.partition("|")[0] for one in answer["rest"][0]["resource"] for url in one.get("supportedProfile", ()) if US_CORE in url}
    assert len(claimed) > 45
    assert [url for url in sorted(claimed) if not guide.claiming(url)] == []


def test_demo_rows_have_every_must_support_element(guide: Guide) -> None:
    found = {}
    for profile in guide.profiles():
        inherited = OF_ANY_VITAL_SIGN if profile["baseDefinition"].partition("|")[0] == VITAL_SIGNS else set()
        if absent := guide.missing(profile) - inherited:
            found[profile["id"]] = sorted(absent)
    assert found == {}


def test_must_support_elements_are_looked_for_in_the_rows_of_the_profile(guide: Guide) -> None:
    """Without the rows that have it, an element is missing: the check can fail."""
    patient = guide.definitions[f"{US_CORE}/StructureDefinition/us-core-patient"]
    rows = [{**row, "extension": [], "name": [{"family": "X"}]} for row in guide.claiming(patient["url"])]
    assert {"extension:race", "extension:sex", "name.given"} <= missing(patient, rows, guide.definitions)
    lab = guide.definitions[f"{US_CORE}/StructureDefinition/us-core-observation-lab"]
    others = [
        row for row in guide.rows if row["resourceType"] == "Observation" and row["category"][0]["coding"][0]["code"] == "vital-signs"
    ]
    assert "specimen" in missing(lab, others, guide.definitions)


def test_each_search_that_us_core_demands_finds_demo_rows(guide: Guide) -> None:
    """With the feed's token, and with that of the patient for what is about her."""
    served = guide.served
    statement = guide.definitions[f"{US_CORE}/CapabilityStatement/us-core-server"]
    parameters = {
        (type, one["code"]): one for one in guide.definitions.values() if one["resourceType"] == "SearchParameter" for type in one["base"]
    }
    tokens = {"feed": served.token(), ADULT: served.app_token(ADULT, ADULT)}
    wrong, without, own = [], [], 0
    for type, names in us_core_searches.demanded(statement):
        rows = sorted((row for row in guide.rows if row["resourceType"] == type), key=lambda row: us_core_searches.patient_of(row) != ADULT)
        found = [(row, search) for row in rows if (search := us_core_searches.search_for(row, names, parameters))]
        if not found:
            without.append((type, names))
            continue
        row, search = found[0]
        callers = ["feed", ADULT] if us_core_searches.patient_of(row) == ADULT else ["feed"]
        own += len(callers) - 1
        for caller in callers:
            answer = served.get(tokens[caller], f"{type}?{search.query}&_count=200")
            other = served.get(tokens[caller], f"{type}?{search.other}&_count=200")
            if answer.status != 200 or row["id"] not in answer.ids(type) or other.status != 200 or row["id"] in other.ids(type):
                wrong.append((caller, f"{type}?{search.query}", answer.status, other.status))
    assert not wrong and not without, "\n".join(map(str, (*wrong, *without)))
    assert own > 60


def test_each_profile_of_clinical_rows_has_provenance(guide: Guide) -> None:
    """``_revinclude=Provenance:target`` with the patient's own token."""
    served, token = guide.served, guide.served.app_token(ADULT, ADULT)
    statement = guide.definitions[f"{US_CORE}/CapabilityStatement/us-core-server"]
    types = [one["type"] for one in statement["rest"][0]["resource"] if "Provenance:target" in one.get("searchRevInclude", ())]
    assert len(types) > 15
    without = []
    for profile in guide.profiles():
        rows = [row for row in guide.claiming(profile["url"]) if us_core_searches.patient_of(row) == ADULT]
        if profile["type"] in types and rows:
            answer = served.get(token, f"{profile['type']}?_id={','.join(row['id'] for row in rows)}&_revinclude=Provenance:target")
            without += [] if answer.ids("Provenance") else [profile["id"]]
    assert without == []


def test_demo_has_a_group_to_export(guide: Guide) -> None:
    (entry,) = guide.served.get(guide.served.token(), "Group?managing-entity=Organization/demo-health").json["entry"]
    assert [one["entity"]["reference"] for one in entry["resource"]["member"]] == [f"Patient/{ADULT}", "Patient/us-core-toddler"]
    headers = {"prefer": "respond-async"}
    answer = guide.served.request(guide.served.token(), "GET", f"Group/{entry['resource']['id']}/$export", headers=headers)
    assert answer.status == 202 and answer.headers["content-location"]
