"""Age limits, release times and grants one microsecond before, at and after they take effect, also for tokens and links issued earlier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.consent.security_labels import ACT_CODE
from tests.seeded import seeded
from tests.served import Served, micros, store_url

HOUR = 3_600_000_000
IG = "https://fhir-server.example/ig"
PT, PC, AS, NOBODY = "teen's view", "child's view", "own view", "nothing"


@pytest.fixture(params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path), at="2026-01-01T12:00:00-05:00")
    yield server
    server.close()


def birthday(served: Served, patient: str, years: int) -> int:
    """Return the start of a birthday in the time zone of the institution (05:00 or 04:00 UTC)."""
    from datetime import date, datetime

    born = date.fromisoformat(served.get(served.token(), f"Patient/{patient}").json["birthDate"])
    local = datetime(born.year + years, born.month, born.day, tzinfo=served.parts.policy.timezone)
    return micros(local.isoformat())


def seen(served: Served, token: str, patient: str) -> set[str]:
    return set(served.all_ids(token, f"Observation?patient={patient}&_count=1000"))


def everything(served: Served, patient: str) -> set[str]:
    return set(served.all_ids(served.token(), f"Observation?patient={patient}&_count=1000"))


def fresh(served: Served, user: str, patient: str) -> str:
    return served.app_token(user, patient)


def test_issued_token_follows_age_limit_from_twelfth_birthday(served: Served) -> None:
    turning = birthday(served, "child", 12)
    served.at(turning - 60_000_000)
    token = fresh(served, "parent-a", "child")
    full = seen(served, token, "child")
    assert {"child-cocaine-exposure", "child-hemoglobin"} <= full
    served.at(turning - 1)
    assert seen(served, token, "child") == full
    for instant in (turning, turning + 1):
        served.at(instant)
        narrowed = seen(served, token, "child")
        assert "child-cocaine-exposure" not in narrowed and "child-hemoglobin" in narrowed
        assert served.get(token, "Observation/child-cocaine-exposure").status == 404


def test_child_proxy_access_ends_at_eighteenth_birthday(served: Served) -> None:
    turning = birthday(served, "teen", 18)
    served.at(turning - 60_000_000)
    token = fresh(served, "parent-a", "teen")
    page = served.get(token, "Observation?_count=2").json
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    served.at(turning - 1)
    assert "teen-hemoglobin" in seen(served, token, "teen") and served.get(token, following).status == 200
    for instant in (turning, turning + 1):
        served.at(instant)
        assert seen(served, token, "teen") == set()
        assert served.get(token, "Patient/teen").status == 404
        assert served.get(token, "Patient/teen/$everything").status == 404
        assert served.get(token, following).status == 400 or served.get(token, following).ids() == []
        assert served.get(token, "Patient?_summary=count").json["total"] == 0


def test_new_adult_sees_own_record_from_eighteenth_birthday(served: Served) -> None:
    turning = birthday(served, "newly-adult", 18)
    served.at(turning - 60_000_000)
    token = fresh(served, "newly-adult", "newly-adult")
    served.at(turning - 1)
    assert seen(served, token, "newly-adult") == set()
    served.at(turning)
    assert "newly-adult-chlamydia" in seen(served, token, "newly-adult")


def test_result_appears_exactly_at_its_release_instant(served: Served) -> None:
    release = micros("2026-03-01T09:00:00-05:00")
    feed = served.token()
    held = {
        "resourceType": "Observation", "id": "held", "status": "final", "subject": {"reference": "Patient/adult"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        "extension": [{"url": f"{IG}/StructureDefinition/release-at", "valueInstant": "2026-03-01T09:00:00-05:00"}],
    }  # fmt: skip
    assert served.request(feed, "PUT", "Observation/held", body=held).status == 201
    served.at(release - 60_000_000)
    token = fresh(served, "adult", "adult")
    served.at(release - 1)
    assert served.get(token, "Observation/held").status == 404 and "held" not in seen(served, token, "adult")
    for instant in (release, release + 1):
        served.at(instant)
        assert served.get(token, "Observation/held").status == 200 and "held" in seen(served, token, "adult")


def test_proxy_access_ends_at_period_end_to_the_microsecond(served: Served) -> None:
    feed = served.token()
    consent = served.get(feed, "Consent/proxy-full-of-adult").json
    consent["provision"]["provision"][0]["period"] = {"start": "2025-01-01", "end": "2026-06-30"}
    assert served.request(feed, "PUT", "Consent/proxy-full-of-adult", body=consent).status == 200
    end = micros("2026-07-01T00:00:00-04:00")
    served.at(end - 60_000_000)
    token = fresh(served, "proxy-full", "adult")
    served.at(end - 1)
    assert "adult-hemoglobin" in seen(served, token, "adult")
    for instant in (end, end + 1):
        served.at(instant)
        assert seen(served, token, "adult") == set()


@pytest.mark.parametrize("how", ["consent", "relation", "death"])
def test_ending_proxy_access_ends_issued_tokens_and_page_links(served: Served, how: str) -> None:
    feed, token = served.token(), fresh(served, "proxy-full", "adult")
    page = served.get(token, "Observation?_count=2")
    following = next(link["url"] for link in page.json["link"] if link["relation"] == "next")
    assert len(page.ids()) == 2 and len(served.get(token, following).ids()) == 2
    path, change = {
        "consent": ("Consent/proxy-full-of-adult", {"status": "inactive"}),
        "relation": ("RelatedPerson/proxy-full-of-adult", {"active": False}),
        "death": ("Patient/adult", {"deceasedDateTime": "2026-01-01"}),
    }[how]
    changed = {**served.get(feed, path).json, **change}
    assert served.request(feed, "PUT", path, body=changed).status == 200
    assert served.get(token, "Patient/adult").status == 404
    assert served.get(token, "Observation").ids() == []
    again = served.get(token, following)
    assert again.status == 400 or again.ids() == []


def test_corrected_birth_date_applies_to_the_next_request(served: Served) -> None:
    feed, token = served.token(), fresh(served, "parent-a", "child")
    assert "child-cocaine-exposure" in seen(served, token, "child")
    corrected = {**served.get(feed, "Patient/child").json, "birthDate": "2013-06-01"}
    assert served.request(feed, "PUT", "Patient/child", body=corrected).status == 200
    assert "child-cocaine-exposure" not in seen(served, token, "child")
    assert "child-hemoglobin" in seen(served, token, "child")


def test_revoked_token_returns_401_on_the_next_request(served: Served) -> None:
    token = fresh(served, "adult", "adult")
    assert served.get(token, "Patient/adult").status == 200
    principal = next(
        permissions.principal
        for permissions in served.parts.service.authenticator._cache.values()
        if permissions.principal.username == "adult"
    )
    served.run(served.parts.store.key_values.delete_family(principal.family))
    assert served.get(token, "Patient/adult").status == 401


def test_token_returns_401_from_its_expiry_to_the_microsecond(served: Served) -> None:
    token = fresh(served, "adult", "adult")
    issued = served.parts.clock()
    served.at(issued + HOUR - 1)
    assert served.get(token, "Patient/adult").status == 200
    served.at(issued + HOUR)
    assert served.get(token, "Patient/adult").status == 401


def test_encounter_label_reaches_results_until_staff_release_it(served: Served) -> None:
    feed, token = served.token(), fresh(served, "parent-a", "teen")
    visit = served.get(feed, "Encounter/teen-well-visit").json
    inside = [one for one in seen(served, token, "teen") if b"teen-well-visit" in served.get(feed, f"Observation/{one}").body]
    assert inside
    flagged = {**visit, "extension": [{"url": "https://fhir-server.example/ig/StructureDefinition/minor-consented", "valueBoolean": True}]}
    assert served.request(feed, "PUT", "Encounter/teen-well-visit", body=flagged).status == 200
    assert not set(inside) & seen(served, token, "teen")
    assert served.request(feed, "PUT", "Encounter/teen-well-visit", body=visit).status == 200
    assert not set(inside) & seen(served, token, "teen")
    released = {**visit, "meta": {"security": [{"system": ACT_CODE, "code": "DECLASSIFYLABEL"}]}}
    assert served.request(feed, "PUT", "Encounter/teen-well-visit", body=released).status == 200
    assert set(inside) <= seen(served, token, "teen")
