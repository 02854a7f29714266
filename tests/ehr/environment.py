"""The whole server with the seed records, and a clinician's browser that submits HTML forms."""

from __future__ import annotations

import re
from typing import Any

import httpx
from fastapi import FastAPI

from fhir_server import app as wiring
from fhir_server import portal
from fhir_server.smart import demo, routes
from tests.seeded import seeded
from tests.smart.environment import CHALLENGE, VERIFIER, Browser, Page, _grouped, query

NOON = "2026-11-21T12:00:00-05:00"
APP = ("demo-confidential", demo.SECRET)
SCOPE = "launch openid fhirUser offline_access user/*.rs"


class Ehr:
    """A server.  Each visitor has a separate browser."""

    def __init__(self, store: str = "memory:") -> None:
        self.served = seeded(store, at=NOON)
        made = self.served.parts
        self.store, self.smart = made.store, made.smart
        self.app = FastAPI()
        self.app.include_router(routes.router(made.smart))
        api = wiring.fhir_api(made)
        self.app.include_router(portal.router(made.smart, made.service, api.ask))
        self.app.mount("/fhir", api)

    def visitor(self, username: str = "clinician") -> Visitor:
        visitor = Visitor(self)
        visitor.submit(visitor.browser.get("/sign-in?next=/signed-out"), username=username, password=demo.PASSWORD)
        return visitor

    def close(self) -> None:
        self.served.close()


class Visitor:
    """A person who uses a browser."""

    def __init__(self, ehr: Ehr) -> None:
        self.ehr = ehr
        self.browser = Browser(ehr.app)

    def get(self, path: str) -> httpx.Response:
        return self.browser.get(path)

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        form = Page(page.text)
        sent = [(name, value) for name, value in form.sent if name not in fields] + list(fields.items())
        return self.follow(self.browser.post(form.action, data=_grouped(sent)))

    def follow(self, response: httpx.Response) -> httpx.Response:
        while response.is_redirect and response.headers["location"].startswith("/"):
            response = self.browser.get(response.headers["location"])
        return response

    def patients(self) -> list[str]:
        return re.findall(r'href="/ehr/([^"]+)"', self.get("/ehr").text)

    def visits(self, patient: str) -> list[str]:
        return [id for id in re.findall(r'<option value="([^"]*)"', self.get(f"/ehr/{patient}").text) if id]

    def opened(self, patient: str, app: str = "demo-confidential", encounter: str = "") -> httpx.Response:
        """Submit "Open app" on the patient's chart."""
        return self.submit(self.get(f"/ehr/{patient}"), app=app, encounter=encounter)

    def launched(self, patient: str, encounter: str = "", **asked: str | None) -> httpx.Response:
        """Open the app and send its authorization request.  Return the page or redirect that follows."""
        given = query(str(self.opened(patient, encounter=encounter).headers["location"]))
        return self.authorized(given["launch"], aud=given["iss"], **asked)

    def authorized(self, launch: str | None, **asked: str | None) -> httpx.Response:
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": APP[0],
            "redirect_uri": demo.REDIRECT,
            "scope": SCOPE,
            "state": "state",
            "aud": self.ehr.smart.fhir_base,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "nonce": "n",
            "launch": launch,
        }
        form = {name: value for name, value in (given | asked).items() if value is not None}
        return self.follow(self.browser.post("/oauth/authorize", data=form))

    def token(self, patient: str, encounter: str = "", **asked: str | None) -> dict[str, Any]:
        """Complete an EHR launch, and return the token response."""
        return self.redeemed(self.allowed(self.launched(patient, encounter, **asked)))

    def allowed(self, answer: httpx.Response) -> httpx.Response:
        """Allow an app on its page.  Staff see none for an approved app: then this is the answer already."""
        return answer if answer.is_redirect else self.submit(answer, decision="allow")

    def redeemed(self, answer: httpx.Response) -> dict[str, Any]:
        code = query(answer.headers["location"])["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
        response = self.browser.post("/oauth/token", data=form, auth=APP)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def read(self, token: dict[str, Any], path: str) -> httpx.Response:
        path = path.removeprefix(self.ehr.smart.fhir_base).lstrip("/")
        return Browser(self.ehr.app).get(f"/fhir/{path}", headers={"Authorization": f"Bearer {token['access_token']}"})


def error(answer: httpx.Response) -> str:
    """Return the error code in the redirect of an authorization request, or ``page`` if the server answered with a page."""
    return query(answer.headers["location"])["error"] if answer.is_redirect else "page"
