"""Forms that are sent without a session: by a person who signs in, recovers an account, or opens one."""

from __future__ import annotations

from fastapi import Request, Response

from fhir_server.smart.accounts import cookies
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.pages import render
from fhir_server.web.forms import FORGED_FORM, BadFormError, read_form


async def read_own_form(smart: SmartContext, request: Request) -> dict[str, str] | Response:
    """The fields of a form that this browser opened; or the page that refuses the request: 400 for no form, 403 for a forged one."""
    try:
        form = dict(await read_form(request))
    except BadFormError as error:
        return render(smart, "error.html", 400, text=str(error), detail="")
    if not cookies.is_own_form(smart, request, form.get("token", "")):
        return render(smart, "error.html", 403, text=FORGED_FORM, detail="")
    return form
