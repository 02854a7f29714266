"""``user``: changes of existing accounts.  Each takes effect at once in all server processes, and writes one line to the audit log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
import msgspec

from fhir_server.app import Components
from fhir_server.cli.base import run_with_components
from fhir_server.cli.users import ROLES, user
from fhir_server.linking import links
from fhir_server.linking.context import LinkingContext
from fhir_server.smart.accounts import administration, identity_providers, merging, second_factor, sessions
from fhir_server.smart.accounts.administration import Change
from fhir_server.smart.accounts.users import User, new_name
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.persons import Role
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind

T = TypeVar("T")
_related = click.option("--related-person", "related", multiple=True, help="Id of a RelatedPerson that is this person; may be repeated.")
_patient = click.option("--patient", help="Id of the person's own Patient.")
_practitioner = click.option("--practitioner", help="Id of the person's Practitioner.")


@user.command("show")
@click.argument("username")
def show_user(username: str) -> None:
    """Print an account as JSON: role, resources, state, sessions, second factor, connected apps.  No secret is printed."""

    async def read(components: Components) -> dict[str, Any]:
        store, now = components.store, components.clock()
        account = await administration.require(store, username)
        identities = await identity_providers.list_linked_identities(store)
        records = await components.smart.records(account.person(), now)
        return {
            "username": account.username,
            "name": account.name,
            "role": account.role,
            "locked": account.disabled,
            "resources": sorted(account.references),
            "records": [choice.patient for choice in records],
            "second_factor": await second_factor.find_factor(components.smart, account) is not None,
            "sessions": len(await sessions.list_all(components.smart, account)),
            "apps": [
                {"client": grant.client_id, "patient": grant.patient, "scope": grant.scope}
                for grant in await grant_index.of_user(store, account.username, now)
            ],
            "identities": [{"issuer": one.issuer, "subject": one.sub} for one in identities if one.subject == account.subject],
        }

    click.echo(json.dumps(run_with_components(read), indent=2, ensure_ascii=False))


@user.command("link")
@click.argument("username")
@_related
@_patient
@_practitioner
@click.option("--anyway", is_flag=True, help="Also if a RelatedPerson opens no further record now.")
def link_user(username: str, related: tuple[str, ...], patient: str | None, practitioner: str | None, anyway: bool) -> None:
    """Add resources to an account: another child of a parent (a RelatedPerson), or the person's own Patient or Practitioner.

    The account's sessions end; its apps go on with the records that they were given.
    """
    if not (related or patient or practitioner):
        raise click.UsageError("Give --related-person, --patient or --practitioner.")

    def alter(account: User) -> User:
        for name, own, new in (("Patient", account.patient, patient), ("Practitioner", account.practitioner, practitioner)):
            if own and new and own != new:
                raise ValueError(f"The account {account.username!r} is {name}/{own} already. Unlink that first.")
        return administration.with_links(
            account,
            patient=patient or account.patient,
            practitioner=practitioner or account.practitioner,
            related_persons=(*account.related_persons, *related),
        )

    async def check(components: Components, account: User) -> None:
        """Refuse an id that opens nothing, which is likely a mistake."""
        opened = {choice.patient for choice in await components.smart.records(account.person(), components.clock())}
        for id in () if anyway else related:
            if id in account.related_persons:
                raise ValueError(f"RelatedPerson/{id} is linked to {account.username!r} already.")
            alone = msgspec.structs.replace(account, related_persons=(*account.related_persons, id))
            if opened >= {choice.patient for choice in await components.smart.records(alone.person(), components.clock())}:
                raise ValueError(f"RelatedPerson/{id} opens no further record: it is not stored, or has no grant. Use --anyway to link it.")

    changed = _change(username, alter, "linked", check=check)
    click.echo(f"Linked. {_summary(changed)}")


@user.command("unlink")
@click.argument("username")
@_related
@click.option("--patient", is_flag=True, help="The person's own Patient.")
@click.option("--practitioner", is_flag=True, help="The person's Practitioner.")
def unlink_user(username: str, related: tuple[str, ...], patient: bool, practitioner: bool) -> None:
    """Remove resources from an account.  Its sessions end, and the apps that were given access by these resources."""
    if not (related or patient or practitioner):
        raise click.UsageError("Give --related-person, --patient or --practitioner.")

    def alter(account: User) -> User:
        missing = [f"RelatedPerson/{id}" for id in related if id not in account.related_persons]
        missing += ["Patient"] if patient and not account.patient else []
        missing += ["Practitioner"] if practitioner and not account.practitioner else []
        if missing:
            raise ValueError(f"The account {account.username!r} has no {' and no '.join(missing)}.")
        return msgspec.structs.replace(
            account,
            patient=None if patient else account.patient,
            practitioner=None if practitioner else account.practitioner,
            related_persons=tuple(id for id in account.related_persons if id not in related),
        )

    click.echo(f"Unlinked. {_summary(_change(username, alter, 'unlinked'))}")


@user.command("set-name")
@click.argument("username")
@click.argument("name")
def set_name(username: str, name: str) -> None:
    """Change the NAME that is displayed.  Sessions and apps go on."""
    changed = _change(username, lambda account: administration.with_name(account, name), "name")
    click.echo(f"{changed.username} is displayed as {changed.name}.")


@user.command("rename")
@click.argument("username")
@click.argument("new_username")
def rename_user(username: str, new_username: str) -> None:
    """Change the user name with which a person signs in.

    Password, second factor, links to other organizations and apps' own data stay.  Sessions and access of apps end, because they
    name the account.
    """
    changed = _change(username, lambda account: msgspec.structs.replace(account, username=new_name(new_username)), "username")
    click.echo(f"The account is now called {changed.username}.")


@user.command("set-role")
@click.argument("username")
@click.argument("role", type=click.Choice(ROLES))
@_related
@_patient
@_practitioner
def set_role(username: str, role: Role, related: tuple[str, ...], patient: str | None, practitioner: str | None) -> None:
    """Change an account's ROLE.  Afterwards it has the resources of the options and no others.

    Its sessions, the access of its apps, and its links to identity providers and other organizations end.
    """

    def alter(account: User) -> User:
        if account.role == role:
            raise ValueError(f"The account {account.username!r} has the role {role} already.")
        return administration.with_role(account, role, patient=patient, practitioner=practitioner, related_persons=related)

    async def check(components: Components, account: User) -> None:
        alter(account)

    async def unlink(components: Components, account: User) -> None:
        await links.unlink_all(LinkingContext(components.smart), account)

    changed = _change(username, alter, "role", check=check, after=unlink)
    click.echo(f"{changed.username} has the role {changed.role}. {_summary(changed)}")


@user.command("lock")
@click.argument("username")
def lock_user(username: str) -> None:
    """Lock an account: nobody signs in with it.  Its sessions and the access of its apps end, for good."""
    _change(username, lambda account: msgspec.structs.replace(account, disabled=True), "lock")
    click.echo(f"Locked {username}.")


@user.command("unlock")
@click.argument("username")
def unlock_user(username: str) -> None:
    """Unlock an account, also after too many wrong passwords or codes.  What ended when it was locked stays ended."""

    async def unlock(components: Components) -> User:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        changed = await administration.unlock(components.store, username, components.clock())
        await components.smart.record(_event("change-account", changed, what="unlock"))
        return changed

    click.echo(f"Unlocked {_run(unlock).username}.")


@user.command("merge")
@click.argument("kept")
@click.argument("ended")
@click.option("--yes", is_flag=True, help="Do not ask.")
def merge_users(kept: str, ended: str, yes: bool) -> None:
    """Merge the account ENDED into the account KEPT of the same person.  It cannot be undone.

    KEPT keeps its user name, password, second factor, links and apps, and gets the resources of ENDED.  ENDED is removed with its
    password, second factor, links, sessions and apps.  The sessions of KEPT end too.
    """

    async def plan(components: Components) -> User:
        found = [await administration.require(components.store, name) for name in (kept, ended)]
        return merging.combined(*found)

    planned = _run(plan)
    click.echo(f"{planned.username} will be {_resources(planned)}; {ended} ends with all it has.", err=True)
    if not yes:
        click.confirm("Merge these accounts for good?", abort=True, err=True)

    async def merge(components: Components) -> User:
        await components.auditor.prepare()  # nothing is merged unless it can be recorded
        merged, gone = await merging.merge(components.store, kept, ended, components.clock())
        await components.smart.record(_event("merge-users", merged, ended=gone.username, resources=_resources(merged)))
        await links.unlink_all(LinkingContext(components.smart), gone)
        return merged

    click.echo(f"Merged. {_summary(_run(merge))}")


def _change(
    username: str,
    alter: Change,
    what: str,
    *,
    check: Callable[[Components, User], Awaitable[None]] | None = None,
    after: Callable[[Components, User], Awaitable[None]] | None = None,
) -> User:
    """Change an account and record it.  ``check`` may refuse before, with ValueError; ``after`` runs after a change."""

    async def run(components: Components) -> User:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        if check is not None:
            await check(components, await administration.require(components.store, username))
        before, changed = await administration.change(components.store, username, alter, components.clock())
        detail = {"former": before.username} if before.username != changed.username else {}
        await components.smart.record(_event("change-account", changed, what=what, resources=_resources(changed), **detail))
        if after is not None:
            await after(components, before)
        return changed

    return _run(run)


def _run(job: Callable[[Components], Awaitable[T]]) -> T:
    async def run(components: Components) -> T:
        try:
            return await job(components)
        except TimeoutError:
            raise ValueError(administration.BUSY) from None

    return run_with_components(run)


def _event(kind: SecurityEventKind, account: User, **detail: str) -> SecurityEvent:
    about = tuple(sorted(name for name in account.references if name.startswith("Patient/")))
    return SecurityEvent(kind, username=account.username, about=about, detail={**detail, "role": account.role, "by": "operator"})


def _resources(account: User) -> str:
    return ", ".join(sorted(account.references)) or "nobody"


def _summary(account: User) -> str:
    return f"{account.username} is {_resources(account)}."
