"""Parameters of authorization requests: OpenID Connect Core 3.1.2.1, 5.5, 6; response modes; RFC 8707; RFC 8414."""

from __future__ import annotations

import base64
import hashlib

import pytest

from fhir_server.smart import demo
from fhir_server.smart.core.context import MINUTE, SECOND
from tests.smart.environment import BASE, ORIGIN, World, claims_of, query
from tests.smart.openid_helpers import PLAIN, PostedForm, allow_profile

DOCUMENTS = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/fhir/.well-known/smart-configuration")


def refusal(world: World, **changes: str | None) -> str:
    answer = world.authorize(**changes)
    assert answer.status_code == 302
    return query(answer.headers["location"])["error"]


def test_rfc_8414_3_metadata_is_at_the_issuers_well_known_url(world: World) -> None:
    answer = world.http.get(DOCUMENTS[0], headers={"Origin": "https://app.example"})
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json()["issuer"] == ORIGIN
    assert world.http.request("OPTIONS", DOCUMENTS[0]).status_code == 204


def test_rfc_8414_2_all_documents_have_the_same_metadata(world: World) -> None:
    plain, openid, smart = (world.http.get(path).json() for path in DOCUMENTS)
    assert plain.items() <= openid.items()
    assert plain.items() <= smart.items()
    assert plain["response_modes_supported"] == ["query", "fragment", "form_post"]
    assert plain["prompt_values_supported"] == ["none", "login", "consent", "select_account"]
    assert openid["claims_parameter_supported"] is plain["request_parameter_supported"] is plain["request_uri_parameter_supported"] is False


def test_every_endpoint_in_the_metadata_is_served(world: World) -> None:
    named = {name: url for name, url in world.http.get(DOCUMENTS[1]).json().items() if name.endswith("_endpoint")}
    assert {"userinfo_endpoint", "token_endpoint", "registration_endpoint"} <= set(named)
    for name, url in named.items():
        statuses = {world.http.request(method, url.removeprefix(ORIGIN)).status_code for method in ("GET", "POST")}
        assert statuses - {404, 405}, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("response_mode", value) for value in ("jwt", "form_post.jwt", "web_message", "Query")),
        *(("prompt", value) for value in ("bogus", "login bogus", "none login")),
        *(("max_age", value) for value in ("abc", "-1", "1.5", "٣", "9" * 30)),
        *(("display", value) for value in ("wap", "hologram")),
        ("claims", '{"userinfo": {"email": null}}'),
    ],
)
def test_core_3_1_2_6_what_is_not_understood_is_refused(world: World, name: str, value: str) -> None:
    assert refusal(world, **{name: value}) == "invalid_request"


@pytest.mark.parametrize("name", ["request", "request_uri", "registration"])
def test_core_6_1_request_objects_are_refused_by_name(world: World, name: str) -> None:
    assert refusal(world, **{name: "https://app.example/r.jwt"}) == f"{name}_not_supported"


@pytest.mark.parametrize(
    ("name", "value"),
    [("display", "popup"), ("ui_locales", "nb-NO fr"), ("max_age", "60"), ("prompt", "consent"), ("response_mode", ""), ("prompt", "")],
)
def test_core_3_1_2_1_lawful_values_lead_to_the_pages(world: World, name: str, value: str) -> None:
    assert world.authorize(**{name: value}).headers["location"].startswith("/oauth/continue")


def test_core_3_1_2_1_login_hint_fills_the_form(world: World) -> None:
    page = world.follow(world.authorize(login_hint='"><script>adult'))
    assert 'value="&#34;&gt;&lt;script&gt;adult"' in page.text
    assert "<script>" not in page.text


def test_core_3_1_2_1_max_age_asks_again_only_for_an_older_sign_in(world: World) -> None:
    world.consent_page()
    world.clock.forward(2 * MINUTE)
    assert 'name="password"' not in world.follow(world.authorize(max_age="121")).text
    assert 'name="password"' in world.follow(world.authorize(max_age="119")).text


@pytest.mark.parametrize("prompt", ["login", "select_account"])
def test_core_3_1_2_1_prompts_for_an_account_ask_for_a_sign_in(world: World, prompt: str) -> None:
    world.consent_page()
    world.clock.forward(SECOND)
    assert 'name="password"' in world.follow(world.authorize(prompt=prompt)).text


def test_fragment_response_has_no_query(world: World) -> None:
    location = world.submit(world.consent_page(response_mode="fragment"), decision="allow").headers["location"]
    assert location.startswith(f"{demo.REDIRECT}#code=")
    assert query(location.replace("#", "?"))["state"] == "s t/+%&é"
    refused = world.authorize(response_mode="fragment", aud="https://elsewhere.example").headers["location"]
    assert refused.startswith(f"{demo.REDIRECT}#error=invalid_request")


def test_form_post_2_response_is_a_form_for_the_redirect_uri(world: World) -> None:
    answer = world.submit(world.consent_page(response_mode="form_post"), decision="allow")
    form = PostedForm(answer)
    assert (answer.status_code, form.action, form.buttons) == (200, demo.REDIRECT, 1)
    assert (form.fields["state"], form.fields["iss"]) == ("s t/+%&é", ORIGIN)
    assert world.exchange(form.fields["code"]).status_code == 200


def test_form_post_page_runs_its_own_script_only(world: World) -> None:
    answer = world.submit(world.consent_page(response_mode="form_post"), decision="allow")
    script = PostedForm(answer).scripts[0]
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"


def test_form_post_error_is_posted_too(world: World) -> None:
    form = PostedForm(world.authorize(response_mode="form_post", aud="https://elsewhere.example"))
    assert (form.fields["error"], form.fields["state"]) == ("invalid_request", "s t/+%&é")


@pytest.mark.parametrize("scope", ["openid", "openid offline_access", "openid fhirUser", PLAIN])
def test_openid_scopes_need_no_aud(world: World, scope: str) -> None:
    allow_profile(world)
    assert claims_of(world.tokens(scope=scope, aud=None)["id_token"])[1]["sub"]
    assert refusal(world, scope=scope, aud="https://elsewhere.example") == "invalid_request"


@pytest.mark.parametrize("scope", ["openid patient/*.rs", "openid launch/patient", "patient/*.rs"])
def test_scopes_for_data_or_context_need_aud(world: World, scope: str) -> None:
    assert refusal(world, scope=scope, aud=None) == "invalid_request"


def test_rfc_8707_2_resource_stands_for_aud_and_must_be_this_server(world: World) -> None:
    code = world.code(aud=None, resource=BASE)
    assert world.exchange(code, resource="https://elsewhere.example").json()["error"] == "invalid_target"
    assert world.exchange(code, resource=BASE).status_code == 200
    for aud in (None, BASE):
        assert refusal(world, aud=aud, resource="https://elsewhere.example/fhir") == "invalid_target"


def test_id_token_audience_is_the_client_id_as_a_string(world: World) -> None:
    assert claims_of(world.tokens()["id_token"])[1]["aud"] == "demo-public"
