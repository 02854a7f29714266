"""Which tests show that an attack fails: the attacks by name, and for each the beginnings of the names of its tests.

An attack that is a requirement of the specification too has its tests there, under that number; ``tests/conformance``
puts both in the report, and a test there holds this list to the tests there are.
"""

from __future__ import annotations

from typing import Final

ATTACKS: Final[dict[str, tuple[str, ...]]] = {
    "A code is replayed, or redeemed twice at once": ("test_code_replay", "test_smart_45_a_replayed", "test_smart_45_of_parallel"),
    "A code is injected into another session": ("test_code_injection",),
    "PKCE is left out, blank, wrong, plain or downgraded": ("test_smart_34", "test_smart_38", "test_pkce_downgrade"),
    "A code is used by another client": ("test_a_code_of_one_client", "test_smart_44", "test_smart_45_a_code_is_bound"),
    "A redirect URI is varied": ("test_redirect_uri", "test_smart_30_an_unregistered", "test_redirect_uris_are_https"),
    "Servers are mixed up": (
        "test_mix_up",
        "test_elsewhere_mix_up",
        "test_elsewhere_an_answer_in_the_name",
        "test_an_answer_of_another_issuer",
    ),
    "A form is sent by another site (CSRF)": ("test_csrf", "test_a_form_of_another_browser", "test_forms_of_another_site"),
    "A person is signed in as somebody else (login CSRF)": ("test_login_csrf", "test_elsewhere_an_answer_in_another_browser"),
    "A page is framed, cached, or leaks its address": ("test_clickjacking", "test_cache_headers"),
    "A session is fixed or planted": ("test_session_fixation", "test_signing_in_anew"),
    "A cookie is read or sent where it should not be": ("test_cookie_flags", "test_cors"),
    "A person is sent elsewhere (open redirect)": ("test_open_redirect",),
    "An assertion is forged, expired, replayed, misdirected or misshapen": ("test_smart_89", "test_assertions", "test_elsewhere_a_forged"),
    "An algorithm is swapped: none, or a public key as secret": (
        *("test_smart_89_unsigned", "test_token_confusion_our_public_key", "test_elsewhere_a_public_key", "test_elsewhere_a_shared_secret"),
    ),
    "We are made to ask addresses inside our network (SSRF)": (
        "test_ssrf",
        "test_elsewhere_a_discovery_document",
        "test_discovery_that_points",
    ),
    "A refresh token is stolen": ("test_refresh_token_theft", "test_a_reused_refresh_token", "test_of_parallel_refreshes", "test_smart_84"),
    "A scope's condition asks for hidden rows, or does not hold for writes": ("test_scope_conditions", "test_scope_levels"),
    "A grant is kept alive while it is being ended": ("test_revocation_race",),
    "Scopes are stretched at refresh, at consent or by their spelling": (
        "test_scope_escalation",
        "test_smart_63",
        "test_refresh_with_wider_scope_is_refused",
    ),
    "Another client's launch is used": ("test_smart_30_a_launch_for_another_client", "test_smart_30_57"),
    "A token is sent in a query string": ("test_a_token_in_the_query_string", "test_credentials_in_the_query"),
    "One kind of token is used for another": ("test_token_confusion", "test_a_token_is_no_code", "test_token_confusion_access_token_cannot_register_an_app"),
    "A password is guessed": ("test_password_guessing",),
    "A second factor is guessed, replayed or stepped around": (
        *("test_half_a_sign_in", "test_codes_cannot_be_guessed", "test_a_code_counts_once", "test_of_parallel_uses_of_one_code"),
    ),
    "A code, token or client secret is guessed": (
        *(
            "test_nothing_that_opens_anything",
            "test_client_secret_guessing",
            "test_introspection_guessing",
            "test_registration_code_guessing",
        ),
        *("test_after_too_many_guesses", "test_unknown_used_expired_and_too_many"),
    ),
    "Who has an account is asked, by text or by timing": ("test_user_enumeration",),
    "A script is put into a page": ("test_script_injection", "test_sign_in_page_escapes_query_parameters", "test_elsewhere_what_a_provider_says"),
    "Answers are split by line breaks": ("test_response_splitting",),
    "Parameters are repeated or scattered": (
        "test_duplicate_parameters",
        "test_parameter_pollution",
        "test_elsewhere_a_repeated_parameter",
    ),
    "The server is flooded": ("test_huge_bodies", "test_a_flood", "test_made_up_assertions_cannot"),
    "Another provider's sign-in is forged or replayed": ("test_elsewhere",),
    "Secrets are read out of the store or the log": ("test_secrets_are_kept", "test_no_token_reaches_the_log", "test_a_verifier_is_never"),
}
