"""More of ``user``: codes with which people choose a password, lost second factors, open sessions."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import with_parts
from fhir_server.cli.users import user
from fhir_server.smart.accounts import account_events, password_codes, second_factor, users
from fhir_server.smart.accounts.password_codes import LIFE
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.security_events import SecurityEvent

DAYS = LIFE // (24 * 3600 * 1_000_000)


@user.command("password-code")
@click.argument("username")
def user_code(username: str) -> None:
    """Print a code with which the person chooses a password at /set-password; for whoever has forgotten theirs.

    Make sure who asks.  The present password works until another is chosen; a second factor is not touched.
    """

    async def make(made: Components) -> str:
        return await password_codes.issue(made.store, await _found(made, username, "password-code"), made.clock())

    click.echo(with_parts(make))
    click.echo(f"Good once, for {DAYS} days, at /set-password.", err=True)


@user.command("reset-second-factor")
@click.argument("username")
def user_forget_second_factor(username: str) -> None:
    """Take away a second factor that was lost with its recovery codes, and end the account's sessions.

    Prove the person's identity as thoroughly as when the account was opened.
    """

    async def forget(made: Components) -> None:
        found = await _found(made, username, "second-factor")
        await second_factor.remove(made.store, found)
        await account_events.record(made.store, found, "second-forgotten", made.clock())
        await made.store.key_values.delete_family(users.session_family(found.username))

    with_parts(forget)
    click.echo(f"{username} signs in without a second factor, or sets one up anew.")


@user.command("sign-out")
@click.argument("username", required=False)
@click.option("--everyone", is_flag=True, help="All accounts.")
def user_sign_out(username: str | None, everyone: bool) -> None:
    """End the open sessions of an account, or of all."""
    if bool(username) == everyone:
        raise click.UsageError("Name an account, or say --everyone.")

    async def end(made: Components) -> int:
        names = [one.username for one in await users.list_all(made.store)] if everyone else [username or ""]
        for name in names:
            await made.store.key_values.delete_family(users.session_family((await _found(made, name, "sessions")).username))
        return len(names)

    click.echo(f"Signed out everywhere: {with_parts(end)}.")


async def _found(made: Components, username: str, what: str) -> User:
    """The account, of which the journal is told that this is changed.  Raises ValueError, worded for the operator."""
    found = await users.find(made.store, username)
    if found is None:
        raise ValueError(f"There is no user {username!r}.")
    await made.smart.record(SecurityEvent("change-account", username=found.username, detail={"what": what, "by": "operator"}))
    return found
