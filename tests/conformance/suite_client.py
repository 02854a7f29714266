"""The whole server as a conformance suite walks through it: launch, pages as plain forms, tokens, FHIR requests."""

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
GRANTED = frozenset[str]()


class Server:
    def __init__(self, ehr: Ehr) -> None:
        self.ehr, self.smart, self.base = ehr, ehr.smart, ehr.smart.fhir_base

    def browser(self) -> Browser:
        return Browser(self.ehr.app)

    def configuration(self) -> dict[str, Any]:
        return dict(self.browser().get(f"{self.base}/.well-known/smart-configuration").json())

    # the pages

    def asked(self, scope: str, **changes: str | None) -> dict[str, str]:
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

    def page(self, username: str, patient: str, scope: str, *, post: bool = False, visit: str = "", **changes: str | None) -> Any:
        """The visitor and the consent page of a standalone launch (or wherever the request ended)."""
        visitor, given = self.ehr.visitor(username), self.asked(scope, **changes)
        send = visitor.browser.post("/oauth/authorize", data=given) if post else visitor.browser.get("/oauth/authorize", params=given)
        page = visitor.follow(send)
        if Page(page.text).action == "/oauth/record":
            page = visitor.submit(page, patient=patient)
        if Page(page.text).action == "/oauth/visit":
            page = visitor.submit(page, encounter=visit)
        return visitor, page

    def allowed(self, username: str, patient: str, scope: str, **options: Any) -> dict[str, Any]:
        """The token response of a standalone launch.  ``untick`` are values to clear, ``part`` values to tick."""
        untick, part = options.pop("untick", GRANTED), options.pop("part", ())
        visitor, page = self.page(username, patient, scope, **options)
        response = self.redeemed(self.answered(visitor, page, untick, part), options.get("client_id", CONFIDENTIAL))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def answered(self, visitor: Visitor, page: httpx.Response, untick: frozenset[str] = GRANTED, part: tuple[str, ...] = ()) -> str:
        """The code after "allow"."""
        sent = [(name, value) for name, value in Page(page.text).sent if value not in untick]
        sent += [("part", value) for value in part] + [("decision", "allow")]
        return query(visitor.browser.post("/oauth/consent", data=_grouped(sent)).headers["location"])["code"]

    # the token endpoint

    def redeemed(self, code: str, client: str = CONFIDENTIAL, **changes: str | None) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
        return self.token({name: value for name, value in (form | changes).items() if value is not None}, client)

    def refreshed(self, token: str, client: str = CONFIDENTIAL, **more: str) -> httpx.Response:
        return self.token({"grant_type": "refresh_token", "refresh_token": token, **more}, client)

    def token(self, form: dict[str, str], client: str) -> httpx.Response:
        """A token request as this client authenticates it."""
        if client == CONFIDENTIAL:
            return self.browser().post("/oauth/token", data=form, auth=(CONFIDENTIAL, demo.SECRET))
        if client == PUBLIC:
            return self.browser().post("/oauth/token", data=form | {"client_id": PUBLIC})
        return self.browser().post("/oauth/token", data=form | self.signed(client))

    def signed(self, client: str, **claims: Any) -> dict[str, str]:
        """The parameters of a client assertion."""
        kept = asyncio.run(demo.private_keys(self.ehr.store, client))
        assert kept is not None
        keys = KeySet.import_key_set(kept)  # type: ignore[arg-type]
        key = next(key for key in keys if key.get("alg") == "ES384")
        now = self.smart.now() // SECOND
        stated = {"iss": client, "sub": client, "aud": self.configuration()["token_endpoint"], "exp": now + 300, "jti": new_secret()}
        text = jwt.encode({"alg": "ES384", "kid": key.kid, "typ": "JWT"}, stated | claims, key, algorithms=["ES384"])
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}

    def backend(self, scope: str = "system/*.rs", **changes: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": scope, **self.signed(BACKEND)}
        return self.browser().post("/oauth/token", data=form | changes)

    def introspected(self, token: str) -> dict[str, Any]:
        answer = self.browser().post("/oauth/introspect", data={"token": token}, auth=(CONFIDENTIAL, demo.SECRET))
        assert answer.status_code == 200
        return dict(answer.json())

    # the FHIR API

    def get(self, token: str | dict[str, Any] | None, path: str) -> httpx.Response:
        text = token["access_token"] if isinstance(token, dict) else token
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        return self.browser().get(f"/fhir/{path.removeprefix(self.base).lstrip('/')}", headers=headers)
