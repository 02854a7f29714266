from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fhir_server.linking import authorization
from fhir_server.linking.context import LinkError, LinkingContext
from fhir_server.smart.core.context import HOUR
from fhir_server.smart.outbound import json_client
from tests.linking.environment import Worlds
from tests.waiting import HANG

ELSEWHERE = "http://127.0.0.1:6666"
NOTHING = {"links": 0, "tokens": 0}
Answer = Callable[[httpx.Request], Any]


def _changed(worlds: Worlds, end: str, **changes: Any) -> None:
    """The other system's response at this path, with members changed (None: removed)."""

    async def answer(request: httpx.Request) -> httpx.Response:
        real = await worlds.wire.app.handle_async_request(request)
        body = json.loads(await real.aread()) | changes
        return httpx.Response(real.status_code, json={name: value for name, value in body.items() if value is not None})

    worlds.wire.instead[end] = answer


def _refused(worlds: Worlds, answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in (statuses or (400,))
    assert 'role="alert"' in answer.text
    assert worlds.kept() == NOTHING


def test_link_response_is_accepted_once(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.started())
    assert worlds.back(url).status_code == 303
    before = worlds.wire.paths().count("/oauth/token")
    assert worlds.back(url).status_code == 400
    assert worlds.wire.paths().count("/oauth/token") == before
    assert worlds.kept() == {"links": 1, "tokens": 1}


def test_link_response_for_another_account_links_nothing(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.started())
    worlds.sign_in("parent-a")
    assert worlds.back(url).status_code == 400
    worlds.sign_in()
    _refused(worlds, worlds.back(url))
    assert "/oauth/token" not in worlds.wire.paths()


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=made-up", "?state="])
def test_unsolicited_link_response_links_nothing(worlds: Worlds, query: str) -> None:
    _refused(worlds, worlds.ours.http.get(f"/links/callback{query}"))
    assert worlds.wire.calls == []


def test_repeated_link_response_parameter_links_nothing(worlds: Worlds) -> None:
    _refused(worlds, worlds.back(worlds.agreed(worlds.started()) + "&code=other"))
    assert "/oauth/token" not in worlds.wire.paths()


@pytest.mark.parametrize("issuer", [ELSEWHERE, "", None])
def test_mix_up_link_response_of_another_issuer_links_nothing(worlds: Worlds, issuer: str | None) -> None:
    url = httpx.URL(worlds.agreed(worlds.started()))
    assert url.params["iss"]
    given = url.params.remove("iss") if issuer is None else url.params.set("iss", issuer)
    _refused(worlds, worlds.back(str(url.copy_with(params=given))))
    assert "/oauth/token" not in worlds.wire.paths()


def test_denied_link_request_links_nothing(worlds: Worlds) -> None:
    answer = worlds.back(worlds.agreed(worlds.started(), decision="deny"))
    _refused(worlds, answer)
    assert "You did not allow access" in answer.text
    assert "/oauth/token" not in worlds.wire.paths()


def test_remote_error_description_is_not_displayed(worlds: Worlds) -> None:
    state, issuer = httpx.URL(worlds.started()).params["state"], "http://127.0.0.1:8000"
    query = httpx.QueryParams(error="server_error", error_description="call Mallory", state=state, iss=issuer)
    answer = worlds.ours.http.get(f"/links/callback?{query}")
    _refused(worlds, answer)
    assert "refused the link" in answer.text
    assert "Mallory" not in answer.text


def test_link_response_after_session_expiry_links_nothing(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.started())
    worlds.clock.forward(HOUR)
    answer = worlds.back(url)
    assert answer.status_code == 403
    assert "was not linked" in answer.text
    assert worlds.kept() == NOTHING


@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint": f"{ELSEWHERE}/oauth/token"},
        {"authorization_endpoint": f"{ELSEWHERE}/oauth/authorize"},
        {"revocation_endpoint": f"{ELSEWHERE}/oauth/revoke"},
        {"jwks_uri": f"{ELSEWHERE}/oauth/jwks"},
        {"issuer": ELSEWHERE},
        {"token_endpoint": "http://10.0.0.1/token"},
        {"token_endpoint": "http://127.0.0.1:8000@10.0.0.1/token"},
        {"token_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "/oauth/token"},
        {"token_endpoint": 7},
        {"authorization_endpoint": None},
        {"code_challenge_methods_supported": ["plain"]},
        {"code_challenge_methods_supported": None},
    ],
    ids=str,
)
def test_ssrf_link_discovery_with_unsafe_urls_or_no_pkce_is_refused(worlds: Worlds, changes: dict[str, Any]) -> None:
    assert worlds.started()  # the control: unchanged, it does
    _changed(worlds, "/smart-configuration", **changes)
    answer = worlds.start()
    _refused(worlds, answer, 503)
    assert "not safe to sign in" in answer.text


def _raise(error: Exception) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


FAILURES: dict[str, Answer] = {
    "refused": _raise(httpx.ConnectError("no")),
    "timeout": _raise(httpx.ReadTimeout("slow")),
    "redirect": lambda _: httpx.Response(302, headers={"location": f"{ELSEWHERE}/x"}),
    "not json": lambda _: httpx.Response(200, content=b"<html>"),
    "deep": lambda _: httpx.Response(200, content=b"[" * 100_000),
    "list": lambda _: httpx.Response(200, json=[]),
    "fault": lambda _: httpx.Response(500, json={"access_token": "a", "token_type": "bearer", "patient": "adult"}),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("end", ["/smart-configuration", "/oauth/token", "/oauth/jwks"])
def test_unusable_remote_response_shows_page_and_stores_nothing(worlds: Worlds, end: str, failure: str) -> None:
    url = worlds.agreed(worlds.started())
    worlds.wire.instead[end] = FAILURES[failure]
    _refused(worlds, worlds.start() if end == "/smart-configuration" else worlds.back(url), 400, 503)
    assert not any(called.startswith(ELSEWHERE) for _, called, _ in worlds.wire.calls)


@pytest.mark.parametrize(("padding", "coding"), [(0, "identity"), (json_client.MAX_BYTES, "identity"), (0, "gzip")])
def test_oversized_or_compressed_remote_response_is_refused(worlds: Worlds, padding: int, coding: str) -> None:
    async def padded(request: httpx.Request) -> httpx.Response:
        real = await worlds.wire.app.handle_async_request(request)
        stream = httpx.ByteStream(await real.aread() + b" " * padding)
        return httpx.Response(200, headers={"content-encoding": coding}, stream=stream)

    worlds.wire.instead["/smart-configuration"] = padded
    if padding or coding != "identity":
        _refused(worlds, worlds.start(), 503)
    else:
        assert worlds.started()  # the control


def test_hanging_remote_system_times_out(worlds: Worlds) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(HANG)
        raise AssertionError("the deadline was not kept")

    worlds.wire.instead["/smart-configuration"] = hang
    context = LinkingContext(worlds.ours.smart, worlds.wire, deadline=0.05)
    with pytest.raises(LinkError):
        asyncio.run(authorization.start(context, worlds.user(), "neighbour"))


@pytest.mark.parametrize(
    "changes",
    [
        {"patient": None},
        {"patient": "../Patient"},
        {"patient": 7},
        {"access_token": None},
        {"access_token": "a\nb"},
        {"token_type": "mac"},
        {"id_token": "x.y.z"},
        {"id_token": 7},
    ],
    ids=str,
)
def test_unexpected_token_response_links_nothing(worlds: Worlds, changes: dict[str, Any]) -> None:
    url = worlds.agreed(worlds.started())
    _changed(worlds, "/oauth/token", **changes)
    _refused(worlds, worlds.back(url), 400, 503)


def test_id_token_of_another_request_revokes_the_new_tokens(worlds: Worlds) -> None:
    other: dict[str, str] = {}

    async def note(request: httpx.Request) -> httpx.Response:
        real = await worlds.wire.app.handle_async_request(request)
        body = json.loads(await real.aread())
        body["id_token"] = other.setdefault("token", body["id_token"])
        return httpx.Response(real.status_code, json=body)

    worlds.wire.instead["/oauth/token"] = note
    page = worlds.linked()  # the first one's own id_token is right
    assert worlds.ours.http.post(f"{page}/unlink", data={"token": worlds.token()}).status_code == 303
    _refused(worlds, worlds.back(worlds.agreed(worlds.started())))
    assert worlds.their_tokens() == 0


def test_csrf_link_forms_without_token_return_403(worlds: Worlds) -> None:
    page = worlds.linked()
    before = list(worlds.wire.calls)
    assert worlds.ours.http.post("/links", data={"organization": "neighbour"}).status_code == 403
    assert worlds.ours.http.post(f"{page}/unlink", data={"token": "x"}).status_code == 403
    assert worlds.wire.calls == before
    assert worlds.kept() == {"links": 1, "tokens": 1}


def test_link_pages_redirect_visitors_to_sign_in(worlds: Worlds) -> None:
    worlds.ours.http.cookies.clear()
    for path in ("/links", "/links/anything"):
        assert worlds.ours.http.get(path).headers["location"] == "/sign-in?next=/links"
    assert worlds.ours.http.post("/links", data={"organization": "neighbour"}).headers["location"] == "/sign-in?next=/links"


@pytest.mark.parametrize("username", ["clinician", "billing", "privacy-officer"])
def test_staff_account_gets_403_on_link_pages(worlds: Worlds, username: str) -> None:
    assert worlds.ours.http.get("/links").status_code == 200
    worlds.sign_in(username)
    assert worlds.ours.http.get("/links").status_code == 403
    assert worlds.ours.http.post("/links", data={"organization": "neighbour"}).status_code == 403


def test_unknown_organization_is_not_contacted(worlds: Worlds) -> None:
    _refused(worlds, worlds.start("nobody"))
    assert worlds.wire.calls == []
