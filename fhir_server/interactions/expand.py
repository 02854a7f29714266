"""``ValueSet/$expand`` (http://hl7.org/fhir/R4/valueset-operation-expand.html): the codes of a value set.

An expansion is flat, so that it can be paged.  A value set of which not all codes can be known is refused; a page says how many there
are in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.clock import instant_text
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.operation_parameters import Asked, admit_reading, json_response, read_parameters
from fhir_server.interactions.service import Service
from fhir_server.json_slices import value_in_steps
from fhir_server.terminology.expansion import Code, Expander, SystemVersions
from fhir_server.terminology.problems import unknown

_BCP_47: Final = "urn:ietf:bcp:47"
_HEAD: Final = ("resourceType", "url", "version", "name", "title", "status")
PARAMETERS: Final = {
    **dict.fromkeys(("url", "valueSetVersion", "filter", "displayLanguage"), "text"),
    **dict.fromkeys(("offset", "count"), "number"),
    **dict.fromkeys(
        ("includeDesignations", "includeDefinition", "activeOnly", "excludeNested", "excludeNotForUI", "excludePostCoordinated"), "flag"
    ),
    **dict.fromkeys(("designation", "exclude-system", "system-version", "check-system-version", "force-system-version"), "texts"),
    **dict.fromkeys(("context", "contextDirection", "date"), "refused"),
    "valueSet": "resource",
}


async def expand(view: View, request: Request, service: Service) -> Response:
    """By GET and POST, of a type (``url``, ``valueSet``) and of an instance.

    Raises Problem ``forbidden``, ``not_found``, ``gone``, ``invalid``, and ``unprocessable`` for a value set of which not all codes
    can be known.
    """
    admit_reading(view.permissions, "ValueSet")
    asked = await read_parameters(request, service, PARAMETERS, "ValueSet")
    value_set = await asked_value_set(view, request, asked)
    expander = Expander(view.terminology, _versions(asked))
    codes = list((await expander.expand(value_set, tuple(_names(value_set)))).values())
    wanted = _test(asked)
    passed = await budget.each(wanted, codes)
    codes = [code for code, passes in zip(codes, passed, strict=True) if passes]
    offset, count = asked.number("offset") or 0, asked.number("count")
    page = codes[offset:] if count is None else codes[offset : offset + count]
    used = [{"name": "version", "valueUri": f"{url}|{version}"} for url, version in expander.used.items() if version]
    expansion: dict[str, Any] = {"timestamp": instant_text(view.now), "total": len(codes), "offset": offset}
    if parameters := [*({"name": name, **_valued(name, text)} for name, text in asked.given()), *used]:
        expansion["parameter"] = parameters
    if contains := await budget.each(lambda code: _entry(code, asked), page):
        expansion["contains"] = contains
    shown = (*_HEAD, "compose") if asked.flag("includeDefinition") else _HEAD
    head = {name: value_set[name] for name in shown if name in value_set}
    return json_response({**head, "expansion": expansion})


async def asked_value_set(view: View, request: Request, asked: Asked) -> dict[str, Any]:
    """The value set that a request is about: an instance, one that was sent, or one with a URL.

    Raises Problem ``invalid`` if there is not exactly one, ``not_found`` or ``gone``.
    """
    sent, url, is_instance = asked.value("valueSet"), asked.text("url"), len(request.path) == 3
    if (sent is not None) + bool(url) + is_instance != 1:
        raise Problem("invalid", "The operation needs one value set: that of the URL's path, or the parameter url, or valueSet.")
    if sent is not None:
        if sent.get("resourceType") != "ValueSet":
            raise Problem("invalid", "The parameter 'valueSet' must be a ValueSet.")
        return sent
    if is_instance:
        value: dict[str, Any] = await value_in_steps((await view.read("ValueSet", request.path[1])).body)
        return value
    found = await view.terminology.find("ValueSet", url, asked.text("valueSetVersion"))
    if found is None:
        raise unknown("ValueSet", url)
    return found.resource


def _names(value_set: Mapping[str, Any]) -> list[str]:
    """The canonical URLs of a value set, by which it may not include itself."""
    url = value_set.get("url")
    return [url, f"{url}|{value_set['version']}"] if url and "version" in value_set else [url] if url else []


def _versions(asked: Asked) -> SystemVersions:
    default, forced, checked = (
        dict(_canonical(text) for text in asked.all(f"{prefix}system-version")) for prefix in ("", "force-", "check-")
    )
    return SystemVersions(default, forced, checked)


def _canonical(text: str) -> tuple[str, str]:
    url, _, version = text.partition("|")
    if not url or not version:
        raise Problem("invalid", "The version of a code system is written url|version.")
    return url, version


def _test(asked: Asked) -> Callable[[Code], bool]:
    """Whether a code is one that the request wants."""
    words = asked.text("filter").casefold().split()
    excluded = {text.partition("|")[0] for text in asked.all("exclude-system")}
    active_only, for_ui = asked.flag("activeOnly"), asked.flag("excludeNotForUI")

    def test(code: Code) -> bool:
        if code.system in excluded or (active_only and code.is_inactive) or (for_ui and code.is_abstract):
            return False
        if not words:
            return True
        text = " ".join([code.code, code.display, *(str(one.get("value", "")) for one in code.designations)]).casefold()
        return all(word in text for word in words)

    return test


def _entry(code: Code, asked: Asked) -> dict[str, Any]:
    entry: dict[str, Any] = {"system": code.system} if code.system else {}
    if code.is_abstract:
        entry["abstract"] = True
    if code.is_inactive:
        entry["inactive"] = True
    entry |= {"code": code.code} | ({"version": code.version} if code.version else {})
    display = display_in(code.display, code.designations, asked.text("displayLanguage"))
    if display:
        entry["display"] = display
    wanted = asked.all("designation")
    designations = [one for one in code.designations if not wanted or any(_is_wanted(one, text) for text in wanted)]
    if designations and (wanted or asked.flag("includeDesignations")):
        entry["designation"] = designations
    return entry


def display_in(display: str, designations: tuple[Mapping[str, Any], ...], language: str) -> str:
    """The designation in a language (BCP 47; ``de`` is also for ``de-CH``); the display itself without one."""
    wanted = language.lower()
    for one in designations if wanted else ():
        has = str(one.get("language", "")).lower()
        if has and (has == wanted or has.startswith(wanted + "-") or wanted.startswith(has + "-")):
            return str(one.get("value", display))
    return display


def _is_wanted(designation: Mapping[str, Any], text: str) -> bool:
    """Whether a designation has the use or the language of a token ``system|code``."""
    system, bar, code = text.partition("|")
    system, code = (system, code) if bar else ("", system)
    if system == _BCP_47 or (not system and designation.get("language") == code):
        return bool(designation.get("language") == code)
    use = designation.get("use", {})
    return bool(use.get("code") == code and system in ("", use.get("system")))


def _valued(name: str, text: str) -> dict[str, Any]:
    kind = PARAMETERS[name]
    if kind == "flag":
        return {"valueBoolean": text == "true"}
    if kind == "number":
        return {"valueInteger": int(text)}
    return {"valueUri": text} if name in ("url", "system-version", "exclude-system") else {"valueString": text}
