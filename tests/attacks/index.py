"""The tests that show that an attack fails: for each attack, the prefixes of the names of its tests.

An attack that is a requirement of the specification too has its tests there, under that number; ``tests/conformance``
puts both in the report, and a test there holds this list to the tests there are.
"""

from __future__ import annotations

from typing import Final

ATTACKS: Final[dict[str, tuple[str, ...]]] = {
    "An authorization code is replayed or redeemed concurrently": (
        "test_code_replay",
        "test_smart_45_replayed",
        "test_smart_45_concurrent",
    ),
    "An authorization code is injected into another session": ("test_code_injection",),
    "PKCE is missing, blank, wrong, plain or downgraded": ("test_smart_34", "test_smart_38", "test_pkce_downgrade"),
    "An authorization code is used by another client": ("test_code_of_one_client", "test_smart_44", "test_smart_45_a_code_is_bound"),
    "A redirect URI is varied": ("test_redirect_uri", "test_smart_30_an_unregistered"),
    "Authorization servers are mixed up": ("test_mix_up", "test_federation_mix_up", "test_federation_wrong_or_missing_iss"),
    "A form is submitted by another site (CSRF)": ("test_csrf",),
    "A person is signed in to another account (login CSRF)": ("test_login_csrf", "test_federation_response_in_another_browser"),
    "A page is framed or cached, or leaks its URL": ("test_clickjacking", "test_cache_headers"),
    "A session is fixed or planted": ("test_session_fixation",),
    "A cookie is read or sent in the wrong place": ("test_cookie_flags", "test_cors"),
    "A person is redirected to another site (open redirect)": ("test_open_redirect",),
    "An assertion is forged, expired, replayed, misdirected or malformed": ("test_smart_89", "test_assertions", "test_federation_forged"),
    "An algorithm is swapped: none, or a public key as secret": (
        *("test_smart_89_unsigned", "test_token_confusion_public_key", "test_federation_public_key", "test_federation_shared_secret"),
    ),
    "The server is made to fetch internal URLs (SSRF)": ("test_ssrf", "test_federation_discovery"),
    "A refresh token is stolen": (
        *("test_refresh_token_theft", "test_refresh_token_reuse", "test_concurrent_refreshes", "test_smart_84"),
        *("test_refresh_replay", "test_parallel_refreshes", "test_race_of_refreshes"),
    ),
    "Requests of people who have not signed in fill the store": ("test_parked_requests",),
    "A client is shut out by the failures of others": ("test_shut_out",),
    "A scope condition probes hidden resources, or is not applied to writes": ("test_scope_conditions", "test_scope_levels"),
    "A grant is used while it is being revoked": ("test_revocation_race", "test_revocation_at_one_process"),
    "Scopes are widened at refresh, at consent or by malformed text": (
        "test_scope_escalation",
        "test_smart_63",
        "test_refresh_with_wider_scope",
    ),
    "Another client's launch is used": ("test_smart_30_a_launch_for_another_client", "test_smart_30_57"),
    "A token is sent in a query string": ("test_token_in_query_string", "test_credentials_in_query_string"),
    "One kind of token is used as another": ("test_token_confusion",),
    "A password is guessed": ("test_password_guessing",),
    "A second factor is guessed, replayed or bypassed": (
        *("test_pending_second_factor", "test_second_factor_guessing", "test_one_time_code_is_accepted_once"),
        *("test_concurrent_second_factor_code", "test_concurrent_password_code"),
    ),
    "A code, token or client secret is guessed": (
        *("test_issued_secrets", "test_client_secret_guessing", "test_introspection_guessing"),
        *("test_guessing_", "test_parallel_guesses"),
        *("test_initial_access_token_guessing", "test_activation_code_guessing"),
        *("test_who_guesses_birth_dates", "test_guesses_of_a_birth_date"),
    ),
    "Usernames are enumerated by text or by timing": ("test_user_enumeration",),
    "A script is injected into a page": ("test_script_injection", "test_sign_in_page_escapes", "test_federation_error_description"),
    "Responses are split by line breaks": ("test_response_splitting",),
    "Parameters are repeated or placed in the wrong part": (
        "test_duplicate_parameters",
        "test_parameter_pollution",
        "test_federation_repeated_parameter",
    ),
    "A token that is bound to a key is stolen, replayed or downgraded": ("test_bound_token", "test_dpop"),
    "A pushed request is stolen or used twice": ("test_pushed_request",),
    "Userinfo is read with a token for data, or without one": ("test_userinfo_needs", "test_userinfo_ignores"),
    "The server is flooded": ("test_huge_bodies", "test_flood", "test_forged_assertions_do_not_flood"),
    "A federated sign-in is forged or replayed": ("test_federation",),
    "Secrets are read from the store or the log": (
        *("test_secrets_are_not_stored", "test_no_token_reaches_the_log", "test_code_verifier_is_not_stored"),
    ),
}
