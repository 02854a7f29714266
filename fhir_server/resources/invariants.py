"""R4's invariants of severity error as Python predicates: the frequent ones by hand, the others compiled from FHIRPath.

A predicate takes (node, %resource, %rootResource) and returns whether the invariant is met. Nodes may hold values of wrong JSON
types, which other checks report; a predicate must not raise on them.  http://hl7.org/fhir/R4/conformance-rules.html#constraints
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fhir_server.resources import fhirpath
from fhir_server.resources.definitions import Invariant
from fhir_server.resources.fhirpath_operators import comparable

Predicate = Callable[[Any, Any, Any], bool]

NOT_ENFORCED: Final[Mapping[str, str]] = {
    "ctm-1": "needs resolve(): only the store knows what a reference refers to",
    "dom-6": "a warning (best practice): narrative is not required",
    "ig-1": "its expression reads %context, which FHIRPath does not define",
    "ig-2": "its expression reads %context, which FHIRPath does not define",
    "ppc-2": "HL7's expression names the system 'something', so it is always met",
    "ppc-3": "as ppc-2",
    "ppc-4": "as ppc-2",
    "ppc-5": "as ppc-2",
    "ref-1": "checked with the reference's targets (reference_targets.py)",
    "txt-1": "checked with the datatype xhtml (xhtml.py)",
    "txt-2": "checked with the datatype xhtml (xhtml.py)",
}


def rule(invariant: Invariant) -> Predicate | None:
    """The predicate of an invariant; None for warnings and for the keys of :data:`NOT_ENFORCED`."""
    if invariant.severity != "error" or invariant.key in NOT_ENFORCED:
        return None
    return BY_HAND.get(invariant.key) or fhirpath.predicate(invariant.expression)


def has(node: Any, name: str) -> bool:
    """Whether an object has an element that is no choice: its value or its ``_x``."""
    return name in node or "_" + name in node


def has_choice(node: Any, base: str) -> bool:
    """Whether an object has the choice element ``base[x]``, in any of its types."""
    size = len(base)
    return any(name.lstrip("_")[:size] == base and name.lstrip("_")[size : size + 1].isupper() for name in node)


def _ordered(low: str, high: str) -> Predicate:
    def is_met(node: Any, resource: Any, root: Any) -> bool:
        if low not in node or high not in node:
            return True
        a, b = comparable(node[low], node[high])
        return a is None or bool(a <= b)

    return is_met


def _needs(name: str, other: str) -> Predicate:
    return lambda node, resource, root: has(node, other) or not has(node, name)


def _items(node: Any, name: str) -> list[dict[str, Any]]:
    found = node.get(name)
    if isinstance(found, dict):
        return [found]
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _ratio(node: Any, resource: Any, root: Any) -> bool:
    if ("numerator" in node) != ("denominator" in node):
        return False
    return "numerator" in node or "extension" in node


def _meta_lacks(*names: str) -> Predicate:
    def is_met(node: Any, resource: Any, root: Any) -> bool:
        if "contained" not in node:
            return True
        return not any(has(meta, name) for part in _items(node, "contained") for meta in _items(part, "meta") for name in names)

    return is_met


def _contained_is_referenced(node: Any, resource: Any, root: Any) -> bool:
    if "contained" not in node:
        return True
    references = _local_references(node)
    return all(f"#{part.get('id')}" in references or "#" in _local_references(part) for part in _items(node, "contained"))


def _local_references(value: Any) -> set[str]:
    """Every text within the value that refers to a contained resource or, as "#", to the container."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind is str:
            if part[:1] == "#":
                found.add(part)
        elif kind is dict:
            waiting.extend(part.values())
        elif kind is list:
            waiting.extend(part)
    return found


def _codings(node: Any) -> Iterator[str]:
    for concept in _items(node, "code"):
        for coding in _items(concept, "coding"):
            yield repr(sorted(coding.items(), key=str))


def _components_differ(node: Any, resource: Any, root: Any) -> bool:
    if "component" not in node or not has_choice(node, "value"):
        return True
    own = set(_codings(node))
    return not any(own.intersection(_codings(part)) for part in _items(node, "component"))


def _has_code(concept: Any, system: str, codes: frozenset[str]) -> bool:
    holder = {"concept": concept}
    found = (coding for item in _items(holder, "concept") for coding in _items(item, "coding"))
    return any(coding.get("system") == system and str(coding.get("code")) in codes for coding in found)


def _entered_in_error(system: str) -> Callable[[Any], bool]:
    return lambda node: _has_code(node.get("verificationStatus"), system, frozenset({"entered-in-error"}))


_CONDITION = "http://terminology.hl7.org/CodeSystem/condition-"
_ABATED = frozenset({"resolved", "remission", "inactive"})
_wrong_condition = _entered_in_error(_CONDITION + "ver-status")
_wrong_allergy = _entered_in_error("http://terminology.hl7.org/CodeSystem/allergyintolerance-verification")


def _abated(node: Any, resource: Any, root: Any) -> bool:
    return not has_choice(node, "abatement") or _has_code(node.get("clinicalStatus"), _CONDITION + "clinical", _ABATED)


def _cancellation(node: Any, resource: Any, root: Any) -> bool:
    return not has(node, "cancelationReason") or node.get("status") in ("cancelled", "noshow")


def _paths(node: Any) -> list[str]:
    return [str(element.get("path")) for element in _items(node, "element")]


def _snapshot_rooted(node: Any, resource: Any, root: Any) -> bool:
    first, *rest = _paths(node) or [""]
    return (resource.get("kind") == "logical" or first == resource.get("type")) and all(p.startswith(f"{first}.") for p in rest)


def _differential_rooted(node: Any, resource: Any, root: Any) -> bool:
    first, *rest = _paths(node) or [""]
    named = resource.get("kind") == "logical" or first.startswith(str(resource.get("type")))
    return named and all(path.startswith(first.partition(".")[0] + ".") for path in rest)


ENTRY_ELEMENTS: Final = {
    "bdl-3": ("request", frozenset({"batch", "transaction", "history"})),
    "bdl-4": ("response", frozenset({"batch-response", "transaction-response", "history"})),
}
"""Invariant of Bundle -> the element that each entry of a Bundle of these types has, and no entry of another type."""


def _entries_have(key: str) -> Predicate:
    name, kinds = ENTRY_ELEMENTS[key]

    def is_met(node: Any, resource: Any, root: Any) -> bool:
        wanted = any(node.get("type") == kind for kind in kinds)  # the type may be anything that JSON has
        return all((name in entry) == wanted for entry in _items(node, "entry"))

    return is_met


def _full_urls_differ(node: Any, resource: Any, root: Any) -> bool:
    """No two entries of a Bundle have the same fullUrl, unless their versions differ; a history repeats them."""
    names = [
        f"{entry['fullUrl']}{version}"
        for entry in _items(node, "entry")
        if "fullUrl" in entry
        for version in [next((meta.get("versionId", "") for part in _items(entry, "resource") for meta in _items(part, "meta")), "")]
    ]
    return node.get("type") == "history" or len(set(names)) == len(names)


BY_HAND: Final[Mapping[str, Predicate]] = {
    # HL7's expression has "no-show", which is not a code of the status; the code is "noshow"
    "app-4": _cancellation,
    "ait-1": lambda node, resource, root: "clinicalStatus" in node or _wrong_allergy(node),
    "ait-2": lambda node, resource, root: "clinicalStatus" not in node or not _wrong_allergy(node),
    "att-1": _needs("data", "contentType"),
    # by hand because a Bundle may have thousands of entries
    "bdl-3": _entries_have("bdl-3"),
    "bdl-4": _entries_have("bdl-4"),
    "bdl-5": lambda node, resource, root: "resource" in node or "request" in node or "response" in node,
    "bdl-7": _full_urls_differ,
    "bdl-8": lambda node, resource, root: "/_history/" not in str(node.get("fullUrl")),
    "con-4": _abated,
    "con-5": lambda node, resource, root: "clinicalStatus" not in node or not _wrong_condition(node),
    "cpt-2": _needs("value", "system"),
    "dom-2": lambda node, resource, root: "contained" not in node or not any("contained" in p for p in _items(node, "contained")),
    "dom-3": _contained_is_referenced,
    "dom-4": _meta_lacks("versionId", "lastUpdated"),
    "dom-5": _meta_lacks("security"),
    "obs-6": lambda node, resource, root: "dataAbsentReason" not in node or not has_choice(node, "value"),
    "obs-7": _components_differ,
    "per-1": _ordered("start", "end"),
    "qty-3": _needs("code", "system"),
    "rat-1": _ratio,
    "rng-2": _ordered("low", "high"),
    # by hand because their expressions compare every element with every other
    "sdf-8": _snapshot_rooted,
    "sdf-8a": _differential_rooted,
}
