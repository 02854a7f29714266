"""Profiles that packages bring with faults of their own: they say so, and no resource makes the server fail."""

from __future__ import annotations

import pytest

from fhir_server.packages.loading import Packages
from tests.profiles.profile_set import BASE, observation, package, structure
from tests.served import Served

FAILING = ("value.ofType(integer).substring('a').exists()", "value.ofType(Quantity).value * value.ofType(Quantity).value > 1",
           "value.ofType(Quantity).value mod 3 = 0", "value.ofType(Quantity).value - value.ofType(Quantity).value = 0",
           "code.text.matches('(')", "code.text.substring('a').exists()")  # fmt: skip


def rule(expression: str, number: int) -> dict[str, object]:
    return {"key": f"x-{number}", "severity": "error", "human": "Fails.", "expression": expression}


@pytest.mark.parametrize("number", range(len(FAILING)))
@pytest.mark.parametrize("value", ["1", "9e999999", "1e50", "-9e999999"])
def test_an_invariant_that_cannot_be_evaluated_is_no_server_error(number: int, value: str) -> None:
    profile = structure("failing", "Observation", {"id": "Observation", "constraint": [rule(FAILING[number], number)]})
    served = Served(seeds=False)
    try:
        parts = served.parts
        assert served.run(Packages(parts.store, parts.labeler, served.settings.base, parts.clock).add(package(profile))).refused == []
        body = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"meta":{"profile":["%s"]},"valueQuantity":{"value":%s}}'
        answer = served.request(served.token(), "POST", "Observation", body=body % (str(profile["url"]).encode(), value.encode()))
        assert answer.status in (201, 422), answer.body
    finally:
        served.close()


def test_profiles_whose_bases_form_a_circle_are_checked_once_each() -> None:
    urls = [f"{BASE}/StructureDefinition/{name}" for name in ("one", "two")]
    subject = {"id": "Observation.subject", "min": 1}
    one = structure("one", "Observation", subject, differential=True, base=urls[1])
    two = structure("two", "Observation", {"id": "Observation.note", "max": "0"}, differential=True, base=urls[0])
    served = Served(seeds=False)
    try:
        parts = served.parts
        assert served.run(Packages(parts.store, parts.labeler, served.settings.base, parts.clock).add(package(one, two))).refused == []
        for url in urls:
            body = observation(meta={"profile": [url]}, note=[{"text": "x"}])
            answer = served.request(served.token(), "POST", "Observation", body=body)
            assert answer.status == 422, answer.body
            places = {place for issue in answer.json["issue"] for place in issue["expression"]}
            assert places == {"Observation.subject", "Observation.note"}
    finally:
        served.close()
