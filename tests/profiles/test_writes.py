"""Every road by which a resource is written demands the profiles that it claims, and those that the institution requires."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.packages.loading import Packages
from fhir_server.packages.validator import required_of
from fhir_server.search.visibility import Visibility
from fhir_server.settings import Settings
from tests.profiles import cases
from tests.profiles.cases import CASES
from tests.profiles.profile_set import Json, observation, package, structure
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

CASE = CASES["pattern"]
DEFECT = CASE.defects[0]
SUBJECT = {"subject": {"reference": "Patient/adult"}}
GOOD, BAD = CASE.resource(SUBJECT), CASE.resource({**SUBJECT, **DEFECT.changes})
UNKNOWN = observation(**SUBJECT, meta={"profile": ["http://x.example/unknown"]})
JSON_PATCH = {"content-type": "application/json-patch+json"}


def with_profiles(url: str, *, seeds: bool = True, **settings: Any) -> Served:
    made = seeded(url, **settings) if seeds else Served(url, seeds=False, **settings)
    parts = made.parts
    made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(cases.whole_set()))
    return made


@pytest.fixture(scope="module", params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = with_profiles(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield made
    made.close()


def bundle(kind: str, *entries: tuple[str, str, Json]) -> Json:
    listed = [{"request": {"method": method, "url": url}, "resource": resource} for method, url, resource in entries]
    return {"resourceType": "Bundle", "type": kind, "entry": listed}


def refusal(answer: Answer) -> tuple[int, list[tuple[str, str]]]:
    return answer.status, [(issue["code"], issue["expression"][0]) for issue in answer.json["issue"]]


def count(served: Served) -> int:
    return int(served.get(served.token(), "Observation?_summary=count").json["total"])


def stored(served: Served, resource: Json) -> str:
    answer = served.request(served.token(), "POST", "Observation", body=resource)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def test_create_update_and_transaction_demand_what_is_claimed(served: Served) -> None:
    token, before = served.token(), count(served)
    refused = (422, [(DEFECT.code, DEFECT.place)])
    id = stored(served, GOOD)
    assert refusal(served.request(token, "POST", "Observation", body=BAD)) == refused
    assert refusal(served.request(token, "PUT", f"Observation/{id}", body={**BAD, "id": id})) == refused
    assert refusal(served.request(token, "PUT", f"Observation?_id={id}", body=BAD)) == refused
    both = bundle("transaction", ("POST", "Observation", GOOD), ("POST", "Observation", BAD))
    assert served.request(token, "POST", "", body=both).status == 422
    answers = served.request(token, "POST", "", body={**both, "type": "batch"}).json["entry"]
    assert [entry["response"]["status"][:3] for entry in answers] == ["201", "422"]
    assert served.request(token, "PUT", f"Observation/{id}", body={**GOOD, "id": id, "note": [{"text": "x"}]}).status == 200
    assert count(served) == before + 2


def test_an_update_keeps_the_claim_and_what_it_demands(served: Served) -> None:
    """An update removes no profile, so a body that is silent about it must meet it, too; alone and with others in a transaction."""
    token, id = served.token(), stored(served, GOOD)
    silent = {name: value for name, value in BAD.items() if name != "meta"} | {"id": id}
    refused = (422, [(DEFECT.code, DEFECT.place)])
    assert refusal(served.request(token, "PUT", f"Observation/{id}", body=silent)) == refused
    several = [("PUT", f"Observation/{stored(served, GOOD)}") for _ in range(3)]
    entries = [
        (method, url, {**silent, "id": url.partition("/")[2], "code": GOOD["code"], "note": [{"text": "x"}]}) for method, url in several
    ]
    assert served.request(token, "POST", "", body=bundle("transaction", *entries)).status == 200
    assert served.request(token, "POST", "", body=bundle("transaction", *entries, ("PUT", f"Observation/{id}", silent))).status == 422
    assert served.request(token, "PUT", f"Observation/{id}", body={**silent, "code": GOOD["code"]}).status == 200
    assert served.get(token, f"Observation/{id}").json["meta"]["profile"] == [CASE.url]


def test_a_patch_demands_what_is_claimed(served: Served) -> None:
    token, id = served.token(), stored(served, GOOD)
    bad: list[Json] = [{"op": "replace", "path": "/code", "value": BAD["code"]}]
    fine: list[Json] = [{"op": "add", "path": "/note", "value": [{"text": "x"}]}]
    assert refusal(served.request(token, "PATCH", f"Observation/{id}", body=bad, headers=JSON_PATCH)) == (
        422,
        [(DEFECT.code, DEFECT.place)],
    )
    assert served.request(token, "PATCH", f"Observation/{id}", body=fine, headers=JSON_PATCH).status == 200
    assert served.get(token, f"Observation/{id}").json["meta"]["versionId"] == "2"


def test_a_claim_is_added_only_to_what_meets_it(served: Served) -> None:
    token = served.token()
    claim = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"profile": [CASE.url]}}]}
    plain = {name: value for name, value in BAD.items() if name != "meta"}
    bad, fine = stored(served, plain), stored(served, {**plain, "code": GOOD["code"]})
    assert refusal(served.request(token, "POST", f"Observation/{bad}/$meta-add", body=claim)) == (422, [(DEFECT.code, DEFECT.place)])
    assert served.request(token, "POST", f"Observation/{fine}/$meta-add", body=claim).status == 200
    assert "profile" not in served.get(token, f"Observation/{bad}").json["meta"]
    assert served.get(token, f"Observation/{fine}").json["meta"]["profile"] == [CASE.url]


def test_large_resource_is_checked_too(served: Served) -> None:
    notes = {"note": [{"text": f"note {number} " + "x" * 60} for number in range(2000)]}
    token = served.token()
    assert served.request(token, "POST", "Observation", body={**GOOD, **notes}).status == 201
    assert refusal(served.request(token, "POST", "Observation", body={**BAD, **notes}))[1] == [(DEFECT.code, DEFECT.place)]


def test_validate_gives_the_verdict_of_a_write(served: Served) -> None:
    token = served.token()

    def issues(path: str, body: Json) -> list[tuple[str, str]]:
        answer = served.request(token, "POST", path, body=body)
        assert answer.status == 200
        return [(issue["severity"], issue["code"]) for issue in answer.json["issue"]]

    plain = {name: value for name, value in BAD.items() if name != "meta"}
    asked: Json = {
        "resourceType": "Parameters",
        "parameter": [{"name": "resource", "resource": plain}, {"name": "profile", "valueUri": CASE.url}],
    }
    fine = [("information", "informational")]
    assert issues("Observation/$validate", BAD) == [("error", DEFECT.code)]
    assert issues("Observation/$validate", GOOD) == fine and issues("Observation/$validate", plain) == fine
    assert issues(f"Observation/$validate?profile={CASE.url}", plain) == [("error", DEFECT.code)]
    assert issues("Observation/$validate", asked) == [("error", DEFECT.code)]
    assert issues(f"Observation/$validate?profile={CASE.url}", GOOD) == fine
    assert issues("Observation/$validate?profile=http://x.example/unknown", GOOD) == [("error", "not-supported")]
    assert issues("Observation/$validate", UNKNOWN) == [("warning", "not-supported"), *fine]
    id = stored(served, GOOD)
    assert issues(f"Observation/{id}/$validate?profile={CASES['fixed'].url}", asked["parameter"][0]["resource"] | {"id": id}) != fine


def test_provenance_in_a_header_demands_what_it_claims(served: Served) -> None:
    sent: Json = {
        "resourceType": "Provenance",
        "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"who": {"reference": "Practitioner/doctor"}}],
    }
    sent["meta"] = {"profile": [CASE.url]}
    answer = served.request(served.token(), "POST", "Observation", body=GOOD, headers={"x-provenance": json.dumps(sent)})
    assert answer.status == 422


def test_an_unknown_claim_is_stored_or_refused_as_the_setting_says(served: Served) -> None:
    assert stored(served, UNKNOWN)
    strict = with_profiles("memory:", unknown_profiles="refuse")
    try:
        answer = strict.request(strict.token(), "POST", "Observation", body=UNKNOWN)
        assert answer.status == 422 and answer.json["issue"][0]["code"] == "not-supported"
        assert strict.request(strict.token(), "POST", "Observation", body=GOOD).status == 201
        said = strict.request(strict.token(), "POST", "Observation/$validate", body=UNKNOWN).json["issue"]
        assert [(issue["severity"], issue["code"]) for issue in said] == [("error", "not-supported")]
    finally:
        strict.close()


def test_required_profiles_hold_without_a_claim() -> None:
    url = "http://x.example/not-here"
    made = with_profiles("memory:", seeds=False, required_profiles=f"Observation={CASE.url} Goal={url}")
    try:
        token = made.token()
        assert made.request(token, "PUT", "Patient/adult", body={"resourceType": "Patient", "id": "adult"}).status == 201
        plain = {name: value for name, value in BAD.items() if name != "meta"}
        assert refusal(made.request(token, "POST", "Observation", body=plain)) == (422, [(DEFECT.code, DEFECT.place)])
        answer = made.request(token, "POST", "Observation", body={**plain, "code": GOOD["code"]})
        assert answer.status == 201
        bad = [{"op": "replace", "path": "/code", "value": BAD["code"]}]
        assert made.request(token, "PATCH", f"Observation/{answer.json['id']}", body=bad, headers=JSON_PATCH).status == 422
        goal = {"resourceType": "Goal", "lifecycleStatus": "active", "description": {"text": "x"}, **SUBJECT}
        assert made.request(token, "POST", "Goal", body=goal).status == 422, "a profile that is not here cannot be met"
    finally:
        made.close()


@pytest.mark.parametrize("text", ["Observation", "Nothing=http://x.example/p", "Observation=x", "=http://x.example/p"])
def test_malformed_setting_of_required_profiles_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_REQUIRED_PROFILES"):
        required_of(text)
    assert Settings.from_environment({"FHIR_SERVER_REQUIRED_PROFILES": text}).required_profiles == text


def test_load_refuses_what_does_not_meet_its_claim(tmp_path: Path) -> None:
    made = with_profiles("memory:", seeds=False)
    try:
        lines = [{**GOOD, "id": "good"}, {**BAD, "id": "bad"}]
        file = tmp_path / "rows.ndjson"
        patient = {"resourceType": "Patient", "id": "adult"}
        file.write_text("".join(json.dumps(line) + "\n" for line in (patient, *lines)))
        report = made.load(file)
        assert report.stored == 2 and [json.loads(line)["place"] for line in report.rejects] == ["line 3"], report
    finally:
        made.close()


def test_packages_count_as_soon_as_they_are_added_or_removed() -> None:
    made = seeded()
    parts = made.parts
    packages = Packages(parts.store, parts.labeler, made.settings.base, parts.clock)
    try:
        assert made.request(made.token(), "POST", "Observation", body=BAD).status == 201
        made.run(packages.add(cases.whole_set()))
        assert made.request(made.token(), "POST", "Observation", body=BAD).status == 422
        made.run(packages.remove("x.profiles#1.0.0"))
        assert made.request(made.token(), "POST", "Observation", body=BAD).status == 201
    finally:
        made.close()


def test_a_profile_that_a_client_writes_has_no_effect() -> None:
    """Only the operator's packages say what others must send."""
    made = seeded()
    try:
        token = made.token()
        assert made.request(token, "POST", "StructureDefinition", body=CASE.profile).status == 201
        assert made.request(token, "POST", "Observation", body=BAD).status == 201
    finally:
        made.close()


CONCLUDED = structure("concluded", "DiagnosticReport", {"id": "DiagnosticReport.conclusion", "min": 1})


def test_a_verdict_is_of_what_the_caller_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conclusion of the teenager's report is hidden from a parent: for the parent it is not there, for the institution it is."""
    made = seeded()
    parts = made.parts
    made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(package(CONCLUDED)))
    path = f"DiagnosticReport/teen-metabolic-panel/$validate?profile={CONCLUDED['url']}"
    asked = {"resourceType": "Parameters", "parameter": [{"name": "mode", "valueCode": "profile"}]}
    parent = made.app_token("parent-a", "teen")
    try:

        def codes(token: str) -> list[str]:
            return [issue["code"] for issue in made.request(token, "POST", path, body=asked).json["issue"]]

        assert "conclusion" not in made.get(parent, "DiagnosticReport/teen-metabolic-panel").json
        assert codes(made.token()) == ["informational"]
        assert codes(parent) == ["required"]

        async def as_stored(view: View, type: str, id: str) -> Any:
            row = await view._snapshot.newest(type, id, Visibility.unrestricted(len(await view._snapshot.classes())))
            return VisibleVersion(type, id, 1, 0, row.body if row else b"")

        monkeypatch.setattr(View, "read", as_stored)
        assert "required" not in codes(parent), "a planted leak is noticed"
    finally:
        made.close()
