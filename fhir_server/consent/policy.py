"""Policy files: read, layered, checked against their schema, and compiled for :mod:`fhir_server.consent.decision`.

A file is a list of rules over (actor, data class, labels).  Deny overrides, what no rule permits is denied, and the order
of rules does not matter; so a layer that ``extends`` another may add rules and set switches, and needs nothing else.
``docs/policy.md`` explains each field.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import jsonschema

from fhir_server.consent.visibility_classes import LABELS

FOLDER: Final = Path(__file__).parent / "policies"
ACTORS: Final = frozenset({"AS", "MS", "PC", "PT", "PX", "PA", "PR", "CT", "BG", "BO", "AU", "BE", "LP", "LB"})
LEVELS: Final = frozenset({"standard", "full", "scheduling", "billing"})
Feb29 = Literal["mar1", "feb28", "day_before"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One active rule, names resolved.  ``labels`` empty: whatever the labels; ``levels`` empty: at every level."""

    id: str
    source: str
    effect: Literal["permit", "deny", "own", "redact"]
    actors: frozenset[str]
    levels: frozenset[str]
    data: frozenset[str]
    labels: frozenset[str]
    elements: frozenset[str]
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteRule:
    """Which resource types actors may ``create``, ``update`` and ``delete`` (``*``: every type)."""

    actors: frozenset[str]
    levels: frozenset[str]
    types: Mapping[str, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Policy:
    """A compiled policy.  ``version`` is a digest of all that decides; ``minor_account`` the age from which a minor may
    have an account of his or her own (None: never); ``holds`` the (system, code) of results kept from the portal."""

    name: str
    version: str
    timezone: ZoneInfo
    feb29: Feb29
    minor_account: int | None
    classes: frozenset[str]
    holds: frozenset[tuple[str, str]]
    rules: tuple[Rule, ...]
    writes: tuple[WriteRule, ...]
    by_actor: Mapping[tuple[str, str], tuple[Rule, ...]]  # (actor, data class) -> its rules

    @functools.cached_property
    def redactions(self) -> Mapping[str, frozenset[str]]:
        """Data class -> names of the elements that some actor does not get."""
        found: dict[str, frozenset[str]] = {data: frozenset() for data in self.classes}
        for rule in self.rules:
            for data in rule.data:
                found[data] |= rule.elements
        return found


def load(name_or_path: str, *, timezone: str = "") -> Policy:
    """Load the shipped policy of this name, or the policy file at this path (relative to the working directory).

    ``timezone`` (IANA) overrides the file's.
    Raises ValueError, worded for the operator: no such file, not JSON, an unknown key, a name that nothing defines, two
    rules of one id, an unknown time zone.
    """
    layers = _layers(name_or_path, Path())
    merged = _merged(reversed(layers))
    if timezone:
        merged["timezone"] = timezone
    try:
        return _compiled(merged)
    except KeyError as error:
        raise ValueError(f"Policy {merged.get('policy')}: it lacks {error}.") from None


def _path(name_or_path: str, folder: Path) -> Path:
    """The file of a shipped policy, if this is a name, else the path, relative to ``folder``."""
    is_name = "/" not in name_or_path and not name_or_path.endswith(".json")
    return FOLDER / f"{name_or_path}.json" if is_name else folder / name_or_path


def _layers(name_or_path: str, folder: Path) -> list[Json]:
    """The file and those it extends, most specific first."""
    path = _path(name_or_path, folder)
    found: list[Json] = []
    seen: set[Path] = set()
    while True:
        if path.resolve() in seen:
            raise ValueError(f"Policy file {path}: it extends itself.")
        seen.add(path.resolve())
        layer = _read(path)
        found.append(layer)
        parent = layer.get("extends")
        if parent is None:
            return found
        path = _path(parent, path.parent)


def _read(path: Path) -> Json:
    try:
        layer: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"No policy file {path}.") from None
    except ValueError as error:
        raise ValueError(f"Policy file {path} is not JSON: {error}") from None
    worst = jsonschema.exceptions.best_match(_checker().iter_errors(layer))
    if worst is not None:
        raise ValueError(f"Policy file {path}, at {worst.json_path}: {worst.message}")
    return layer


@functools.cache
def _checker() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / "schema.json").read_text(encoding="utf-8")))


def _merged(layers: Iterable[Json]) -> Json:
    """Lists of a layer are added to those below, tables updated, single values replaced."""
    merged: Json = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, list):
                merged[key] = [*merged.get(key, []), *value]
            elif isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
    merged.pop("extends", None)
    return merged


def _compiled(merged: Json) -> Policy:
    classes = frozenset(merged["classes"])
    _require_unique(one["id"] for one in [*merged["rules"], *merged.get("writes", [])])
    # Names are resolved in every rule, also in those a switch turns off: a misspelling must not wait for the switch.
    resolved = [(_rule(raw, merged, classes), raw.get("when", {})) for raw in merged["rules"]]
    switches = merged["switches"]
    rules = tuple(rule for rule, when in resolved if all(switches[name] in values for name, values in when.items()))
    by_actor: dict[tuple[str, str], tuple[Rule, ...]] = {}
    for rule in rules:
        for key in ((actor, data) for actor in rule.actors for data in rule.data):
            by_actor[key] = (*by_actor.get(key, ()), rule)
    try:
        zone = ZoneInfo(merged["timezone"])
    except (OSError, ValueError):
        raise ValueError(f"Policy {merged['policy']}: {merged['timezone']!r} is not a time zone.") from None
    hold = switches["self.sensitive_tests"] == "hold_listed"
    return Policy(
        merged["policy"],
        hashlib.sha256(json.dumps(merged, sort_keys=True).encode()).hexdigest()[:16],
        zone,
        merged["feb29"],
        merged["minor_account"]["min_age"],
        classes,
        frozenset((system, code) for system, _, code in (one.partition("|") for one in merged["holds"]) if hold),
        rules,
        tuple(_write(raw) for raw in merged.get("writes", [])),
        by_actor,
    )


def _require_unique(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"Two rules have the id {one!r}.")
        seen.add(one)


def _rule(raw: Json, merged: Json, classes: frozenset[str]) -> Rule:
    return Rule(
        raw["id"],
        raw["source"],
        raw["effect"],
        _names(raw, "actors", ACTORS, {}),
        frozenset(raw.get("levels", ())),
        _names(raw, "data", classes, {f"@{name}": members for name, members in merged["groups"].items()}),
        _names(raw, "labels", LABELS, merged["sets"]),
        frozenset(raw.get("elements", ())),
        tuple(raw.get("by", ())),
    )


def _write(raw: Json) -> WriteRule:
    types = {letter: frozenset(raw.get(name, ())) for letter, name in (("c", "create"), ("u", "update"), ("d", "delete"))}
    return WriteRule(_names(raw, "actors", ACTORS, {}), frozenset(raw.get("levels", ())), types)


def _names(raw: Json, field: str, known: frozenset[str], groups: Mapping[str, list[str]]) -> frozenset[str]:
    def expanded(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if name == "*":
                yield from known
            elif name in groups:
                yield from expanded(groups[name])
            elif name in known:
                yield name
            else:
                raise ValueError(f"Rule {raw['id']}: {name!r} is not known in {field}.")

    return frozenset(expanded(raw.get(field, ())))
