"""A conformance suite's client of the whole server: launch, pages, tokens and FHIR requests."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.smart import demo
from fhir_server.smart.core.context import SECOND, new_secret
from tests.ehr.environment import Ehr, Visitor
from tests.smart.environment import ASSERTION_TYPE, CHALLENGE, VERIFIER, Browser, Page, _grouped, query

CONFIDENTIAL, PUBLIC, ASYMMETRIC, BACKEND = "demo-confidential", "demo-public", "demo-asymmetric", "demo-backend"
NONE = frozenset[str]()


class Server:
    """The server as a conformance suite uses it."""

    def __init__(self, ehr: Ehr) -> None:
        self.ehr, self.smart, self.base = ehr, ehr.smart, ehr.smart.fhir_base

    def browser(self) -> Browser:
        return Browser(self.ehr.app)

    def configuration(self) -> dict[str, Any]:
        return dict(self.browser().get(f"{self.base}/.well-known/smart-configuration").json())

    # the pages

    def authorization_parameters(self, scope: str, **changes: str | None) -> dict[str, str]:
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": CONFIDENTIAL,
            "redirect_uri": demo.REDIRECT,
            "scope": scope,
            "state": "state",
            "aud": self.base,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (given | changes).items() if value is not None}

    def open_consent_page(
        self, username: str, patient: str, scope: str, *, post: bool = False, visit: str = "", **changes: str | None
    ) -> Any:
        """Sign in, choose record and visit, and return the visitor and the consent page, or the page at which the launch ended."""
        visitor, given = self.ehr.visitor(username), self.authorization_parameters(scope, **changes)
        send = visitor.browser.post("/oauth/authorize", data=given) if post else visitor.browser.get("/oauth/authorize", params=given)
        page = visitor.follow(send)
        if Page(page.text).action == "/oauth/record":
            page = visitor.submit(page, patient=patient)
        if Page(page.text).action == "/oauth/visit":
            page = visitor.submit(page, encounter=visit)
        return visitor, page

    def launch(self, username: str, patient: str, scope: str, **options: Any) -> dict[str, Any]:
        """Return the token response of a standalone launch.  ``untick`` are values to deselect, ``part`` values to select."""
        untick, part = options.pop("untick", NONE), options.pop("part", ())
        visitor, page = self.open_consent_page(username, patient, scope, **options)
        response = self.redeem(self.allow(visitor, page, untick, part), options.get("client_id", CONFIDENTIAL))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def allow(self, visitor: Visitor, page: httpx.Response, untick: frozenset[str] = NONE, part: tuple[str, ...] = ()) -> str:
        """Allow access on the consent page, unless it was not shown (to staff, for an approved app), and return the authorization code."""
        if page.is_redirect:
            return query(page.headers["location"])["code"]
        sent = [(name, value) for name, value in Page(page.text).sent if value not in untick]
        sent += [("part", value) for value in part] + [("decision", "allow")]
        return query(visitor.browser.post("/oauth/consent", data=_grouped(sent)).headers["location"])["code"]

    # the token endpoint

    def redeem(self, code: str, client: str = CONFIDENTIAL, **changes: str | None) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
        return self.token({name: value for name, value in (form | changes).items() if value is not None}, client)

    def refresh(self, token: str, client: str = CONFIDENTIAL, **more: str) -> httpx.Response:
        return self.token({"grant_type": "refresh_token", "refresh_token": token, **more}, client)

    def token(self, form: dict[str, str], client: str) -> httpx.Response:
        """Send a token request with this client's authentication."""
        if client == CONFIDENTIAL:
            return self.browser().post("/oauth/token", data=form, auth=(CONFIDENTIAL, demo.SECRET))
        if client == PUBLIC:
            return self.browser().post("/oauth/token", data=form | {"client_id": PUBLIC})
        return self.browser().post("/oauth/token", data=form | self.assertion_parameters(client))

    def assertion_parameters(self, client: str, **claims: Any) -> dict[str, str]:
        """The parameters of a client assertion (RFC 7523)."""
        private_jwks = asyncio.run(demo.private_keys(self.ehr.store, client))
        assert private_jwks is not None
        keys = KeySet.import_key_set(private_jwks)  # type: ignore[arg-type]
        key = next(key for key in keys if key.get("alg") == "ES384")
        now = self.smart.now() // SECOND
        standard = {"iss": client, "sub": client, "aud": self.configuration()["token_endpoint"], "exp": now + 300, "jti": new_secret()}
        text = jwt.encode({"alg": "ES384", "kid": key.kid, "typ": "JWT"}, standard | claims, key, algorithms=["ES384"])
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}

    def backend(self, scope: str = "system/*.rs", **changes: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": scope, **self.assertion_parameters(BACKEND)}
        return self.browser().post("/oauth/token", data=form | changes)

    def introspect(self, token: str) -> dict[str, Any]:
        answer = self.browser().post("/oauth/introspect", data={"token": token}, auth=(CONFIDENTIAL, demo.SECRET))
        assert answer.status_code == 200
        return dict(answer.json())

    # the FHIR API

    def get(self, token: str | dict[str, Any] | None, path: str) -> httpx.Response:
        text = token["access_token"] if isinstance(token, dict) else token
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        return self.browser().get(f"/fhir/{path.removeprefix(self.base).lstrip('/')}", headers=headers)
