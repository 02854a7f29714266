"""A client that proves possession of a key (RFC 9449): proofs, tokens and requests."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from fhir_server.smart import demo
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.tokens import dpop
from tests.smart.environment import ORIGIN, TOKEN_URL, VERIFIER, World


class Prover:
    """A client's key pair."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.key = ECKey.generate_key("P-256")

    @property
    def jkt(self) -> str:
        return str(self.key.thumbprint())

    def proof(
        self, url: str = TOKEN_URL, method: str = "POST", token: str = "", header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        stated = {
            "jti": secrets.token_hex(8),
            "htm": method,
            "htu": url,
            "iat": self.world.clock() // SECOND,
            "nonce": dpop.nonce(self.world.smart),
        }
        if token:
            stated["ath"] = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        stated = {name: value for name, value in (stated | claims).items() if value is not None}
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.as_dict(private=False)}
        return jwt.encode(head, stated, self.key, algorithms=["ES256"])

    def exchange(self, code: str, proof: str = "", client_id: str = "demo-public") -> httpx.Response:
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
        return self.post(fields | {"client_id": client_id}, proof)

    def refresh(self, token: str, proof: str = "") -> httpx.Response:
        return self.post({"grant_type": "refresh_token", "refresh_token": token, "client_id": "demo-public"}, proof)

    def post(self, fields: dict[str, str], proof: str = "") -> httpx.Response:
        return self.world.http.post("/oauth/token", data=fields, headers={"DPoP": proof or self.proof()})

    def tokens(self, **changes: str | None) -> dict[str, Any]:
        response = self.exchange(self.world.code(**changes))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def userinfo(self, token: str, proof: str = "", scheme: str = "DPoP") -> httpx.Response:
        proof = proof or self.proof(f"{ORIGIN}/oauth/userinfo", "GET", token)
        return self.world.http.get("/oauth/userinfo", headers={"Authorization": f"{scheme} {token}", "DPoP": proof})
