"""Draws search criteria: a parameter with modifier, prefix and value, alone, chained or in a ``_filter``."""

from __future__ import annotations

import json

from fhir_server.search.words import CONTENT, NARRATIVE
from tests.noninterference.capability import Capability, Way
from tests.noninterference.rare_secrets import HERE
from tests.noninterference.resource_factory import CODES, KINDS, LOINC
from tests.noninterference.write_requests import UNKNOWN, Writes

_MODIFIERS = {
    "token": ("", "", "", ":not", ":not", ":missing", ":text", ":in", ":not-in", ":below", ":of-type"),
    "reference": ("", "", "", ":missing", ":Patient", ":Observation", ":identifier"),
    "string": ("", "", ":exact", ":contains", ":missing"),
    "uri": ("", "", ":below", ":missing"),
}
_PREFIXES = ("", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


class Criteria(Writes):
    """Search criteria of a case.  The values are mostly those of hidden rows and elements."""

    _capability: Capability
    _steps: dict[str, tuple[Way, ...]]
    _hidden_steps: set[tuple[str, str, str]]

    def _value(self, type: str, param: str, kind: str) -> str:
        fate = self._random.random()
        hidden, shown = self._probes.hidden.get((type, param), ()), self._probes.shown.get((type, param), ())
        if hidden and fate < 0.6:
            return self._pick(*hidden)
        if shown and fate < 0.85:
            return self._pick(*shown)
        if kind == "reference":
            return self._name()
        if kind == "composite":
            value = (
                "value-concept"
                if "concept" in param
                else "value-date"
                if "date" in param
                else "value-string"
                if "string" in param
                else "value-quantity"
            )
            second = {"value-concept": "token", "value-date": "date", "value-string": "string"}.get(value, "quantity")
            if param == "relationship":
                return f"{self._pick('replaces', 'appends')}${self._name()}"
            if param.endswith("-coordinate"):
                return f"1${self._pick(*_PREFIXES)}{self._pick('1', '100')}${self._pick(*_PREFIXES)}{self._pick('1', '200')}"
            code = self._value(type, self._pick("code", "component-code"), "token")
            return f"{code}${self._pick(*_PREFIXES) if second in ('quantity', 'date') else ''}{self._value(type, value, second)}"
        if kind in ("number", "quantity"):
            return self._pick("4", "5", "5.1", "13.5", "100")
        if kind == "special":
            return self._pick(HERE, f"{HERE}|11.20|km", "0|0|5000|[mi_i]", "91|0")
        if kind == "date":
            return self._pick("2026", "2026-05", "2026-05-19", "2027-01-01")
        return self._pick("718-7", "final", "true", "A-100", "A-101", UNKNOWN)

    def _criterion(self, type: str, depth: int = 0) -> tuple[str, str]:
        if depth < 3 and self._random.random() < (0.12, 0.2, 0.1)[depth]:
            return self._chained(type, depth)
        params = self._capability.params[type]
        known = [param for kind, param in self._probes.hidden if kind == type and param in params]
        if not params:
            return "_id", UNKNOWN
        param = self._pick(*known) if known and self._random.random() < 0.6 else self._pick(*params)
        kind = params.get(param, "token")
        if kind in ("date", "number", "quantity"):
            if self._random.random() < 0.15:
                return f"{param}:missing", self._pick("true", "false")
            return param, self._pick(*_PREFIXES) + self._value(type, param, kind)
        modifier = "" if param in (NARRATIVE, CONTENT) else self._pick(*_MODIFIERS.get(kind, ("",)))
        if modifier == ":missing":
            return param + modifier, self._pick("true", "false")
        if modifier in (":of-type", ":identifier", ":text"):
            known = (self._probes.hidden.get((type, param + modifier)), self._probes.shown.get((type, param + modifier)))
            return param + modifier, self._pick(*(self._pick(*values) for values in known if values), f"s|c|{UNKNOWN}")
        if kind == "token" and modifier in (":in", ":not-in"):
            return param + modifier, self._value_set()
        if kind == "token" and modifier == ":below":
            return param + modifier, f"{self._pick(KINDS, LOINC)}|{self._pick('a', 'b', '718-7')}"
        values = [self._value(type, param, kind) for _ in range(self._pick(1, 1, 1, 2))]
        if modifier == ":Patient" or modifier == ":Observation":
            values = [value.partition("/")[2] or value for value in values]
        return param + modifier, ",".join(values)

    def _value_set(self) -> str:
        """A value set, mostly one that may be hidden."""
        named = [name for name in (*self._probes.hidden_ids, *self._probes.shown_ids) if name.startswith("ValueSet/")]
        shipped = "http://hl7.org/fhir/ValueSet/observation-category"
        return self._pick(CODES, CODES, *named, shipped, f"{CODES}|1")

    def _chained(self, type: str, depth: int = 0) -> tuple[str, str]:
        """A chained parameter or ``_has``, of which the last step is mostly about hidden rows."""
        ways = self._steps[type]
        if not ways:
            return self._criterion(type, 3)
        near = [
            way for way in ways if (way.type, way.param, type) in self._hidden_steps or (type, way.param, way.type) in self._hidden_steps
        ]
        way = self._pick(*near) if near and self._random.random() < 0.7 else self._pick(*ways)
        name, value = self._criterion(way.type, depth + 1)
        if way.is_reverse:
            return f"_has:{way.type}:{way.param}:{name}", value
        return f"{way.param}{self._pick(':' + way.type, ':' + way.type, '')}.{name}", value

    def _shape(self) -> list[tuple[str, str]]:
        """Return random result parameters: page size and total."""
        found = []
        if self._random.random() < 0.5:
            found.append(("_count", self._pick("1", "2", "3", "50")))
        if self._random.random() < 0.3:
            found.append(("_total", self._pick("accurate", "estimate", "none")))
        return found

    def _filtered(self, type: str) -> tuple[str, str]:
        """A ``_filter`` of two comparisons."""
        parts = []
        for _ in range(2):
            name, value = self._criterion(type, 3)
            operator = "pr" if name.endswith(":missing") else self._pick("eq", "eq", "ne", "sw", "co", "ge", "lt")
            parts.append(f"{name.partition(':')[0]} {operator} {json.dumps(value) if self._random.random() < 0.3 else value}")
        return "_filter", self._pick("{} and {}", "{} or {}", "{} and not ({})").format(*parts)
