"""``package``: FHIR packages, whose definitions the server serves."""

from __future__ import annotations

from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.packages.archive import Package, read_archive
from fhir_server.packages.loading import AddReport, Packages
from fhir_server.packages.product import NAMES, product_package
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.writing.indexing_steps import index_all


@main.group()
def package() -> None:
    """Add, list and remove FHIR packages."""


@package.command("add")
@click.argument("file")
def add_package(file: str) -> None:
    """Store the definitions of a package: profiles, value sets, search parameters and the like.

    FILE is an npm archive (.tgz) of a package for R4, or the name of a package that comes with the product: fhir-server.ig (its
    implementation guide) or hl7.fhir.r4.core (HL7's definitions of R4, with code systems and value sets).  Clients read and search the
    definitions and cannot change them.  Adding a package again stores what is missing.
    """
    read = _read(file)
    event = SecurityEvent("add-package", detail={"package": read.label})
    report = run_with_components(with_audit_event(lambda parts: _added(parts, read), event), changes_records=True)
    _print(read, report)


async def _added(parts: Components, package: Package) -> AddReport:
    """Add a package, and index what is stored by the search parameters that it brings."""
    report = await packages_of(parts).add(package)
    await index_all(parts.store, parts.labeler, parts.settings.base, parts.clock)
    return report


def _read(file: str) -> Package:
    try:
        return product_package(file, operation_definitions()) if file in NAMES else read_archive(Path(file))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _print(read: Package, report: AddReport) -> None:
    click.echo(f"{read.label}: {report.stored} stored, {report.present} already there, {len(report.refused)} refused.")
    for name, reason in report.refused:
        click.echo(f"  refused: {name}: {reason}", err=True)
    for id, reason in report.unused:
        click.echo(f"  not used in searches: SearchParameter/{id}: {reason}", err=True)
    for label in report.missing:
        click.echo(f"  it depends on {label}, which is not here", err=True)


@package.command("list")
def list_packages() -> None:
    """List the packages in the store, and how many definitions each has."""
    for one in run_with_components(lambda components: packages_of(components).all()):
        click.echo(f"{one.label:50} {len(one.rows):6}")


@package.command("remove")
@click.argument("label", metavar="NAME#VERSION")
def remove_package(label: str) -> None:
    """Delete the definitions of a package."""
    event = SecurityEvent("remove-package", detail={"package": label})
    deleted = run_with_components(with_audit_event(lambda parts: packages_of(parts).remove(label), event), changes_records=True)
    click.echo(f"{label}: {deleted} removed.")


def packages_of(components: Components) -> Packages:
    """The packages of the store of these components."""
    return Packages(components.store, components.labeler, components.settings.base, components.clock)
