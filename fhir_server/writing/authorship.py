"""Who says what a written resource says: a write by a person's app is that person's statement.

Elements that name who says, asks for or does something must name the signed-in person; where the type has such an element and it
is absent, the server sets it.  The received text of everything else stays.  Staff sign with their own name, and may keep the names
that the present version has (http://hl7.org/fhir/R4/fivews.html, who).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.errors import Issue, Problem
from fhir_server.resources import authors, catalog, elements
from fhir_server.resources.references import versioned_target
from fhir_server.writing.draft import Draft
from fhir_server.writing.references import references

Path = jsontext.Path
_ANYWHERE: Final = ("authorReference", "authorString", "who")  # members of Annotation and Signature
_EXTENSIONS: Final = ("extension", "modifierExtension")
# What a person's own report says besides the person, where the definitions leave it open.
_REPORTED: Final[Mapping[str, Mapping[str, bytes]]] = {
    "Immunization": {
        "primarySource": b"false",
        "reportOrigin": b'{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/immunization-origin","code":"recall"}]}',
    },
}
_NEVER: Final = {("Immunization", "primarySource"): True}  # a person reports what others did


@dataclass(frozen=True, slots=True)
class Speaker:
    """The person or member of staff who writes.

    ``names``      the ``Type/id`` of the resources that are this person in this record
    ``reference``  the one that the server writes, "" if there is none
    ``patient``    the patient for whom a proxy speaks, as ``Patient/id``; "" for others
    ``display``    the person's name: the only display that may stand beside a reference to the person
    """

    names: frozenset[str]
    reference: str
    patient: str = ""
    display: str = ""


def as_stated_by(draft: Draft, speaker: Speaker) -> Draft:
    """The draft as the statement of a person.

    Raises Problem ``forbidden`` that names each element that names anybody else.
    """
    require_stated_by(draft, speaker)
    return _with_absent(draft, _statement(draft.type, speaker.reference))


def is_stated_by(resource: Mapping[str, Any], speaker: Speaker) -> bool:
    """Whether a stored resource names the person as its speaker, and nobody else."""
    speaking = [value for _, value in _speaking(resource)]
    return bool(speaking) and all(_names_one(value, speaker.names) for value in speaking)


def require_stated_by(draft: Draft, speaker: Speaker) -> None:
    """Require that nobody but this person speaks in the draft.  Raises Problem ``forbidden``, as :func:`as_stated_by`."""
    allowed = f"must be {speaker.reference}, the person who is signed in, or be absent"
    found = [place for place, value in _speaking(draft.value) if not _is_speaker(value, speaker)]
    found += [place for place, value in _represented(draft.value) if not _names_one(value, speaker.names | {speaker.patient})]
    refused = [(place, allowed) for place in found]
    for (type, name), value in _NEVER.items():
        if type == draft.type and draft.value.get(name) == value:
            refused.append(((name,), f"cannot be {json.dumps(value)} in what a person reports"))
    _refuse(draft.type, refused)


def require_signed_by(draft: Draft, speaker: Speaker, own: frozenset[str], present: Mapping[str, Any]) -> None:
    """Require that a member of staff signs with the own name.

    ``own``      the ``Type/id`` that may stand in for the name, such as the PractitionerRoles of the Practitioner
    ``present``  the present version ({}: a new resource), whose names may stay

    Raises Problem ``forbidden`` that names each element that names anybody else.
    """
    kept = {(_names(place), _normal(value)) for place, value in _signed(present)}
    allowed = f"must be {speaker.reference or 'absent'}: nobody signs for another"
    found = [
        place
        for place, value in _signed(draft.value)
        if (_names(place), _normal(value)) not in kept and not _may_sign(place, value, speaker, own)
    ]
    _refuse(draft.type, [(place, allowed) for place in found])


def changed_members(draft: Draft, present: Mapping[str, bytes]) -> list[str]:
    """The members in which the draft differs from the present version, besides ``id`` and ``meta``."""
    names = (draft.parts.keys() | present.keys()) - {"id", "meta"}
    return sorted(name for name in names if draft.parts.get(name) != present.get(name))


def _statement(type: str, reference: str) -> dict[str, bytes]:
    """The members that a report by the person with this reference has."""
    text = json.dumps({"reference": reference}, separators=(",", ":")).encode()
    stated = authors.stated_in(type, reference.partition("/")[0])
    return {name: b"[" + text + b"]" if is_list else text for name, is_list in stated} | dict(_REPORTED.get(type, {}))


def _with_absent(draft: Draft, members: Mapping[str, bytes]) -> Draft:
    added = {name: text for name, text in members.items() if name not in draft.parts}
    if not added:
        return draft
    value = draft.value | {name: jsontext.parse(text) for name, text in added.items()}
    return Draft(draft.type, value, {**draft.parts, **added}, draft.references | references(b",".join(added.values())))


def _speaking(resource: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Place and value of all that names a speaker, in the resource, in those inside it, in its notes, signatures and extensions."""
    for path, inner in _resources(resource, ()):
        for name in authors.speaking(inner["resourceType"]):
            yield from ((path + below, value) for below, value in elements.at(inner, name))
    yield from _members(resource, (), lambda name, path: name in _ANYWHERE and not _is_element_of_type(path))
    for path, value in _members(resource, (), lambda name, path: name == "valueReference" and _is_in_extension(path)):
        if _target(value)[0] in authors.SPEAKERS or not _target(value)[0]:
            yield path, value


def _represented(resource: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Place and value of all for whom a speaker speaks."""
    return _members(resource, (), lambda name, path: name == "onBehalfOf")


def _signed(resource: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Place and value of all that puts a name to what a resource says; of a note or signature, the whole of it."""
    for path, inner in _resources(resource, ()):
        for name in authors.signed(inner["resourceType"]):
            yield from ((path + below, value) for below, value in elements.at(inner, name))
    for path, _ in _members(resource, (), lambda name, path: name in _ANYWHERE and not _is_element_of_type(path)):
        yield path[:-1], _at(resource, path[:-1])


def _resources(node: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each resource in a JSON value, itself included."""
    if isinstance(node, dict):
        if node.get("resourceType") in catalog():
            yield path, node
        steps: Any = node.items()
    else:
        steps = enumerate(node) if isinstance(node, list) else ()
    for step, value in steps:
        if isinstance(value, dict | list):
            yield from _resources(value, (*path, step))


def _members(node: Any, path: Path, wanted: Callable[[str, Path], bool]) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if wanted(name, (*path, name)):
                yield (*path, name), value
            if isinstance(value, dict | list):
                yield from _members(value, (*path, name), wanted)
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from _members(item, (*path, number), wanted)


def _is_in_extension(path: Path) -> bool:
    return any(step in _EXTENSIONS for step in path)


def _is_element_of_type(path: Path) -> bool:
    """Whether this ``who`` is the agent of a Provenance or AuditEvent, which its type declares."""
    return path[-1] == "who" and "agent" in path


def _at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


def _target(value: Any) -> tuple[str, str]:
    """Type and id of a literal reference to this server; ("", "") for every other value."""
    text = value.get("reference") if isinstance(value, dict) else None
    return (versioned_target(text) if isinstance(text, str) else None) or ("", "")


def _names_one(value: Any, names: frozenset[str]) -> bool:
    return "/".join(_target(value)) in names


def _is_speaker(value: Any, speaker: Speaker) -> bool:
    """Whether a Reference names the speaker and nobody else."""
    if not _names_one(value, speaker.names) or not value.keys() <= {"id", "reference", "type", "display"}:
        return False
    return bool(value.get("type", _target(value)[0]) == _target(value)[0] and value.get("display", speaker.display) == speaker.display)


def _may_sign(place: Path, value: Any, speaker: Speaker, own: frozenset[str]) -> bool:
    names = speaker.names | own
    if isinstance(value, dict) and not value.keys().isdisjoint(_ANYWHERE):  # a note or signature
        return "authorString" not in value and all(_names_one(value[name], names) for name in _ANYWHERE if name in value)
    type = _target(value)[0]
    path = ".".join(_names(place))
    if path in authors.QUOTED and type in ("Patient", "RelatedPerson"):
        return True
    return _names_one(value, names) or type == "Device" or (path.endswith("agent.who") and type == "Organization")


def _names(place: Path) -> tuple[str, ...]:
    """A path without its array indexes."""
    return tuple(step for step in place if isinstance(step, str))


def _normal(value: Any) -> str:
    """A text that is equal for equal values, whatever the order of their members."""
    return json.dumps(value, sort_keys=True, default=str)


def _refuse(type: str, found: list[tuple[Path, str]]) -> None:
    """Raises Problem ``forbidden`` with one issue for each place, if there is any."""
    texts = {type + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place): text for place, text in found}
    issues = tuple(Issue("forbidden", f"{place} {text}.", (place,)) for place, text in texts.items())
    if issues:
        raise Problem("forbidden", issues[0].text, issues)
