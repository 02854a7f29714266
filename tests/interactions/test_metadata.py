"""``GET metadata``: its forms, modes and preconditions."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from fhir_server.resources.validate import check
from tests.served import Served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    made = Served(seeds=False)
    yield made
    made.close()


def test_it_takes_less_than_100_kilobytes_compressed(server: Served) -> None:
    assert len(gzip.compress(server.get(None, "metadata").body, 6)) < 40_000


def test_summary_and_elements_choose_members(server: Served) -> None:
    whole = server.get(None, "metadata").json
    chosen = server.get(None, "metadata?_elements=fhirVersion,software").json
    assert chosen.keys() == {"resourceType", "meta", "status", "date", "kind", "fhirVersion", "format", "software"}
    assert chosen["meta"]["tag"][0]["code"] == "SUBSETTED" and chosen["software"] == whole["software"]
    assert "text" not in server.get(None, "metadata?_summary=data").json
    assert "rest" not in server.get(None, "metadata?_summary=text").json
    assert server.get(None, "metadata?_summary=false").json == whole
    assert server.get(None, "metadata?_summary=everything").status == server.get(None, "metadata?_summary=count").status == 400


def test_it_is_indented_on_request(server: Served) -> None:
    assert b"\n" in server.get(None, "metadata?_pretty=true").body and b"\n" not in server.get(None, "metadata").body


def test_a_format_that_the_server_does_not_have_is_refused(server: Served) -> None:
    assert server.get(None, "metadata?_format=json").status == 200
    assert server.get(None, "metadata?_format=ttl").status == 406
    assert server.get(None, "metadata", Accept="text/turtle").status == 406
    assert server.get(None, "metadata", Accept="text/html, */*;q=0.1").status == 200


def test_a_client_that_has_it_gets_304(server: Served) -> None:
    answer = server.get(None, "metadata")
    known = {"If-None-Match": answer.headers["etag"]}
    again = server.get(None, "metadata", **known)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert server.get(None, "metadata?_elements=status", **known).status == 200
    assert server.get(None, "metadata", **{"If-None-Match": 'W/"other"'}).status == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert server.get(None, "Patient").headers["cache-control"] == "no-store"


def test_modes(server: Served) -> None:
    full, normative = server.get(None, "metadata?mode=full").json, server.get(None, "metadata?mode=normative").json
    assert full == server.get(None, "metadata").json and check("CapabilityStatement", normative) == ()
    types = [one["type"] for one in normative["rest"][0]["resource"]]
    assert {"Patient", "Observation"} <= set(types) and "Encounter" not in types and len(types) < len(full["rest"][0]["resource"])
    terminology = server.get(None, "metadata?mode=terminology").json
    assert terminology["resourceType"] == "TerminologyCapabilities" and check("TerminologyCapabilities", terminology) == ()


def test_an_unknown_mode_is_refused(server: Served) -> None:
    answer = server.get(None, "metadata?mode=terminolgy")
    assert answer.status == 400 and "Did you mean 'terminology'?" in answer.json["issue"][0]["diagnostics"]
