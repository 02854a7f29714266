"""Random searches of every type: by each parameter with each modifier and prefix, by chains and ``_has``, with sorting and includes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from fhir_server.clock import MIN_INSTANT
from fhir_server.errors import Problem
from fhir_server.jsontext import dumps, parse
from fhir_server.resources import definitions
from fhir_server.search import index, query, words
from fhir_server.search.composites import composites
from fhir_server.search.custom_parameters import current
from fhir_server.search.sort_keys import sortable
from fhir_server.search.steps import steps
from tests.noninterference.paired_server import BASE, NOW
from tests.noninterference.probes import spelled
from tests.noninterference.resource_factory import LOINC, coded
from tests.properties.random_resources import Json, ResourceMaker

Pair = tuple[str, str]
PREFIXES = ("", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_ORDERED = ("date", "number", "quantity")
_TEXTS = ("words", "Words and more", "Éclair", "one", "two words", "x")
_DATES = ("2025", "2026-01", "2026-01-01", "2026-01-02", "2026-02-28")
_INSTANTS = ("2026-01-01T00:00:00Z", "2026-01-01T23:30:00-05:00", "2026-01-02T03:00:00.5+01:00")
_URLS = ("http://x.example/u", "http://x.example/u/v", "http://y.example/u", "urn:oid:1.2.3")


class VariedResources(ResourceMaker):
    """Resources whose values differ, so that searches tell them apart."""

    def _value(self, place: Any, element: Any, member: str, kind: Any, depth: int, density: float) -> Any:
        if not element.codes:
            match kind.code:
                case "string" | "markdown":
                    return self.random.choice(_TEXTS)
                case "date":
                    return self.random.choice(_DATES)
                case "dateTime":
                    return self.random.choice((*_DATES, *_INSTANTS))
                case "instant":
                    return self.random.choice(_INSTANTS)
                case "decimal" | "integer" | "positiveInt" | "unsignedInt":
                    return self.random.choice((1, 2, 3))
                case "boolean":
                    return self.random.random() < 0.5
                case "uri" | "url" | "canonical":
                    return self.random.choice(_URLS)
                case "CodeableConcept":
                    return coded(LOINC, self.random.choice(("718-7", "2339-0", "8480-6")))
        return super()._value(place, element, member, kind, depth, density)

    def _wish(self, place: Any, element: Any, depth: int, density: float) -> float:
        return max(super()._wish(place, element, depth, density), 0.45 if depth == 0 else 0.15)


class QueryMaker:
    """Makes searches whose values are mostly those of the rows; the same seed makes the same ones.

    They use R4's parameters and the custom ones that are in use.
    """

    def __init__(self, seed: int, resources: Iterable[Json]) -> None:
        self.random = random.Random(seed)
        self._values: dict[tuple[str, str], list[str]] = {}
        self._of_kind: dict[str, list[str]] = {}
        for resource in resources:
            type, value = resource["resourceType"], parse(dumps(resource))
            for entry in (*index.entries(type, value, BASE, current().of(type)), *words.entries(type, value)):
                if entry.kind == "date" and entry.value[0] == MIN_INSTANT:  # a period without a start
                    continue
                texts = [_escaped(text) if entry.kind == "string" else text for text in spelled(entry)]
                self._values.setdefault((type, entry.param), []).extend(texts)
                self._of_kind.setdefault(entry.kind, []).extend(texts)

    def plain(self) -> list[tuple[str, Pair]]:
        """(type, criterion) for each parameter of each type with each modifier and prefix that it supports."""
        return [(type, pair) for type in definitions.types() for pair in self._of_type(type)]

    def mixed(self) -> tuple[str, list[Pair]]:
        """A search with chains, ``_has``, ``_filter``, several criteria, sorting or includes."""
        type = self.random.choice(definitions.types())
        makers = (self._chained, self._chained, self._reverse, self._reverse, self._filtered, self._several, self._shaped)
        make = self.random.choice((*makers, self._sorted_by_chain))
        pairs = make(type)
        return (type, pairs) if pairs and all(self._is_answered(type, pair) for pair in pairs if pair[0][:1] != "_") else self.mixed()

    def _of_type(self, type: str) -> Iterator[Pair]:
        for code, parameter in index.parameters(type).items():
            for prefix in PREFIXES if parameter.definition.kind in _ORDERED else ("",):
                yield code, prefix + self._value(type, code)
            targets = self.random.sample(parameter.targets, min(2, len(parameter.targets)))
            for modifier in ("missing", *sorted(parameter.kind.modifiers), *targets):
                pair = f"{code}:{modifier}", self._value_with(type, code, modifier)
                if self._is_answered(type, pair):
                    yield pair
        for code, composite in composites(type).items():
            values = [kind for kind, _ in composite.definition.components][1:]
            texts = [f"{self.random.choice(PREFIXES) if kind in _ORDERED else ''}{self._any(kind)}" for kind in values]
            yield code, "$".join([self._any("token"), *texts])
        for code in words.parameters(type):
            yield code, self._any("words")

    def _value(self, type: str, code: str) -> str:
        parameter = index.parameters(type)[code]
        known = [value for param in parameter.indexed_as.params for value in self._values.get((type, param), ())]
        if code == "_id":
            return self.random.choice(("a", "b", "a,c", "zz"))
        if parameter.flag:
            return self.random.choice(("true", "false"))
        some = self.random.choice(known) if known and self.random.random() < 0.8 else self._any(parameter.definition.kind)
        if self.random.random() < 0.15 and parameter.definition.kind not in ("quantity", "special"):
            return f"{some},{self._any(parameter.definition.kind)}"
        return some

    def _value_with(self, type: str, code: str, modifier: str) -> str:
        match modifier:
            case "missing":
                return self.random.choice(("true", "false"))
            case "in" | "not-in":
                return "http://hl7.org/fhir/ValueSet/observation-category"
            case "above" | "below" if index.parameters(type)[code].definition.kind == "token":
                return "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
            case "of-type":
                return f"{LOINC}|718-7|{self.random.choice(_TEXTS)}"
            case "identifier":
                return self._any("token")
            case _ if modifier in definitions.types():
                return self.random.choice(("a", "b", "c"))
        return self._value(type, code)

    def _any(self, kind: str) -> str:
        entry = {"number": "quantity", "uri": "reference", "special": "position"}.get(kind, kind)
        default = {"date": "2026", "quantity": "1", "reference": "Patient/a", "position": "1|1"}.get(entry, "words")
        return self.random.choice(self._of_kind.get(entry, [default]))

    def _one(self, type: str) -> Pair:
        return self.random.choice(list(self._of_type(type)))

    def _reference(self, type: str) -> str | None:
        found = [code for code, one in index.parameters(type).items() if one.definition.kind == "reference" and one.targets]
        return self.random.choice(found) if found else None

    def _chained(self, type: str, depth: int = 0) -> list[Pair]:
        code = self._reference(type)
        if code is None:
            return []
        target = self.random.choice(index.parameters(type)[code].targets)
        inner = self._chained(target, 1) if depth == 0 and self.random.random() < 0.3 else [self._one(target)]
        return [(f"{code}:{target}.{name}", value) for name, value in inner]

    def _reverse(self, type: str) -> list[Pair]:
        sources = [
            (source, code)
            for source in definitions.types()
            for code, parameter in index.parameters(source).items()
            if parameter.definition.kind == "reference" and type in parameter.targets and source != "AuditEvent"
        ]
        if not sources:
            return []
        source, code = self.random.choice(sources)
        name, value = self._one(source)
        return [(f"_has:{source}:{code}:{name}", value)]

    def _filtered(self, type: str) -> list[Pair]:
        (one, first), (other, second) = self._one(type), self._one(type)
        parts = [f"{name.partition(':')[0]} {self.random.choice(('eq', 'ne', 'co', 'ge', 'lt', 'pr'))} {value}" for name, value in
                 ((one, first), (other, second))]  # fmt: skip
        return [("_filter", f"{parts[0]} {self.random.choice(('and', 'or'))} not ({parts[1]})")]

    def _several(self, type: str) -> list[Pair]:
        return [self._one(type), self._one(type)]

    def _shaped(self, type: str) -> list[Pair]:
        sort = ",".join(self.random.choice(("", "-")) + code for code in self.random.sample(sortable(type), 2))
        pairs = [("_sort", sort), ("_count", self.random.choice(("1", "2", "50")))]
        if (code := self._reference(type)) is not None:
            pairs.append(("_include", f"{type}:{code}"))
        return pairs

    def _sorted_by_chain(self, type: str) -> list[Pair]:
        key, more = self._chained_key(type), self.random.choice(("", ",-_id", f",{self.random.choice(sortable(type))}"))
        if key is None:
            return []
        return [("_sort", self.random.choice(("", "-")) + key + more), ("_count", self.random.choice(("1", "2", "50")))]

    def _chained_key(self, type: str, depth: int = 0) -> str | None:
        code = self._reference(type)
        if code is None:
            return None
        target = self.random.choice(index.parameters(type)[code].targets)
        inner = self._chained_key(target, 1) if depth == 0 and self.random.random() < 0.3 else self.random.choice(sortable(target))
        return None if inner is None else f"{code}:{target}.{inner}"

    def _is_answered(self, type: str, pair: Pair) -> bool:
        try:
            where = query.condition(type, [pair], NOW, BASE)
        except Problem:
            return False
        return sum(1 for _ in steps(where)) < 50


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,").replace("$", "\\$").replace("|", "\\|")
