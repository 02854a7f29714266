"""Partner systems that do something unusual: one honest system, and a table of what each other one does instead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

import httpx

from fhir_server.linking import organizations
from fhir_server.linking.organizations import Organization
from fhir_server.linking.queries import SECTIONS
from fhir_server.smart.core.persons import Person, RecordChoice
from tests.linking.environment import Ours
from tests.smart.environment import Clock, Page
from tests.waiting import HANG

ODD_ORIGIN = "http://127.0.0.1:7000"
ODD_BASE = f"{ODD_ORIGIN}/fhir"
ODD = Organization("odd", "Odd Health", ODD_BASE, "our-client", place="Springfield", own_redirect_uri=True)
SUBJECT = {"reference": "Patient/p1"}
Answer = Callable[[httpx.Request], Any]
HTML = httpx.Response(400, content=b"<html><h1>Bad token</h1></html>", headers={"content-type": "text/html"})


def bundle(*resources: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": dict(each)} for each in resources]} | members


def laboratory(name: str, when: str, **members: Any) -> dict[str, Any]:
    value = {"valueInteger": 1, "effectiveDateTime": when, "subject": SUBJECT, "status": "final"}
    return {"resourceType": "Observation", "code": {"text": name}} | value | members


DISCOVERY = {
    "authorization_endpoint": f"{ODD_ORIGIN}/authorize",
    "token_endpoint": f"{ODD_ORIGIN}/token",
    "revocation_endpoint": f"{ODD_ORIGIN}/revoke",
    "code_challenge_methods_supported": ["S256"],
    "capabilities": ["launch-standalone", "permission-v2"],
}
TOKENS = {"access_token": "a1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r1", "patient": "p1"}
HONEST: dict[str, Any] = {
    "/fhir/.well-known/smart-configuration": DISCOVERY,
    "/token": TOKENS,
    "/fhir/Patient/p1": {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"given": ["Alex"], "family": "Adult"}],
        "birthDate": "1980-02-03",
    },
    "/fhir/AllergyIntolerance": bundle(
        {
            "resourceType": "AllergyIntolerance",
            "patient": SUBJECT,
            "code": {"text": "Peanut"},
            "clinicalStatus": {"coding": [{"code": "active"}]},
            "verificationStatus": {"coding": [{"code": "confirmed"}]},
        }
    ),
    "/fhir/Observation": bundle(laboratory("Potassium", "2026-01-02")),
}


def failing(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=b"<html>no</html>", headers=headers)


@dataclass
class OddPartner(httpx.AsyncBaseTransport):
    """Answers by path: with JSON, a response, or what a function of the request returns."""

    instead: dict[str, Any] = field(default_factory=dict)
    calls: list[httpx.Request] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # paths

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        known = HONEST | self.instead
        path = request.url.path
        kind = "/fhir/*" if path.startswith("/fhir/") and path.count("/") == 2 else ""
        answer = self.instead.get(path, self.instead.get(kind, known.get(path, bundle() if kind else failing(404))))
        if callable(answer):
            answer = answer(request)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            answer = httpx.Response(200, json=answer)
        self.answered.append(path)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)

    def asked(self, path: str) -> int:
        return [request.url.path for request in self.calls].count(path)

    def forms(self, path: str) -> list[dict[str, str]]:
        return [dict(httpx.QueryParams(request.content.decode())) for request in self.calls if request.url.path == path]


class Outline(HTMLParser):
    """A page of a linked record as a person reads it: its problem, what is said of the person, and the lines of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.feed(re.sub(r"(?s)<(header|footer|nav|form|head)\b.*?</\1>", "", html))

    def handle_data(self, data: str) -> None:
        if text := " ".join(data.split()):
            self.lines.append(text)

    def section(self, title: str) -> list[str]:
        titles = [section.title for section in SECTIONS]
        after = self.lines[self.lines.index(title) + 1 :]
        ends = [index for index, line in enumerate(after) if line in titles or line.startswith("Linked on")]
        return after[: ends[0]]

    @property
    def above(self) -> list[str]:
        """The lines before the first section."""
        end = self.lines.index("Allergies") if "Allergies" in self.lines else len(self.lines)
        return self.lines[:end]


async def _records(person: Person, now: int) -> Sequence[RecordChoice]:
    """The records that ``adult`` may open here: the own one, and a child's."""
    child = RecordChoice("child", "Charlie Child", "Your child", birth_date="2018-05-03")
    return [RecordChoice("adult", "Alex Adult", "Your record", birth_date="1980-02-03"), child]


class OddWorld:
    """This server, with ``adult`` signed in, and one odd partner."""

    def __init__(self, instead: Mapping[str, Any], organization: Organization = ODD, deadline: float = HANG) -> None:
        self.clock = Clock()
        self.partner = OddPartner(dict(instead))
        self.ours = Ours(self.clock)
        self.ours.smart = replace(self.ours.smart, records=_records)
        self.ours.wire(self.partner, deadline=deadline)
        asyncio.run(organizations.add(self.ours.smart, organization))
        self.ours.sign_in(self.ours.http.get("/sign-in?next=/links"), "adult")

    def token(self) -> str:
        return dict(Page(self.ours.http.get("/links").text).sent)["token"]

    def start(self) -> httpx.Response:
        return self.ours.http.post("/links", data={"organization": "odd", "token": self.token()})

    def asked_for(self) -> dict[str, str]:
        """Start a link; return the parameters of the authorization request."""
        found = re.search(r'<a href="(http[^"]+)"', self.start().text)
        assert found
        return dict(httpx.URL(found[1].replace("&amp;", "&")).params)

    def linked(self) -> str:
        """Link the account; return the path of its page."""
        asked = self.asked_for()
        path = asked["redirect_uri"].partition("/links")[2]
        answer = self.ours.http.get(f"/links{path}", params={"code": "c1", "state": asked["state"]})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def read(self, page: str) -> Outline:
        answer = self.ours.http.get(page)
        assert answer.status_code == 200, answer.text
        return Outline(answer.text)
