"""The content of a Binary as it is, both ways (http://hl7.org/fhir/R4/binary.html#rest)."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.interactions import raw_binary
from fhir_server.root_app import RootApp
from tests.seeded import seeded
from tests.served import Answer, Served, call, store_url

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
WORDS = b"plain words"
FHIR = "application/fhir+json"
ID = "the-file"
CONTENT = (  # Accept headers that name no FHIR type
    None, "", "*/*", "application/pdf", "image/*", "application/json", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "application/fhir+json;q=0, */*", "application/fhir+json;q=0.1, application/pdf",
)  # fmt: skip
RESOURCE = (
    FHIR,
    "application/fhir+json, */*",
    "application/json+fhir",
    "application/fhir+xml;q=0.5, application/fhir+json",
)


@pytest.fixture(scope="module", params=["memory", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")), max_resource_bytes=600_000)
    put(server, ID, PDF, "application/pdf", "Patient/adult")
    yield server
    server.close()


def put(served: Served, id: str, content: bytes, kind: str, context: str = "") -> Answer:
    headers = {"content-type": kind} | ({"x-security-context": context} if context else {})
    answer = served.request(served.token(), "PUT", f"Binary/{id}", body=content, headers=headers)
    assert answer.status in (200, 201), answer.body
    return answer


def get(served: Served, path: str = f"Binary/{ID}", accept: str | None = None, token: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.request(token or served.token(), "GET", path, headers=named if accept is None else {**named, "accept": accept})


@pytest.mark.parametrize("accept", CONTENT)
def test_content_is_the_answer_unless_a_fhir_type_is_named(served: Served, accept: str | None) -> None:
    for path in (f"Binary/{ID}", f"Binary/{ID}/_history/1"):
        answer = get(served, path, accept)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, PDF, "application/pdf")
        assert answer.headers["content-length"] == str(len(PDF)) and answer.headers["x-security-context"] == "Patient/adult"


@pytest.mark.parametrize("accept", RESOURCE)
def test_resource_is_the_answer_if_a_fhir_type_is_named(served: Served, accept: str) -> None:
    answer = get(served, accept=accept)
    assert answer.json["resourceType"] == "Binary" and b64decode(answer.json["data"]) == PDF
    assert answer.headers["content-type"].startswith(FHIR) and "content-disposition" not in answer.headers


@pytest.mark.parametrize(
    "query", ["_format=json", "_format=application/fhir%2Bjson", "_pretty=true", "_summary=false", "_elements=contentType"]
)
def test_parameters_about_the_resource_ask_for_it(served: Served, query: str) -> None:
    assert get(served, f"Binary/{ID}?{query}", "*/*").json["resourceType"] == "Binary"


def test_a_type_that_is_not_served_is_406(served: Served) -> None:
    assert get(served, f"Binary/{ID}?_format=ttl").status == 406


def test_in_a_bundle_the_resource_is_the_answer(served: Served) -> None:
    for kind in ("batch", "transaction"):
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [{"request": {"method": "GET", "url": f"Binary/{ID}"}}]}
        answer = served.request(served.token(), "POST", "", body=bundle, headers={"accept": "*/*"})
        assert answer.json["entry"][0]["resource"]["contentType"] == "application/pdf"


def test_a_bundle_takes_no_raw_content(served: Served) -> None:
    resource = {"resourceType": "Patient"}
    for kind in ("batch", "transaction"):
        entry = {"resource": resource, "request": {"method": "POST", "url": "Binary"}}
        answer = served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        status = answer.json["entry"][0]["response"]["status"] if kind == "batch" else str(answer.status)
        assert status == "400"


def test_a_search_lists_the_resource(served: Served) -> None:
    entry = served.get(served.token(), f"Binary?_id={ID}").json["entry"][0]["resource"]
    assert entry["contentType"] == "application/pdf"


def test_one_entity_tag_names_the_version_in_both_forms(served: Served) -> None:
    content, resource = get(served), get(served, accept=FHIR)
    tag = content.headers["etag"]
    assert tag == resource.headers["etag"] and tag.startswith("W/") and "Accept" in content.headers["vary"]
    assert content.headers["last-modified"] == resource.headers["last-modified"]
    for accept in ("application/pdf", FHIR):
        known = get(served, accept=accept, if_none_match=tag)
        assert (known.status, known.body) == (304, b"")
    assert get(served, if_match='W/"99"').status == 412


def test_head_has_the_headers_of_the_content(served: Served) -> None:
    token = served.token()
    head = served.request(token, "HEAD", f"Binary/{ID}")
    assert (head.status, head.body, head.headers) == (200, b"", get(served, token=token).headers)


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "application/pdf", "text/plain"]
)
def test_content_cannot_run_as_a_page_of_this_server(served: Served, kind: str) -> None:
    script = b"<html xmlns='http://www.w3.org/1999/xhtml'><script>alert(document.domain)</script></html>"
    put(served, "page", script, kind, "Patient/adult")
    root = RootApp(served.api, None, "https://fhir.example")  # type: ignore[arg-type]
    token = served.token()
    answer = served.run(call(root, "GET", "/fhir/Binary/page", b"", {"authorization": f"Bearer {token}", "accept": "text/html,*/*"}, b""))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, script, kind)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["content-disposition"] == "attachment"
    policy = answer.headers["content-security-policy"].split("; ")
    assert "sandbox" in policy and "default-src 'none'" in policy
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert served.run(call(root, "GET", "/fhir/Binary/page", b"", {"accept": "text/html"}, b"")).status == 401


@pytest.mark.parametrize("kind", ["text/html\nX-Injected: 1", "text", "text/html;charset", "a b/c", "text/h\u00fc", 'text/html;x="\u2028"'])
def test_a_content_type_that_is_none_is_served_as_bytes(served: Served, kind: str) -> None:
    body = {
        "resourceType": "Binary",
        "id": "odd",
        "contentType": kind,
        "data": b64encode(b"<script>").decode(),
        "securityContext": {"reference": "Patient/adult"},
    }
    stored = served.request(served.token(), "PUT", "Binary/odd", body=body)
    if stored.status == 400:  # no code of R4
        return
    answer = get(served, "Binary/odd")
    assert (answer.body, answer.headers["content-type"]) == (b"<script>", "application/octet-stream") and "x-injected" not in answer.headers


@pytest.mark.parametrize("kind", ["application/fhir+json; charset=utf-8", "application/json", "application/fhir+json"])
def test_content_in_json_is_not_touched(served: Served, kind: str) -> None:
    text = b'{"resourceType": "Patient",\n "active": true}'
    put(served, "json", text, kind, "Patient/adult")
    answer = get(served, "Binary/json")
    assert answer.body == text and answer.headers["content-type"].replace("; ", ";") == kind.replace("; ", ";")


@pytest.mark.parametrize("data", [b64encode(PDF).decode(), "\n".join(b64encode(PDF).decode()[i : i + 76] for i in range(0, 14000, 76))])
def test_whitespace_and_escapes_in_base64_are_no_content(served: Served, data: str) -> None:
    text = '{"resourceType":"Binary","id":"spaced","contentType":"image/png","securityContext":{"reference":"Patient/adult"},"data":"%s"}'
    body = (text % data.replace("/", "\\/").replace("\n", "\\n")).encode()
    assert served.request(served.token(), "PUT", "Binary/spaced", body=body).status in (200, 201)
    assert get(served, "Binary/spaced").body == PDF


def test_a_binary_without_data_is_empty_content(served: Served) -> None:
    put(served, "empty", b"", "text/plain", "Patient/adult")
    answer = get(served, "Binary/empty")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert "data" not in get(served, "Binary/empty", FHIR).json


@pytest.mark.parametrize(
    "kind",
    ["application/pdf", "image/png", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_content_of_any_type_is_created_and_returned(served: Served, kind: str) -> None:
    content = os.urandom(200_000)
    headers = {"content-type": kind, "x-security-context": f"{served.settings.base}/Patient/adult"}
    made = served.request(served.token(), "POST", "Binary", body=content, headers=headers)
    assert made.status == 201 and made.json["securityContext"] == {"reference": "Patient/adult"}, made.body
    answer = get(served, made.headers["location"].partition("/_history")[0])
    assert answer.body == content and answer.headers["content-type"] == kind.replace("; ", ";")


def test_a_binary_in_json_is_the_resource_and_not_its_content(served: Served) -> None:
    body = {"resourceType": "Binary", "contentType": "image/png", "data": b64encode(PDF).decode()}
    assert served.request(served.token(), "POST", "Binary", body=body).json["contentType"] == "image/png"
    refused = served.request(served.token(), "POST", "Binary", body=body, headers={"x-security-context": "Patient/adult"})
    assert refused.status == 400
    assert served.request(served.token(), "POST", "Binary", body={**body, "data": "?"}).status == 400
    assert served.request(served.token(), "POST", "Binary", body=b'{"resourceType"').status == 400


@pytest.mark.parametrize("context", ["Patient/nobody", "Observation/nothing"])
def test_a_context_that_does_not_exist_is_refused(served: Served, context: str) -> None:
    headers = {"content-type": "image/png", "x-security-context": context}
    assert served.request(served.token(), "POST", "Binary", body=b"x", headers=headers).status == 422


@pytest.mark.parametrize("kind", ["", "png", "image/png, image/gif", "image/"])
def test_content_requires_a_media_type(served: Served, kind: str) -> None:
    assert served.request(served.token(), "POST", "Binary", body=b"x", headers={"content-type": kind}).status == 415


def test_content_that_is_too_large_as_base64_is_refused(served: Served) -> None:
    for size, status in ((449_000, 201), (451_000, 413), (600_001, 413)):
        answer = served.request(served.token(), "POST", "Binary", body=bytes(size), headers={"content-type": "image/png"})
        assert answer.status == status
        assert answer.status == 201 or answer.json["issue"][0]["code"] == "too-long"


def test_an_update_replaces_the_content_under_its_preconditions(served: Served) -> None:
    put(served, "changing", b"one", "text/plain", "Patient/adult")
    headers = {"content-type": "text/plain", "if-match": 'W/"9"', "x-security-context": "Patient/adult"}
    assert served.request(served.token(), "PUT", "Binary/changing", body=b"two", headers=headers).status == 412
    put(served, "changing", b"two", "text/plain", "Patient/adult")
    assert get(served, "Binary/changing").body == b"two" and get(served, "Binary/changing/_history/1").body == b"one"


def test_content_is_withheld_as_its_context_is(served: Served) -> None:
    parent, feed = served.app_token("parent-a", "teen"), served.token()
    for id, context in (("of-hidden", "Observation/teen-hiv-screen"), ("of-shown", "Observation/teen-hemoglobin")):
        put(served, id, WORDS, "text/plain", context)
    for accept in (*CONTENT, *RESOURCE):
        for path in ("", "/_history/1"):
            hidden, absent = (get(served, f"Binary/{id}{path}", accept, parent) for id in ("of-hidden", "of-nobody"))
            assert hidden.status == absent.status == 404
            assert hidden.body.replace(b"of-hidden", b"of-nobody") == absent.body and hidden.headers == absent.headers
    assert get(served, "Binary/of-shown", "*/*", parent).body == WORDS
    assert get(served, "Binary/of-hidden", "*/*", feed).body == WORDS


def test_content_that_nobody_can_read_is_withheld_from_whom_sensitive_words_would_be(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    put(served, "unread", PDF, "application/pdf", "Observation/teen-hemoglobin")
    assert get(served, "Binary/unread").body == PDF and get(served, "Binary/unread", "*/*", parent).status == 404


def test_labels_that_a_context_has_lent_stay_lent(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    sensitive, plain = (served.get(feed, f"Observation/{id}").json for id in ("teen-hiv-screen", "teen-hemoglobin"))
    del sensitive["meta"], plain["meta"]
    for id, source in (("lends", sensitive), ("lends-nothing", plain)):
        assert served.request(feed, "PUT", f"Observation/{id}", body={**source, "id": id}).status == 201
        put(served, f"of-{id}", WORDS, "text/plain", f"Observation/{id}")
    assert served.request(feed, "PUT", "Observation/lends", body={**plain, "id": "lends"}).status == 200
    assert get(served, "Binary/of-lends", "*/*", parent).status == 404
    assert served.request(feed, "DELETE", "Observation/lends").status == 204
    assert get(served, "Binary/of-lends", "*/*", parent).status == 404
    assert get(served, "Binary/of-lends-nothing", "*/*", parent).body == WORDS  # the control


def test_without_a_context_only_who_sees_everything_gets_the_content(served: Served) -> None:
    put(served, "orphan", PDF, "application/pdf")
    assert get(served, "Binary/orphan").body == PDF
    for user, patient in (("adult", "adult"), ("parent-a", "teen")):
        assert get(served, "Binary/orphan", "*/*", served.app_token(user, patient)).status == 404


def test_a_patient_cannot_create_content_with_a_hidden_context(served: Served) -> None:
    token = served.app_token("parent-a", "teen")
    answers = [
        served.request(token, "POST", "Binary", body=b"x", headers={"content-type": "text/plain", "x-security-context": context})
        for context in ("Observation/teen-hiv-screen", "Observation/none-of-these")
    ]
    assert answers[0].status == answers[1].status >= 400
    assert answers[0].body.replace(b"teen-hiv-screen", b"none-of-these") == answers[1].body


def test_the_audit_log_names_who_read_whose_content(served: Served) -> None:
    put(served, "of-shown", WORDS, "text/plain", "Observation/teen-hemoglobin")
    assert get(served, "Binary/of-shown", "*/*", served.app_token("parent-a", "teen")).status == 200
    office = served.token("demo-public", "user/*.rs", "privacy-officer")
    entry = served.get(office, "AuditEvent?patient=teen&action=R&_count=100").json["entry"]
    told: list[Any] = [one["resource"] for one in entry]
    entities = [[entity.get("what", {}).get("reference") for entity in event.get("entity", ())] for event in told]
    assert ["Binary/of-shown", "Patient/teen"] in [entity[:2] for entity in entities]


def test_content_is_coded_in_slices(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_binary, "_SLICE", 64)
    put(served, "sliced", PDF, "application/pdf", "Patient/adult")
    assert get(served, "Binary/sliced").body == PDF


def test_no_header_of_the_answer_is_too_long_for_a_proxy(served: Served) -> None:
    body = {"resourceType": "Binary", "id": "long", "contentType": "a/" + "b" * 5000, "data": "YQ==",
            "securityContext": {"reference": f"https://elsewhere.example/{'x' * 5000}/Patient/1"}}  # fmt: skip
    assert served.request(served.token(), "PUT", "Binary/long", body=body).status == 201
    answer = get(served, "Binary/long")
    assert (answer.body, answer.headers["content-type"]) == (b"a", "application/octet-stream")
    assert max(len(value) for value in answer.headers.values()) < 2000 and "x-security-context" not in answer.headers
    sent = served.request(served.token(), "POST", "Binary", body=b"a", headers={"content-type": "a/" + "b" * 5000})
    assert sent.status == 415


def test_a_binary_in_xml_is_the_resource_and_other_xml_is_content(served: Served) -> None:
    xml = {"content-type": "application/fhir+xml", "accept": FHIR}
    data = b64encode(PDF)
    for head in (b"", b"<?xml version='1.0' encoding='UTF-8'?>\n<!-- a letter -->\n"):
        text = head + b'<Binary xmlns="http://hl7.org/fhir"><contentType value="image/png"/><data value="%s"/></Binary>' % data
        made = served.request(served.token(), "POST", "Binary", body=text, headers=xml)
        assert (made.status, made.json["contentType"]) == (201, "image/png")
    for text in (b'<ClinicalDocument xmlns="urn:hl7-org:v3"/>', b'<Patient xmlns="http://hl7.org/fhir"/>', b"<not well formed"):
        made = served.request(served.token(), "POST", "Binary", body=text, headers=xml)
        assert made.status == 201 and b64decode(made.json["data"]) == text
        assert get(served, f"Binary/{made.json['id']}").body == text
    broken = served.request(served.token(), "POST", "Binary", body=b'<Binary xmlns="http://hl7.org/fhir"><nothing/></Binary>', headers=xml)
    assert broken.status == 400


def test_the_resource_is_xml_for_who_asks_for_that(served: Served) -> None:
    for path, accept in ((f"Binary/{ID}", "application/fhir+xml"), (f"Binary/{ID}?_format=xml", "*/*")):
        answer = get(served, path, accept)
        assert b"<Binary xmlns" in answer.body and answer.headers["content-type"].startswith("application/fhir+xml")
    assert get(served, f"Binary/{ID}", "application/xml").body == PDF  # R4 names FHIR's own types
    assert get(served, "Binary/nothing", "application/fhir+xml").body.endswith(b"</OperationOutcome>")
