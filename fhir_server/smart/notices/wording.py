"""What the server's messages say.

E-mail is read by others: no message names a person or anything of a record.  A user name is only in the message to someone who has asked
for it.
"""

from __future__ import annotations

from typing import Final

from fhir_server.smart.core.context import SmartContext

_SECURITY: Final = """\
The way in which you sign in to your account at {organization} was changed, or the e-mail address for codes and notices was.

If this was you, you need not do anything. If it was not, choose a new password at

  {origin}/forgot

and tell our health information office.
"""
_CODE: Final = """\
Somebody entered this e-mail address for an account at {organization}. If this was you, enter this code on the page where you did so:

  {code}

It works once, within 24 hours. If this was not you, ignore this message: without the code, the address is not used.
"""
_RECOVERY: Final = """\
Somebody asked for help with signing in to an account at {organization} that has this e-mail address. If this was you, open

  {origin}/recover

and enter a user name and the code beside it:

{codes}

Each code works once, within 24 hours. If you use two-step verification, you also need its code.

If this was not you, ignore this message. Nothing has changed.
"""
_INVITATION: Final = """\
Our health information office invites you to open an account at {organization}. To do so, open

  {origin}/join

and enter this code and your birth date:

  {code}

The code works once, within 30 days. If you did not expect this, ignore this message.
"""
_FOOT: Final = """
{organization} never asks for your password by e-mail, text message or phone. Answers to this message are not read.
"""


def security(smart: SmartContext) -> tuple[str, str]:
    """Subject and text of the notice that something about signing in was changed."""
    return "A change of your account", _written(smart, _SECURITY)


def contact_code(smart: SmartContext, code: str) -> tuple[str, str]:
    """Subject and text of the message that verifies an address."""
    return "Your code", _written(smart, _CODE, code=code)


def recovery(smart: SmartContext, codes: list[tuple[str, str]]) -> tuple[str, str]:
    """Subject and text of the message with user names and their codes."""
    lines = "\n".join(f"  User name: {username}\n  Code: {code}\n" for username, code in codes).rstrip()
    return "Signing in to your account", _written(smart, _RECOVERY, codes=lines)


def invitation(smart: SmartContext, code: str) -> tuple[str, str]:
    """Subject and text of the message with which somebody opens an account."""
    return "Your invitation", _written(smart, _INVITATION, code=code)


def _written(smart: SmartContext, text: str, **values: str) -> str:
    return (text + _FOOT).format(organization=smart.organization, origin=smart.origin, **values)
