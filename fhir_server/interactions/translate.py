"""``ConceptMap/$translate`` (http://hl7.org/fhir/R4/conceptmap-operation-translate.html): the codes to which maps lead.

What a mapping makes depend on other elements is left out, because the request cannot name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.operation_parameters import Asked, admit_reading, parameters_response, read_parameters
from fhir_server.interactions.service import Service
from fhir_server.json_slices import value_in_steps
from fhir_server.terminology.problems import unknown

_PARAMETERS: Final = {
    **dict.fromkeys(("url", "conceptMapVersion", "code", "system", "version", "source", "target", "targetsystem"), "text"),
    "conceptMap": "resource",
    "coding": "Coding",
    "codeableConcept": "CodeableConcept",
    "reverse": "flag",
    "dependency": "refused",
}
_INVERSE: Final = {"wider": "narrower", "narrower": "wider", "subsumes": "specializes", "specializes": "subsumes"}
_NO_MATCH: Final = frozenset({"unmatched", "disjoint"})
_MAX_DEPTH: Final = 5

Json = Mapping[str, Any]


class _Match(NamedTuple):
    equivalence: str
    coding: dict[str, Any]
    source: str


async def translate(view: View, request: Request, service: Service) -> Response:
    """By GET and POST, of a type (``url``, ``conceptMap``, or all maps of the code's system) and of an instance.

    Raises Problem ``forbidden``, ``invalid``, ``not_found`` or ``gone``.
    """
    admit_reading(view.permissions, "ConceptMap")
    asked = await read_parameters(request, service, _PARAMETERS, "ConceptMap")
    codings = _codings(asked)
    maps = {system: await _maps(view, request, asked, system) for system in dict.fromkeys(system for system, _ in codings)}
    found: dict[str, _Match] = {}
    for system, code in codings:
        for concept_map in maps[system]:
            found |= {repr(one): one for one in await _matches(view, concept_map, system, code, asked, ())}
    matches = list(found.values())
    is_found = any(match.equivalence not in _NO_MATCH for match in matches)
    answer: list[dict[str, Any]] = [{"name": "result", "valueBoolean": is_found}]
    if not is_found:
        answer.append({"name": "message", "valueString": "No mapping was found."})
    return parameters_response(answer + [_part(match) for match in matches])


def _part(match: _Match) -> dict[str, Any]:
    part: list[dict[str, Any]] = [{"name": "equivalence", "valueCode": match.equivalence}]
    if match.coding:
        part.append({"name": "concept", "valueCoding": match.coding})
    return {"name": "match", "part": part + ([{"name": "source", "valueUri": match.source}] if match.source else [])}


def _codings(asked: Asked) -> list[tuple[str, str]]:
    coding, concept = asked.value("coding"), asked.value("codeableConcept")
    if bool(asked.text("code")) + (coding is not None) + (concept is not None) != 1:
        raise Problem("invalid", "The operation needs one code: the parameters code and system, or coding, or codeableConcept.")
    if asked.text("code"):
        named = [{"system": asked.text("system"), "code": asked.text("code")}]
    else:
        named = list((concept or {}).get("coding", ())) if coding is None else [coding]
    found = [(str(one.get("system", "")), str(one["code"])) for one in named if one.get("code")]
    if not found or not all(system for system, _ in found):
        raise Problem("invalid", "A code needs its system.")
    return found


async def _maps(view: View, request: Request, asked: Asked, system: str) -> list[Json]:
    """The maps that a request names; without a name those of the code's system."""
    sent, url, is_instance = asked.value("conceptMap"), asked.text("url"), len(request.path) == 3
    if (sent is not None) + bool(url) + is_instance > 1:
        raise Problem("invalid", "The operation takes one map: that of the URL's path, or the parameter url, or conceptMap.")
    if sent is not None:
        if sent.get("resourceType") != "ConceptMap":
            raise Problem("invalid", "The parameter 'conceptMap' must be a ConceptMap.")
        return [sent]
    if is_instance:
        return [await value_in_steps((await view.read("ConceptMap", request.path[1])).body)]
    if url:
        found = await view.terminology.find("ConceptMap", url, asked.text("conceptMapVersion"))
        if found is None:
            raise unknown("ConceptMap", url)
        return [found.resource]
    if asked.flag("reverse"):
        raise Problem("invalid", "A reverse translation needs the parameter url.")
    maps = [one.resource for one in await view.terminology.maps_from(system)]
    return [one for one in maps if all(_leads(one, side, asked.text(side)) for side in ("source", "target"))]


def _leads(concept_map: Json, side: str, value_set: str) -> bool:
    return not value_set or value_set in (concept_map.get(f"{side}Uri"), concept_map.get(f"{side}Canonical"))


async def _matches(view: View, concept_map: Json, system: str, code: str, asked: Asked, above: tuple[str, ...]) -> list[_Match]:
    source, is_reverse, found = str(concept_map.get("url", "")), asked.flag("reverse"), []
    for group in concept_map.get("group", ()):
        await budget.give_way()
        origin, target = (group.get(name, "") for name in (("target", "source") if is_reverse else ("source", "target")))
        if origin != system or asked.text("targetsystem") not in ("", target):
            continue
        mapped = list(_mapped(group, code, is_reverse))
        for equivalence, to in mapped:
            coding = {"system": target, **to, "userSelected": False} if to else {}
            found.append(_Match(equivalence, coding, source))
        if not mapped and not is_reverse and "unmapped" in group:
            found += await _unmapped(view, group["unmapped"], source, target, (system, code), asked, above)
    return found


def _mapped(group: Json, code: str, is_reverse: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(equivalence, code and display) of each target of a code."""
    for element in group.get("element", ()):
        for target in element.get("target", ()):
            if target.get("dependsOn"):
                continue
            origin, to = (target, element) if is_reverse else (element, target)
            if origin.get("code") == code:
                equivalence = str(target.get("equivalence", "equivalent"))
                yield (
                    _INVERSE.get(equivalence, equivalence) if is_reverse else equivalence,
                    {name: to[name] for name in ("code", "display") if to.get("code") and name in to},
                )


async def _unmapped(
    view: View, unmapped: Json, source: str, target: str, of: tuple[str, str], asked: Asked, above: tuple[str, ...]
) -> list[_Match]:
    """What a group says of codes that it does not list."""
    mode = unmapped.get("mode")
    if mode == "provided":
        return [_Match("equal", {"system": target, "code": of[1], "userSelected": False}, source)]
    if mode == "fixed" and "code" in unmapped:
        fixed = {name: unmapped[name] for name in ("code", "display") if name in unmapped}
        return [_Match("inexact", {"system": target, **fixed, "userSelected": False}, source)]
    other = str(unmapped.get("url", ""))
    if mode != "other-map" or other in above or len(above) >= _MAX_DEPTH:
        return []
    found = await view.terminology.find("ConceptMap", other)
    if found is None:
        raise unknown("ConceptMap", other)
    return await _matches(view, found.resource, *of, asked, (*above, other))
