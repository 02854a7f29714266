"""Parts of the content of a Binary by ``Range`` (RFC 9110 14), seen by who sees the Binary."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from fhir_server.interactions import raw_binary
from tests.seeded import seeded
from tests.served import Answer, Served

CONTENT = b"%PDF-1.7\n" + Random(7).randbytes(3000)
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    for id, content, kind in (
        ("file", CONTENT, "application/pdf"),
        ("none", b"", "application/pdf"),
        ("json", b"[1]" + b" " * 2700, "application/json"),
    ):
        headers = {"content-type": kind, "x-security-context": "Patient/adult"}
        assert server.request(server.token(), "PUT", f"Binary/{id}", body=content or None, headers=headers).status in (201, 200)
    yield server
    server.close()


def get(served: Served, range: str, id: str = "file", method: str = "GET", token: str = "", **headers: str) -> Answer:
    named = {"range": range, "accept": "*/*"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return served.request(token or served.token(), method, f"Binary/{id}", headers=named)


@pytest.mark.parametrize("slice", [4, 64, raw_binary._SLICE])
def test_a_range_has_just_its_bytes(served: Served, slice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_binary, "_SLICE", slice)
    random = Random(3)
    pairs = [(0, 0), (0, SIZE - 1), (SIZE - 1, SIZE - 1), (1, 1), (2, 3), (3, 5)]
    pairs += [tuple(sorted((random.randrange(SIZE), random.randrange(SIZE)))) for _ in range(60)]
    for first, last in pairs:
        answer = get(served, f"bytes={first}-{last}")
        assert (answer.status, answer.body) == (206, CONTENT[first : last + 1]), (first, last)
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
        assert answer.headers["content-length"] == str(last + 1 - first)
    whole = get(served, "")
    assert (whole.status, whole.body) == (200, CONTENT)


@pytest.mark.parametrize(
    ("range", "start", "end"),
    [("bytes=5-", 5, SIZE), ("bytes=-7", SIZE - 7, SIZE), ("bytes=-99999", 0, SIZE), ("bytes=5-99999", 5, SIZE), ("BYTES= 5-6", 5, 7)],
)
def test_open_and_suffix_ranges_end_with_the_content(served: Served, range: str, start: int, end: int) -> None:
    answer = get(served, range)
    assert (answer.status, answer.body) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"


@pytest.mark.parametrize("range", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_a_range_beyond_the_content_is_416_with_its_size(served: Served, range: str) -> None:
    answer = get(served, range)
    assert answer.status == 416 and answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.json["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    "range",
    ["bytes=0-1,4-5", "items=0-1", "bytes=5-4", "bytes=-", "bytes=a-b", "bytes 0-1", "0-1", "bytes=" + "9" * 30 + "-", "bytes=\u0661-"],
)
def test_other_ranges_get_the_whole_content(served: Served, range: str) -> None:
    if range.isascii():
        answer = get(served, range)
        assert (answer.status, answer.body, answer.headers["accept-ranges"]) == (200, CONTENT, "bytes")
        assert "content-range" not in answer.headers


def test_if_range_gets_the_whole_content_because_no_validator_is_strong(served: Served) -> None:
    headers = get(served, "").headers
    for validator in (headers["etag"], headers["last-modified"], '"1"'):
        answer = get(served, "bytes=0-1", if_range=validator)
        assert (answer.status, answer.body) == (200, CONTENT)


def test_head_says_that_there_are_ranges_and_ignores_one(served: Served) -> None:
    answer = get(served, "bytes=0-1", method="HEAD")
    assert (answer.status, answer.body, answer.headers["accept-ranges"]) == (200, b"", "bytes")
    assert answer.headers["content-length"] == str(SIZE)


def test_preconditions_come_before_the_range(served: Served) -> None:
    tag = get(served, "").headers["etag"]
    assert get(served, "bytes=0-1", if_none_match=tag).status == 304
    assert get(served, "bytes=0-1", if_match='W/"99"').status == 412


def test_a_part_has_the_headers_of_the_whole(served: Served) -> None:
    part, whole = get(served, "bytes=0-1").headers, get(served, "").headers
    for name in ("etag", "last-modified", "content-type", "content-disposition", "content-security-policy", "x-content-type-options"):
        assert part[name] == whole[name]


def test_json_content_and_resources_have_no_ranges_so_that_compression_cuts_none(served: Served) -> None:
    answer = get(served, "bytes=0-1", id="json", accept_encoding="gzip")
    assert (answer.status, answer.headers["accept-ranges"], answer.headers["content-encoding"]) == (200, "none", "gzip")
    resource = served.request(served.token(), "GET", "Binary/file", headers={"range": "bytes=0-1", "accept": "application/fhir+json"})
    assert resource.status == 200 and resource.json["resourceType"] == "Binary"


def test_the_version_that_a_range_is_of_can_be_named(served: Served) -> None:
    answer = served.request(served.token(), "GET", "Binary/file/_history/1", headers={"range": "bytes=0-3", "accept": "*/*"})
    assert (answer.status, answer.body) == (206, CONTENT[:4])


@pytest.mark.parametrize("range", ["bytes=0-1", f"bytes={SIZE}-"])
def test_who_does_not_see_the_binary_learns_nothing_of_its_size(served: Served, range: str) -> None:
    parent = served.app_token("parent-a", "teen")
    hidden, absent = get(served, range, token=parent), get(served, range, id="unknown", token=parent)
    assert hidden.status == absent.status == 404 and hidden.body.replace(b"file", b"unknown") == absent.body
    assert get(served, range, token=served.app_token("adult", "adult")).status in (206, 416)  # the control


def test_content_of_no_bytes_has_no_range(served: Served) -> None:
    answer = get(served, "bytes=0-1", id="none")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
