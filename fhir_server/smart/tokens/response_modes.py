"""How an authorization response reaches the app (OAuth 2.0 Multiple Response Type Encoding Practices 2.1).

Authlib redirects with the parameters in the query.  For ``fragment`` they are moved; for ``form_post`` a page posts them.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse


def added_parameters(location: str, redirect_uri: str) -> list[tuple[str, str]]:
    """The parameters of a response, without those of the redirect URI's own query, which come first."""
    own = parse_qsl(urlsplit(redirect_uri).query, keep_blank_values=True)
    return parse_qsl(urlsplit(location).query, keep_blank_values=True)[len(own) :]


def move_to_fragment(request: AuthlibRequest, response: AuthlibResponse) -> None:
    """Move the parameters of a redirect to its fragment, if the request asks for that."""
    redirect_uri = request.form.get("redirect_uri", "")
    if response.location and request.form.get("response_mode") == "fragment":
        response.location = f"{redirect_uri}#{urlencode(added_parameters(response.location, redirect_uri))}"
