"""Asks for the password and the second factor again before a change of how the account is signed in to."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from fhir_server.smart.accounts import cookies, second_factor
from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.web.forms import address


async def reauthenticate(smart: SmartContext, request: Request, user: User, form: Mapping[str, str]) -> bool:
    """Check the form's ``password`` and, if the account has a second factor, its ``code``.  Counts the attempts."""
    account = await check_password_sign_in(
        smart.store, user.username, form.get("password", ""), address(request), smart.now(), cookies.device_cookie(smart, request)
    )
    if account is None or account.subject != user.subject:
        return False
    return await second_factor.find_factor(smart, user) is None or await second_factor.verify_code(smart, user, form.get("code", ""))
