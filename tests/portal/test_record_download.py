"""The whole record as files: what the API gives the person, in each format, and nothing of what the person may not see."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.portal.context import PortalContext
from fhir_server.portal.record import download
from fhir_server.record_files import worker
from fhir_server.record_files.making import FileMaker, TooLargeError
from fhir_server.record_files.task import Task
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from tests.audit.test_audit_event_search import events, officer
from tests.portal.pdf_text import text_of
from tests.portal.record_environment import Reader, RecordPages
from tests.smart.environment import Browser

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SECRET = "zzsecretword"
NAME = re.compile(r"\b([A-Z][A-Za-z]+/[A-Za-z0-9.-]+)\b")
CONDITION = {
    "resourceType": "Condition",
    "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
    "verificationStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "confirmed"}]},
}


@pytest.fixture(scope="module")
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def condition(id: str, text: str, patient: str = "adult", **more: Any) -> dict[str, Any]:
    return {**CONDITION, "id": id, "code": {"text": text}, "subject": {"reference": f"Patient/{patient}"}, **more}


def secret(number: int, patient: str) -> dict[str, Any]:
    """A diagnosis that a teenager's parent does not see."""
    return condition(f"secret-{number}", SECRET, patient, meta={"security": [{"system": ACT, "code": "HIV"}]})


def file(reader: Reader, path: str, format: str, query: str = "") -> bytes:
    answer = reader.open(f"{path}/download/file?format={format}{query}")
    assert answer.status_code == 200, (format, answer.text)
    assert answer.headers["content-disposition"].startswith("attachment") and "no-store" in answer.headers["cache-control"]
    return answer.content


def names(bundle: bytes) -> set[str]:
    resources = [entry["resource"] for entry in json.loads(bundle).get("entry", ())]
    return {f"{one['resourceType']}/{one['id']}" for one in resources}


def test_portal_f3_1_a_period_has_what_the_api_has_for_it_byte_for_byte(site: RecordPages) -> None:
    reader, token = site.reader("adult"), site.served.app_token("adult", "adult")
    path = reader.address("Alex")
    for query, parameters in (
        ("&from=2025-01-01&to=2025-12-31", "start=2025-01-01&end=2025-12-31&"), ("&from=2026-01-01&to=", "start=2026-01-01&"), ("", ""),
    ):  # fmt: skip
        answer = site.served.get(token, f"Patient/adult/$everything?{parameters}_count={download.PART}")
        assert file(reader, path, "json", query) == answer.body
    complete, of_2025 = file(reader, path, "json"), file(reader, path, "json", "&from=2025-01-01&to=2025-12-31")
    assert names(of_2025) < names(complete)
    undated = {name for name in names(complete) if name.startswith(("AllergyIntolerance/", "Coverage/"))}
    assert undated and "Patient/adult" in names(of_2025)


@pytest.mark.parametrize(("username", "name"), [("adult", "Alex"), ("parent-a", "Toni")])
def test_portal_f3_2_all_formats_have_the_same_rows(site: RecordPages, username: str, name: str) -> None:
    reader = site.reader(username)
    path = reader.address(name)
    rows = names(file(reader, path, "json"))
    page, pdf = file(reader, path, "html").decode(), text_of(file(reader, path, "pdf"))
    assert len(rows) > 10
    assert set(re.findall(r'<p class="name">([^<]+)</p>', page)) == rows
    assert set(NAME.findall(pdf)) & rows == rows and not {one for one in NAME.findall(pdf) if one.startswith("Observation/")} - rows
    headings = re.findall(r"<h[12]>([^<]+)</h[12]>", page)
    assert len(headings) > 12 and all(heading in pdf for heading in headings)


def test_portal_f3_2_the_page_fetches_nothing(site: RecordPages) -> None:
    reader = site.reader("adult")
    page = file(reader, reader.address("Alex"), "html").decode()
    assert not re.search(r"<(script|link|img|iframe|form)\b|url\(|@import|src=|href=", page) and "@media print" in page
    assert "default-src 'none'" in page


def test_portal_f3_2_names_of_all_scripts_are_whole_or_said_to_be_missing(site: RecordPages) -> None:
    words = "Ёлкин Łódź 王小明 さくら"
    site.write(condition("scripts", words))
    reader = site.reader("adult")
    path = reader.address("Alex")
    assert words in text_of(file(reader, path, "pdf")) and "cannot be printed" not in text_of(file(reader, path, "pdf"))
    site.write(condition("scripts", f"{words} <b>& فاطمة"))
    pdf = text_of(file(reader, path, "pdf"))
    assert f"{words} <b>& □□□□□" in pdf and "Some characters of this record cannot be printed" in pdf
    assert "فاطمة" in file(reader, path, "html").decode()


def of_two_worlds() -> list[list[bytes]]:
    """All files that a parent gets of a teenager's record: in a world with hidden diagnoses, and in one without."""
    sites = RecordPages(), RecordPages()
    seen = []
    for site, patient in zip(sites, ("teen", "senior"), strict=True):  # as many writes at the same instant, of another patient
        for number in range(3):
            site.write(secret(number, patient))
        reader = site.reader("parent-a")
        path = reader.address("Toni")
        seen.append([file(reader, path, format) for format in download.FORMATS])
        site.served.close()
    return seen


def test_portal_f3_3_hidden_rows_change_no_file_of_a_proxy() -> None:
    """Two worlds, one with hidden diagnoses: all files are the same, and an empty chapter says the same."""
    seen = of_two_worlds()
    assert seen[0] == seen[1]
    assert SECRET not in text_of(seen[0][0]) and SECRET.encode() not in b"".join(seen[0])
    assert "Not available here." in seen[0][1].decode() and "None recorded." not in seen[0][1].decode()


def test_portal_f3_3_a_page_that_asks_as_the_system_is_noticed_in_each_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_system(self: PortalContext, user: User, choice: RecordChoice) -> Principal:
        own = caller(self, user, choice)
        everything = {"client_clearance": frozenset({"*"}), "scopes": resource_scopes("system/*.rs"), "patient": None}
        return replace(own, client_kind="backend", person=None, username=None, fhir_user=None, **everything)

    caller = PortalContext.caller
    monkeypatch.setattr(PortalContext, "caller", as_system)
    with_secrets, without = of_two_worlds()
    assert all(one != other for one, other in zip(with_secrets, without, strict=True))
    assert SECRET in text_of(with_secrets[0]) and SECRET not in text_of(without[0])


def test_portal_f3_3_control_the_person_has_the_row_in_each_file(site: RecordPages) -> None:
    site.write({**secret(7, "adult"), "id": "own-secret"})
    reader = site.reader("adult")
    path = reader.address("Alex")
    assert SECRET in text_of(file(reader, path, "pdf"))
    assert all(SECRET.encode() in file(reader, path, format) for format in ("html", "json", "ips"))


def test_portal_f3_4_the_summary_is_the_apis_with_its_required_sections(site: RecordPages) -> None:
    reader = site.reader("adult")
    summary = file(reader, reader.address("Alex"), "ips")
    assert summary == site.served.get(site.served.app_token("adult", "adult"), "Patient/adult/$summary").body
    sections = json.loads(summary)["entry"][0]["resource"]["section"]
    assert {"11450-4", "48765-2", "10160-0"} <= {section["code"]["coding"][0]["code"] for section in sections}
    assert reader.open(f"{reader.address('Alex')}/download/file?format=ips&from=2025-01-01").status_code == 400


def test_portal_f3_5_an_empty_section_of_a_parents_summary_is_unavailable_in_both_worlds() -> None:
    seen = []
    for patient in ("teen", "senior"):
        site = RecordPages()
        feed = site.served.token()
        for id in site.served.get(feed, "Condition?patient=teen").ids("Condition"):
            assert site.served.request(feed, "DELETE", f"Condition/{id}").status in (200, 204)
        site.write(secret(1, patient))
        reader = site.reader("parent-a")
        seen.append(file(reader, reader.address("Toni"), "ips"))
        site.served.close()
    problems = json.loads(seen[0])["entry"][0]["resource"]["section"][0]
    assert seen[0] == seen[1] and problems["emptyReason"]["coding"][0]["code"] == "unavailable"


def test_portal_f3_6_a_link_is_nothing_after_sign_out_and_after_revocation() -> None:
    site = RecordPages()
    proxy = site.reader("proxy-standard")
    link = f"{proxy.address('Alex')}/download/file?format=json"
    assert proxy.open(link).status_code == 200
    stranger = Reader(type(proxy.visitor)(Browser(site.app))).open(link)
    assert stranger.status_code == 303 and stranger.headers["location"].startswith("/sign-in")
    feed = site.served.token()
    found = site.served.get(feed, "Consent?patient=adult&_count=100").json["entry"]
    for consent in (entry["resource"] for entry in found if "proxy-standard" in json.dumps(entry["resource"])):
        site.write({**consent, "status": "inactive"})
    refused, invented = proxy.open(link), proxy.open("/r/invented/download/file?format=json")
    assert refused.status_code == invented.status_code == 404
    site.served.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("format=json&from=2026-02-01&to=2026-01-31", "before the first day"),
        ("format=pdf&from=yesterday", "Enter the days as dates"),
        ("format=doc", "Choose one of the kinds of file"),
        ("", "Choose one of the kinds of file"),
    ],
)
def test_portal_f3_wrong_forms_get_400_with_words(site: RecordPages, query: str, words: str) -> None:
    reader = site.reader("adult")
    answer = reader.open(f"{reader.address('Alex')}/download/file?{query}")
    assert answer.status_code == 400 and words in answer.text and "<form" in answer.text
    same = reader.open(f"{reader.address('Alex')}/download/file?format=json&from=2026-02-01&to=2026-02-01")
    assert same.status_code == 200


def test_portal_f3_a_longer_record_comes_in_parts_and_says_so(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    complete = names(file(reader, path, "json"))
    monkeypatch.setattr(download, "PART", 20)
    found, address, parts = set(), f"{path}/download/file?format=json", 0
    while address:
        page = reader.page(address)
        links = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+/download/file[^"]+)"', page)]
        part = next(link for link in links if "part=yes" in link)
        found |= names(reader.open(part).content)
        made = reader.open(part.replace("format=json", "format=html")).text
        assert "This file is a part of the record" in made and "None recorded." not in made
        address, parts = next((link for link in links if "part=yes" not in link), ""), parts + 1
    assert found == complete and parts > 2
    assert reader.open(f"{path}/download/file?format=json&after=invented").status_code == 400


def test_portal_f3_each_file_is_a_line_of_the_audit_log(site: RecordPages) -> None:
    reader = site.reader("adult")
    path = reader.address("Alex")
    before = operations(site)
    for format in download.FORMATS:
        file(reader, path, format)
    assert operations(site) - before == {"$everything": 3, "$summary": 1}


def operations(site: RecordPages) -> Counter[str]:
    """How often each operation was asked for, by the audit log."""
    entities = [entity for event in events(site.served, officer(site.served)) for entity in event.get("entity", ())]
    queries = [b64decode(entity["query"]).decode().partition("?")[0] for entity in entities if "query" in entity]
    return Counter(query.rpartition("/")[2] for query in queries if "/$" in query)


def made(bundle: bytes, **task: Any) -> bytes:
    asked = Task(**{"kind": "html", "name": "A", "relation": "Your record", "organization": "H", "made": "now", "period": "all", **task})
    file = asyncio.run(FileMaker().make(asked, bundle))
    assert file == worker.make(asked, bundle)
    return file


def bundle_of(count: int) -> bytes:
    rows = [{"resource": condition(f"row-{number}", "word"), "search": {"mode": "match"}} for number in range(count)]
    return json.dumps({"resourceType": "Bundle", "entry": rows}).encode()


def test_a_file_that_is_too_large_or_takes_too_long_is_none() -> None:
    assert b"word" in made(bundle_of(1)) and made(bundle_of(1), kind="pdf").startswith(b"%PDF")
    with pytest.raises(TooLargeError):
        made(bundle_of(1), most=100)
    with pytest.raises(TooLargeError):
        made(bundle_of(50_000), kind="pdf", seconds=1)
    with pytest.raises(RuntimeError):
        made(b"no Bundle")


def test_portal_f3_a_file_that_is_too_large_gets_400_with_words(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: FileMaker, task: Task, bundle: bytes) -> bytes:
        raise TooLargeError

    reader = site.reader("adult")
    path = reader.address("Alex")
    monkeypatch.setattr(FileMaker, "make", refuse)
    answer = reader.open(f"{path}/download/file?format=pdf")
    assert answer.status_code == 400 and "too large" in answer.text
    assert reader.open(f"{path}/download/file?format=json").status_code == 200
