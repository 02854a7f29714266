"""``Patient/$match`` (http://hl7.org/fhir/R4/patient-operation-match.html): the Patients who may be the one that is described.

For backends and staff alone: who uses their own record has nobody to look for.  Candidates are what a search of the caller's View finds by
identifier, name, birth date and telecom, at most some of each; they are compared by what the caller sees of them.  A Patient whom the
caller does not see is no candidate, and takes no candidate's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fhir_server import budget, jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.consent.policy import ActorKind
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, match_scores, preconditions
from fhir_server.interactions.match_scores import Match
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response
from fhir_server.interactions.parameters_body import resource_parameters
from fhir_server.interactions.service import Service
from fhir_server.search import query
from fhir_server.search.filters import AllOf, Filter, Has, TextIs, TokenIs
from fhir_server.search.limits import whole_number
from fhir_server.search.parameter_types.string import fold

_TYPE: Final = "Patient"
_CALLERS: Final = frozenset({ActorKind.BACKEND, ActorKind.CLINICIAN, ActorKind.BILLING_OFFICE})
_NAMES: Final = 4  # names, identifiers and numbers by which candidates are looked for, of each kind
_CANDIDATES: Final = 50  # by one criterion
_COUNT: Final = 20
_MOST: Final = 100
_GRADE: Final = "http://hl7.org/fhir/StructureDefinition/match-grade"


class _Found(NamedTuple):
    match: Match
    id: str


async def match(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Patient/$match``: a searchset of the candidates with scores and grades, the best one first.

    Raises Problem ``forbidden``, ``invalid`` or ``media_type``.
    """
    preconditions.require_only(request)
    given = resource_parameters(request, _TYPE, ("onlyCertainMatches", "count"))
    count = whole_number(given.texts.get("count", str(_COUNT)))
    if count is None or given.texts.get("onlyCertainMatches", "true") not in ("true", "false"):
        raise Problem("invalid", "count is a whole number, onlyCertainMatches is true or false.")
    if given.resource is None:
        raise Problem("invalid", "$match needs the parameter resource, a Patient.")
    patient = (await service.parser.draft(given.resource, _TYPE)).value
    certain = given.texts.get("onlyCertainMatches") == "true"
    return await service.read_with_view(request, audit, lambda view: _matches(view, service, patient, certain, min(count, _MOST)))


def admit(permissions: Permissions, type: str) -> None:
    """Require a search scope, and a caller who has patients to look for.  Raises Problem ``forbidden``."""
    permissions.require(type, "s")
    if permissions.actor is None or permissions.actor.kind not in _CALLERS:
        raise Problem("forbidden", "Only systems and staff may match patients.")


async def _matches(view: View, service: Service, patient: Mapping[str, Any], only_certain: bool, count: int) -> Response:
    admit(view.permissions, _TYPE)
    criteria = [*_criteria(patient, view.now, service.base)]
    if not criteria:
        raise Problem("invalid", "$match needs an identifier with its system, a telecom, or two of family name, given name and birth date.")
    candidates: dict[str, VisibleVersion] = {}
    for where in criteria:
        candidates |= {version.id: version for version in await view.peek(_TYPE, where, _CANDIDATES)}
    compared = await budget.each(
        lambda version: _Found(match_scores.compare(patient, jsontext.parse(version.body)), version.id), [*candidates.values()]
    )
    found = sorted((one for one in compared if one.match.grade != "certainly-not"), key=lambda one: (-one.match.points, one.id))
    if only_certain:
        found = [one for one in found if one.match.grade == "certain"]
        found = found if len(found) == 1 else []
    chosen = found[:count]
    shown = await view.in_order(_TYPE, [one.id for one in chosen])
    entries = [_entry(version, one.match, service.base) for version, one in zip(shown, chosen, strict=True)]
    links = [("self", bundle_json.query_url(service.base, f"{_TYPE}/$match", ()))]
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.searchset(entries, links=links, total=len(found)))


def _criteria(patient: Mapping[str, Any], now: int, base: str) -> Iterator[Filter]:
    """The conditions by which candidates are looked for, the most telling ones first."""

    for system, value in sorted(match_scores.identifiers(patient))[:_NAMES]:
        yield Has("identifier", TokenIs(system, value))
    names = patient.get("name", ())[:_NAMES]
    families = [_named("family", name["family"]) for name in names if fold(name.get("family", ""))]
    givens = [_named("given", given) for name in names for given in name.get("given", ())[:1] if given and fold(given)]
    if "birthDate" in patient:
        born = query.condition(_TYPE, [("birthdate", patient["birthDate"])], now, base)
        yield from (AllOf((born, named)) for named in (*families, *givens))
    yield from (AllOf((family, given)) for family in families for given in givens)
    for number in sorted(match_scores.telecoms(patient))[:_NAMES]:
        yield Has("telecom", TokenIs(None, number))


def _named(param: str, name: str) -> Filter:
    return Has(param, TextIs(fold(name), "equal"))


def _entry(version: VisibleVersion, match: Match, base: str) -> bundle_json.Entry:
    grade = b'"extension":[{"url":"%s","valueCode":"%s"}]' % (_GRADE.encode(), match.grade.encode())
    score = b"1" if match.points == 100 else b"0.%02d" % match.points
    head, body, _ = bundle_json.entry(version, base)
    return head, body, b',"search":{%s,"mode":"match","score":%s}}' % (grade, score)
