"""``codes``: the institution's own code lists, and the codes that no list knows."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.cli.base import load_settings, main, run_with_components, with_audit_event
from fhir_server.consent import own_lists
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import CATEGORIES
from fhir_server.maintenance.unclassified import UnclassifiedReport, unclassified_codes
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def codes() -> None:
    """Import code lists, and report the codes that no list knows."""


@codes.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="Name of the list; an import replaces the list of this name.  [default: the file's name]")
@click.option("--tier", type=click.Choice(own_lists.TIERS), help="Of all codes of a ValueSet.")
@click.option("--label", type=click.Choice(sorted(CATEGORIES)), help="Of all codes of a sensitive ValueSet.")
@click.option("--source", help="Where the codes of a ValueSet were checked.")
@click.option("--reviewed", help="Date of the review of a ValueSet, such as 2026-11-29.")
@click.option("--reviewer", help="Who reviewed a ValueSet.")
@click.option("--clinical-reviewer", help="The second reviewer of a ValueSet, a clinician.")
def import_codes(file: Path, name: str, **about: str | None) -> None:
    """Check a list and add it to the institution's own.

    FILE is a CSV file with the columns of docs/codes.md, or a ValueSet (.json) that lists its codes.  The lists are in the folder
    FHIR_SERVER_CODES_PATH.  Refused rows are printed with their line; the others are imported.
    """
    settings = load_settings()
    if not settings.codes_path:
        raise click.ClickException("Set FHIR_SERVER_CODES_PATH to the folder of the institution's own lists.")
    folder = Path(settings.codes_path)
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", (name or file.stem).lower()).strip("-")
    if not slug or slug.endswith("second-signal"):
        raise click.ClickException("Give the list a --name of letters and digits that does not end in second-signal.")
    octets = file.read_bytes()
    try:
        text = octets.decode("utf-8-sig")
        rows = own_lists.read_csv(text) if file.suffix.lower() != ".json" else own_lists.read_value_set(text, _of_value_set(about))
        known = SensitivityCodes.load(settings.ig_path, folder, without=own_lists.files_of(folder, slug))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    checked = own_lists.check(rows, known)
    detail = {"list": slug, "rows": str(len(checked.rows)), "refused": str(len(checked.refused))}
    event = SecurityEvent("import-codes", detail={**detail, "sha256": hashlib.sha256(octets).hexdigest()})

    async def store(_: Components) -> list[Path]:
        return own_lists.write(checked.rows, folder, slug)

    files = run_with_components(with_audit_event(store, event), settings)
    for line, reason in checked.refused:
        click.echo(f"line {line}: {reason}", err=True)
    click.echo(f"{len(checked.rows)} rows imported into {len(files)} lists, {len(checked.refused)} refused.")
    click.echo("Stop the server, run `fhir-server relabel`, and start the server: until then the earlier lists are in force.")
    if checked.refused:
        raise click.ClickException("Some rows were refused.")


@codes.command("report")
@click.option("--limit", type=int, default=100, show_default=True, help="Print at most so many codes.")
def report(limit: int) -> None:
    """List the codes that no list knows, by the number of resources withheld as unclassified.

    A text without a code is printed as text: it may be from a patient's record.
    """

    async def read(components: Components) -> UnclassifiedReport:
        return await unclassified_codes(components.store, components.labeler.codes)

    found = run_with_components(read)
    click.echo(f"{'withheld':>8}  code")
    for unknown, count in sorted(found.withheld.items(), key=lambda item: (-item[1], item[0].system, item[0].code))[:limit]:
        name = f"{unknown.system or '(no system)'}|{unknown.code}" if unknown.code else "(text)"
        click.echo(f"{count:8d}  {name}  {unknown.display}".rstrip())
    for type, count in sorted(found.without_code.items()):
        click.echo(f"{count:8d}  (no unknown code: a department, a reference, a missing code or a security label)  {type}")
    click.echo(f"{found.examined} resources examined.")


def _of_value_set(about: dict[str, str | None]) -> dict[str, str]:
    """The columns that are the same for all codes of a ValueSet.  Raises click.ClickException if one is missing."""
    missing = [name for name, value in about.items() if not value and name != "label"]
    if missing:
        raise click.ClickException(f"A ValueSet needs {', '.join('--' + name.replace('_', '-') for name in missing)}.")
    return {name: value or "" for name, value in about.items()}
