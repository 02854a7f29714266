"""Apps that register themselves: RFC 7591 and 7592, software statements, and the page for developers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from fhir_server.smart.apps import clients, invitations, publishers
from fhir_server.smart.apps.clients import Client
from fhir_server.smart.apps.naming import claims, imitates, readable
from fhir_server.smart.apps.publishers import Publisher
from fhir_server.smart.apps.registration_routes import PER_ADDRESS
from fhir_server.smart.core import DAY, HOUR, SECOND
from tests.smart.world import CHALLENGE, ORIGIN, VERIFIER, Page, World, claims_of, private_keys, query

REDIRECT = "https://app.example/callback"
METADATA = {"client_name": "Heart diary", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}


def post(world: World, token: str = "", **changes: Any) -> httpx.Response:
    body = {name: value for name, value in (METADATA | changes).items() if value is not None}
    return world.http.post("/oauth/register", json=body, headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def made(world: World, **changes: Any) -> dict[str, Any]:
    answer = post(world, **changes)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def find(world: World, client_id: str) -> Client | None:
    return asyncio.run(clients.find(world.store, client_id))


def path(told: dict[str, Any]) -> str:
    return str(told["registration_client_uri"]).removeprefix(ORIGIN)


def production(world: World) -> None:
    object.__setattr__(world.smart, "mode", "production")


# registering


def test_an_app_that_registered_itself_works_like_any_other(world: World) -> None:
    told = made(world, scope="openid fhirUser launch/patient offline_access patient/*.rs", client_uri="https://app.example")
    assert told["redirect_uris"] == [REDIRECT]
    assert told["client_id_issued_at"] == world.clock() // SECOND
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    tokens = world.exchange(world.code(**given), **given).json()
    assert tokens["patient"] == "adult"
    assert claims_of(tokens["id_token"])[1]["aud"] == [told["client_id"]] or claims_of(tokens["id_token"])[1]["aud"] == told["client_id"]
    assert world.refresh(tokens["refresh_token"], client_id=told["client_id"]).status_code == 200


def test_a_confidential_app_gets_a_secret_that_is_kept_as_a_digest(world: World) -> None:
    told = made(world, token_endpoint_auth_method=None)
    assert (told["token_endpoint_auth_method"], told["client_secret_expires_at"]) == ("client_secret_basic", 0)
    kept = find(world, told["client_id"])
    assert kept is not None
    assert kept.secret_fits(told["client_secret"])
    assert told["client_secret"] not in repr(kept)
    assert told["registration_access_token"] not in repr(kept)
    code = world.code(client_id=told["client_id"], redirect_uri=REDIRECT)
    assert world.exchange(code, (told["client_id"], told["client_secret"]), redirect_uri=REDIRECT).status_code == 200


def test_an_app_may_prove_itself_by_a_key(world: World) -> None:
    jwks = private_keys(world.store, "demo-asymmetric").as_dict(private=False)
    told = made(world, token_endpoint_auth_method="private_key_jwt", jwks=jwks)
    assert told["jwks"] == jwks
    told = made(world, client_name="Lung diary", token_endpoint_auth_method="private_key_jwt", jwks_uri="https://app.example/jwks")
    assert told["jwks_uri"] == "https://app.example/jwks"


def test_no_answer_is_stored_and_any_origin_may_register(world: World) -> None:
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
def test_it_gets_scopes_of_persons_and_never_of_systems(world: World, scope: str | None, granted: str) -> None:
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
def test_what_only_an_operator_decides_is_not_read_from_metadata(world: World, forged: dict[str, Any]) -> None:
    told = made(world, **forged)
    kept = find(world, told["client_id"])
    assert kept is not None
    assert told["client_id"].startswith("app-")
    assert (kept.kind, kept.clearance, kept.trusted, kept.secret) == ("app", (), False, "")


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
def test_redirect_uris_are_https_or_on_ones_own_device(world: World, uri: str) -> None:
    answer = post(world, redirect_uris=[REDIRECT, uri])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:8765/cb", "http://[::1]/cb", "http://localhost:3000/", "https://app.example/cb?x=1"])
def test_addresses_on_ones_own_device_will_do(world: World, uri: str) -> None:
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
def test_metadata_that_cannot_be_meant_is_refused(world: World, changes: dict[str, Any]) -> None:
    before = len(asyncio.run(clients.everyone(world.store)))
    answer = post(world, **changes)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_client_metadata", "invalid_redirect_uri")
    assert len(asyncio.run(clients.everyone(world.store))) == before


def test_a_private_key_sent_by_mistake_is_refused_and_not_kept(world: World) -> None:
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
def test_what_is_no_metadata_at_all_is_a_refusal_and_not_a_fault(world: World, body: bytes, type: str) -> None:
    answer = world.http.post("/oauth/register", content=body, headers={"Content-Type": type})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    large = world.http.post("/oauth/register", content=b" " * 70_000, headers={"Content-Type": "application/json"})
    assert large.status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        *("Demo phone app", "DEMO PHONE APP", "Demo-phone-app", "Dеmo phоne app", "Demo phone аpp", "Démo phone app", "Demo ph0ne app"),
        *("Neighbour Health portal", "Neighbour Hea1th portaI", "Demo Health", "Official Demo Health app", "ＤＥＭＯ phone app"),
    ],
)
def test_a_name_cannot_be_taken_for_another(world: World, name: str) -> None:
    answer = post(world, client_name=name)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


def test_two_apps_cannot_register_one_name(world: World) -> None:
    made(world)
    assert post(world, client_name="heart  diary".replace("  ", " ")).status_code == 400
    made(world, client_name="Lung diary")


def test_of_registrations_made_at_once_under_names_that_look_alike_one_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known = clients.everyone

    async def slow(store: Any) -> Any:
        """As from a store that is asked over a network: others come in between."""
        found = await known(store)
        await asyncio.sleep(0.01)
        return found

    monkeypatch.setattr(clients, "everyone", slow)
    names = ["Heart diary", "heart diary", "HEART DIARY", "Heart-diary", "Hеart diary", "Heart dіary"]

    async def race() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            sent = (client.post("/oauth/register", json=METADATA | {"client_name": name}) for name in names)
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert sorted(asyncio.run(race())) == [201] + [400] * (len(names) - 1)
    made(world, client_name="Lung diary")
    assert post(world, client_name="Heart diary").status_code == 400


def test_names_of_other_alphabets_are_names() -> None:
    assert readable("Дневник сердца") and readable("心臓日記")
    assert not imitates("心臓日記", "Дневник сердца")
    assert not claims("Heart diary", "")


def test_registrations_from_one_address_are_limited(world: World) -> None:
    answers = [post(world, client_name=f"Diary number {chr(97 + n % 26)}{chr(97 + n // 26)}{n}q").status_code for n in range(PER_ADDRESS)]
    assert answers == [201] * PER_ADDRESS
    assert post(world, client_name="One too many").status_code == 429
    world.clock.forward(HOUR)
    assert post(world, client_name="One too many").status_code == 201


# outside a demo


def test_outside_a_demo_an_initial_access_token_is_needed_and_good_for_one_app(world: World) -> None:
    production(world)
    for token in ("", "wrong"):
        answer = post(world, token)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    token = asyncio.run(invitations.invite(world.store, world.clock()))
    assert post(world, token, client_name="x").status_code == 400  # a slip does not use it up
    assert post(world, token).status_code == 201
    assert post(world, token, client_name="Lung diary").status_code == 401


def test_of_parallel_registrations_with_one_token_exactly_one_wins(world: World) -> None:
    production(world)
    token = asyncio.run(invitations.invite(world.store, world.clock()))

    async def race() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            sent = [METADATA | {"client_name": f"Diary {word}"} for word in ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")]
            answers = await asyncio.gather(*(client.post("/oauth/register", json=one, headers=bearer(token)) for one in sent))
            return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(race())) == [201, 401, 401, 401, 401, 401]
    assert len([one for one in asyncio.run(clients.everyone(world.store)) if one.name.startswith("Diary ")]) == 1


def test_an_invitation_runs_out(world: World) -> None:
    production(world)
    token = asyncio.run(invitations.invite(world.store, world.clock()))
    world.clock.forward(7 * DAY)
    assert post(world, token).status_code == 401


def test_an_access_token_is_no_invitation(world: World) -> None:
    token = world.tokens()["access_token"]
    assert post(world, token).status_code == 401
    production(world)
    assert post(world, token).status_code == 401


# looking after a registration


def test_an_app_reads_changes_and_ends_its_registration(world: World) -> None:
    told = made(world, scope="launch/patient patient/*.rs")
    token = told["registration_access_token"]
    read = world.http.get(path(told), headers=bearer(token))
    assert (read.status_code, read.json()) == (200, told)
    changed = METADATA | {"client_id": told["client_id"], "client_name": "Heart diary 2", "scope": "launch/patient patient/Patient.rs"}
    answer = world.http.request("PUT", path(told), json=changed, headers=bearer(token))
    assert (answer.status_code, answer.json()["client_name"], answer.json()["scope"]) == (200, "Heart diary 2", changed["scope"])
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    tokens = world.exchange(world.code(**given), **given).json()
    assert world.http.request("DELETE", path(told), headers=bearer(token)).status_code == 204
    assert find(world, told["client_id"]) is None
    assert world.principal(tokens["access_token"]) is None
    assert world.http.get(path(told), headers=bearer(token)).status_code == 401


def test_what_an_update_leaves_out_goes(world: World) -> None:
    told = made(world, client_uri="https://app.example", contacts=["me@app.example"])
    changed = METADATA | {"client_id": told["client_id"]}
    answer = world.http.request("PUT", path(told), json=changed, headers=bearer(told["registration_access_token"])).json()
    assert not {"client_uri", "contacts"} & answer.keys()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_its_own_token_opens_a_registration(world: World, method: str) -> None:
    told, other = made(world), made(world, client_name="Lung diary")
    body = METADATA | {"client_id": told["client_id"]}
    tokens = ("", "wrong", other["registration_access_token"], asyncio.run(invitations.invite(world.store, world.clock())))
    for token in tokens:
        answer = world.http.request(method, path(told), json=body, headers=bearer(token))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        unknown = world.http.request(method, "/oauth/register/nobody", json=body, headers=bearer(token))
        assert (unknown.status_code, unknown.content) == (answer.status_code, answer.content)
    operators = world.http.request(method, "/oauth/register/demo-public", json=body, headers=bearer(""))
    assert operators.status_code == 401
    assert find(world, told["client_id"]) and find(world, "demo-public")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "demo-public"},
        {"registration_access_token": "x"},
        {"registration_client_uri": "x"},
        {"client_id_issued_at": 1},
        {"client_secret": "chosen by the app, which it may not"},
        {"client_name": "Demo phone app"},
        {"redirect_uris": ["http://evil.example/"]},
        {"scope": "system/*.rs"},
    ],
    ids=repr,
)
def test_an_update_cannot_do_what_a_registration_could_not(world: World, changes: dict[str, Any]) -> None:
    told = made(world)
    before = find(world, told["client_id"])
    body = {name: value for name, value in (METADATA | {"client_id": told["client_id"]} | changes).items() if value is not None}
    answer = world.http.request("PUT", path(told), json=body, headers=bearer(told["registration_access_token"]))
    assert answer.status_code == 400
    assert find(world, told["client_id"]) == before


def test_an_update_keeps_the_secret_and_never_grants_more_to_tokens_there_are(world: World) -> None:
    told = made(world, token_endpoint_auth_method="client_secret_post", scope="launch/patient patient/Patient.rs")
    token, auth = told["registration_access_token"], (told["client_id"], told["client_secret"])
    first = world.exchange(world.code(client_id=auth[0], redirect_uri=REDIRECT), auth, redirect_uri=REDIRECT).json()
    body = METADATA | {
        "client_id": auth[0],
        "client_secret": auth[1],
        "token_endpoint_auth_method": "client_secret_post",
        "scope": "patient/*.cruds",
    }
    answer = world.http.request("PUT", path(told), json=body, headers=bearer(token))
    assert answer.status_code == 200
    assert "client_secret" not in answer.json()
    assert [scope.text for scope in world.principal(first["access_token"]).scopes] == ["patient/Patient.rs"]
    assert world.exchange(world.code(client_id=auth[0], redirect_uri=REDIRECT), auth, redirect_uri=REDIRECT).status_code == 200


# software statements


def signed(world: World, key: ECKey, **changes: Any) -> str:
    stated = {"iss": "https://publisher.example", "client_name": "Vouched diary", "software_id": "s-1"} | changes
    header = {"alg": "ES384", "kid": key.kid}
    return jwt.encode(header, {name: value for name, value in stated.items() if value is not None}, key, algorithms=["ES384"])


@pytest.fixture
def key(world: World) -> ECKey:
    made = ECKey.generate_key("P-384", {"alg": "ES384"}, auto_kid=True)
    publisher = Publisher("https://publisher.example", dict(KeySet([made]).as_dict(private=False)))
    asyncio.run(publishers.trust(world.store, publisher))
    return made


def test_what_a_trusted_publisher_states_counts_more_than_what_the_app_says(world: World, key: ECKey) -> None:
    statement = signed(world, key, scope="launch/patient patient/Patient.rs")
    told = made(world, software_statement=statement, scope="patient/*.cruds")
    assert (told["client_name"], told["scope"], told["software_id"]) == ("Vouched diary", "launch/patient patient/Patient.rs", "s-1")
    assert told["software_statement"] == statement
    kept = find(world, told["client_id"])
    assert kept is not None
    assert kept.publisher == "https://publisher.example"


def test_a_statement_cannot_state_what_no_app_may_have(world: World, key: ECKey) -> None:
    assert post(world, software_statement=signed(world, key, scope="system/*.rs")).status_code == 400
    assert post(world, software_statement=signed(world, key, client_name="Demo Health")).status_code == 400
    told = made(world, software_statement=signed(world, key, clearance=["*"], trusted=True, kind="backend"))
    kept = find(world, told["client_id"])
    assert kept is not None
    assert (kept.kind, kept.clearance, kept.trusted) == ("app", (), False)


def test_a_statement_by_somebody_else_or_of_another_time_is_refused(world: World, key: ECKey) -> None:
    now = world.clock() // SECOND
    other = ECKey.generate_key("P-384", {"kid": key.kid})
    refused = {
        signed(world, key, iss="https://other.example"): "unapproved_software_statement",
        signed(world, key, iss=None): "unapproved_software_statement",
        signed(world, other): "invalid_software_statement",
        signed(world, key, exp=now): "invalid_software_statement",
        signed(world, key, exp="never"): "invalid_software_statement",
        signed(world, key, nbf=now + 60): "invalid_software_statement",
        "a.b.c": "invalid_software_statement",
        "eyJhbGciOiJub25lIn0." + signed(world, key).split(".")[1] + ".": "invalid_software_statement",
    }
    for statement, error in refused.items():
        answer = post(world, software_statement=statement)
        assert (answer.status_code, answer.json()["error"]) == (400, error), statement
    assert asyncio.run(publishers.distrust(world.store, "https://publisher.example"))
    assert post(world, software_statement=signed(world, key)).json()["error"] == "unapproved_software_statement"


# nobody is sent to an address that anybody could have chosen


def test_open_redirect_a_faulty_request_of_a_self_registered_app_ends_on_our_page(world: World) -> None:
    told = made(world)
    faulty: dict[str, str | None] = {"client_id": told["client_id"], "redirect_uri": REDIRECT, "scope": "nonsense"}
    answer = world.authorize(**faulty)
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert world.authorize(scope="nonsense").status_code == 302  # the control: an operator's own client is answered


# the page


def test_a_developer_registers_on_a_page_and_sees_the_secret_once(world: World) -> None:
    page = world.http.get("/register-app")
    answer = world.submit(page, name="Heart diary", redirects=REDIRECT, homepage="", method="client_secret_basic")
    assert answer.status_code == 200
    client_id = re.search(r"app-[A-Za-z0-9_-]{22}", answer.text)
    assert client_id
    kept = find(world, client_id[0])
    assert kept is not None
    secret = re.search(r"Client secret</dt><dd><code>([^<]+)<", answer.text)
    assert secret and kept.secret_fits(secret[1])
    assert "no-store" in answer.headers["cache-control"]
    given = {"client_id": client_id[0], "redirect_uri": REDIRECT, "scope": kept.scopes.replace(" launch ", " ")}
    assert world.exchange(world.code(**given), (client_id[0], secret[1]), redirect_uri=REDIRECT).status_code == 200


def test_the_page_says_what_is_wrong_and_keeps_what_was_typed(world: World) -> None:
    page = world.http.get("/register-app")
    answer = world.submit(page, name="Demo phone app", redirects='https://app.example/"><script>', homepage="", method="none")
    assert answer.status_code == 400
    assert "There is a problem" in answer.text
    assert "Demo phone app" in answer.text
    assert "<script>" not in answer.text


def test_the_page_takes_no_form_from_elsewhere(world: World) -> None:
    form = {"name": "Heart diary", "redirects": REDIRECT, "method": "none", "token": "x", "scope": "patient/*.rs"}
    assert world.http.post("/register-app", data=form).status_code == 403
    page = world.http.get("/register-app")
    assert world.browser().post("/register-app", data=form | {"token": dict(Page(page.text).sent)["token"]}).status_code == 403


def test_outside_a_demo_the_page_needs_a_registration_code(world: World) -> None:
    production(world)
    page = world.http.get("/register-app")
    fields = {"name": "Heart diary", "redirects": REDIRECT, "homepage": "", "method": "none"}
    assert "Registration code" in page.text
    for wrong in ("", "wrong"):
        assert world.submit(page, invitation=wrong, **fields).status_code == 400
    token = asyncio.run(invitations.invite(world.store, world.clock()))
    assert world.submit(page, invitation=token, **fields).status_code == 200
    assert world.submit(page, invitation=token, **fields | {"name": "Lung diary"}).status_code == 400


def test_the_code_flow_of_a_self_registered_app_needs_pkce_too(world: World) -> None:
    told = made(world)
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    assert world.authorize(**given, code_challenge=None).status_code == 400
    code = world.code(**given)
    assert world.exchange(code, **given, code_verifier=CHALLENGE).status_code == 400
    assert world.exchange(code, **given, code_verifier=VERIFIER).status_code == 200
    assert query("x?code=1")["code"]
