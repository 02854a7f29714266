"""A clinician's patients, searched and paged through the View, with what tells people of one name apart.

The search is one query with the clinician's Visibility, so neither a count nor a page says anything of other patients.  Every list of
patients for staff comes from here: the charts, and the record picker of the authorization pages.
"""

from __future__ import annotations

import re
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.record_choices import patient_name
from fhir_server.access.resolver import PermissionResolver
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.search import query
from fhir_server.search.cursors import Cursors
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, IdIs
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.persons import ChartPage, Person, RecordChoice, own_reference
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot, Store
from fhir_server.web.dates import format_date

PAGE: Final = 50
_MOST_WORDS: Final = 8
_SCOPES: Final = resource_scopes("user/Patient.rs")
_BY_NAME: Final = query.parse(("Patient",), [("_sort", "family,given")], strict=True, now=0, base="").sort
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?", re.ASCII)
_SPECIAL: Final = re.compile(r"([\\,|$])")


class ChartSearch:
    """The ``charts`` of :class:`~fhir_server.smart.core.context.SmartContext`."""

    def __init__(self, store: Store, resolver: PermissionResolver, cursors: Cursors, base: str) -> None:
        self._store = store
        self._resolver = resolver
        self._cursors = cursors
        self._base = base

    async def find(self, person: Person, reader: str, typed: str, page: str, now: int) -> ChartPage:
        """Return the clinician's patients of whom every typed word is a beginning of a name, a number or a birth date.

        ``reader`` is the account's subject.  Raises Problem ``invalid`` for a ``page`` that does not belong to it and to these words.
        """
        bound = digest(f"charts {reader} {typed}").encode()
        after = self._cursors.decrypt(page, bound) if page else None
        async with self._store.snapshot() as snapshot:
            view = await self._view(snapshot, person, now)
            found = await view.find("Patient", _condition(typed, now, self._base), sort=_BY_NAME, limit=PAGE, after=after)
        charts = tuple([_chart(version.id, jsontext.parse(version.body), person) for version in found.versions])
        return ChartPage(charts, self._cursors.encrypt(found.next, bound) if found.next else "")

    async def one(self, person: Person, patient: str, now: int) -> RecordChoice | None:
        """Return one of the clinician's patients, or None."""
        async with self._store.snapshot() as snapshot:
            view = await self._view(snapshot, person, now)
            found = await view.find("Patient", IdIs(frozenset({patient})), limit=1)
        return next((_chart(version.id, jsontext.parse(version.body), person) for version in found.versions), None)

    async def _view(self, snapshot: Snapshot, person: Person, now: int) -> View:
        reference = own_reference(person)
        principal = Principal("portal", "app", frozenset(), False, None, person, None, None, _SCOPES, reference, "", MAX_INSTANT)
        return View(snapshot, await self._resolver.resolve(snapshot, principal, now), now)


def _condition(typed: str, now: int, base: str) -> Filter:
    words = typed.split()[:_MOST_WORDS]
    return AllOf(tuple(_word(word, now, base) for word in words)) if words else EVERYTHING


def _word(word: str, now: int, base: str) -> Filter:
    text = _SPECIAL.sub(r"\\\1", word)
    pairs = [("name", text), ("identifier", text), *([("birthdate", word)] if _DATE.fullmatch(word) else [])]
    return AnyOf(tuple(query.condition("Patient", [pair], now, base) for pair in pairs))


def _chart(id: str, patient: dict[str, Any], person: Person) -> RecordChoice:
    birth_date = str(patient.get("birthDate", ""))
    born, sex, number = format_date(birth_date), str(patient.get("gender", "")), _number(patient)
    facts = [f"born {born}" if born else "birth date unknown", sex or "sex unknown", f"number {number}" if number else "no number"]
    name = patient_name(patient)
    return RecordChoice(id, name, "Your patient", fhir_user=own_reference(person) or "", birth_date=birth_date, facts=", ".join(facts))


def _number(patient: dict[str, Any]) -> str:
    """The medical record number, else the usual identifier, else the first."""
    identifiers = [one for one in patient.get("identifier", ()) if one.get("value")]
    records = [one for one in identifiers if any(coding.get("code") == "MR" for coding in one.get("type", {}).get("coding", ()))]
    usual = [one for one in identifiers if one.get("use") == "usual"]
    return next((str(one["value"]) for one in (*records, *usual, *identifiers)), "")
