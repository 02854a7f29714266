"""Reads policy files, checks them against their schema, and compiles them for :mod:`fhir_server.consent.decision`.

A file is a list of rules over (actor, data class, labels). A deny rule overrides permit rules, what no rule permits is denied, and
the order of rules does not matter. A file that ``extends`` another adds rules and sets switches. docs/policy.md explains each field.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import jsonschema

from fhir_server.consent.visibility_classes import LABELS

FOLDER: Final = Path(__file__).parent / "policies"
LEVELS: Final = frozenset({"standard", "full", "scheduling", "billing"})
"""The levels of an adult grant, as in the CodeSystem proxy-level."""

Feb29 = Literal["mar1", "feb28", "day_before"]
Json = dict[str, Any]


class ActorKind(StrEnum):
    """The roles of a caller toward a patient (docs/policy.md, roles); the values are those of policy files."""

    ADULT_SELF = "AS"
    MINOR_SELF = "MS"
    CHILD_PROXY = "PC"
    TEEN_PROXY = "PT"
    EXPIRED_PROXY = "PX"
    ADULT_PROXY = "PA"
    REPRESENTATIVE = "PR"
    CLINICIAN = "CT"
    BREAK_GLASS = "BG"
    BILLING_OFFICE = "BO"
    PRIVACY_OFFICE = "AU"
    BACKEND = "BE"
    LINKED_ORGANIZATION = "LP"
    TREATING_ORGANIZATION = "LB"


ACTORS: Final = frozenset(ActorKind)


@dataclass(frozen=True, slots=True)
class Rule:
    """An active rule with all names resolved.  Empty ``labels`` match all labels, empty ``levels`` all levels."""

    id: str
    source: str
    effect: Literal["permit", "deny", "own", "redact"]
    actors: frozenset[ActorKind]
    levels: frozenset[str]
    data: frozenset[str]
    labels: frozenset[str]
    elements: frozenset[str]
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteRule:
    """The resource types (``*``: every type) that actors may create ("c"), update ("u") and delete ("d").

    ``categories``  type -> the codes of ``category`` that a resource of this type may have; other types may have any
    ``operations``  the operations that the actors may ask, of those that not everybody may who reads what they answer
    """

    actors: frozenset[ActorKind]
    levels: frozenset[str]
    types: Mapping[str, frozenset[str]]
    categories: Mapping[str, frozenset[str]]
    operations: frozenset[str]


@dataclass(frozen=True, eq=False)
class Policy:
    """A compiled policy.

    ``version``        a digest of the merged policy files
    ``minor_account``  the age from which a minor has access to the own record (None: never)
    ``holds``          (system, code) of results that are withheld from the patient side
    ``by_actor``       (actor, data class) -> the rules for it
    """

    name: str
    version: str
    timezone: ZoneInfo
    feb29: Feb29
    minor_account: int | None
    classes: frozenset[str]
    holds: frozenset[tuple[str, str]]
    rules: tuple[Rule, ...]
    writes: tuple[WriteRule, ...]
    by_actor: Mapping[tuple[ActorKind, str], tuple[Rule, ...]]

    @functools.cached_property
    def redactions(self) -> Mapping[str, frozenset[str]]:
        """Data class -> names of the elements that the policy removes for some actor."""
        elements: dict[str, frozenset[str]] = {data: frozenset() for data in self.classes}
        for rule in self.rules:
            for data in rule.data:
                elements[data] |= rule.elements
        return elements

    @functools.cached_property
    def own_parameters(self) -> Mapping[str, tuple[str, ...]]:
        """Data class -> the search parameters by which resources of it name the actor who may see them, for any actor."""
        params: dict[str, set[str]] = {}
        for (_, data), rules in self.by_actor.items():
            params.setdefault(data, set()).update(param for rule in rules for param in rule.by)
        return {data: tuple(sorted(found)) for data, found in params.items()}


def load(name_or_path: str, *, timezone: str = "") -> Policy:
    """Load the shipped policy of this name, or the policy file at this path (relative to the working
    directory); ``timezone`` (an IANA name) overrides the time zone of the file.

    Raises ValueError with a message for the operator if there is no such file, it is not JSON, it has an unknown key or an
    undefined name, two rules have the same id, or the time zone is unknown.
    """
    layers = _layers(name_or_path, Path())
    merged = _merge(reversed(layers))
    if timezone:
        merged["timezone"] = timezone
    try:
        return _compile(merged)
    except KeyError as error:
        raise ValueError(f"Policy {merged.get('policy')}: the key {error} is missing.") from None


def _path(name_or_path: str, folder: Path) -> Path:
    """The file of a shipped policy if this is a name, otherwise the path, relative to ``folder``."""
    is_name = "/" not in name_or_path and not name_or_path.endswith(".json")
    return FOLDER / f"{name_or_path}.json" if is_name else folder / name_or_path


def _layers(name_or_path: str, folder: Path) -> list[Json]:
    """The file and the files that it extends, most specific first."""
    path = _path(name_or_path, folder)
    layers: list[Json] = []
    visited: set[Path] = set()
    while True:
        if path.resolve() in visited:
            raise ValueError(f"Policy file {path}: it extends itself.")
        visited.add(path.resolve())
        layer = _read(path)
        layers.append(layer)
        parent = layer.get("extends")
        if parent is None:
            return layers
        path = _path(parent, path.parent)


def _read(path: Path) -> Json:
    try:
        layer: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"There is no policy file {path}.") from None
    except ValueError as error:
        raise ValueError(f"Policy file {path} is not JSON: {error}") from None
    violation = jsonschema.exceptions.best_match(_schema_validator().iter_errors(layer))
    if violation is not None:
        raise ValueError(f"Policy file {path}, at {violation.json_path}: {violation.message}")
    return layer


@functools.cache
def _schema_validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / "schema.json").read_text(encoding="utf-8")))


def _merge(layers: Iterable[Json]) -> Json:
    """Merge layers, the most general first: lists are concatenated, objects updated, single values replaced.

    Raises ValueError for a layer that would weaken a deny rule in silence (:func:`_require_no_weakening`).
    """
    merged: Json = {}
    for layer in layers:
        _require_no_weakening(merged, layer)
        for key, value in layer.items():
            if isinstance(value, list):
                merged[key] = [*merged.get(key, []), *value]
            elif isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
    merged.pop("extends", None)
    return merged


def _require_no_weakening(merged: Json, layer: Json) -> None:
    """Require that no deny rule of the layers below covers less than before: a permit rule or a switch says so, a name does not.

    A set of labels, which only deny rules use, may get more members.  A group of data classes may not change, because permit rules
    use it, too.  No set has the name of a label, which it would replace.
    """
    name = layer.get("policy")
    for group in layer.get("groups", {}):
        if group in merged.get("groups", {}):
            raise ValueError(f"Policy {name}: the group {group!r} is defined again; give it another name.")
    for set_name, members in layer.get("sets", {}).items():
        if set_name in LABELS or set_name == "*":
            raise ValueError(f"Policy {name}: {set_name!r} is the name of a label; give the set another one.")
        former = merged.get("sets", {})
        if set_name in former:
            left_out = _members(former[set_name], former) - _members(members, {**former, **layer["sets"]})
            if left_out:
                raise ValueError(f"Policy {name}: the set {set_name!r} leaves out {', '.join(sorted(left_out))}, which it had before.")


def _members(names: Iterable[str], sets: Mapping[str, list[str]]) -> frozenset[str]:
    """The labels that these names stand for; what is no known name stands for itself."""
    return frozenset(_expand(names, frozenset(LABELS), sets))


def _compile(merged: Json) -> Policy:
    classes = frozenset(merged["classes"])
    _require_unique(rule["id"] for rule in [*merged["rules"], *merged.get("writes", [])])
    # Names are resolved in inactive rules, too, so that a misspelled name is reported before a switch activates the rule.
    resolved = [(_rule(raw, merged, classes), raw.get("when", {})) for raw in merged["rules"]]
    switches = merged["switches"]
    rules = tuple(rule for rule, when in resolved if all(switches[name] in values for name, values in when.items()))
    by_actor: dict[tuple[ActorKind, str], tuple[Rule, ...]] = {}
    for rule in rules:
        for key in ((actor, data) for actor in rule.actors for data in rule.data):
            by_actor[key] = (*by_actor.get(key, ()), rule)
    try:
        zone = ZoneInfo(merged["timezone"])
    except (OSError, ValueError):
        raise ValueError(f"Policy {merged['policy']}: {merged['timezone']!r} is not a time zone.") from None
    applies_holds = switches["self.sensitive_tests"] == "hold_listed"
    return Policy(
        merged["policy"],
        hashlib.sha256(json.dumps(merged, sort_keys=True).encode()).hexdigest()[:16],
        zone,
        merged["feb29"],
        merged["minor_account"]["min_age"],
        classes,
        frozenset((system, code) for system, _, code in (hold.partition("|") for hold in merged["holds"]) if applies_holds),
        rules,
        tuple(_write_rule(raw) for raw in merged.get("writes", [])),
        by_actor,
    )


def _require_unique(ids: Iterable[str]) -> None:
    known: set[str] = set()
    for id in ids:
        if id in known:
            raise ValueError(f"Two rules have the id {id!r}.")
        known.add(id)


def _rule(raw: Json, merged: Json, classes: frozenset[str]) -> Rule:
    return Rule(
        raw["id"],
        raw["source"],
        raw["effect"],
        _actors(raw),
        frozenset(raw.get("levels", ())),
        _names(raw, "data", classes, {f"@{name}": members for name, members in merged["groups"].items()}),
        _names(raw, "labels", LABELS, merged["sets"]),
        frozenset(raw.get("elements", ())),
        tuple(raw.get("by", ())),
    )


def _actors(raw: Json) -> frozenset[ActorKind]:
    return frozenset(ActorKind(name) for name in _names(raw, "actors", ACTORS, {}))


def _write_rule(raw: Json) -> WriteRule:
    types = {letter: frozenset(raw.get(name, ())) for letter, name in (("c", "create"), ("u", "update"), ("d", "delete"))}
    categories = {type: frozenset(codes) for type, codes in raw.get("categories", {}).items()}
    return WriteRule(_actors(raw), frozenset(raw.get("levels", ())), types, categories, frozenset(raw.get("operations", ())))


def _names(raw: Json, field: str, known: frozenset[str], groups: Mapping[str, list[str]]) -> frozenset[str]:
    found = frozenset(_expand(raw.get(field, ()), known, groups))
    for name in sorted(found - known):
        raise ValueError(f"Rule {raw['id']}: {name!r} is not a known name in {field}.")
    return found


def _expand(names: Iterable[str], known: frozenset[str], groups: Mapping[str, list[str]], inside: tuple[str, ...] = ()) -> Iterator[str]:
    """Replace names of groups by their members, and ``*`` by all.  Raises ValueError for a group that contains itself."""
    for name in names:
        if name in inside:
            raise ValueError(f"{name!r} contains itself.")
        if name == "*":
            yield from known
        elif name in groups:
            yield from _expand(groups[name], known, groups, (*inside, name))
        else:
            yield name
