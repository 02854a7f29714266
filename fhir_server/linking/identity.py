"""The id_token that comes with a link (OpenID Connect Core 3.1.3.7): proof that this answer is to our question.

Who the person is over there is not kept; the token must only be what it should be.
"""

from __future__ import annotations

from typing import Any, Final

import anyio.to_thread
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from fhir_server.linking import calls
from fhir_server.linking.core import Linking, LinkProblem
from fhir_server.linking.discovery import Endpoints
from fhir_server.linking.organisations import Organisation
from fhir_server.smart.core import SECOND

_ALGORITHMS: Final = ("RS256", "RS384", "ES256", "ES384")
_SKEW: Final = 60  # seconds
_UNPROVEN: Final = "The other health system did not prove who it is. Nothing was linked."


async def check(room: Linking, organisation: Organisation, endpoints: Endpoints, nonce: str, token: object) -> None:
    """Raises LinkProblem for an id_token that is not the one of this link; none at all is none to doubt."""
    if token is None:
        return
    if not isinstance(token, str) or not endpoints.jwks or not endpoints.issuer:
        raise LinkProblem(_UNPROVEN)
    keys = (await calls.get(room, endpoints.jwks)).body
    expected: dict[str, Any] = {
        "iss": {"essential": True, "value": endpoints.issuer},
        "aud": {"essential": True, "value": organisation.client_id},
        "nonce": {"essential": True, "value": nonce},
        "exp": {"essential": True},
        "sub": {"essential": True},
    }
    claims = JWTClaimsRegistry(room.smart.now() // SECOND, _SKEW, **expected)
    try:
        await anyio.to_thread.run_sync(_verify, token, keys, claims)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise LinkProblem(_UNPROVEN) from None


def _verify(token: str, keys: dict[str, Any], claims: JWTClaimsRegistry) -> None:
    known = KeySet.import_key_set(keys)  # type: ignore[arg-type]
    claims.validate(jwt.decode(token, known, algorithms=list(_ALGORITHMS)).claims)
