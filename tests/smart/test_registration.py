"""Dynamic client registration (RFC 7591): allowed metadata, look-alike names, and who may register."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from fhir_server.smart.clients import clients, initial_access_tokens
from fhir_server.smart.clients.names import claims_organization, is_lookalike, is_readable
from fhir_server.smart.clients.registration_routes import MAX_REGISTRATIONS_PER_HOUR
from fhir_server.smart.core.context import DAY, HOUR, SECOND
from tests.smart.environment import CHALLENGE, ORIGIN, VERIFIER, World, claims_of, private_keys, query
from tests.smart.registration_helpers import METADATA, REDIRECT, bearer, find, made, path, post, production
from tests.waiting import let_others_run


def test_self_registered_app_gets_and_refreshes_tokens(world: World) -> None:
    told = made(world, scope="openid fhirUser launch/patient offline_access patient/*.rs", client_uri="https://app.example")
    assert told["redirect_uris"] == [REDIRECT]
    assert told["client_id_issued_at"] == world.clock() // SECOND
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    tokens = world.exchange(world.code(**given), **given).json()
    assert tokens["patient"] == "adult"
    assert claims_of(tokens["id_token"])[1]["aud"] == [told["client_id"]] or claims_of(tokens["id_token"])[1]["aud"] == told["client_id"]
    assert world.refresh(tokens["refresh_token"], client_id=told["client_id"]).status_code == 200


def test_confidential_app_gets_a_secret_stored_only_as_a_hash(world: World) -> None:
    told = made(world, token_endpoint_auth_method=None)
    assert (told["token_endpoint_auth_method"], told["client_secret_expires_at"]) == ("client_secret_basic", 0)
    kept = find(world, told["client_id"])
    assert kept is not None
    assert kept.matches_secret(told["client_secret"])
    assert told["client_secret"] not in repr(kept)
    assert told["registration_access_token"] not in repr(kept)
    code = world.code(client_id=told["client_id"], redirect_uri=REDIRECT)
    assert world.exchange(code, (told["client_id"], told["client_secret"]), redirect_uri=REDIRECT).status_code == 200


def test_app_may_register_jwks_or_jwks_uri(world: World) -> None:
    jwks = private_keys(world.store, "demo-asymmetric").as_dict(private=False)
    told = made(world, token_endpoint_auth_method="private_key_jwt", jwks=jwks)
    assert told["jwks"] == jwks
    told = made(world, client_name="Lung diary", token_endpoint_auth_method="private_key_jwt", jwks_uri="https://app.example/jwks")
    assert told["jwks_uri"] == "https://app.example/jwks"


def test_registration_forbids_caching_and_allows_any_origin(world: World) -> None:
    answer = post(world)
    assert "no-store" in answer.headers["cache-control"]
    assert answer.headers["access-control-allow-origin"] == "*"
    preflight = world.http.request("OPTIONS", path(answer.json()))
    assert "PUT" in preflight.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("system/*.rs patient/*.rs", "patient/*.rs"),
        ("launch/patient patient/Observation.rs user/*.cruds", "launch/patient patient/Observation.rs user/*.cruds"),
        (None, "openid fhirUser launch launch/patient offline_access patient/*.rs"),
    ],
)
def test_self_registered_app_never_gets_system_scopes(world: World, scope: str | None, granted: str) -> None:
    told = made(world, scope=scope)
    kept = find(world, told["client_id"])
    assert kept is not None
    assert (told["scope"], kept.scopes) == (granted, granted)
    assert (kept.kind, kept.clearance, kept.trusted) == ("app", (), False)


@pytest.mark.parametrize(
    "forged",
    [
        {"kind": "backend"},
        {"clearance": ["*"]},
        {"trusted": True},
        {"client_id": "demo-public"},
        {"client_secret": "x" * 40},
        {"manager": "x"},
    ],
    ids=repr,
)
def test_registration_ignores_operator_only_metadata(world: World, forged: dict[str, Any]) -> None:
    told = made(world, **forged)
    kept = find(world, told["client_id"])
    assert kept is not None
    assert told["client_id"].startswith("app-")
    assert (kept.kind, kept.clearance, kept.trusted, kept.secret_hash) == ("app", (), False, "")


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "http://app.example/cb",
            "https://app.example/cb#x",
            "https://u:p@app.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp:/cb",
        ),
        *(
            "//app.example/cb",
            "https://",
            "https://app.example\\@evil.example/",
            "https://app.exa mple/",
            "https://*",
            "https://*.app.example/",
            "",
            "http://127.0.0.1.evil.example/",
        ),
        *("http://localhost.evil.example/", "https://app.example/\n", "https://äpp.example/", "http://[::2]/cb"),
    ],
)
def test_redirect_uri_unsafe_for_registration_is_refused(world: World, uri: str) -> None:
    answer = post(world, redirect_uris=[REDIRECT, uri])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:8765/cb", "http://[::1]/cb", "http://localhost:3000/", "https://app.example/cb?x=1"])
def test_loopback_and_https_redirect_uris_are_registered(world: World, uri: str) -> None:
    assert made(world, redirect_uris=[uri])["redirect_uris"] == [uri]


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": REDIRECT},
        {"redirect_uris": [1]},
        {"redirect_uris": [REDIRECT] * 2},
        {"redirect_uris": [f"https://a{n}.example/" for n in range(11)]},
        {"client_name": None},
        {"client_name": "x"},
        {"client_name": 7},
        {"client_name": "x" * 61},
        {"client_name": "Heart\u202ediary"},
        {"client_name": "Heart\u200bdiary"},
        {"client_name": " Heart diary "},
        {"client_name": "Heart\ndiary"},
        {"client_uri": "javascript:alert(1)"},
        {"logo_uri": "data:image/png,x"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"grant_types": ["client_credentials"]},
        {"grant_types": ["authorization_code", "implicit"]},
        {"grant_types": []},
        {"response_types": ["token"]},
        {"scope": "system/*.rs"},
        {"scope": ""},
        {"scope": 7},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "oct", "kid": "1", "k": "AA"}]}},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "RSA", "kid": "1"}]}},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://169.254.169.254/latest"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "file:///etc/passwd"},
        {"contacts": "me"},
    ],
    ids=repr,
)
def test_invalid_client_metadata_is_refused(world: World, changes: dict[str, Any]) -> None:
    before = len(asyncio.run(clients.list_all(world.store)))
    answer = post(world, **changes)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_client_metadata", "invalid_redirect_uri")
    assert len(asyncio.run(clients.list_all(world.store))) == before


def test_private_key_in_registered_jwks_returns_400(world: World) -> None:
    jwks = private_keys(world.store, "demo-asymmetric").as_dict(private=True)
    assert post(world, token_endpoint_auth_method="private_key_jwt", jwks=jwks).status_code == 400


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[" * 9999, "application/json"),
        (b"[]", "application/json"),
        (b"{}", "text/plain"),
    ],
)
def test_malformed_registration_body_returns_400(world: World, body: bytes, type: str) -> None:
    answer = world.http.post("/oauth/register", content=body, headers={"Content-Type": type})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    large = world.http.post("/oauth/register", content=b" " * 70_000, headers={"Content-Type": "application/json"})
    assert large.status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        *("Demo phone app", "DEMO PHONE APP", "Demo-phone-app", "Dеmo phоne app", "Demo phone аpp", "Démo phone app", "Demo ph0ne app"),
        *("Neighbor Health portal", "Neighbor Hea1th portaI", "Demo Health", "Official Demo Health app", "ＤＥＭＯ phone app"),
    ],
)
def test_app_name_resembling_a_known_name_is_refused(world: World, name: str) -> None:
    answer = post(world, client_name=name)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize(
    "name",
    [
        *("Growth Ꮯhart", "Growth Chɑrt", "Grоwth Ϲhart", "Growth Chaᴦt", "Ｇrowth Chart", "Gr𝐨wth Chart", "Gr0wth Chart"),
        *("The Growth Chart", "Thе Growth Chart", "A Growth-Chart", "Growth Chart App", "GrowthChartApp", "TheGrowthChart"),
        *("Growth Chart (app)", "The Growth Chart Mobile App", "Growth Chart Оnline", "Official growth chart"),
    ],
)
def test_app_name_that_looks_like_a_taken_one_is_refused(world: World, name: str) -> None:
    made(world, client_name="Growth Chart")
    assert post(world, client_name=name).status_code == 400


@pytest.mark.parametrize("taken", ["The Growth Chart App", "GrowthChartApp", "Growth Ꮯhart Mobile"])
def test_plain_name_is_taken_by_one_with_an_article_or_app(world: World, taken: str) -> None:
    made(world, client_name=taken)
    assert post(world, client_name="Growth Chart").status_code == 400


@pytest.mark.parametrize("name", ["Demo Heaӏth", "ᗪemo Health", "My ᗪemo Heaӏth"])
def test_app_name_that_looks_like_the_organization_is_refused(world: World, name: str) -> None:
    assert post(world, client_name=name).status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        *("Growth Tracker", "Growth Charts", "Chart", "Theater Growth", "The App", "Another chart", "Height Chart App", "Growth"),
        *("Дневник сердца", "心臓日記", "Ημερολόγιο καρδιάς", "Πίνακας", "Größe", "Croissance d’enfant"),
    ],
)
def test_app_name_that_is_another_one_is_accepted(world: World, name: str) -> None:
    made(world, client_name="Growth Chart")
    assert post(world, client_name=name).status_code == 201


def test_two_apps_cannot_register_one_name(world: World) -> None:
    made(world)
    assert post(world, client_name="heart  diary".replace("  ", " ")).status_code == 400
    made(world, client_name="Lung diary")


def test_concurrent_look_alike_registrations_succeed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known = clients.find_similar

    async def slow(store: Any, name: str) -> Any:
        """Let other tasks run after the query, as with a store over a network."""
        found = await known(store, name)
        await let_others_run()
        return found

    monkeypatch.setattr(clients, "find_similar", slow)
    names = ["Heart diary", "heart diary", "HEART DIARY", "Heart-diary", "Hеart diary", "Heart dіary", "HeartDiaryApp", "TheHeartDiary"]

    async def race() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            sent = (client.post("/oauth/register", json=METADATA | {"client_name": name}) for name in names)
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert sorted(asyncio.run(race())) == [201] + [400] * (len(names) - 1)
    made(world, client_name="Lung diary")
    assert post(world, client_name="Heart diary").status_code == 400


def test_app_names_in_other_alphabets_are_accepted() -> None:
    assert is_readable("Дневник сердца") and is_readable("心臓日記")
    assert not is_lookalike("心臓日記", "Дневник сердца")
    assert not claims_organization("Heart diary", "")


def test_registrations_per_ip_address_are_limited(world: World) -> None:
    answers = [
        post(world, client_name=f"Diary number {chr(97 + n % 26)}{chr(97 + n // 26)}{n}q").status_code
        for n in range(MAX_REGISTRATIONS_PER_HOUR)
    ]
    assert answers == [201] * MAX_REGISTRATIONS_PER_HOUR
    assert post(world, client_name="One too many").status_code == 429
    world.clock.forward(HOUR)
    assert post(world, client_name="One too many").status_code == 201


def test_production_registration_consumes_an_initial_access_token(world: World) -> None:
    production(world)
    for token in ("", "wrong"):
        answer = post(world, token)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    token = asyncio.run(initial_access_tokens.issue(world.store, world.clock()))
    assert post(world, token, client_name="x").status_code == 400  # a failed registration does not consume it
    assert post(world, token).status_code == 201
    assert post(world, token, client_name="Lung diary").status_code == 401


def test_concurrent_uses_of_an_initial_access_token_succeed_once(world: World) -> None:
    production(world)
    token = asyncio.run(initial_access_tokens.issue(world.store, world.clock()))

    async def race() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            sent = [METADATA | {"client_name": f"Diary {word}"} for word in ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")]
            answers = await asyncio.gather(*(client.post("/oauth/register", json=one, headers=bearer(token)) for one in sent))
            return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(race())) == [201, 401, 401, 401, 401, 401]
    assert len([one for one in asyncio.run(clients.list_all(world.store)) if one.name.startswith("Diary ")]) == 1


def test_initial_access_token_expires_after_seven_days(world: World) -> None:
    production(world)
    token = asyncio.run(initial_access_tokens.issue(world.store, world.clock()))
    world.clock.forward(7 * DAY)
    assert post(world, token).status_code == 401


def test_token_confusion_access_token_cannot_register_an_app(world: World) -> None:
    token = world.tokens()["access_token"]
    assert post(world, token).status_code == 401
    production(world)
    assert post(world, token).status_code == 401


def test_open_redirect_by_self_registered_app_ends_on_error_page(world: World) -> None:
    told = made(world)
    faulty: dict[str, str | None] = {"client_id": told["client_id"], "redirect_uri": REDIRECT, "scope": "nonsense"}
    answer = world.authorize(**faulty)
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert world.authorize(scope="nonsense").status_code == 302  # positive control: a client of the operator


def test_self_registered_app_needs_pkce(world: World) -> None:
    told = made(world)
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    assert world.authorize(**given, code_challenge=None).status_code == 400
    code = world.code(**given)
    assert world.exchange(code, **given, code_verifier=CHALLENGE).status_code == 400
    assert world.exchange(code, **given, code_verifier=VERIFIER).status_code == 200
    assert query("x?code=1")["code"]
