"""``user``: accounts of people, their password-setup codes, second factors and sessions."""

from __future__ import annotations

from datetime import date, datetime
from functools import partial

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components
from fhir_server.linking import links
from fhir_server.linking.context import LinkingContext
from fhir_server.smart.accounts import account_codes, account_events, administration, password_codes, second_factor, users
from fhir_server.smart.accounts.account_codes import Opening
from fhir_server.smart.accounts.password_codes import LIFE
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import notice_queue, session_ends
from fhir_server.smart.core.context import DAY, new_secret
from fhir_server.smart.core.persons import Role
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.notices import addresses, contacts

ROLES = ("patient", "clinician", "billing", "privacy")
CODE_DAYS = LIFE // (24 * 3600 * 1_000_000)


@main.group()
def user() -> None:
    """Manage people's accounts."""


@user.command("add")
@click.argument("username")
@click.option("--role", type=click.Choice(ROLES), default="patient", show_default=True)
@click.option("--name", default="", help="Name to display.  [default: none]")
@click.option("--patient", help="Id of the person's own Patient.")
@click.option("--practitioner", help="Id of the person's Practitioner.")
@click.option("--related-person", "related", multiple=True, help="Id of a RelatedPerson that is this person; may be repeated.")
@click.option("--password", help="Password, for tests.  [default: the person chooses one with a password-setup code]")
def add_user(
    username: str, role: Role, name: str, patient: str | None, practitioner: str | None, related: tuple[str, ...], password: str | None
) -> None:
    """Create an account and print a one-time password-setup code for /set-password."""

    async def add(components: Components) -> str:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        about = [("Patient", patient), ("Practitioner", practitioner), *(("RelatedPerson", id) for id in related)]
        await administration.require_unused(components.store, *(f"{type}/{id}" for type, id in about if id))
        initial = password or new_secret()  # a random secret that is not stored: no password works until one is chosen
        account = await users.create(
            components.store, username, initial, role, name=name, patient=patient, practitioner=practitioner, related_persons=related,
            rules=components.smart.passwords,
        )  # fmt: skip
        event = SecurityEvent("add-user", username=account.username, about=patient_references(patient), detail={"role": role})
        await components.smart.record(event)
        return "" if password else await password_codes.issue(components.store, account, components.clock())

    code = run_with_components(add)
    if code:
        click.echo(code)
        click.echo(f"Created {username}. The code works once, within {CODE_DAYS} days, at /set-password.", err=True)
    else:
        click.echo(f"Created {username}.", err=True)


@user.command("invite")
@click.argument("patient")
@click.option("--name", required=True, help="The person's name, as pages show it.")
@click.option("--born", required=True, metavar="YYYY-MM-DD", help="Birth date, which the person must enter with the code.")
@click.option("--email", help="Send the code there.  [default: print it]")
def invite(patient: str, name: str, born: str, email: str | None) -> None:
    """Let a patient of 18 years or more open an account at /join, with a user name of their choice.  PATIENT is the id of their Patient.

    Verify the person's identity first, and that the e-mail address is theirs.  Another code for the same patient replaces an earlier one.
    """

    async def issue(components: Components) -> str:
        await components.auditor.prepare()
        day = _adult_birth_date(born, components)
        await administration.require_unused(components.store, f"Patient/{patient}")
        opening = Opening(patient, administration.displayable(name), account_codes.born_of(patient, day))
        event = SecurityEvent(
            "new-code", about=patient_references(patient), detail={"for": "account", "by": "mail" if email else "operator"}
        )
        if email is None:
            await components.smart.record(event)
            return await account_codes.issue(components.store, opening, components.clock())
        detail = {"patient": patient, "name": opening.name, "born": opening.born}
        if not components.smart.mail.is_available:
            raise ValueError("This server sends no e-mail. Leave --email out to print the code.")
        address = addresses.parse(email)
        await components.smart.record(event)
        await notice_queue.add(components.store, "invitation", address=address, detail=detail)
        return ""

    code = run_with_components(issue)
    if code:
        click.echo(code)
        click.echo(f"The code works once, within {account_codes.LIFE // DAY} days, with the birth date, at /join.", err=True)
    else:
        click.echo(
            f"The server sends the code to {email}.  It works once, within {account_codes.MAILED_LIFE // DAY} days, with the birth date."
        )


def _adult_birth_date(text: str, components: Components) -> date:
    """Raises ValueError, with a message for the operator, for what is no birth date of an adult."""
    try:
        born = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date such as 1980-01-31.") from None
    today = datetime.fromtimestamp(components.clock() / 1_000_000, components.policy.timezone).date()
    if (today.year - 18, today.month, today.day) < (born.year, born.month, born.day):
        raise ValueError("The person is under 18. Parents read the record of a minor with their own accounts.")
    return born


@user.command("list")
def list_users() -> None:
    """List the accounts with their roles and FHIR resources."""
    for account in run_with_components(lambda components: users.list_all(components.store)):
        resources = [account.patient and f"Patient/{account.patient}", account.practitioner and f"Practitioner/{account.practitioner}"]
        resources += [f"RelatedPerson/{id}" for id in account.related_persons]
        locked = "locked    " if account.disabled else ""
        click.echo(f"{account.username:20} {account.role:10} {locked}{' '.join(resource for resource in resources if resource)}")


@user.command("remove")
@click.argument("username")
def remove_user(username: str) -> None:
    """Delete an account.  Its tokens, sessions and links to other organizations end at once."""

    async def remove(components: Components) -> bool:
        account = await users.find(components.store, username)
        if account is not None:
            await links.unlink_all(LinkingContext(components.smart), account)
            await components.smart.record(SecurityEvent("remove-user", username=account.username))
        try:
            return await users.remove(components.store, username, components.clock())
        except TimeoutError:
            raise ValueError("Another process is changing this account. Try again.") from None

    if not run_with_components(remove):
        raise click.ClickException(f"There is no user {username!r}.")
    click.echo(f"Removed {username}.")


@user.command("password-code")
@click.argument("username")
def issue_password_code(username: str) -> None:
    """Print a one-time password-setup code for a new account or a forgotten password.

    Verify the person's identity first.  The current password works until the person chooses another.
    The code does not change the second factor.
    """

    async def issue(components: Components) -> str:
        account = await _account_to_change(components, username, "password-code")
        return await password_codes.issue(components.store, account, components.clock())

    click.echo(run_with_components(issue))
    click.echo(f"The code works once, within {CODE_DAYS} days, at /set-password.", err=True)


@user.command("email")
@click.argument("username")
@click.argument("address", required=False)
def set_email(username: str, address: str | None) -> None:
    """Set the e-mail address of an account for codes and notices, or remove it if no ADDRESS is given.

    Verify the person's identity, and that the address is theirs: with a code that is sent there, a forgotten password can be replaced.
    """

    async def change(components: Components) -> str:
        parsed = addresses.parse(address) if address is not None else ""
        account, now = await _account_to_change(components, username, "contact"), components.clock()
        if parsed:
            await contacts.save(components.store, account, parsed, now)
        else:
            await contacts.remove(components.store, account, now)
        return parsed

    stored = run_with_components(change)
    click.echo(f"The e-mail address of {username} is {stored}." if stored else f"{username} has no e-mail address now.")


@user.command("reset-second-factor")
@click.argument("username")
def reset_second_factor(username: str) -> None:
    """Remove a lost second factor with its recovery codes, and end the account's sessions.

    Verify the person's identity as thoroughly as for a new account.
    """

    async def reset(components: Components) -> None:
        account = await _account_to_change(components, username, "second-factor")
        await second_factor.remove(components.store, account)
        await account_events.record(components.store, account, "second-forgotten", components.clock())
        await session_ends.end_all(components.store, account.username)

    run_with_components(reset)
    click.echo(f"Removed the second factor of {username}.")


@user.command("sign-out")
@click.argument("username", required=False)
@click.option("--everyone", "all_accounts", is_flag=True, help="End the sessions of all accounts.")
def sign_out(username: str | None, all_accounts: bool) -> None:
    """End all sessions of an account, or of every account."""
    if bool(username) == all_accounts:
        raise click.UsageError("Give a USERNAME or --everyone.")
    count = run_with_components(partial(_end_sessions, username=username) if username else _end_all_sessions)
    click.echo(f"Accounts signed out: {count}.")


async def _end_all_sessions(components: Components) -> int:
    """End the sessions of all accounts and return the number of accounts."""
    return sum([await _end_sessions(components, account.username) for account in await users.list_all(components.store)])


async def _end_sessions(components: Components, username: str) -> int:
    """End the sessions of one account and return the number of accounts, 1.  Raises ValueError for an unknown username."""
    account = await _account_to_change(components, username, "sessions")
    await session_ends.end_all(components.store, account.username)
    return 1


async def _account_to_change(components: Components, username: str, what: str) -> User:
    """Return the account and record that the operator changes ``what`` of it.  Raises ValueError for an unknown username."""
    account = await users.find(components.store, username)
    if account is None:
        raise ValueError(f"There is no user {username!r}.")
    event = SecurityEvent("change-account", username=account.username, detail={"what": what, "by": "operator"})
    await components.smart.record(event)
    return account
