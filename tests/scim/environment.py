"""A server's SCIM API on the demo records, and administrators who call it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from joserfc.jwk import ECKey, KeySet
from scim2_client import BaseSyncSCIMClient
from scim2_client.engines.inprocess import InProcessResponse, _prepare_request, _stays_under_base_url

from fhir_server.scim import router
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from tests.served import Answer, Served, call

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
LINKS = "urn:fhir-server:scim:schemas:2.0:FhirUser"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
PASSWORD = "A-long-pass-2026"
KEY = ECKey.generate_key("P-384", auto_kid=True)
KEYS = KeySet([KEY]).as_dict(private=False)
CLIENT = Client("identity", "Identity management", "backend", "private_key_jwt", "system/scim", jwks=KEYS)


class Administration:
    """The API of a server process.  ``token`` is an administrator's."""

    def __init__(self, url: str = "memory:", *, seeds: bool = True) -> None:
        self.served = Served(url, seeds=seeds)
        self.store, self.smart = self.served.parts.store, self.served.parts.smart
        self.served.run(clients.save(self.store, CLIENT))
        self.app = FastAPI()
        self.app.include_router(router(self.smart))
        self.token = self.served.token("identity", "system/scim")

    def close(self) -> None:
        self.served.close()

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request below ``/scim/v2``.  ``token``: "" for an administrator's, None for none."""
        sent = {} if token is None else {"authorization": f"Bearer {token or self.token}"}
        text = b""
        if body is not None:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["content-type"] = "application/scim+json"
        path, _, query = path.partition("?")
        return self.served.run(call(self.app, method, f"/scim/v2{path}", query.encode(), {**sent, **(headers or {})}, text))

    def create(self, username: str, **members: Any) -> Any:
        answer = self.request("POST", "/Users", {"schemas": [USER], "userName": username, **members})
        assert answer.status == 201, answer.body
        return answer.json

    def patch(self, id: str, *operations: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("PATCH", f"/Users/{id}", {"schemas": [PATCH], "Operations": list(operations)}, headers=headers)

    def account(self, name: str) -> User:
        found = self.served.run(users.find(self.store, name))
        assert found is not None, name
        return found

    def id(self, name: str) -> str:
        return self.account(name).subject

    def events(self) -> list[dict[str, Any]]:
        """The lines of the audit log, as AuditEvents, the oldest first."""
        return [json.loads(text)["event"] for _, text in self.served.run(self.store.read_log("audit", 0, 100_000))]


class ScimClient(BaseSyncSCIMClient):
    """The client of scim2-client, which knows nothing of this server, in the same process."""

    def __init__(self, administration: Administration) -> None:
        super().__init__()
        self._administration = administration
        self._base = f"{administration.smart.origin}/scim/v2"

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return _stays_under_base_url(self._base, endpoint)

    def _parse_json(self, response: Any) -> Any:
        return cast(InProcessResponse, response).json()

    def request(self, method: str, url: str, **kwargs: Any) -> InProcessResponse:
        request = _prepare_request(self._base, {"Authorization": f"Bearer {self._administration.token}"}, method, url, **kwargs)
        headers = {name: value for name, value in request.headers if name.lower() != "content-length"}
        answer = self._administration.served.run(
            call(self._administration.app, request.method, request.url.path, request.url.query.encode(), headers, request.body)
        )
        return InProcessResponse(status_code=answer.status, headers=answer.headers, content=answer.body)
