"""``ValueSet/$expand`` answers from what ships with the server and from what is stored, with every store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interactions.terminology_material import ALL, ANIMALS, GENDERS, SEX, ask, codes, post, terminology_server
from tests.served import Served

served = terminology_server()


EXPANDED: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({}, ["dog", "poodle", "beagle", "any", "dodo"]),
    ({"filter": "DO"}, ["dog", "dodo"]),
    ({"filter": "hund"}, ["dog"]),
    ({"filter": "any ANIMAL"}, ["any"]),
    ({"activeOnly": "true"}, ["dog", "poodle", "beagle", "any"]),
    ({"excludeNotForUI": "true"}, ["dog", "poodle", "beagle", "dodo"]),
    ({"offset": 1, "count": 2}, ["poodle", "beagle"]),
    ({"offset": 9, "count": 2}, []),
    ({"count": 0}, []),
    ({"exclude-system": ANIMALS}, []),
    ({"system-version": f"{ANIMALS}|1", "excludeNested": "true"}, ["dog", "poodle", "beagle", "any", "dodo"]),
)


@pytest.mark.parametrize(("parameters", "expected"), EXPANDED)
def test_an_expansion_has_the_codes_that_are_asked_for(served: Served, parameters: dict[str, Any], expected: list[str]) -> None:
    assert codes(ask(served, "ValueSet/$expand", url="urn:tests:all", **parameters)) == expected
    assert codes(ask(served, "ValueSet/all/$expand", **parameters)) == expected


def test_an_expansion_says_what_it_was_made_of(served: Served) -> None:
    found = ask(served, "ValueSet/$expand", url="urn:tests:all|3", count=1, includeDesignations="true", displayLanguage="de").json
    assert {name: found[name] for name in ("url", "version", "name", "status")} == {
        "url": "urn:tests:all", "version": "3", "name": "All", "status": "active",
    }  # fmt: skip
    assert (found["expansion"]["total"], found["expansion"]["offset"], "compose" in found) == (5, 0, False)
    assert {"name": "version", "valueUri": f"{ANIMALS}|1"} in found["expansion"]["parameter"]
    assert {"name": "count", "valueInteger": 1} in found["expansion"]["parameter"]
    (dog,) = found["expansion"]["contains"]
    assert (dog["display"], [one["value"] for one in dog["designation"]]) == ("Hund", ["Hund", "D"])
    named = ask(served, "ValueSet/$expand", url="urn:tests:all", designation="urn:use|short", includeDefinition="true").json
    assert [one["value"] for one in named["expansion"]["contains"][0]["designation"]] == ["D"]
    assert named["compose"] == ALL["compose"]
    flags = {one["code"]: one for one in named["expansion"]["contains"]}
    assert (flags["any"]["abstract"], flags["dodo"]["inactive"]) == (True, True)


def test_pages_of_an_expansion_join_to_the_whole(served: Served) -> None:
    url = "http://terminology.hl7.org/ValueSet/v3-RoleCode"
    whole = codes(ask(served, "ValueSet/$expand", url=url))
    pages = [codes(served.get(served.token(), f"ValueSet/$expand?url={url}&offset={at}&count=100")) for at in range(0, len(whole), 100)]
    assert [code for page in pages for code in page] == whole
    assert len(whole) > 300


def test_a_value_set_can_be_sent(served: Served) -> None:
    sent = {
        "resourceType": "ValueSet",
        "status": "draft",
        "compose": {"include": [{"valueSet": ["urn:tests:all", GENDERS]}, {"system": SEX}]},
    }
    assert codes(post(served, "ValueSet/$expand", {"name": "valueSet", "resource": sent})) == ["male", "female", "other", "unknown"]
    assert codes(served.request(served.token(), "POST", "ValueSet/$expand?count=1", body=sent)) == ["male"]
    wrong = {"resourceType": "ValueSet", "status": "nonsense"}
    assert post(served, "ValueSet/$expand", {"name": "valueSet", "resource": wrong}).status == 400
