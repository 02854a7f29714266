"""A clinician's patients, searched and paged through the View, with what tells people of one name apart.

The search is one query with the clinician's Visibility, so neither a count nor a page says anything of other patients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.portal.context import PortalContext
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, IdIs
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.persons import own_reference
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot
from fhir_server.web.dates import format_date

PAGE: Final = 50
_MOST_WORDS: Final = 8
_SCOPES: Final = resource_scopes("user/Patient.rs")
_BY_NAME: Final = query.parse(("Patient",), [("_sort", "family,given")], strict=True, now=0, base="").sort
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?", re.ASCII)
_SPECIAL: Final = re.compile(r"([\\,|$])")


@dataclass(frozen=True, slots=True)
class Chart:
    """A patient in the list.  ``facts`` are birth date, sex and number, as far as the clinician sees them."""

    patient: str
    name: str
    facts: str


@dataclass(frozen=True, slots=True)
class ChartPage:
    """A page of the list, and the value of ``page`` for the next; "" if this was the last."""

    charts: list[Chart]
    next: str = ""


async def find_charts(context: PortalContext, user: User, typed: str, page: str, now: int) -> ChartPage:
    """Return the clinician's patients of whom every typed word is a beginning of a name, a number or a birth date.

    Raises Problem ``invalid`` for a ``page`` that does not belong to this person and these words.
    """
    bound = digest(f"charts {user.subject} {typed}").encode()
    after = context.service.cursors.decrypt(page, bound) if page else None
    async with context.smart.store.snapshot() as snapshot:
        view = await _view(context, snapshot, user, now)
        found = await view.find("Patient", _condition(typed, now, context.service.base), sort=_BY_NAME, limit=PAGE, after=after)
    charts = [_chart(version.id, jsontext.parse(version.body)) for version in found.versions]
    return ChartPage(charts, context.service.cursors.encrypt(found.next, bound) if found.next else "")


async def find_chart(context: PortalContext, user: User, patient: str, now: int) -> Chart | None:
    """Return one of the clinician's patients, or None."""
    async with context.smart.store.snapshot() as snapshot:
        view = await _view(context, snapshot, user, now)
        found = await view.find("Patient", IdIs(frozenset({patient})), limit=1)
    return next((_chart(version.id, jsontext.parse(version.body)) for version in found.versions), None)


async def _view(context: PortalContext, snapshot: Snapshot, user: User, now: int) -> View:
    person = user.person()
    reference = own_reference(person)
    principal = Principal("portal", "app", frozenset(), False, user.username, person, None, None, _SCOPES, reference, "", MAX_INSTANT)
    return View(snapshot, await context.resolver.resolve(snapshot, principal, now), now)


def _condition(typed: str, now: int, base: str) -> Filter:
    words = typed.split()[:_MOST_WORDS]
    return AllOf(tuple(_word(word, now, base) for word in words)) if words else EVERYTHING


def _word(word: str, now: int, base: str) -> Filter:
    text = _SPECIAL.sub(r"\\\1", word)
    pairs = [("name", text), ("identifier", text), *([("birthdate", word)] if _DATE.fullmatch(word) else [])]
    return AnyOf(tuple(query.condition("Patient", [pair], now, base) for pair in pairs))


def _chart(id: str, patient: dict[str, Any]) -> Chart:
    names = patient.get("name") or [{}]
    name = next((one for one in names if one.get("use") in ("usual", "official")), names[0])
    text = name.get("text") or " ".join([*name.get("given", []), name.get("family", "")]).strip()
    born, sex, number = format_date(str(patient.get("birthDate", ""))), str(patient.get("gender", "")), _number(patient)
    facts = [f"born {born}" if born else "birth date unknown", sex or "sex unknown", f"number {number}" if number else "no number"]
    return Chart(id, str(text or "Unnamed patient"), ", ".join(facts))


def _number(patient: dict[str, Any]) -> str:
    """The medical record number, else the usual identifier, else the first."""
    identifiers = [one for one in patient.get("identifier", ()) if one.get("value")]
    records = [one for one in identifiers if any(coding.get("code") == "MR" for coding in one.get("type", {}).get("coding", ()))]
    usual = [one for one in identifiers if one.get("use") == "usual"]
    return next((str(one["value"]) for one in (*records, *usual, *identifiers)), "")
