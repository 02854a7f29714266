"""URLs of this server are recognized in every spelling, and no URL of another server is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.resources.server_base import ServerBase

OWN = ServerBase("https://ehr.example/api/fhir")
LOCAL = ServerBase("http://127.0.0.1:8000/fhir")
SPELLINGS = (
    "https://ehr.example/api/fhir/Patient/1", "HTTPS://ehr.example/api/fhir/Patient/1", "https://EHR.Example/api/fhir/Patient/1",
    "https://ehr.example:443/api/fhir/Patient/1", "http://ehr.example:80/api/fhir/Patient/1", "http://ehr.example/api/fhir/Patient/1",
    "https://ehr.example:0443/api/fhir/Patient/1", "https://ehr.example:/api/fhir/Patient/1", "https://ehr.example./api/fhir/Patient/1",
    "https://ehr.example//api/fhir/Patient/1", "https://ehr.example/api//fhir/Patient/1", "https://ehr.example/api/fhir//Patient/1",
    "https://ehr.example/api/fhir/Patient//1", "https://ehr.example/api/fhir/Patient/1/", "https://ehr.example/api/fhir/Patient/1//",
    "https://ehr.example/api/./fhir/Patient/1", "https://ehr.example/x/../api/fhir/Patient/1", "https://ehr.example/%61pi/fhir/Patient/1",
    "https://ehr.example/api%2Ffhir/Patient/1", "https://ehr.example/api/fhir/%50atient/1", "https://ehr.example/%2561pi/fhir/Patient/1",
    "https://%65hr.example/api/fhir/Patient/1", "https://someone@ehr.example/api/fhir/Patient/1",
    "https:\\\\ehr.example\\api\\fhir\\Patient\\1",
    "https:/ehr.example/api/fhir/Patient/1", "https:///ehr.example/api/fhir/Patient/1",
)  # fmt: skip


@pytest.mark.parametrize("url", SPELLINGS)
def test_every_spelling_of_the_base_is_removed(url: str) -> None:
    assert OWN.relative(url) == "Patient/1"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "a.localhost"])
def test_this_machine_has_one_name(host: str) -> None:
    assert LOCAL.relative(f"http://{host}:8000/fhir/Patient/1") == "Patient/1"
    assert OWN.relative(f"http://{host}/api/fhir/Patient/1") is None


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/api/fhir/Patient/1", "https://ehr.example:444/api/fhir/Patient/1", "https://ehr.example/api/fhir2/Patient/1",
        "https://ehr.example/fhir/Patient/1", "https://ehr.example.org/api/fhir/Patient/1", "ftp://ehr.example/api/fhir/Patient/1",
        "Patient/1", "urn:uuid:1", "", "https://x.example/?u=https://ehr.example/api/fhir/Patient/1",
        "https://x.example@y.example/api/fhir",
    ],
)  # fmt: skip
def test_urls_of_other_servers_are_not_recognized(url: str) -> None:
    assert OWN.relative(url) is None


def test_path_in_another_letter_case_does_not_become_a_reference() -> None:
    assert OWN.relative("https://ehr.example/API/fhir/Patient/1") == "/Patient/1"


def test_query_and_fragment_are_kept() -> None:
    assert OWN.relative("https://ehr.example/api/fhir/Patient?identifier=a/b") == "Patient?identifier=a/b"
    assert OWN.relative("https://ehr.example/api/fhir/Patient/1#x") == "Patient/1#x"
    assert OWN.relative("https://ehr.example/api/fhir") == ""


def test_aliases_count_as_the_base_and_no_base_recognizes_nothing() -> None:
    assert ServerBase("", ("http://old.example/r4",)).relative("http://old.example/r4/Patient/1") == "Patient/1"
    assert ServerBase("").relative("http://old.example/r4/Patient/1") is None


@given(st.text(max_size=60))
def test_no_text_makes_the_recognizer_fail(text: str) -> None:
    for url in (text, f"http://{text}", f"https://ehr.example/{text}", f"https://ehr.example:{text}/api"):
        OWN.relative(url)
