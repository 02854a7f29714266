"""``/oauth/par``: a client sends its authorization request to the server itself, and the browser carries only a name for it (RFC 9126).

Nobody between can read or change such a request, and the client has authenticated before the person sees a page.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749.token_endpoint import TokenEndpoint

from fhir_server.smart.core.authlib import AuthlibRequest, Pairs, run_on_loop
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.tokens.grants import METHODS
from fhir_server.smart.tokens.request_limits import PARAMETERS, check_lengths

PATH: Final = "/oauth/par"
LIFE: Final = MINUTE
PER_ADDRESS: Final = 600  # a minute; an app's server pushes for all of its users, and each request is stored for a minute
_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"
_KIND: Final = "pushed-request"
_KEPT: Final = PARAMETERS | {"id_token_hint"}
_CREDENTIALS: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


class PushedRequests(TokenEndpoint):
    """The endpoint.  A request is validated as at the authorization endpoint; errors are JSON, and redirect nobody."""

    ENDPOINT_NAME = "par"
    CLIENT_AUTH_METHODS = METHODS

    def create_endpoint_response(self, request: Any) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        smart: SmartContext = self.server.smart
        client_id = self.authenticate_endpoint_client(request).get_client_id()
        sent = {name: value for name, value in request.form.items() if name not in _CREDENTIALS} | {"client_id": client_id}
        if "request_uri" in sent:
            raise InvalidRequestError("A pushed request cannot name another one.")
        if request.jkt and sent.setdefault("dpop_jkt", request.jkt) != request.jkt:
            raise InvalidRequestError("The parameter dpop_jkt is not of the key of the proof.")
        pushed = AuthlibRequest("GET", request.uri, list(sent.items()))
        pushed.is_pushed = True
        kept = [(name, value) for name, value in sent.items() if name in _KEPT]
        try:
            self.server.validate_request(pushed)
            check_lengths(kept, sent["redirect_uri"], "")
        except OAuth2Error as error:
            error.redirect_uri = None
            raise
        handle = new_secret()
        record = msgspec.json.encode(kept)
        run_on_loop(smart.store.key_values.put, _KIND, _key(client_id, handle), record, smart.now() + LIFE)
        return 201, {"request_uri": f"{_PREFIX}{handle}", "expires_in": LIFE // SECOND}, default_json_headers


def is_pushed(request_uri: str) -> bool:
    """Whether the parameter ``request_uri`` names a pushed request."""
    return request_uri.startswith(_PREFIX)


async def take(smart: SmartContext, request_uri: str, client_id: str) -> Pairs | None:
    """The parameters of a pushed request, once.  None if it was used, has expired, or is another client's, which keeps it."""
    key = _key(client_id, request_uri.removeprefix(_PREFIX))
    text = await smart.store.key_values.pop(_KIND, key, smart.now())
    return None if text is None else msgspec.json.decode(text, type=list[tuple[str, str]])


def _key(client_id: str, handle: str) -> str:
    return digest(f"{client_id} {handle}")
