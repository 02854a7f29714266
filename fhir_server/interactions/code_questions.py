"""Questions about a code: ``CodeSystem/$lookup``, ``$validate-code`` of a CodeSystem and a ValueSet, ``CodeSystem/$subsumes``.

http://hl7.org/fhir/R4/codesystem-operations.html, http://hl7.org/fhir/R4/valueset-operation-validate-code.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions.expand import asked_value_set, display_in
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.operation_parameters import Asked, admit_reading, parameters_response, read_parameters
from fhir_server.interactions.service import Service
from fhir_server.json_slices import value_in_steps
from fhir_server.terminology.code_system import CodeSystem, Concept, compiled
from fhir_server.terminology.expansion import Code, Expander
from fhir_server.terminology.problems import NotLoadedError, not_loaded

_CODED: Final = {"code": "text", "coding": "Coding", "displayLanguage": "text", "date": "refused"}
_LOOKUP: Final = {**_CODED, "system": "text", "version": "text", "property": "texts"}
_VALIDATED: Final = {**_CODED, "url": "text", "display": "text", "codeableConcept": "CodeableConcept", "abstract": "flag"}
_IN_SYSTEM: Final = {**_VALIDATED, "version": "text", "codeSystem": "resource"}
_IN_SET: Final = {
    **_VALIDATED, "system": "text", "systemVersion": "text", "valueSet": "resource", "valueSetVersion": "text", "context": "refused"
}  # fmt: skip
_SUBSUMES: Final = {**dict.fromkeys(("codeA", "codeB", "system", "version"), "text"), "codingA": "Coding", "codingB": "Coding"}


class Named(NamedTuple):
    """A code that a request names."""

    system: str
    code: str
    version: str = ""
    display: str = ""


async def lookup(view: View, request: Request, service: Service) -> Response:
    """``CodeSystem/$lookup``: display, designations and properties of a code, also those of supplements.

    Raises Problem ``forbidden``, ``invalid``, ``not_found``, and ``unprocessable`` for a code system that is not loaded.
    """
    admit_reading(view.permissions, "CodeSystem")
    asked = await read_parameters(request, service, _LOOKUP)
    (named,) = _one(_codings(asked, asked.text("system"), asked.text("version")))
    if not named.system:
        raise Problem("invalid", "The operation needs the parameters code and system, or a coding with both.")
    system = await view.terminology.code_system(named.system, named.version)
    concept = _concept(system, named)
    assert system is not None
    added = [one for supplement in await view.terminology.supplements(system.url) if (one := supplement.find(concept.code)) is not None]
    return parameters_response(_described(system, concept, added, asked))


def _described(system: CodeSystem, concept: Concept, added: list[Concept], asked: Asked) -> Iterator[dict[str, Any]]:
    designations = tuple(one for each in (concept, *added) for one in each.designations)
    display = display_in(concept.display or concept.code, designations, asked.text("displayLanguage"))
    yield {"name": "name", "valueString": system.name}
    if system.version:
        yield {"name": "version", "valueString": system.version}
    yield {"name": "display", "valueString": display}
    wanted = set(asked.all("property"))
    for one in designations if not wanted or "designation" in wanted else ():
        kinds = {"language": "valueCode", "use": "valueCoding", "value": "valueString"}
        yield {"name": "designation", "part": [{"name": name, kind: one[name]} for name, kind in kinds.items() if name in one]}
    for code, value in _properties(concept, added):
        if not wanted or code in wanted:
            part = [{"name": "code", "valueCode": code}, {"name": "value", **value}]
            described = system.property_texts.get(code)
            yield {"name": "property", "part": part + ([{"name": "description", "valueString": described}] if described else [])}


def _properties(concept: Concept, added: Iterable[Concept]) -> Iterator[tuple[str, dict[str, Any]]]:
    if concept.definition:
        yield "definition", {"valueString": concept.definition}
    yield from (("parent", {"valueCode": code}) for code in concept.parents)
    yield from (("child", {"valueCode": code}) for code in concept.children)
    for one in (property for each in (concept, *added) for property in each.properties):
        if one.get("code") not in ("parent", "child"):
            yield str(one.get("code")), {name: value for name, value in one.items() if name.startswith("value")}


async def validate_in_system(view: View, request: Request, service: Service) -> Response:
    """``CodeSystem/$validate-code``: whether a code is one of the code system.

    Raises Problem ``forbidden``, ``invalid``, ``not_found`` or ``gone``, and ``unprocessable`` for a code system that is not loaded.
    """
    admit_reading(view.permissions, "CodeSystem")
    asked = await read_parameters(request, service, _IN_SYSTEM, "CodeSystem")
    given = await _given_system(view, request, asked)
    url = given.url if given is not None else asked.text("url")
    candidates = list(_codings(asked, url, asked.text("version"), is_any=True))
    if not all(one.system for one in candidates):
        raise Problem("invalid", "The operation needs a code system: that of the path, or the parameter url or codeSystem.")
    found: list[tuple[Named, Code | None]] = []
    terminology = view.terminology
    for one in candidates:
        await budget.give_way()
        if url and one.system != url:
            found.append((one, None))
            continue
        system = given or await terminology.code_system(one.system, one.version)
        try:
            concept = _concept(system, one)
        except NotLoadedError:
            raise
        except Problem:
            found.append((one, None))
            continue
        assert system is not None
        code = Code(one.system, system.version, concept.code, concept.display, concept.designations, concept.is_abstract)
        found.append((one, code))
    return parameters_response(_verdict(found, asked, f"the code system {url}" if url else "its code system"))


async def validate_in_set(view: View, request: Request, service: Service) -> Response:
    """``ValueSet/$validate-code``: whether a code is in the value set.  Only the code systems that decide it are looked into.

    Raises Problem ``forbidden``, ``invalid``, ``not_found`` or ``gone``, and ``unprocessable`` if that cannot be known.
    """
    admit_reading(view.permissions, "ValueSet")
    asked = await read_parameters(request, service, _IN_SET, "ValueSet")
    candidates = list(_codings(asked, asked.text("system"), asked.text("systemVersion"), is_any=True))
    if not all(one.system for one in candidates):
        raise Problem("invalid", "A code needs its system.")
    value_set = await asked_value_set(view, request, asked)
    expander = Expander(view.terminology)
    found = [(one, await expander.find(value_set, one.system, one.code, one.version)) for one in candidates]
    return parameters_response(_verdict(found, asked, f"the value set {value_set.get('url', '')}".strip()))


def _verdict(found: list[tuple[Named, Code | None]], asked: Asked, of: str) -> Iterator[dict[str, Any]]:
    """The answer of ``$validate-code``: true if some coding is right."""
    message, best = "", None
    for named, code in found:
        if code is None:
            message = message or f"The code {named.code[:200]!r} of {named.system[:200]!r} is not in {of}."
        elif code.is_abstract and asked.text("abstract") == "false":
            message = message or f"The code {named.code[:200]!r} is abstract."
        elif named.display and not _is_display(named.display, code):
            message, best = f"The display {named.display[:200]!r} is not one of the code {named.code[:200]!r}.", best or code
        else:
            message, best = "", code
            break
    is_right = best is not None and not message
    yield {"name": "result", "valueBoolean": is_right}
    if message:
        yield {"name": "message", "valueString": message}
    if best is not None and (display := display_in(best.display, best.designations, asked.text("displayLanguage"))):
        yield {"name": "display", "valueString": display}


def _is_display(text: str, code: Code) -> bool:
    known = {code.display, *(str(one.get("value", "")) for one in code.designations)} - {""}
    return not known or text.casefold() in {one.casefold() for one in known}


async def subsumes(view: View, request: Request, service: Service) -> Response:
    """``CodeSystem/$subsumes``: how two codes stand in the hierarchy of their code system.

    Raises Problem ``forbidden``, ``invalid``, ``not_found`` or ``gone``, and ``unprocessable`` for a code system that is not loaded.
    """
    admit_reading(view.permissions, "CodeSystem")
    asked = await read_parameters(request, service, _SUBSUMES)
    given = await _given_system(view, request, asked)
    url = given.url if given is not None else asked.text("system")
    first, second = (_named(asked.text(f"code{one}"), asked.value(f"coding{one}"), url, asked.text("version")) for one in "AB")
    if not first.system or first.system != second.system or (given is not None and first.system != given.url):
        raise Problem("invalid", "Both codes need the same code system.")
    system = given or await view.terminology.code_system(first.system, first.version)
    a, b = _concept(system, first).code, _concept(system, second).code
    assert system is not None
    above_a, above_b = (system.ancestors(code) if system.subsumes else {code} for code in (a, b))
    outcome = "equivalent" if a == b else "subsumes" if a in above_b else "subsumed-by" if b in above_a else "not-subsumed"
    return parameters_response([{"name": "outcome", "valueCode": outcome}])


async def _given_system(view: View, request: Request, asked: Asked) -> CodeSystem | None:
    """The code system of the URL's path, or one that was sent; None if the request only names one."""
    sent = asked.value("codeSystem")
    if len(request.path) == 3:
        if sent is not None or asked.text("url"):
            raise Problem("invalid", "The code system is that of the URL's path.")
        sent = await value_in_steps((await view.read("CodeSystem", request.path[1])).body)
    elif sent is None:
        return None
    if sent is None or sent.get("resourceType") != "CodeSystem":
        raise Problem("invalid", "The parameter 'codeSystem' must be a CodeSystem.")
    return await compiled(sent)


def _codings(asked: Asked, system: str, version: str, *, is_any: bool = False) -> Iterator[Named]:
    """The codes that a request names; ``is_any``: they may be in a CodeableConcept.  Raises Problem ``invalid`` for none or several."""
    concept = asked.value("codeableConcept") if is_any else None
    display = asked.text("display") if is_any else ""
    if bool(asked.text("code")) + (asked.value("coding") is not None) + (concept is not None) != 1:
        raise Problem("invalid", "The operation needs one code: the parameter code, coding" + (" or codeableConcept." if is_any else "."))
    if concept is None:
        named = _named(asked.text("code"), asked.value("coding"), system, version)
        yield named._replace(display=display or named.display)
        return
    codings = [one for one in concept.get("coding", ()) if one.get("code")]
    if not codings:
        raise Problem("invalid", "The codeableConcept has no coding with a code.")
    yield from (_named("", one, "", "") for one in codings)


def _named(code: str, coding: Mapping[str, Any] | None, system: str, version: str) -> Named:
    if coding is None:
        if not code:
            raise Problem("invalid", "The operation needs a code.")
        return Named(system, code, version)
    if code or not coding.get("code"):
        raise Problem("invalid", "A coding needs a code, and is sent in place of the code.")
    of = str(coding.get("system", "")) or system
    return Named(of, str(coding["code"]), str(coding.get("version", "")) or version, str(coding.get("display", "")))


def _one(named: Iterator[Named]) -> tuple[Named]:
    (only,) = named
    return (only,)


def _concept(system: CodeSystem | None, named: Named) -> Concept:
    """Raises Problem ``unprocessable`` if the code system is not loaded, ``not_found`` if it has no such code."""
    concept = system.find(named.code) if system is not None else None
    if concept is not None:
        return concept
    if system is None or not system.is_complete:
        raise not_loaded(named.system, named.version)
    raise Problem("not_found", f"The code system {named.system[:200]!r} has no code {named.code[:200]!r}.")
