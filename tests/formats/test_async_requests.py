"""``Prefer: respond-async``: the question is kept, and answered as of the moment at which the answer is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.interactions import async_requests
from fhir_server.interactions.routing import ROUTES, may_be_answered_later
from tests.seeded import seeded
from tests.served import NOON, Answer, Served, micros, store_url

LATER = {"prefer": "respond-async"}
QUESTIONS = (
    "Observation?category=laboratory&_count=5&_total=accurate",
    "Observation?_summary=count",
    "?_type=Observation,Condition&_count=3",
    "Patient/teen/Observation?_count=4",
    "Patient/teen/$everything?_count=7",
    "Observation/teen-hemoglobin/_history",
    "Observation/teen-hiv-screen/_history",
    "Observation?no-such-parameter=1",
    "AuditEvent?_count=1",
)


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path))
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


def begin(served: Served, token: str, path: str, **headers: str) -> str:
    answer = served.request(token, "GET", path, headers=LATER | headers)
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async"), answer.body
    assert answer.headers["retry-after"].isdecimal() and "etag" not in answer.headers
    return answer.headers["content-location"]


def entry(answer: Answer) -> Any:
    assert answer.status == 200 and answer.json["type"] == "batch-response", answer.body
    (one,) = answer.json["entry"]
    return one


def lab(patient: str = "teen", code: str = "718-7") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
    }


def test_the_later_answer_is_the_one_of_the_same_question_asked_then(served: Served) -> None:
    for token in (served.token(), served.app_token("parent-a", "teen")):
        for path in QUESTIONS:
            now, later = served.get(token, path), entry(served.get(token, begin(served, token, path)))
            assert later["response"]["status"] == str(now.status)
            if not path.startswith("AuditEvent"):  # which lists these very requests
                assert later.get("resource", later["response"].get("outcome")) == now.json


def test_a_question_by_post_is_kept_with_its_body(served: Served) -> None:
    token = served.token()
    form = served.request(token, "POST", "Observation/_search", form=[("_id", "teen-hemoglobin")], headers=LATER)
    body = {"resourceType": "Parameters", "parameter": [{"name": "_count", "valueInteger": 2}]}
    everything = served.request(token, "POST", "Patient/teen/$everything", body=body, headers=LATER)
    found = [entry(served.get(token, answer.headers["content-location"]))["resource"] for answer in (form, everything)]
    assert [one["resource"]["id"] for one in found[0]["entry"]] == ["teen-hemoglobin"]
    assert found[1] == served.get(token, "Patient/teen/$everything?_count=2").json


def test_a_batch_of_reads_is_answered_as_a_batch(served: Served) -> None:
    urls = ("Observation?_count=2&category=laboratory", "Patient/teen", "Patient/nobody", "Observation/teen-hiv-screen")
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    for token in (served.token(), served.app_token("parent-a", "teen")):
        accepted = served.request(token, "POST", "", body=bundle, headers=LATER)
        assert (accepted.status, accepted.headers["preference-applied"]) == (202, "respond-async")
        later = served.get(token, accepted.headers["content-location"])
        assert (later.status, later.json) == (200, served.request(token, "POST", "", body=bundle).json)


def test_a_batch_that_cannot_be_read_is_refused_at_once(shared: Served) -> None:
    for body in (b"{", b"[]", b'{"resourceType":"Bundle"}', b'{"resourceType":"Bundle","type":"batch","entry":[1]}'):
        assert shared.request(shared.token(), "POST", "", body=body, headers=LATER).status == 400


def test_headers_of_the_status_request_are_not_those_of_the_question(shared: Served) -> None:
    token = shared.token()
    job = begin(shared, token, "Patient/teen/_history")
    for headers in ({"x-provenance": "{}"}, {"prefer": "handling=lenient"}):
        answer = shared.request(token, "GET", job, headers=headers)
        assert entry(answer)["response"]["status"] == "200"
    for headers in ({"if-match": 'W/"9"'}, {"if-none-match": "*"}):
        assert [shared.request(token, method, job, headers=headers).status for method in ("GET", "DELETE")] == [400, 400]


def test_what_is_about_this_moment_is_answered_at_once(shared: Served) -> None:
    """A precondition or a Provenance is judged as without the preference: it is never dropped."""
    token = shared.token()
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/teen"}}]}
    tag = shared.get(token, "Patient/teen/$meta").headers["etag"]
    asked: tuple[tuple[str, str, Any, dict[str, str], int], ...] = (
        ("GET", "Observation?_count=1", None, {"if-match": tag}, 400),
        ("GET", "Patient/teen/$everything", None, {"if-none-match": tag}, 400),
        ("GET", "Patient/teen/$meta", None, {"if-none-match": tag}, 304),
        ("GET", "Patient/teen/$meta", None, {"if-match": 'W/"99"'}, 412),
        ("POST", "", bundle, {"x-provenance": "{}"}, 400),
        ("POST", "", bundle, {"if-match": tag}, 400),
        ("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender", None, {"if-none-match": tag}, 400),
    )
    for method, path, body, headers, status in asked:
        for later in ({}, LATER):
            assert shared.request(token, method, path, body=body, headers=headers | later).status == status, (path, later)


def test_preferences_of_the_kick_off_hold_for_the_answer(shared: Served) -> None:
    token = shared.token()
    strict, lenient = (
        entry(shared.get(token, begin(shared, token, "Observation?nope=1&_count=1", prefer=f"respond-async, handling={handling}")))
        for handling in ("strict", "lenient")
    )
    assert (strict["response"]["status"], lenient["response"]["status"]) == ("400", "200")


def test_an_answer_is_that_of_the_fetch_and_not_of_the_kick_off(served: Served) -> None:
    feed = served.token()
    job = begin(served, feed, "Observation?code=99999-1&_total=accurate")
    assert entry(served.get(feed, job))["resource"]["total"] == 0
    made = served.request(feed, "POST", "Observation", body=lab(code="99999-1")).json["id"]
    assert entry(served.get(feed, job))["resource"]["total"] == 1
    served.request(feed, "DELETE", f"Observation/{made}")
    assert entry(served.get(feed, job))["resource"]["total"] == 0


def test_what_became_sensitive_after_the_kick_off_is_not_in_the_answer(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    id = served.request(feed, "POST", "Observation", body=lab()).json["id"]
    path = f"Observation?_id={id}&_total=accurate"
    job = begin(served, parent, path)
    assert entry(served.get(parent, job))["resource"]["total"] == 1
    hiv = served.get(feed, "Observation/teen-hiv-screen").json
    changed = {**{name: value for name, value in hiv.items() if name != "meta"}, "id": id}
    assert served.request(feed, "PUT", f"Observation/{id}", body=changed).status == 200
    later = entry(served.get(parent, job))["resource"]
    assert later == served.get(parent, path).json and later["total"] == 0


def test_after_access_was_revoked_the_answer_is_that_of_a_stranger(served: Served) -> None:
    feed, proxy = served.token(), served.app_token("proxy-standard", "adult")
    paths = ("Patient/adult/$everything", "Observation?_total=accurate", "Patient/adult/_history")
    jobs = [begin(served, proxy, path) for path in paths]
    assert [entry(served.get(proxy, job))["response"]["status"] for job in jobs] == ["200"] * 3
    for one in served.get(feed, "Consent?patient=adult").json["entry"]:
        served.request(feed, "DELETE", f"Consent/{one['resource']['id']}")
    for job, path in zip(jobs, paths, strict=True):
        later, now = served.get(proxy, job), served.get(proxy, path)
        assert now.status == 401 or b'"resource":' not in now.body  # the control
        assert later.status == 401 or entry(later).get("resource", entry(later)["response"].get("outcome")) == now.json


def test_a_token_that_was_revoked_gets_nothing(served: Served) -> None:
    job = begin(served, served.token(), "Observation?_count=1")
    assert served.get("revoked", job).status == served.get(None, job).status == 401


def test_a_job_belongs_to_who_began_it(served: Served) -> None:
    parent, absent = served.app_token("parent-a", "teen"), f"{served.settings.base}/$async-status/none"
    job = begin(served, parent, "Observation?_count=1")
    others = (served.token(), served.app_token("parent-b", "teen"), served.app_token("parent-a", "child"))
    for other in others:
        for method in ("GET", "DELETE"):
            hidden, none = served.request(other, method, job), served.request(other, method, absent)
            assert (hidden.status, hidden.body, hidden.headers) == (404, none.body, none.headers)
    assert entry(served.get(parent, job))["response"]["status"] == "200"
    assert entry(served.get(served.app_token("parent-a", "teen"), job))  # another token of the same person and app


def test_a_deleted_job_is_gone_and_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_requests.JOBS, "most", 2)
    token = served.token()
    jobs = [begin(served, token, "Observation?_count=1") for _ in range(2)]
    assert served.request(token, "GET", "Observation?_count=1", headers=LATER).status == 429
    assert begin(served, served.app_token("parent-a", "teen"), "Observation?_count=1")  # others have places of their own
    assert served.request(token, "DELETE", jobs[0]).status == 202
    assert served.get(token, jobs[0]).status == served.request(token, "DELETE", jobs[0]).status == 404
    assert begin(served, token, "Observation?_count=1") and entry(served.get(token, jobs[1]))


def test_a_job_ends_after_a_day(served: Served) -> None:
    job = begin(served, served.token(), "Observation?_count=1")
    served.at(micros(NOON) + async_requests.LIFE - 1)
    assert served.get(served.token(), job).headers["expires"] == "Sun, 22 Nov 2026 17:00:00 GMT"
    served.at(micros(NOON) + async_requests.LIFE)
    assert served.get(served.token(), job).status == 404


@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
def test_a_job_survives_a_restart(kind: str, tmp_path: Path) -> None:
    url = store_url(kind, tmp_path)
    first = seeded(url)
    token = first.token()
    job, now = begin(first, token, "Patient/teen/$everything?_count=3"), first.get(token, "Patient/teen/$everything?_count=3").json
    first.close()
    second = Served(url, seeds=False)
    assert entry(second.get(token, job))["resource"] == now
    second.close()


def test_no_resource_is_stored_with_a_job(served: Served) -> None:
    token = served.token()
    served.get(token, begin(served, token, "Patient/teen/$everything"))
    stored = served.run(served.parts.store.key_values.list_all("async-job", micros(NOON)))
    assert len(stored) == 1 and len(stored[0][1]) < 500


def test_what_is_no_long_question_is_answered_at_once(shared: Served) -> None:
    token = shared.token()
    read, write = {"method": "GET", "url": "Observation?_count=1"}, {"method": "DELETE", "url": "Observation/nothing"}
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": read}, {"request": write}]}
    transaction = {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": read}]}
    answers = [
        shared.request(token, "GET", "Patient/teen", headers=LATER),
        shared.request(token, "HEAD", "Observation?_count=1", headers=LATER),
        shared.request(token, "POST", "Observation", body=lab(), headers=LATER),
        shared.request(token, "POST", "", body=batch, headers=LATER),
        shared.request(token, "POST", "", body=transaction, headers=LATER),
        shared.request(token, "POST", "Observation/$validate", body=lab(), headers=LATER),
        shared.request(None, "GET", "metadata", headers=LATER),
    ]
    assert [answer.status for answer in answers] == [200, 200, 201, 200, 200, 200, 200]
    assert not any("respond-async" in answer.headers.get("preference-applied", "") for answer in answers)


def test_a_server_that_may_not_write_answers_at_once(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise Problem("read_only", "Nothing may be written.")

    object.__setattr__(shared.parts.service, "require_writable", refuse)
    try:
        answer = shared.request(shared.token(), "GET", "Observation?_count=1", headers=LATER)
    finally:
        from fhir_server.interactions.service import no_restriction

        object.__setattr__(shared.parts.service, "require_writable", no_restriction)
    assert (answer.status, answer.json["type"]) == (200, "searchset") and "preference-applied" not in answer.headers


@pytest.mark.parametrize("kind", ["busy", "too_costly"])
def test_an_error_that_passes_is_no_answer(shared: Served, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    from fhir_server.access.view import View

    async def busy(*_: Any, **__: Any) -> Any:
        raise Problem(kind, "Later.")

    token = shared.token()
    job = begin(shared, token, "Observation?_count=1")
    with monkeypatch.context() as patch:
        patch.setattr(View, "find", busy)
        answer = shared.get(token, job)
    assert answer.status == 503 and "retry-after" in answer.headers
    assert entry(shared.get(token, job))["response"]["status"] == "200"


def test_the_audit_log_says_what_was_asked_and_whose_rows_were_shown(shared: Served) -> None:
    parent = shared.app_token("parent-a", "teen")
    job = begin(shared, parent, "Observation?category=laboratory&_count=2")
    shared.get(parent, job)
    office = shared.token("demo-public", "user/*.rs", "privacy-officer")
    events = [one["resource"] for one in shared.get(office, "AuditEvent?patient=teen&_count=50").json["entry"]]
    told = [
        event for event in events if any(detail.get("valueString") == "GET" for one in event["entity"] for detail in one.get("detail", ()))
    ]
    assert told and any(one.get("what", {}).get("reference") == "Patient/teen" for one in told[0]["entity"])


def test_every_read_of_several_versions_can_be_asked_so() -> None:
    asked = {(route.code, route.method) for route in ROUTES if may_be_answered_later(route)}
    assert {code for code, _ in asked} >= {"search-type", "search-system", "search-compartment", "history-instance", "operation"}
    assert not {code for code, _ in asked} & {"read", "vread", "create", "update", "patch", "delete"}
