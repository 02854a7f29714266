"""gzip both ways (RFC 9110, section 8.4; http://hl7.org/fhir/R4/http.html#compression)."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server import content_codings, sending
from fhir_server.content_codings import Gzip, accepts_gzip
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

GZIP = {"accept-encoding": "gzip, deflate, br"}
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
    "subject": {"reference": "Patient/adult"},
}


@pytest.fixture(scope="module", params=["memory", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")), max_resource_bytes=200_000, max_body_bytes=400_000)
    yield server
    server.close()


def send(served: Served, body: bytes, coding: str = "gzip", path: str = "Observation", kind: str = "application/fhir+json") -> Answer:
    return served.request(served.token(), "POST", path, body=body, headers={"content-encoding": coding, "content-type": kind})


@pytest.mark.parametrize("path", ["metadata", "Observation?_count=50", "Patient/adult/$everything", "Patient/adult", "Observation?x=1"])
def test_the_compressed_answer_is_the_plain_one(served: Served, path: str) -> None:
    token = served.token()
    plain, coded = served.get(token, path), served.request(token, "GET", path, headers=GZIP)
    assert coded.status == plain.status and "Accept-Encoding" in plain.headers["vary"] and plain.headers["vary"] == coded.headers["vary"]
    assert "content-encoding" not in plain.headers
    if len(plain.body) < content_codings.SMALLEST:
        assert coded.body == plain.body and "content-encoding" not in coded.headers
        return
    assert coded.headers["content-encoding"] == "gzip" and int(coded.headers["content-length"]) == len(coded.body) < len(plain.body) / 2
    assert gzip.decompress(coded.body) == plain.body
    assert coded.headers.get("etag") == plain.headers.get("etag")


def test_every_entity_tag_is_weak_so_one_names_both_codings(served: Served) -> None:
    tag = served.request(served.token(), "GET", "Patient/adult", headers=GZIP).headers["etag"]
    assert tag.startswith("W/")
    assert served.request(served.token(), "GET", "Patient/adult", headers={"if-none-match": tag}).status == 304


def test_a_large_answer_is_compressed_in_pieces(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PART", 5000)
    monkeypatch.setattr(content_codings, "_IN_LOOP", 1000)
    token, path = served.token(), "Observation?_count=50"
    plain, coded = served.get(token, path), served.request(token, "GET", path, headers=GZIP)
    assert len(plain.body) > 20_000 and "content-length" not in coded.headers
    assert gzip.decompress(coded.body) == plain.body


def test_an_export_is_compressed_as_it_is_sent(served: Served) -> None:
    token = served.token()
    job = served.request(token, "GET", "Patient/$export?_type=Observation", headers={"prefer": "respond-async"}).headers["content-location"]
    while (status := served.get(token, job)).status == 202:
        pass
    url = status.json["output"][0]["url"]
    assert gzip.decompress(served.request(token, "GET", url, headers=GZIP).body) == served.get(token, url).body


def test_the_capability_statement_is_small_and_compressed_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    first = served.request(None, "GET", "metadata", headers=GZIP)
    assert len(first.body) < 100_000 and gzip.decompress(first.body) == served.get(None, "metadata").body
    monkeypatch.setattr(content_codings, "_Stream", None)
    assert served.request(None, "GET", "metadata", headers=GZIP).body == first.body


@pytest.mark.parametrize("header", ["gzip", "x-gzip", "*", "deflate, gzip;q=0.5", "GZIP", "gzip ; q=1", "identity;q=0, *;q=0.1"])
def test_a_client_that_takes_gzip(header: str) -> None:
    assert accepts_gzip(header)


@pytest.mark.parametrize("header", ["", "br", "gzip;q=0", "*;q=0", "gzip;q=0.0, *", "gzip;q=x", "deflate, identity"])
def test_a_client_that_does_not_take_gzip(header: str) -> None:
    assert not accepts_gzip(header)


def test_the_length_follows_from_the_text_and_a_secret(served: Served) -> None:
    texts = [json.dumps({"text": os.urandom(2000).hex()}).encode() for _ in range(40)]

    def lengths(key: bytes) -> list[int]:
        gzipper = Gzip(key)
        return [len(served.run(gzipper.whole(text))) for text in texts]

    first, second = lengths(b"one"), lengths(b"two")
    assert first == lengths(b"one")
    differences = {one - other for one, other in zip(first, second, strict=True)}
    assert len(differences) > 10 and all(abs(difference) < 128 for difference in differences)


def test_a_compressed_body_is_read(served: Served) -> None:
    body = json.dumps(OBSERVATION).encode()
    for coding in ("gzip", "x-gzip", "GZIP"):
        assert send(served, gzip.compress(body), coding).status == 201
    assert send(served, body, "identity").status == 201
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/adult"}}]}
    answer = send(served, gzip.compress(json.dumps(batch).encode()), path="")
    assert answer.json["entry"][0]["resource"]["id"] == "adult"
    form = send(served, gzip.compress(b"_id=adult"), path="Patient/_search", kind="application/x-www-form-urlencoded")
    assert form.ids() == ["adult"]


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "zstd", "utf-8"])
def test_another_coding_is_refused_and_the_answer_names_the_one_that_is_taken(served: Served, coding: str) -> None:
    answer = send(served, b"x", coding)
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip")


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-5], lambda b: b"x" + b, lambda b: b + b"more", lambda b: b + b, lambda b: b"", lambda b: b[:-8] + bytes(8)]
)
def test_what_is_not_one_gzip_text_is_refused(served: Served, spoil: Any) -> None:
    assert send(served, spoil(gzip.compress(json.dumps(OBSERVATION).encode()))).status == 400


@pytest.mark.parametrize(("path", "limit"), [("Observation", 200_000), ("", 400_000)])
def test_the_limit_holds_for_the_text_and_the_bomb_is_not_unpacked(
    served: Served, path: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked, real = 0, zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self._real = real(31)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def decompress(self, part: bytes, most: int) -> bytes:
            nonlocal unpacked
            text = self._real.decompress(part, most)
            unpacked += len(text)
            return text

    monkeypatch.setattr(zlib, "decompressobj", lambda _: Counted())
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    assert len(bomb) < limit
    answer = send(served, bomb, path=path)
    assert answer.status == 413 and unpacked <= limit + 64 * 1024


def test_a_stream_that_stands_for_nothing_ends_at_the_limit(served: Served) -> None:
    """Blocks without content: they never become text."""
    nothing = b"\x00\x00\x00\xff\xff" * 50_000
    assert send(served, gzip.compress(b"")[:10] + nothing).status == 413
