"""XML at the doors of the API, on each store: what goes in as XML is what comes out, as XML and as JSON; errors are XML, too."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from fhir_server.fhir_xml import to_json, to_xml
from tests.filled import served_with
from tests.served import Answer, Served

XML = {"content-type": "application/fhir+xml", "accept": "application/fhir+xml"}
TYPE = "application/fhir+xml; charset=utf-8"
NS = 'xmlns="http://hl7.org/fhir"'


served = served_with()


def observation(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"},
            **more}  # fmt: skip


def xml_of(value: Any) -> bytes:
    return to_xml(json.dumps(value).encode())


def ask(served: Served, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Answer:
    """A request with XML, for XML."""
    text = body if body is None or isinstance(body, bytes) else xml_of(body)
    return served.request(token or served.token(), method, path, body=text, headers=XML | headers)


def read(answer: Answer) -> Any:
    assert answer.headers["content-type"] == TYPE
    return json.loads(to_json(answer.body))


def without_cursors(body: Any) -> Any:
    return json.loads(re.sub(r"_page=[^&\"]+", "_page=", json.dumps(body)))


@pytest.mark.parametrize("content_type", ["application/fhir+xml", "application/xml", "text/xml", "application/fhir+xml;charset=UTF-8"])
def test_a_resource_goes_in_and_out_in_xml_and_is_stored_as_json(served: Served, content_type: str) -> None:
    text = to_xml(json.dumps(observation("both")).encode()[:-1] + b',"valueQuantity":{"value":1.50}}')
    assert ask(served, "PUT", "Observation/both", text, **{"content-type": content_type}).status in (200, 201)
    stored = served.get(served.token(), "Observation/both")
    assert b'"value":1.50' in stored.body and stored.headers["content-type"].startswith("application/fhir+json")
    in_xml = ask(served, "GET", "Observation/both")
    assert read(in_xml) == stored.json and in_xml.headers["etag"] == stored.headers["etag"]
    assert ask(served, "GET", "Observation/both", **{"if-none-match": stored.headers["etag"]}).status == 304
    head = ask(served, "HEAD", "Observation/both")
    assert (head.body, head.headers["content-length"], head.headers["content-type"]) == (b"", str(len(in_xml.body)), TYPE)


def test_the_same_questions_have_the_same_answers_in_both_formats(served: Served) -> None:
    token = served.token()
    for path in (
        "Patient/adult", "Patient/adult?_elements=name", "Patient/adult?_summary=true", "Patient/adult/_history", "Patient?_count=2",
        "Observation?subject=Patient/adult&_include=*", "Patient/adult/$everything", "Patient/nobody", "Patient?colour=red", "Colour/x",
        "Patient/adult/$meta", "?_type=Patient,Observation&_count=3", "Patient?_summary=count", "Patient/adult/_history/1",
    ):  # fmt: skip
        as_json, as_xml = served.get(token, path), ask(served, "GET", path)
        assert (as_xml.status, without_cursors(read(as_xml))) == (as_json.status, without_cursors(as_json.json)), path
        assert as_xml.headers.get("etag") == as_json.headers.get("etag")
    pretty = ask(served, "GET", "Patient/adult?_pretty=true").body
    assert b"\n  <id value" in pretty and json.loads(to_json(pretty)) == served.get(token, "Patient/adult").json


def test_pages_asked_for_with_format_go_on_in_it(served: Served) -> None:
    token = served.token()
    first = served.get(token, "Patient?_count=1&_format=xml")
    (link,) = [link["url"] for link in read(first)["link"] if link["relation"] == "next"]
    assert "_format=xml" in link and read(served.get(token, link))["resourceType"] == "Bundle"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_bundles_go_in_and_out_in_xml(served: Served, kind: str) -> None:
    entries = [
        {"resource": observation(f"in-{kind}"), "request": {"method": "PUT", "url": f"Observation/in-{kind}"}},
        {"request": {"method": "GET", "url": "Patient/adult"}},
    ]
    answer = ask(served, "POST", "", {"resourceType": "Bundle", "type": kind, "entry": entries})
    bundle = read(answer)
    assert (answer.status, bundle["type"], [one["resource"]["id"] for one in bundle["entry"]]) == (
        200,
        f"{kind}-response",
        [f"in-{kind}", "adult"],
    )


def test_large_bodies_and_answers_in_xml(served: Served) -> None:
    notes = [{"text": f"{number} <&> é" * 5} for number in range(3000)]
    assert ask(served, "PUT", "Observation/large", observation("large", note=notes)).status in (200, 201)
    assert read(ask(served, "GET", "Observation/large"))["note"] == notes
    assert len(read(ask(served, "GET", "Observation?_id=large"))["entry"]) == 1
    broken = xml_of(observation("large", note=notes)).replace(b"<note>", b"<note2>", 1)
    assert ask(served, "PUT", "Observation/large", broken).status == 400


def test_operations_take_parameters_in_xml(served: Served) -> None:
    tag = {"system": "urn:x", "code": "y"}
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [tag]}}]}
    ask(served, "PUT", "Observation/tagged", observation("tagged"))
    assert ask(served, "POST", "Observation/tagged/$meta-add", parameters).status == 200
    assert tag in served.get(served.token(), "Observation/tagged").json["meta"]["tag"]
    outcome = read(ask(served, "POST", "Observation/$validate", {"resourceType": "Observation", "status": "final"}))
    assert {one["code"] for one in outcome["issue"]} == {"required"}
    types = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Patient"}]}
    assert read(ask(served, "POST", "Patient/adult/$everything", types))["type"] == "searchset"


def test_a_fhirpath_patch_may_be_xml(served: Served) -> None:
    ask(served, "PUT", "Observation/pathed", observation("pathed"))
    parts = [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Observation.status"},
             {"name": "value", "valueCode": "amended"}]  # fmt: skip
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    assert read(ask(served, "PATCH", "Observation/pathed", parameters))["status"] == "amended"


def test_who_sends_xml_and_says_nothing_of_the_answer_gets_xml(served: Served) -> None:
    body, headers = xml_of(observation("silent")), {"content-type": "application/fhir+xml"}
    assert read(served.request(served.token(), "PUT", "Observation/silent", body=body, headers=headers))["id"] == "silent"
    asked = headers | {"accept": "application/fhir+json"}
    assert served.request(served.token(), "PUT", "Observation/silent", body=body, headers=asked).json["id"] == "silent"


def test_who_sends_xml_gets_errors_in_xml_whoever_finds_them(served: Served) -> None:
    headers = {"content-type": "application/fhir+xml"}
    known = f'<Observation {NS}><status value="final"/><code><text value="x"/></code>'
    unknown = f'{known}<subject><reference value="Patient/nobody"/></subject>'
    for body, status in ((f'<Observation {NS}><id value="silent"/></Observation>', 400), (f"{unknown}</Observation>", 422)):
        answer = served.request(served.token(), "POST", "Observation", body=body.encode(), headers=headers)
        assert answer.status == status and answer.headers["content-type"].startswith("application/fhir+xml")
        asked = headers | {"accept": "application/json"}
        in_json = served.request(served.token(), "POST", "Observation", body=body.encode(), headers=asked)
        assert in_json.status == status and in_json.headers["content-type"].startswith("application/fhir+json")


HOSTILE = [
    b"", b"{}", b"<Observation/>", b'<Observation xmlns="urn:x"/>', f"<Patient {NS}/>".encode(),
    f"<Observation {NS}>x</Observation>".encode(),
    f"<Observation {NS}>".encode() + b"<extension>" * 50_000, f'<Observation {NS} a="{"x" * 300_000}"/>'.encode(),
    f"<Observation {NS}><status value='{'x' * 300_000}'/></Observation>".encode(), f"<Observation {NS}/>".encode("utf-16"),
    f'<!DOCTYPE a [<!ENTITY b "{"c" * 1000}">]><Observation {NS}>{"&b;" * 1000}</Observation>'.encode(),
    f"<?xml version='1.0' encoding='latin-1'?><Observation {NS}/>".encode(), b"\xff" * 100, b"<" * 1000, b"<a>" * 1000,
    f"<Observation {NS}><status value='final'/><status value='final'/></Observation>".encode(),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "Observation"), ("POST", ""), ("POST", "Observation/$validate"), ("PATCH", "Observation/both")]
)
def test_hostile_xml_is_400_with_an_outcome_in_xml(served: Served, body: bytes, method: str, path: str) -> None:
    answer = ask(served, method, path, body)
    assert answer.status in (400, 404) or (path.endswith("$validate") and answer.status == 200)
    assert read(answer)["resourceType"] == "OperationOutcome" and len(answer.body) < 3000


def test_other_formats_and_encodings_are_refused(served: Served) -> None:
    body = xml_of(observation("x"))
    for content_type, status in (("text/turtle", 415), ("application/xhtml+xml", 415), ("application/fhir+xml; charset=iso-8859-1", 415)):
        assert ask(served, "POST", "Observation", body, **{"content-type": content_type}).status == status
    assert ask(served, "POST", "Observation", json.dumps(observation("x")).encode()).status == 400
    assert ask(served, "POST", "Observation", body, **{"content-type": "application/fhir+json"}).status == 400


def test_nothing_of_a_body_is_read_before_the_token(served: Served) -> None:
    answer = served.request("no token", "POST", "Observation", body=b"<" * 1000, headers=XML)
    assert (answer.status, read(answer)["issue"][0]["code"]) == (401, "login")


def test_documents_of_the_api_name_xml_and_those_of_smart_stay_json(served: Served) -> None:
    statement = served.get(None, "metadata").json
    assert statement["format"] == ["application/fhir+json", "application/fhir+xml", "json", "xml"]
    for _ in range(2):
        assert read(served.get(None, "metadata", accept="application/fhir+xml")) == statement
    smart = served.get(None, ".well-known/smart-configuration", accept="application/fhir+xml")
    assert smart.headers["content-type"] == "application/json" and smart.json["authorization_endpoint"]


def test_answers_are_well_formed_xml_of_the_namespace_of_fhir(served: Served) -> None:
    for path in ("Patient?_count=50", "Observation?_count=50", "Consent?_count=50", "DiagnosticReport?_count=50", "AuditEvent?_count=50"):
        root = ElementTree.fromstring(ask(served, "GET", path).body)
        assert root.tag == "{http://hl7.org/fhir}Bundle"
