"""Removed links, and forms that are sent too late."""

from __future__ import annotations

import httpx

from fhir_server.smart.core.context import SESSION_IDLE
from tests.linking.environment import Worlds


def test_repeated_unlinking_shows_the_list_with_a_notice(worlds: Worlds) -> None:
    page, token = worlds.linked(), worlds.token()
    answers = [worlds.ours.http.post(f"{page}/unlink", data={"token": token}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 404]
    told = [worlds.ours.http.get(answers[0].headers["location"]).text, answers[1].text]
    assert 'role="status"' in told[0] and "no longer linked" in told[0]
    assert "no longer linked" in told[1] and "Link Neighbour" in told[1]
    assert worlds.kept() == {"links": 0, "tokens": 0}


def test_unlinking_after_session_expiry_shows_notice_and_keeps_link(worlds: Worlds) -> None:
    page, token = worlds.linked(), worlds.token()
    worlds.clock.forward(SESSION_IDLE)
    answer = worlds.ours.http.post(f"{page}/unlink", data={"token": token})
    assert answer.status_code == 303
    assert "You were signed out after" in worlds.ours.http.get(answer.headers["location"]).text
    assert worlds.kept() == {"links": 1, "tokens": 1}


def test_get_of_the_unlink_url_redirects_to_the_list(worlds: Worlds) -> None:
    page = worlds.linked()
    assert worlds.ours.http.get(f"{page}/unlink").headers["location"] == "/links"
    assert worlds.kept() == {"links": 1, "tokens": 1}


def test_unreachable_remote_system_returns_503(worlds: Worlds) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down", request=request)

    page = worlds.linked()
    assert worlds.ours.http.get(page).status_code == 200  # the control
    worlds.wire.instead["/fhir/.well-known/smart-configuration"] = down
    begun = worlds.start()
    assert (begun.status_code, "cannot be reached" in begun.text) == (503, True)
