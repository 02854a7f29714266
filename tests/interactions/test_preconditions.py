"""Preconditions of requests (RFC 9110, section 13): their meaning, their order, who may send which, and what hidden versions do to them."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.interactions.messages import header_fields
from tests.served import NOON, Answer, Served

BEFORE, AT, AFTER = "Sat, 21 Nov 2026 16:59:59 GMT", "Sat, 21 Nov 2026 17:00:00 GMT", "Sat, 21 Nov 2026 17:00:01 GMT"
TAG, OTHER = 'W/"1"', 'W/"9"'
UNREADABLE = ("", "yesterday", "2026", "Sat, 99 Nov 2026 17:00:00 GMT", "9" * 5000, "\x00")

# For a row at version 1 that was written at noon: what a read answers, and what an update or a delete answers ("ok": it is done).
MEANING: list[tuple[dict[str, str], int, int | str]] = [
    ({"if-match": TAG}, 200, "ok"),
    ({"if-match": '"1"'}, 200, "ok"),
    ({"if-match": f"{OTHER}, {TAG}"}, 200, "ok"),
    ({"if-match": "*"}, 200, "ok"),
    ({"if-match": OTHER}, 412, 412),
    ({"if-none-match": TAG}, 304, 412),
    ({"if-none-match": f"{OTHER},{TAG}"}, 304, 412),
    ({"if-none-match": "*"}, 304, 412),
    ({"if-none-match": OTHER}, 200, "ok"),
    ({"if-modified-since": BEFORE}, 200, "ok"),
    ({"if-modified-since": AT}, 304, "ok"),
    ({"if-modified-since": "Saturday, 21-Nov-26 17:00:00 GMT"}, 304, "ok"),
    ({"if-modified-since": "Sat Nov 21 17:00:00 2026"}, 304, "ok"),
    ({"if-modified-since": AFTER}, 304, "ok"),
    ({"if-unmodified-since": BEFORE}, 412, 412),
    ({"if-unmodified-since": AT}, 200, "ok"),
    ({"if-unmodified-since": AFTER}, 200, "ok"),
    # RFC 9110, section 13.2.2: the order, and which one is ignored beside which
    ({"if-match": TAG, "if-unmodified-since": BEFORE}, 200, "ok"),
    ({"if-match": OTHER, "if-unmodified-since": AFTER}, 412, 412),
    ({"if-match": OTHER, "if-none-match": TAG}, 412, 412),
    ({"if-match": TAG, "if-none-match": TAG}, 304, 412),
    ({"if-unmodified-since": BEFORE, "if-none-match": TAG}, 412, 412),
    ({"if-none-match": OTHER, "if-modified-since": AFTER}, 200, "ok"),
    ({"if-none-match": TAG, "if-modified-since": BEFORE}, 304, 412),
    ({"if-match": TAG, "if-modified-since": AFTER}, 304, "ok"),
    *(({"if-modified-since": text}, 200, "ok") for text in UNREADABLE),
    *(({"if-unmodified-since": text}, 200, "ok") for text in UNREADABLE),
    # what cannot be kept is refused
    *(({name: text}, 400, 400) for name in ("if-match", "if-none-match") for text in ("", '"1', '"1" "2"', '*, "1"', "a b", "\x00")),
    ({"if-none-exist": "identifier=x"}, 400, 400),
]


@pytest.fixture(scope="module")
def row(served: Served, feed: str) -> dict[str, Any]:
    served.at(NOON)
    return {"resourceType": "Flag", "id": "one", "status": "active", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}


def fresh(served: Served, feed: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row under a new id, at version 1."""
    served.fresh = getattr(served, "fresh", 0) + 1  # type: ignore[attr-defined]
    made = row | {"id": f"f{served.fresh}"}  # type: ignore[attr-defined]
    assert served.request(feed, "PUT", f"Flag/{made['id']}", body=made).status == 201
    return made


@pytest.mark.parametrize(("headers", "read", "changed"), MEANING)
def test_preconditions_hold_for_reads_and_changes(
    served: Served, feed: str, row: dict[str, Any], headers: dict[str, str], read: int, changed: int | str
) -> None:
    made = fresh(served, feed, row)
    name = f"Flag/{made['id']}"
    for url in (name, f"{name}/_history/1", f"{name}/$meta"):
        assert served.get(feed, url, **headers).status == read, url
        assert served.request(feed, "HEAD", url, headers=headers).status == read, url
    answer = served.request(feed, "PUT", name, body=made | {"status": "inactive"}, headers=headers)
    assert answer.status == (200 if changed == "ok" else changed)
    assert served.get(feed, name).json["meta"]["versionId"] == ("2" if changed == "ok" else "1")
    gone = fresh(served, feed, row)
    assert served.request(feed, "DELETE", f"Flag/{gone['id']}", headers=headers).status == (204 if changed == "ok" else changed)
    labeled = fresh(served, feed, row)
    meta = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "t"}]}}]}
    answer = served.request(feed, "POST", f"Flag/{labeled['id']}/$meta-add", body=meta, headers=headers)
    assert answer.status == (200 if changed == "ok" else changed)


_ELEMENTS = {"if-match": "ifMatch", "if-none-match": "ifNoneMatch", "if-none-exist": "ifNoneExist"}


def bundled(served: Served, feed: str, kind: str, method: str, url: str, resource: Any = None, **elements: str) -> Answer:
    entry = {"request": {"method": method, "url": url, **elements}} | ({"resource": resource} if resource else {})
    return served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})


def status_of(answer: Answer) -> int:
    return int(answer.json["entry"][0]["response"]["status"]) if answer.status == 200 else answer.status


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(("headers", "read", "changed"), [case for case in MEANING if case[0].keys() <= _ELEMENTS.keys()])
def test_preconditions_hold_in_bundles(
    served: Served, feed: str, row: dict[str, Any], headers: dict[str, str], read: int, changed: int | str, kind: str
) -> None:
    made = fresh(served, feed, row)
    elements = {_ELEMENTS[name]: text for name, text in headers.items()}
    done = changed == "ok"
    if "" in elements.values() or "\x00" in elements.values():
        read = changed = 400  # the Bundle is no valid R4
    assert status_of(bundled(served, feed, kind, "GET", f"Flag/{made['id']}", **elements)) == read
    answer = bundled(served, feed, kind, "PUT", f"Flag/{made['id']}", made | {"status": "inactive"}, **elements)
    assert status_of(answer) == (200 if done else changed)
    gone = fresh(served, feed, row)
    assert status_of(bundled(served, feed, kind, "DELETE", f"Flag/{gone['id']}", **elements)) == (204 if done else changed)


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_if_modified_since_of_an_entry_is_exact(served: Served, feed: str, row: dict[str, Any], kind: str) -> None:
    served.at("2026-11-21T12:00:00.250-05:00")
    made = fresh(served, feed, row)
    served.at(NOON)
    name = f"Flag/{made['id']}"
    for instant, status in {
        "2026-11-21T17:00:00Z": 304,
        "2026-11-21T12:00:00.250-05:00": 304,
        "2026-11-21T17:00:00.249Z": 200,
        "2026-11-21T16:59:59Z": 200,
    }.items():
        assert status_of(bundled(served, feed, kind, "GET", name, ifModifiedSince=instant)) == status, instant
    for method, body in (("PUT", made), ("DELETE", None)):
        assert status_of(bundled(served, feed, kind, method, name, body, ifModifiedSince="2026-11-21T17:00:00Z")) == 400
    assert status_of(bundled(served, feed, kind, "POST", "Flag", row, ifModifiedSince="2026-11-21T17:00:00Z")) == 400


@pytest.mark.parametrize("name", ["if-match", "if-none-match", "if-none-exist"])
@pytest.mark.parametrize("url", ["Flag?_id=x", "Patient/adult/_history", "Patient/adult/$everything"])
def test_preconditions_without_a_meaning_are_refused(served: Served, feed: str, row: dict[str, Any], url: str, name: str) -> None:
    assert served.get(feed, url).status == 200
    assert served.get(feed, url, **{name: "*"}).status == 400
    for kind in ("batch", "transaction"):
        assert status_of(bundled(served, feed, kind, "GET", url, **{_ELEMENTS[name]: "*"})) == 400
    if name != "if-none-exist":
        assert served.request(feed, "POST", "Flag", body=row, headers={name: "*"}).status == 400
        assert status_of(bundled(served, feed, "transaction", "POST", "Flag", row, **{_ELEMENTS[name]: "*"})) == 400
    assert served.get(None, url, **{name: "*"}).status == 401  # who may not ask is told nothing about the header


def test_preconditions_tell_nothing_of_hidden_versions(served: Served, feed: str) -> None:
    """The HIV test is hidden from the parent; a hidden version of a visible row changes neither its number nor its time."""
    parent = served.app_token("parent-a", "teen")
    for headers in (
        {"if-match": "*"},
        {"if-match": TAG},
        {"if-none-match": "*"},
        {"if-modified-since": AFTER},
        {"if-unmodified-since": BEFORE},
    ):
        hidden, absent = (served.get(parent, f"Observation/{id}", **headers) for id in ("teen-hiv-screen", "never-written"))
        assert (hidden.status, absent.status) == (404, 404)
        assert hidden.body.replace(b"teen-hiv-screen", b"never-written") == absent.body


def test_times_confirm_no_body_to_whom_parts_may_be_hidden(served: Served, feed: str) -> None:
    parent = served.app_token("parent-a", "teen")
    seen = served.get(parent, "Observation/teen-hemoglobin")
    assert seen.status == 200
    later = {"if-modified-since": "Fri, 21 Nov 2036 17:00:00 GMT"}
    assert served.get(parent, "Observation/teen-hemoglobin", **later).status == 200
    assert served.get(feed, "Observation/teen-hemoglobin", **later).status == 304  # the control: nothing is hidden from the feed
    assert served.get(parent, "Observation/teen-hemoglobin", **{"if-none-match": seen.headers["etag"]}).status == 304


def test_repeated_header_counts_as_a_list() -> None:
    raw = [(b"if-match", b'"9"'), (b"accept", b"a"), (b"if-match", b'"1"'), (b"authorization", b"Bearer x")]
    assert header_fields(raw) == {"if-match": '"9", "1"', "accept": "a", "authorization": "Bearer x"}
