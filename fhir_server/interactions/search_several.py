"""Searches of several types: of the server (``GET [base]?_type=...``) and of a compartment (``GET Patient/1/*``).

A compartment is a condition like any other: that a resource refers to the one after which the compartment is named, by one of the
parameters that R4 gives for its type (http://hl7.org/fhir/R4/compartmentdefinition.html).  A compartment that the caller does not see
has nothing in it, as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.search import parameters, parse, respond
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog, definitions
from fhir_server.search.criteria import refers
from fhir_server.search.filters import AllOf, AnyOf, Filter, IdIs
from fhir_server.search.query import Query

ALL_TYPES = "*"
_ITSELF = "{def}"  # the parameter that R4's definitions of compartments name for the resource itself


async def search_system(view: View, request: Request, service: Service) -> Response:
    """``GET [base]?_type=A,B&...`` or ``POST [base]/_search``: of the types named, or of all that a scope covers.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    return await respond(view, request, service, "", _query(view, request, service, catalog()))


async def search_compartment(view: View, request: Request, service: Service) -> Response:
    """``GET Patient/1/Observation?...`` or ``GET Patient/1/*?...``, also as ``POST .../_search``; also of the other compartments.

    ``Patient/1/*`` takes ``_type``, too.  Raises Problem ``forbidden`` or ``invalid``, and ``not_found`` for a type of which the
    compartment has nothing.
    """
    of, id, name = request.path[:3]
    members = definitions.compartments()[of]
    if name != ALL_TYPES and name not in members and name != of:
        raise Problem("not_found", f"The {of} compartment has no {name}.")
    within = {*members, of}
    if name == ALL_TYPES:
        query = _query(view, request, service, within)
    else:
        query = parse(_named(view.permissions, [name]), parameters(request), request, service)
    conditions = {type: AllOf((where, _in_compartment(of, id, type))) for type, where in query.conditions.items()}
    return await respond(view, request, service, f"{of}/{id}/{name}", replace(query, conditions=conditions))


def _query(view: View, request: Request, service: Service, among: Collection[str]) -> Query:
    """The search of the types that ``_type`` names, or else of all that a scope covers; of ``among`` alone.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    pairs = parameters(request)
    asked = [pair for pair in pairs if pair[0] == "_type"]
    named = [name for _, value in asked for name in value.split(",")]
    types = _named(view.permissions, named) if named else _covered(view.permissions, among)
    if outside := [type for type in types if type not in among]:
        raise Problem("invalid", f"The compartment has no {outside[0]}.")
    query = parse(types, [pair for pair in pairs if pair[0] != "_type"], request, service)
    return replace(query, applied=(*asked, *query.applied))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to search some type.  Raises Problem ``forbidden``."""
    _covered(permissions, catalog())


def admit_member(permissions: Permissions, type: str) -> None:
    """Require a scope to search this type of a compartment, or some type.  Raises Problem ``forbidden``."""
    if type == ALL_TYPES:
        _covered(permissions, catalog())
    else:
        permissions.require(type, "s")


def _named(permissions: Permissions, names: Iterable[str]) -> list[str]:
    """These types.  Raises Problem ``invalid`` for one that R4 does not have, ``forbidden`` for one that no scope covers."""
    for name in names:
        if name not in catalog():
            raise Problem("invalid", f"{name} is not a resource type of R4.")
        permissions.require(name, "s")
    return [*dict.fromkeys(names)]


def _covered(permissions: Permissions, types: Iterable[str]) -> list[str]:
    """Those of these types that a scope covers.  Raises Problem ``forbidden`` if there are none."""
    found = sorted(type for type in types if type in catalog() and permissions.scopes(type, "s"))
    if not found:
        raise Problem("forbidden", "The scopes of this access token do not cover a search.")
    return found


def _in_compartment(of: str, id: str, type: str) -> Filter:
    """The condition that a resource of this type is in the compartment."""
    target = frozenset({f"{of}/{id}"})
    codes = definitions.compartments()[of].get(type, ())
    parts: list[Filter] = [refers(type, code, target) for code in codes if code != _ITSELF]
    return AnyOf((IdIs(frozenset({id})), *parts) if type == of else tuple(parts))
