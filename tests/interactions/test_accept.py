"""Content negotiation, with the headers that real clients send (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import pytest

from tests.served import Served

HAPI = "application/fhir+xml;q=1.0, application/fhir+json;q=1.0, application/xml+fhir;q=0.9, application/json+fhir;q=0.9"
TAKEN = [
    HAPI,
    "text/html, image/gif, image/jpeg, */*; q=0.2",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "text/html, application/fhir+json",
    "text/plain, */*",
    "application/json, text/plain, */*",
    "application/fhir+json; fhirVersion=4.0",
    "Application/FHIR+JSON ; q=0.5",
    "application/json+fhir",
    "application/*",
    "application/fhir+json;q=0.001",
    "application/fhir+json;q=x",
    "application/json;q=0, */*",
    "application/fhir+json;q=0, application/json",
    "",
    " , ",
]
XML = [
    "application/fhir+xml",
    "application/xml",
    "text/xml",
    "application/xml+fhir",
    "application/fhir+xml;q=1.0, application/fhir+json;q=0.9",
    "application/fhir+json;q=0.3, application/xml",
    "application/fhir+json;q=0, */*",
    "application/fhir+json; q=0.0, application/*;q=0.5",
    "text/html, application/xml;q=0.9",
    "application/fhir+turtle, application/fhir+xml;q=0.1",
]
REFUSED = [
    "text/html, text/plain",
    "text/*",
    "application/fhir+json;q=0",
    "application/fhir+json;q=0, application/fhir+xml;q=0, */*",
    "application/*;q=0, */*",
    "*/*;q=0",
    "json5",
    "text/turtle",
    "application/fhir+turtle",
]


@pytest.mark.parametrize("accept", TAKEN)
def test_json_is_returned_to_who_takes_it(served: Served, feed: str, accept: str) -> None:
    answer = served.request(feed, "GET", "Patient/adult", headers={"accept": accept})
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/fhir+json")


@pytest.mark.parametrize("accept", XML)
def test_xml_is_returned_to_who_prefers_it(served: Served, feed: str, accept: str) -> None:
    answer = served.request(feed, "GET", "Patient/adult", headers={"accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/fhir+xml; charset=utf-8")
    assert answer.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?><Patient xmlns="http://hl7.org/fhir">')


@pytest.mark.parametrize("accept", REFUSED)
def test_who_takes_neither_json_nor_xml_gets_406(served: Served, feed: str, accept: str) -> None:
    assert served.request(feed, "GET", "Patient/adult", headers={"accept": accept}).status == 406


@pytest.mark.parametrize("format", ["json", "application/json", "application/fhir+json", "application/fhir%2Bjson", "text/json"])
def test_format_parameter_decides_before_the_header(served: Served, feed: str, format: str) -> None:
    assert served.request(feed, "GET", f"Patient/adult?_format={format}", headers={"accept": "text/html"}).status == 200
    assert served.request(feed, "GET", "Patient/adult?_format=ttl", headers={"accept": "application/json"}).status == 406


@pytest.mark.parametrize("format", ["xml", "application/xml", "application/fhir+xml", "application/fhir%2Bxml", "text/xml"])
def test_format_parameter_asks_for_xml_before_the_header(served: Served, feed: str, format: str) -> None:
    answer = served.request(feed, "GET", f"Patient/adult?_format={format}", headers={"accept": "application/fhir+json"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/fhir+xml; charset=utf-8")
