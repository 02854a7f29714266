"""Proving once more who is at the keyboard, before anything changes by which an account is signed in to."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from fhir_server.smart.accounts import cookies, second_factor
from fhir_server.smart.accounts.password_sign_in import signed_in
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.web.forms import address


async def proven(smart: SmartContext, request: Request, user: User, form: Mapping[str, str]) -> bool:
    """Whether a form's ``password``, and its ``code`` where there is a second factor, are the account's.  Guesses are counted."""
    given = await signed_in(
        smart.store, user.username, form.get("password", ""), address(request), smart.now(), cookies.device(smart, request)
    )
    if given is None or given.subject != user.subject:
        return False
    return await second_factor.enrolled(smart, user) is None or await second_factor.accepted(smart, user, form.get("code", ""))
