"""Every invalid input gets an OperationOutcome with the right status, never a 5xx, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.served import Served

GOOD: dict[str, Any] = {
    "resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/adult"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "valueQuantity": {"value": 13.5, "unit": "g/dL"},
}  # fmt: skip
TYPES = st.sampled_from(
    ["Observation", "Patient", "Appointment", "Account", "Nothing", "observation", "", "$x", "_history", "Patient/adult", "é"]
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["adult", "ge2020-13-45", "||", "1|2|3|4", "\\", "9" * 400, "-1", "%00", "Patient/adult", "_page=x", "$everything", "../", "null"]
    ),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "_count",
            "_sort",
            "_page",
            "_include",
            "_elements",
            "_summary",
            "_total",
            "code",
            "date",
            "subject",
            "value-quantity",
            "_lastUpdated",
            "_id:not",
            "code:missing",
            "date:exact",
            "subject.name",
            "_has:x:y:z",
            "_format",
        ]
    ),
    st.text(max_size=12),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
HEADERS = st.dictionaries(
    st.sampled_from(["accept", "prefer", "if-match", "if-none-match", "if-none-exist", "content-type", "x-nothing"]),
    st.one_of(
        st.sampled_from(["text/plain", "application/fhir+xml", "application/fhir+json", "return=all", "handling=strict", 'W/"x"', "*", ""]),
        st.from_regex(r"[ -~]{0,20}", fullmatch=True),
    ),
    max_size=2,
)  # fmt: skip


@st.composite
def spoilt(draw: Any) -> dict[str, Any]:
    """An Observation with one member replaced or added, with a random value."""
    name = draw(st.one_of(st.sampled_from(sorted(GOOD)), st.text(max_size=10)))
    return {**GOOD, name: draw(JUNK)}


BODIES = st.one_of(
    st.binary(max_size=60),
    JUNK.map(lambda value: json.dumps(value).encode()),
    spoilt().map(lambda value: json.dumps(value).encode()),
    st.sampled_from([
        b"", b"{", b"[" * 100_000, b'{"resourceType":"Observation","resourceType":"Patient"}', b'{"a":' * 50_000, b"\xff\xfe", b"NaN",
        b'{"resourceType":"Observation","valueQuantity":{"value":1e999999}}', b"1" * 5000, b'"\\ud800"',
        b'{"resourceType":"Bundle","type":"transaction","entry":[null]}',
        b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Patient?_count=x"}},{},'
        b'{"request":{"method":"PATCH","url":"/"}}]}',
        b'{"resourceType":"Bundle","type":"transaction","entry":[{"request":{"method":"DELETE","url":"Patient"}}]}',
    ]),
)  # fmt: skip


@pytest.fixture(scope="module")
def stored(served: Served, feed: str) -> int:
    return _rows(served, feed)


def _rows(served: Served, feed: str) -> int:
    return sum(
        served.get(feed, f"{type}?_summary=count").json["total"] for type in ("Observation", "Patient", "Appointment", "Account", "Bundle")
    )


def _sound(answer: Any) -> None:
    assert answer.status < 500, answer.body
    if answer.status >= 400:
        outcome = answer.json
        assert outcome["resourceType"] == "OperationOutcome" and outcome["issue"][0]["severity"] == "error"


MANY = settings(
    max_examples=examples(1000, few=300),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@MANY
@given(method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]), path=TYPES, id=st.one_of(st.none(), WORDS), body=BODIES, headers=HEADERS)
def test_random_bodies_never_cause_server_errors(
    served: Served, feed: str, method: str, path: str, id: str | None, body: bytes, headers: dict[str, str]
) -> None:
    if method == "DELETE":
        path, id = "Observation", id or "nothing"
    before = None
    address = path if id is None else f"{path}/{id}"
    answer = served.request(
        feed, method, address.replace("?", "%3F"), body=body, headers={"content-type": "application/fhir+json", **headers}
    )
    _sound(answer)
    assert (before is None and answer.status not in (201,)) or b"Observation" in body


@MANY
@given(path=TYPES, pairs=st.lists(st.tuples(NAMES, WORDS), max_size=4), headers=HEADERS, posted=st.booleans())
def test_random_queries_never_cause_server_errors(
    served: Served, feed: str, path: str, pairs: list[tuple[str, str]], headers: dict[str, str], posted: bool
) -> None:
    from urllib.parse import urlencode

    try:
        query = urlencode(pairs)
    except UnicodeEncodeError:
        return
    if posted:
        answer = served.request(
            feed, "POST", f"{path}/_search", form=pairs, headers={name: value for name, value in headers.items() if name != "content-type"}
        )
    else:
        answer = served.request(feed, "GET", f"{path}?{query}", headers=headers)
    _sound(answer)


def test_refused_writes_store_nothing(served: Served, feed: str, stored: int) -> None:
    refused = [
        b"{",
        json.dumps({**GOOD, "status": "nonsense"}).encode(),
        json.dumps({**GOOD, "colour": 1}).encode(),
        json.dumps({**GOOD, "subject": {"reference": "Patient/none"}}).encode(),
    ]
    for body in refused:
        assert 400 <= served.request(feed, "POST", "Observation", body=body).status < 500
    assert _rows(served, feed) == stored
    assert served.request(feed, "POST", "Observation", body=GOOD).status == 201
    assert _rows(served, feed) == stored + 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "Nothing/x", {}, 404),
        ("PUT", "", {}, 405),
        ("PATCH", "Observation/x/_history", {}, 405),
        ("PATCH", "Observation/x", {"content-type": "application/merge-patch+json"}, 415),
        ("GET", "Observation?_format=ttl", {}, 406),
        ("GET", "Observation", {"accept": "text/turtle"}, 406),
        ("POST", "Observation", {"content-type": "text/turtle"}, 415),
        ("POST", "Observation/_search", {"content-type": "application/json"}, 415),
        ("GET", "Observation?_page=forged", {}, 400),
        ("GET", "Observation?date=yesterday", {}, 400),
        ("GET", "Observation?subject.nothing=x", {}, 400),
        ("GET", "Observation?_sort=colour", {"prefer": "handling=strict"}, 400),
        ("PUT", "Observation/bad_id!", {}, 400),
        ("GET", "Observation?code=%ff", {}, 400),
    ],
)
def test_each_request_error_has_its_status(served: Served, feed: str, method: str, path: str, headers: dict[str, str], status: int) -> None:
    writes = method in ("PUT", "PATCH") or (path == "Observation" and method == "POST")
    answer = served.request(feed, method, path, body=GOOD if writes else None, headers=headers)
    _sound(answer)
    assert answer.status == status


def test_page_link_of_another_caller_or_query_returns_400(served: Served, feed: str) -> None:
    page = served.get(feed, "Observation?_count=2").json
    link = next(link["url"] for link in page["link"] if link["relation"] == "next")
    other = served.app_token("adult", "adult")
    assert served.get(feed, link).status == 200
    assert served.get(other, link).status == 400
    assert served.get(feed, link.replace("_count=2", "_count=3")).status == 400
    assert served.get(other, link).body == served.get(other, "Observation?_count=2&_page=forged").body


def test_oversized_body_returns_413_for_any_content_length() -> None:
    small = Served(seeds=False, max_body_bytes=2000)
    feed = small.token()
    body = json.dumps({**GOOD, "note": [{"text": "x" * 3000}]}).encode()
    try:
        assert small.request(feed, "POST", "Observation", body=body).status == 413
        assert small.request(feed, "POST", "Observation", body=body, headers={"content-length": "10"}).status == 413
        assert small.get(feed, "Observation?_summary=count").json["total"] == 0
    finally:
        small.close()


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("entries", [[], [{"request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Nonsense"}}]])
def test_unauthenticated_bundle_is_not_parsed(served: Served, kind: str, entries: list[Any]) -> None:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": entries}
    assert served.request(None, "POST", "", body=bundle).status == 401
    assert served.request("made-up", "POST", "", body=bundle).status == 401
    assert served.request(served.token(), "POST", "", body=bundle).status == (200 if kind == "batch" or not entries else 400)


@pytest.mark.parametrize("half", [r"\ud800", r"\udc00", r"\udc00\ud800", r"\ud800\u0041"])
def test_unpaired_surrogate_returns_400_and_a_pair_is_stored(served: Served, half: str) -> None:
    token = served.token()
    for text, status in ((half, 400), (r"\ud83d\ude00 \\ud800 \u00e9", 201)):
        patient = f'{{"resourceType": "Patient", "name": [{{"family": "{text}"}}]}}'
        entry = f'{{"resource": {patient}, "request": {{"method": "POST", "url": "Patient"}}}}'
        bundle = f'{{"resourceType": "Bundle", "type": "batch", "entry": [{entry}]}}'
        answer = served.request(token, "POST", "Patient", body=patient.encode())
        assert answer.status == status, answer.body
        assert served.request(token, "POST", "", body=bundle.encode()).status == (400 if status == 400 else 200)
    assert answer.json["name"][0]["family"] == "\U0001f600 \\ud800 \u00e9"
