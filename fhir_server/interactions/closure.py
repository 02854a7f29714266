"""``$closure`` (http://hl7.org/fhir/R4/conceptmap-operation-closure.html): which of the codes that a client names subsume which.

A table belongs to the client and the person for whom it asks, as in the token: nobody else can name, read or clear it.  The tables of
one owner end 30 days after their last change.  Its relations are computed from the terminology that the caller sees at each request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from fhir_server import budget
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.clock import instant_text
from fhir_server.errors import Problem
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.operation_parameters import Asked, admit_reading, json_response, read_parameters
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.service import Service
from fhir_server.terminology.code_system import CodeSystem
from fhir_server.terminology.problems import not_loaded, too_costly
from fhir_server.terminology.sources import Terminology

MAX_TABLES: Final = 20
MAX_CONCEPTS: Final = 2000  # in all tables of one owner
_LONGEST_NAME: Final = 200
_LIFE: Final = 30 * 86400 * 1_000_000
_ATTEMPTS: Final = 5
_PARAMETERS: Final = {"name": "text", "version": "text", "concept": "Codings"}


class Member(NamedTuple):
    """A concept of a table, and the version of the table with which it came."""

    system: str
    code: str
    added: int


class Table(msgspec.Struct):
    """A closure table."""

    version: int = 0
    members: list[Member] = []


Tables = dict[str, Table]


def admit(permissions: Permissions, _: str) -> None:
    """Require a scope to read ConceptMaps.  Raises Problem ``forbidden``."""
    admit_reading(permissions, "ConceptMap")


async def closure(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST $closure``: makes or clears a table (``name``), adds concepts, or repeats what came since a ``version``.

    Raises Problem ``forbidden``, ``invalid``, ``not_found``, ``busy``, and ``unprocessable`` for a code system that is not loaded or
    for too many concepts.
    """

    async def parsed(view: View) -> tuple[Asked, str]:
        admit_reading(view.permissions, "ConceptMap")
        return await read_parameters(request, service, _PARAMETERS), owner(view.permissions)

    asked, mine = await service.read_with_view(request, audit, parsed)
    if not asked.text("name") or (asked.all("concept") and asked.text("version")):
        raise Problem("invalid", "The operation needs a name, and takes either concepts or a version.")
    if len(asked.text("name")) > _LONGEST_NAME:
        raise Problem("invalid", f"The name of a closure table has at most {_LONGEST_NAME} characters.")
    key_values = service.store.key_values
    for _ in range(_ATTEMPTS):
        stored = await key_values.get("closure", mine, request.now)
        tables = msgspec.json.decode(stored, type=Tables) if stored else {}
        since = await service.read_with_view(request, audit, lambda view: _change(view, tables, asked))  # noqa: B023  # awaited here
        table = tables[asked.text("name")]
        changed = msgspec.json.encode(tables)
        expires = request.now + _LIFE
        if stored is None:
            is_kept = await key_values.put_if_absent("closure", mine, changed, expires)
        else:
            is_kept = changed == stored or await key_values.replace_value("closure", mine, stored, changed, expires)
        if is_kept:
            pairs = await service.read_with_view(request, audit, lambda view: _pairs(view, table, since))  # noqa: B023  # awaited here
            return json_response(_concept_map(asked.text("name"), table, pairs, request.now))
    raise Problem("busy", "The server is busy; try again.")


async def _change(view: View, tables: Tables, asked: Asked) -> int:
    """Change the tables as asked, and return the version after which relations are new.  Raises Problem."""
    name, concepts, version = asked.text("name"), asked.all("concept"), asked.text("version")
    if not concepts and not version:
        tables[name] = Table()
        if len(tables) > MAX_TABLES:
            raise too_costly(f"There may be at most {MAX_TABLES} closure tables.")
        return 0
    table = tables.get(name)
    if table is None:
        raise Problem("not_found", f"The closure table {name[:200]!r} is not known. It is made by a request without concepts.")
    if version:
        if not version.isdecimal() or int(version[:9]) > table.version:
            raise Problem("invalid", "The closure table has no such version.")
        return int(version[:9])
    since, known = table.version, {(one.system, one.code) for one in table.members}
    terminology = view.terminology
    new = {pair: None for pair in [await _checked(terminology, one) for one in concepts] if pair not in known}
    if new:
        table.version += 1
        table.members += [Member(system, code, table.version) for system, code in new]
    if sum(len(one.members) for one in tables.values()) > MAX_CONCEPTS:
        raise too_costly(f"The closure tables of one client may have at most {MAX_CONCEPTS} concepts.")
    return since


async def _checked(terminology: Terminology, coding: dict[str, Any]) -> tuple[str, str]:
    await budget.give_way()
    system, code = str(coding.get("system", "")), str(coding.get("code", ""))
    found = await _loaded(terminology, system)
    concept = found.find(code)
    if concept is None:
        raise Problem("not_found", f"The code system {system[:200]!r} has no code {code[:200]!r}.")
    return system, concept.code


async def _loaded(terminology: Terminology, url: str) -> CodeSystem:
    system = await terminology.code_system(url)
    if system is None or not system.is_complete:
        raise not_loaded(url)
    return system


async def _pairs(view: View, table: Table, since: int) -> list[tuple[str, str, str]]:
    """(system, code, code that subsumes it) of the members of which one came after version ``since``."""
    found, terminology = [], view.terminology
    for url in dict.fromkeys(member.system for member in table.members):
        added = {member.code: member.added for member in table.members if member.system == url}
        found += [(url, code, above) for code, above in _subsumed(await _loaded(terminology, url), added, since)]
    return found


def _subsumed(system: CodeSystem, added: dict[str, int], since: int) -> Iterator[tuple[str, str]]:
    for code in added if system.subsumes else ():
        for above in sorted(system.ancestors(code) & added.keys() - {code}):
            if max(added[code], added[above]) > since:
                yield code, above


def _concept_map(name: str, table: Table, pairs: list[tuple[str, str, str]], now: int) -> dict[str, Any]:
    groups: dict[str, dict[str, list[dict[str, str]]]] = {}
    for system, code, above in pairs:
        groups.setdefault(system, {}).setdefault(code, []).append({"code": above, "equivalence": "subsumes"})
    head = {
        "resourceType": "ConceptMap", "version": str(table.version), "name": name, "status": "active", "experimental": True,
        "date": instant_text(now),
    }  # fmt: skip
    group = [
        {"source": system, "target": system, "element": [{"code": code, "target": target} for code, target in elements.items()]}
        for system, elements in groups.items()
    ]
    return head | ({"group": group} if group else {})
