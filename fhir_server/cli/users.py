"""``user``, ``client`` and ``token``."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from fhir_server.app import Components
from fhir_server.cli.base import main, with_parts
from fhir_server.linking import links
from fhir_server.linking.context import LinkingContext
from fhir_server.smart import demo
from fhir_server.smart.accounts import password_codes, users
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import new_secret
from fhir_server.smart.core.persons import Role
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.tokens import tokens


@main.group()
def user() -> None:
    """People's accounts."""


@user.command("add")
@click.argument("username")
@click.option("--role", type=click.Choice(["patient", "clinician", "billing", "privacy"]), default="patient", show_default=True)
@click.option("--name", default="", help="Name to show.")
@click.option("--patient", help="Id of the person's own Patient.")
@click.option("--practitioner", help="Id of the person's Practitioner.")
@click.option("--related-person", "related", multiple=True, help="Id of a RelatedPerson that is this person; may be repeated.")
@click.option("--password", help="A password for a trial; people choose their own, with the code.")
def user_add(
    username: str, role: Role, name: str, patient: str | None, practitioner: str | None, related: tuple[str, ...], password: str | None
) -> None:
    """Open an account, and print the code with which its person chooses a password at /set-password."""

    async def add(made: Components) -> str:
        given = password or new_secret()  # that nobody knows
        opened = await users.create(
            made.store, username, given, role, name=name, patient=patient, practitioner=practitioner, related_persons=related,
            rules=made.smart.passwords,
        )  # fmt: skip
        await made.smart.record(
            SecurityEvent("add-user", username=opened.username, about=patient_references(patient), detail={"role": role})
        )
        return "" if password else await password_codes.issue(made.store, opened, made.clock())

    if code := with_parts(add):
        click.echo(code)
    click.echo(f"{username} can sign in{' once a password is chosen with the code, within three days' if code else ''}.", err=True)


@user.command("list")
def user_list() -> None:
    """List the accounts."""
    for one in with_parts(lambda made: users.list_all(made.store)):
        rows = [one.patient and f"Patient/{one.patient}", one.practitioner and f"Practitioner/{one.practitioner}"]
        rows += [f"RelatedPerson/{related}" for related in one.related_persons]
        click.echo(f"{one.username:20} {one.role:10} {' '.join(row for row in rows if row)}")


@user.command("remove")
@click.argument("username")
def user_remove(username: str) -> None:
    """Close an account; its tokens, sessions and links to other systems end at once."""

    async def remove(made: Components) -> bool:
        found = await users.find(made.store, username)
        if found is not None:
            await links.unlink_all(LinkingContext(made.smart), found)
            await made.smart.record(SecurityEvent("remove-user", username=found.username))
        try:
            return await users.remove(made.store, username, made.clock())
        except TimeoutError:
            raise ValueError("The account is being changed at this moment; try again.") from None

    if not with_parts(remove):
        raise click.ClickException(f"There is no user {username!r}.")
    click.echo(f"{username} is gone.")


@main.group()
def client() -> None:
    """Registered apps and systems."""


@client.command("add")
@click.argument("client_id")
@click.option("--name", required=True, help="Name that people see when the app asks for access.")
@click.option("--kind", type=click.Choice(["app", "backend", "partner"]), default="app", show_default=True)
@click.option("--method", type=click.Choice(["none", "client_secret", "private_key_jwt"]), default="none", show_default=True)
@click.option("--scope", required=True, help="Scopes it may ask for.")
@click.option("--redirect-uri", "redirects", multiple=True, help="Exact redirect URI; may be repeated.")
@click.option("--launch-uri", default="", help="Where an EHR launch opens it.")
@click.option("--jwks", type=click.Path(exists=True, path_type=Path), help="File with its public JWK Set.")
@click.option("--jwks-uri", default="", help="Or the https address where it publishes them.")
@click.option(
    "--clearance",
    multiple=True,
    help="Sensitive category a backend is cleared for, or MIXED for rows of several patients (Groups); * for all.",
)
@click.option("--trusted", is_flag=True, help="May choose ids and send security labels.")
def client_add(
    client_id: str, name: str, kind: clients.Kind, method: clients.Method, scope: str, redirects: tuple[str, ...],
    launch_uri: str, jwks: Path | None, jwks_uri: str, clearance: tuple[str, ...], trusted: bool,
) -> None:  # fmt: skip
    """Register an app; a new secret, if it gets one, is shown once."""

    async def add(made: Components) -> str:
        record = clients.Client(
            client_id,
            name,
            kind,
            method,
            scope,
            redirects,
            clearance=clearance,
            trusted=trusted,
            launch_uri=launch_uri,
            jwks_uri=jwks_uri,
        )
        secret = ""
        if method == "client_secret":
            record, secret = clients.with_new_secret(record)
        if jwks is not None:
            record = clients.with_jwks(record, json.loads(jwks.read_text()))
        await clients.save(made.store, record)
        await made.smart.record(SecurityEvent("register-app", client_id=client_id, detail={"name": name, "scope": scope}))
        return secret

    if secret := with_parts(add):
        click.echo(secret)
    click.echo(f"{client_id} is registered.", err=True)


@client.command("list")
def client_list() -> None:
    """List the clients."""
    for one in with_parts(lambda made: clients.list_all(made.store)):
        click.echo(f"{one.client_id:20} {one.kind:8} {one.method:16} {one.name}")


@client.command("show")
@click.argument("client_id")
def client_show(client_id: str) -> None:
    """Show a registration; for a demo client, its private keys too."""

    async def find(made: Components) -> tuple[clients.Client | None, object]:
        return await clients.find(made.store, client_id), await demo.private_keys(made.store, client_id)

    found, keys = with_parts(find)
    if found is None:
        raise click.ClickException(f"There is no client {client_id!r}.")
    shown = msgspec.to_builtins(found)
    for digest in ("secret", "manager"):
        shown.pop(digest, None)
    click.echo(json.dumps({**shown, **({"private_jwks": keys} if keys else {})}, indent=2))


@client.command("remove")
@click.argument("client_id")
def client_remove(client_id: str) -> None:
    """Remove a registration; its tokens end at once."""

    async def remove(made: Components) -> bool:
        gone = await clients.remove(made.store, client_id, made.clock())
        await made.smart.record(SecurityEvent("remove-app", gone, client_id=client_id))
        return gone

    if not with_parts(remove):
        raise click.ClickException(f"There is no client {client_id!r}.")
    click.echo(f"{client_id} is gone.")


@main.command()
@click.option("--client", "client_id", required=True, help="Client that the token is for.")
@click.option("--user", "username", help="Account that the token acts for.")
@click.option("--patient", help="Id of the Patient in context.")
@click.option("--scope", required=True, help='Scopes, for example "system/*.rs".')
def token(client_id: str, username: str | None, patient: str | None, scope: str) -> None:
    """Print an access token, for the operator of the machine that holds the store."""

    async def make(made: Components) -> str:
        text = await tokens.issue_operator_token(made.store, client_id, scope, made.clock(), username=username, patient=patient)
        about = patient_references(patient)
        await made.smart.record(SecurityEvent("operator-token", True, username or "", client_id, about=about, detail={"scope": scope}))
        return text

    click.echo(with_parts(make))
