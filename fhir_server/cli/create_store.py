"""``create-store``: makes a new, empty store."""

from __future__ import annotations

import asyncio

import click

from fhir_server.app import Components
from fhir_server.cli.base import (
    load_settings,
    main,
    make_store_folder,
    operator_errors,
    run_with_components,
    with_audit_event,
    without_credentials,
)
from fhir_server.consent.labeling_version import labeling_digest
from fhir_server.maintenance.examination import is_new_store
from fhir_server.maintenance.store_facts import LabelingFact, record_fact
from fhir_server.settings import Settings
from fhir_server.smart.core.security_events import SecurityEvent


@main.command("create-store")
def create_store_command() -> None:
    """Make a new, empty store at FHIR_SERVER_STORE.

    No other command makes one, so that a misspelled path does not open an empty hospital.  A store that exists stays as it is.
    """
    settings = load_settings()
    made = create_store(settings)
    click.echo(f"{'Made' if made else 'There already is'} the store {without_credentials(settings.store)}.")


def create_store(settings: Settings) -> bool:
    """Make the store unless it exists.  Return whether it was made.  Raises click.ClickException if that fails."""
    with operator_errors(settings.store):
        settings.require_key()  # the first line of the audit log has a MAC of it
        is_new = asyncio.run(is_new_store(settings.store))
    if not is_new:
        return False
    make_store_folder(settings.store)
    begin = with_audit_event(_begin, SecurityEvent("create-store"), first=True)
    run_with_components(begin, settings, may_create_store=True)
    return True


async def _begin(components: Components) -> None:
    await components.prepare()
    await record_labeling(components)


async def record_labeling(components: Components) -> None:
    """Record that all resources have labels of the lists in use."""
    settings = components.settings
    digest = labeling_digest(components.policy, settings.ig_path, settings.codes_path, settings.search_timezone)
    await record_fact(components.store, LabelingFact(digest, components.clock()))
