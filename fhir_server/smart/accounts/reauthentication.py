"""Asks for the password and the second factor again before a change of how the account is signed in to."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from fhir_server.smart.accounts import cookies, password_sign_in, second_factor
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext, digest
from fhir_server.web.forms import address


async def reauthenticate(smart: SmartContext, request: Request, user: User, form: Mapping[str, str]) -> bool:
    """Check the form's ``password`` and, if the account has a second factor, its ``code``.  Counts the attempts."""
    device = cookies.device_cookie(smart, request)
    browser, password = digest(cookies.session_cookie(smart, request)), form.get("password", "")
    tried = await password_sign_in.attempt(smart.store, user.username, password, address(request), smart.now(), device, browser)
    account = tried.user
    if account is None or account.subject != user.subject:
        return False
    if await second_factor.find_factor(smart, user) is None:
        return True
    return await second_factor.verify_code(smart, user, form.get("code", ""), device)
