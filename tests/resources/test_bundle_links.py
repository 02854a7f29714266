"""Links between Bundle entries are resolved as R4 says: where they are links, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import ServerBase

BASE, EHR, URN = "http://here.example/fhir", "http://ehr.example/fhir", "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"
HERE, THERE = f"{BASE}/Observation/7", f"{EHR}/Observation/7"


@pytest.fixture
def links() -> BundleLinks:
    links = BundleLinks(ServerBase(BASE))
    links.add(URN, {"resourceType": "Patient", "id": "urn"}, "Patient/from-urn", keeps_id=False)
    links.add(f"{EHR}/Patient/1", {"resourceType": "Patient", "id": "1", "meta": {"versionId": "3"}}, "Patient/new", keeps_id=False)
    links.add(f"{BASE}/Patient/2", {"resourceType": "Patient", "id": "2"}, "Patient/2", keeps_id=True)
    links.add("", {"resourceType": "Patient", "id": "bare"}, "Patient/new-bare", keeps_id=False)
    return links


@pytest.mark.parametrize(
    ("link", "full_url", "expected"),
    [
        (URN, THERE, "Patient/from-urn"),
        (URN.upper().replace("URN:UUID:", "urn:uuid:"), "", "Patient/from-urn"),
        ("Patient/1", THERE, "Patient/new"),  # read against the entry's own fullUrl
        (f"{EHR}/Patient/1", URN, "Patient/new"),
        ("Patient/1/_history/3", THERE, "Patient/new"),  # the version that the entry has
        (f"{EHR}/Patient/1/_history/3", "", "Patient/new"),
        ("Patient/1/_history/2", THERE, f"{EHR}/Patient/1/_history/2"),  # another version of it
        ("Patient/9", THERE, f"{EHR}/Patient/9"),  # a resource of that server, never the one with this id here
        ("Patient/1", HERE, None),  # a resource of this server
        ("Patient/1", URN, None),
        ("Patient/1", "", None),
        ("Patient/1", "http://ehr.example/paper", None),  # not the URL of a resource
        ("Patient/2", HERE, "Patient/2"),
        ("Patient/2", "", "Patient/2"),
        ("Patient/2", THERE, f"{EHR}/Patient/2"),
        (f"{BASE}//Patient/2/", THERE, "Patient/2"),
        (f"{BASE}/Patient/8", THERE, "Patient/8"),
        ("http://other.example/fhir/Patient/1", THERE, None),
        ("#contained", THERE, None),
        ("Patient?identifier=1", THERE, None),
        ("urn:uuid:00000000-0000-4000-8000-000000000000", "", None),
        ("not a link", THERE, None),
    ],
)
def test_link_is_read_against_the_full_url(links: BundleLinks, link: str, full_url: str, expected: str | None) -> None:
    assert links.resolve(link, full_url) == expected


@pytest.mark.parametrize("full_url", ["", URN, HERE])
def test_link_to_the_id_of_an_entry_without_url_is_refused(links: BundleLinks, full_url: str) -> None:
    with pytest.raises(Problem, match="may mean"):
        links.resolve("Patient/bare", full_url)
    assert links.resolve("Patient/bare", THERE) == f"{EHR}/Patient/bare"  # the control: it cannot mean the entry


def test_two_entries_with_one_full_url_are_refused(links: BundleLinks) -> None:
    with pytest.raises(Problem, match="same fullUrl"):
        links.add(f"{EHR}/Patient/1", {"resourceType": "Patient"}, "Patient/other", keeps_id=False)


def test_no_link_leads_to_a_new_entry_of_a_batch() -> None:
    links = BundleLinks(ServerBase(BASE))
    links.add(f"{EHR}/Patient/1", {"resourceType": "Patient", "id": "1"}, None, keeps_id=False)
    for link, full_url in (("Patient/1", THERE), (f"{EHR}/Patient/1", "")):
        with pytest.raises(Problem, match="batch"):
            links.resolve(link, full_url)
    assert links.resolve("Patient/1", HERE) is None


DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><a href="{0}">x</a> <img alt="{0}" src=\'{0}\'/> {0}</div>'


@pytest.mark.parametrize("url", [URN, f"{EHR}/Patient/1"])
def test_links_are_replaced_in_every_kind_of_element(links: BundleLinks, url: str) -> None:
    """In references and in uri, url, oid and uuid; not in canonical, string or code (http.html#trules)."""
    new = links.target(url)

    def resource(link: str | None) -> dict[str, Any]:
        return {
            "resourceType": "Procedure",
            "text": {"status": "generated", "div": DIV.format(link)},
            "extension": [
                {"url": "http://x.example", "valueUri": link},
                {"url": "http://x.example", "valueUrl": link},
                {"url": "http://x.example", "valueUri" if link == new else "valueUuid": link},
                {"url": "http://x.example", "valueUri" if link == new else "valueOid": link},
            ],
            "_status": {"extension": [{"url": "http://x.example", "valueUri": link}]},
            "instantiatesUri": ["http://x.example/1", link],
            "subject": {"reference": link},
            "contained": [{"resourceType": "DocumentReference", "content": [{"attachment": {"url": link}}]}],
        }

    fixed = {"instantiatesCanonical": [url], "note": [{"text": url}], "identifier": [{"value": url}]}
    sent = resource(url) | fixed
    expected = resource(new) | fixed
    expected["text"]["div"] = DIV.format(new).replace(f'alt="{new}"', f'alt="{url}"').replace(f"> {new}</div>", f"> {url}</div>")
    for text in (
        json.dumps(sent),
        json.dumps(sent).replace("/", r"\/").replace('"reference": "' + url.replace("/", r"\/"), '"reference": "' + url),
    ):
        assert json.loads(links.rewrite(text.encode(), "")) == expected


def test_relative_url_is_read_against_the_full_url(links: BundleLinks) -> None:
    text = b'{"resourceType":"DocumentReference","content":[{"attachment":{"url":"Patient/1","size":1.50}}]}'
    assert links.rewrite(text, THERE) == text.replace(b"Patient/1", b"Patient/new")
    assert links.rewrite(text, HERE) == text


def test_text_without_links_is_not_touched(links: BundleLinks) -> None:
    text = b'{ "resourceType" : "Basic", "code": {"text": "1.50 \\u00e9"}, "extension": [{"url": "urn:x", "valueDecimal": 1.50}] }'
    assert links.rewrite(text, THERE) == text
