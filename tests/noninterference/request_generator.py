"""Generates requests from the CapabilityStatement and from the values in visible and hidden data.

Every type, search parameter and include of the CapabilityStatement can occur, so new features are covered automatically.
Search values are mostly those of hidden rows and elements (:class:`Probes`), those of visible ones, and similar values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

from fhir_server.search import index
from fhir_server.search.words import CONTENT, NARRATIVE
from tests.noninterference.case_generator import Case
from tests.noninterference.content_requests import ContentRequests
from tests.noninterference.paired_server import Ask
from tests.noninterference.probes import Probes
from tests.noninterference.rare_secrets import HERE
from tests.noninterference.resource_factory import CODES, KINDS, LOINC
from tests.noninterference.write_requests import JSON_TYPE, UNKNOWN, text_of

_MODIFIERS = {
    "token": ("", "", "", ":not", ":not", ":missing", ":text", ":in", ":not-in", ":below", ":of-type"),
    "reference": ("", "", "", ":missing", ":Patient", ":Observation", ":identifier"),
    "string": ("", "", ":exact", ":contains", ":missing"),
    "uri": ("", "", ":below", ":missing"),
}
_PREFIXES = ("", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


class Capability:
    """The parts of the CapabilityStatement from which requests are generated."""

    def __init__(self, statement: dict[str, Any]) -> None:
        resources = {one["type"]: one for one in statement["rest"][0]["resource"]}
        self.types = tuple(resources)
        self.params = {type: {p["name"]: p["type"] for p in one.get("searchParam", ())} for type, one in resources.items()}
        self.includes = {type: tuple(one.get("searchInclude", ())) for type, one in resources.items()}
        self.revincludes = {type: tuple(one.get("searchRevInclude", ())) for type, one in resources.items()}
        compartments = {url.rpartition("/")[2] for url in statement["rest"][0]["compartment"]}
        self.compartments = frozenset(type for type in resources if type[0].lower() + type[1:] in compartments)


class Way(NamedTuple):
    """A step of a chain to ``type`` by reference ``param`` or, if it is reverse, of ``_has`` by that type's ``param``."""

    type: str
    param: str
    is_reverse: bool


def _ways(type: str, types: tuple[str, ...]) -> Iterator[Way]:
    """The steps from one type to these types."""
    for code, parameter in index.parameters(type).items():
        if parameter.definition.kind == "reference":
            yield from (Way(target, code, False) for target in types if target in parameter.targets)
    for source in types:
        for code, parameter in index.parameters(source).items():
            if parameter.definition.kind == "reference" and type in parameter.targets:
                yield Way(source, code, True)


class Asker(ContentRequests):
    """Generates the requests for a case."""

    def __init__(self, case: Case, capability: Capability, seed: int) -> None:
        self._case = case
        self._capability = capability
        self._all_types = capability.types
        self._random = Random(f"asks {seed} {case.seed}")
        self._probes = Probes.of(case)
        self._types = tuple(sorted({name.partition("/")[0] for name in (*self._probes.hidden_ids, *self._probes.shown_ids)}))
        self._patient = case.caller.patient or "teen"
        self._compartments = capability.compartments
        self._steps = {type: tuple(_ways(type, self._types)) for type in capability.types}
        # (type, parameter, type of the target) of references from visible rows to hidden ones, and from hidden rows
        hidden = {(type, param, target.partition("/")[0]) for type, param, target in self._probes.pointers}
        for (type, param), values in self._probes.hidden.items():
            hidden |= {
                (type, param, value.partition("/")[0]) for value in values if capability.params.get(type, {}).get(param) == "reference"
            }
        self._hidden_steps = hidden

    def draw(self, number: int) -> list[Ask]:
        """Return this number of random requests, from all request families."""
        menu: tuple[tuple[int, Callable[[], Ask]], ...] = (
            (16, self.search), (10, self.chained), (8, self.element), (9, self.sorted), (7, self.include), (7, self.revinclude),
            (4, self.counted), (5, self.posted), (4, self.several), (6, self.compartment),
            (7, self.read), (5, self.conditional_read), (6, self.history), (5, self.vread), (5, self.everything), (5, self.batch),
            (3, self.whole), (8, self.operation), (2, self.export), (4, self.elements), (4, self.conditional_create),
            (4, self.create), (3, self.update), (2, self.delete), (3, self.transaction), (3, self.malformed),
            (3, self.conditional_update), (1, self.conditional_delete), (2, self.conditional_entries),
            (3, self.patch), (1, self.patch_entry), (2, self.in_xml), (4, self.validate), (6, self.terminology),
            (3, self.create_with_provenance), (5, self.type_history),
            (2, self.content), (1, self.sent_content), (3, self.later),
        )  # fmt: skip
        # Callers who alone may update, and delete, do so more often.
        updates = (self.update, self.conditional_update, self.conditional_entries, self.patch, self.patch_entry)
        often: tuple[Callable[[], Ask], ...] = {"BO": updates, "BE": (self.conditional_delete,)}.get(self._case.caller.kind, ())
        weights = [weight * (8 if make in often else 1) for weight, make in menu]
        return [self._random.choices(menu, weights)[0][1]() for _ in range(number)]

    def in_xml(self) -> Ask:
        """A question that is answered in XML."""
        make = self._pick(self.search, self.include, self.read, self.history, self.everything, self.batch, self.patch, self.validate)
        ask = make()
        return replace(ask, kind="in-xml", headers=(*ask.headers, ("accept", "application/fhir+xml")))

    def steady(self) -> list[Ask]:
        """Return the requests sent in every case, before and after the random ones: listings, reads, histories, $everything and exports."""
        asks = [Ask.get("whole", type, [("_count", count)]) for type in self._types for count in ("2", "50")]
        asks += [Ask.get("read", name) for name in (*self._probes.hidden_ids, *self._probes.shown_ids)]
        asks += self.steady_content()
        asks += [Ask.get("history", f"{name}/_history", [("_count", count)]) for name in self._probes.shown_ids for count in ("1", "50")]
        asks += self.steady_histories()
        if any(name.startswith("Location/") for name in self._probes.hidden_ids):
            asks += [Ask.get("near", "Location", [("near", HERE), *more]) for more in ((), (("_summary", "count"),))]
        asks += [Ask.get("everything", f"Patient/{self._patient}/$everything", [("_count", count)]) for count in ("3", "200")]
        asks += [Ask.get("export", path, prefer="respond-async") for path in ("$export", "Patient/$export")]
        asks += [Ask.get("later", f"Patient/{self._patient}/{path}", prefer="respond-async") for path in ("$everything", "_history", "*")]
        return asks + self.steady_operations() + self._by_reference() + self._through_hidden_elements()

    def _through_hidden_elements(self) -> list[Ask]:
        """Return a chain and a ``_has`` through each reference to a visible row that is in a hidden element."""
        asks = []
        for type, param in self._probes.inner:
            for name in self._probes.hidden[type, param] if self._capability.params[type].get(param) == "reference" else ():
                if name in self._probes.shown_ids:
                    target, _, id = name.partition("/")
                    asks.append(Ask.get("chained", type, [(f"{param}:{target}._id", id)]))
                    asks.append(Ask.get("chained", target, [(f"_has:{type}:{param}:_lastUpdated", "ge2000"), ("_id", id)]))
        return asks

    def _by_reference(self) -> list[Ask]:
        """Return searches, also chained ones, a count and an include by each reference from a visible row to a hidden one."""
        asks = []
        for type, param, target in self._probes.pointers:
            asks.append(Ask.get("by-reference", type, [(param, target)]))
            asks.append(Ask.get("by-reference", type, [(param, target), ("_summary", "count")]))
            of_type, _, id = target.partition("/")
            asks.append(Ask.get("chained", type, [(f"{param}:{of_type}._id", id)]))
            if "subject" in self._capability.params[type]:
                asks.append(Ask.get("chained", "Patient", [(f"_has:{type}:subject:{param}", target)]))
            if f"{type}:{param}" in self._capability.includes[type]:
                asks.append(Ask.get("include", type, [("_include", f"{type}:{param}")]))
        return asks

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

    def terminology(self) -> Ask:
        """Ask of a value set, a code system or a map, or search by it, mostly by one that may be hidden."""
        if self._random.random() < 0.5:
            below = ("code:below", f"{KINDS}|{self._pick('a', 'b', 'c')}")
            by = self._pick(("code:in", self._value_set()), ("code:not-in", self._value_set()), below)
            return Ask.get("terminology", "Observation", [by, *self._shape()])
        code = [("system", self._pick(LOINC, KINDS)), ("code", self._pick("718-7", "a", "b", "29463-7"))]
        named = [name for name in self._probes.hidden_ids if name.partition("/")[0] in ("ValueSet", "CodeSystem", "ConceptMap")]
        one = self._pick(*named, "ValueSet", "CodeSystem", "ConceptMap")
        type = one.partition("/")[0]
        url = {"ValueSet": CODES, "CodeSystem": KINDS, "ConceptMap": "urn:twins:map"}[type]
        of = [] if "/" in one or self._random.random() < 0.1 else [("url", url)]
        if type == "ConceptMap":
            return Ask.get("terminology", f"{one}/$translate", [*(of if self._random.random() < 0.5 else []), *code])
        if type == "ValueSet":
            return Ask.get("terminology", f"{one}/{self._pick('$expand', '$validate-code')}", of + self._pick([], code))
        if self._random.random() < 0.5:
            return Ask.get("terminology", "CodeSystem/$lookup", code)
        both = [("codeA", "a"), ("codeB", self._pick("b", "c")), *([] if "/" in one else [("system", KINDS)])]
        return Ask.get("terminology", *self._pick((f"{one}/$subsumes", both), (f"{one}/$validate-code", [*of, ("code", "b")])))

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

    def chained(self) -> Ask:
        type = self._type()
        pairs = [self._chained(type)] + ([self._criterion(type)] if self._random.random() < 0.2 else [])
        shape = [("_summary", "count")] if self._random.random() < 0.2 else self._shape()
        return Ask.get("chained", type, [*pairs, *shape])

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

    def search(self) -> Ask:
        type = self._type()
        if self._random.random() < 0.08:
            return Ask.get("search", type, [self._filtered(type), *self._shape()])
        pairs = [self._criterion(type) for _ in range(self._pick(1, 1, 2))]
        strict = {"prefer": "handling=strict"} if self._random.random() < 0.2 else {}
        return Ask.get("search", type, [*pairs, *self._shape()], **strict)

    def element(self) -> Ask:
        """Search or sort by an element that is hidden inside visible rows."""
        if not self._probes.inner:
            return self.search()
        type, param = self._pick(*self._probes.inner)
        kind = self._capability.params[type][param]
        if self._random.random() < 0.3:
            return Ask.get("sort", type, [("_sort", self._pick("", "-") + param), *self._shape()])
        modifiers = ("", ":missing", ":not") if kind == "token" else ("", ":missing")
        modifier = self._pick(*modifiers)
        value = self._pick("true", "false") if modifier == ":missing" else self._value(type, param, kind)
        return Ask.get("element", type, [(param + modifier, value), *self._shape()])

    def posted(self) -> Ask:
        type = self._type()
        body = urlencode([self._criterion(type), *self._shape()]).encode()
        return Ask("post-search", "POST", f"{type}/_search", "", (("content-type", "application/x-www-form-urlencoded"),), body)

    def whole(self) -> Ask:
        return Ask.get("whole", self._type(), self._shape())

    def export(self) -> Ask:
        pairs = [("_type", ",".join({self._type(), self._type()}))] if self._random.random() < 0.5 else []
        if self._random.random() < 0.3:
            pairs.append(("_since", self._value(self._type(), "_lastUpdated", "date")))
        if self._random.random() < 0.2:
            pairs.append(("_elements", self._pick("id", "code,subject", "Observation.note,result")))
        if self._random.random() < 0.3:
            type = self._type()
            pairs.append(("_typeFilter", f"{type}?" + "=".join(self._criterion(type))))
        return Ask.get("export", self._pick("$export", "Patient/$export", "Group/zz/$export"), pairs, prefer="respond-async")

    def sorted(self) -> Ask:
        type = self._type()
        known = [param for kind, param in (*self._probes.hidden, *self._probes.shown) if kind == type and ":" not in param]
        params = known or tuple(self._capability.params[type]) or ("_id",)
        keys = ",".join(self._pick("", "-") + self._pick(*params) for _ in range(self._pick(1, 1, 2)))
        return Ask.get("sort", type, [("_sort", keys), *self._shape()])

    def counted(self) -> Ask:
        type = self._type()
        pairs = [self._criterion(type)] if self._random.random() < 0.6 else []
        return Ask.get(
            "count", type, [*pairs, self._pick(("_summary", "count"), ("_count", "0"), ("_total", "accurate"), ("_total", "estimate"))]
        )

    def include(self) -> Ask:
        type = self._type()
        known = self._capability.includes[type]
        pairs = [("_include" + self._iterates(), self._pick(*known)) for _ in range(self._pick(1, 1, 2))] if known else []
        return Ask.get("include", type, pairs)

    def _iterates(self) -> str:
        return ":iterate" if self._random.random() < 0.4 else ""

    def revinclude(self) -> Ask:
        type = self._type() if self._random.random() < 0.6 else "Patient"
        near = [one for one in self._capability.revincludes[type] if one.partition(":")[0] in self._types]
        known = near if near and self._random.random() < 0.85 else self._capability.revincludes[type]
        pairs = [("_revinclude" + self._iterates(), self._pick(*known)) for _ in range(self._pick(1, 1, 2))] if known else []
        return Ask.get("revinclude", type, pairs)

    def several(self) -> Ask:
        """Search several types, or all."""
        types = sorted({self._type() for _ in range(self._pick(1, 2, 3))})
        named = [("_type", ",".join(types))] if self._random.random() < 0.8 else []
        common = [("_id", self._name().partition("/")[2])] if self._random.random() < 0.2 else []
        counted = [("_summary", "count")] if self._random.random() < 0.3 else []
        return Ask.get("several", "", [*named, *common, *counted, *self._shape()])

    def compartment(self) -> Ask:
        """Search a compartment, mostly that of the patient or of a hidden row."""
        inside = [name for name in (*self._probes.hidden_ids, *self._probes.shown_ids) if name.partition("/")[0] in self._compartments]
        of = f"Patient/{self._patient}" if not inside or self._random.random() < 0.5 else self._pick(*inside)
        type = "*" if self._random.random() < 0.4 else self._type()
        pairs = [self._criterion(type)] if type != "*" and self._random.random() < 0.5 else []
        counted = [("_summary", "count")] if self._random.random() < 0.3 else []
        return Ask.get("compartment", f"{of}/{type}", [*pairs, *counted, *self._shape()])

    def elements(self) -> Ask:
        type = self._type()
        named = self._pick(
            "note", "reasonCode", "comment,description", "text", "result,conclusion", "participant", "meta", "component", "identifier"
        )
        return Ask.get("elements", type, [self._pick(("_elements", named), ("_summary", self._pick("true", "text", "data")))])

    def read(self) -> Ask:
        ask = Ask.get("read", self._name())
        return Ask(ask.kind, "HEAD", ask.path) if self._random.random() < 0.2 else ask

    def later(self) -> Ask:
        """A question to be answered later; the answer is fetched at once, and again after hidden writes."""
        ask = self._pick(self.search, self.whole, self.history, self.everything, self.compartment, self.counted, self.chained)()
        return replace(ask, kind="later", headers=(("prefer", "respond-async"),))

    def conditional_read(self) -> Ask:
        return Ask.get("conditional-read", self._name(), if_none_match=f'W/"{self._pick("1", "2", "3", "4")}"')

    def history(self) -> Ask:
        return Ask.get("history", f"{self._name()}/_history")

    def _reads(self) -> tuple[Callable[[], Ask], ...]:
        return (self.search, self.counted, self.revinclude, self.sorted, self.read, self.vread, self.history, self.type_history)

    def vread(self) -> Ask:
        return Ask.get("vread", f"{self._name()}/_history/{self._pick('1', '2', '3', '4', '9')}")

    def everything(self) -> Ask:
        patient = self._patient if self._random.random() < 0.9 else self._pick("teen", "elder", "adult", UNKNOWN)
        pairs = [("_count", self._pick("1", "2", "5"))] if self._random.random() < 0.6 else []
        fate = self._random.random()
        if fate < 0.3:
            pairs.append(("_since", self._value(self._type(), "_lastUpdated", "date")))
        elif fate < 0.5:
            pairs += [("start", self._pick("2026-03-02", "2026-05-20")), ("end", self._pick("2026-08-07", "2026-12-01"))]
        elif fate < 0.7:
            pairs.append(("_type", ",".join({self._type(), self._type()})))
        return Ask.get("everything", f"Patient/{patient}/$everything", pairs)

    def batch(self) -> Ask:
        drawn = [self._pick(*self._reads())() for _ in range(4)]
        urls = [f"{ask.path}?{ask.query}" if ask.query else ask.path for ask in drawn if ask.method == "GET"]
        entries = [{"request": {"method": "GET", "url": url}} for url in urls]
        kind = self._pick("batch", "batch", "transaction")
        return Ask("batch", "POST", "", "", (JSON_TYPE,), text_of({"resourceType": "Bundle", "type": kind, "entry": entries}))

    def malformed(self) -> Ask:
        type = self._type()
        return self._pick(
            Ask("malformed", "GET", type, "_count=x"), Ask("malformed", "GET", type, "code=%zz"), Ask("malformed", "GET", type, "date=gtx"),
            Ask("malformed", "GET", type, "_sort=nonsense&_page=AAAA"), Ask("malformed", "GET", f"{type}/{'x' * 70}"),
            Ask("malformed", "POST", type, "", (JSON_TYPE,), b"{"),
            Ask("malformed", "POST", type, "", (JSON_TYPE,), b'{"resourceType":"%s"}' % type.encode()),
            Ask("malformed", "PATCH", self._name(), "", (JSON_TYPE,), b"[]"), Ask("malformed", "PATCH", type, "", (JSON_TYPE,), b"[]"),
            Ask("malformed", "GET", f"{self._name()}/$nothing"),
            Ask("malformed", "GET", type, "subject.nothing=x"), Ask("malformed", "GET", type, "_has:Observation:patient=718-7"),
            Ask("malformed", "GET", "Nothing/1"), Ask("malformed", "GET", f"{self._name()}/_history/x"), Ask("malformed", "OPTIONS", type),
        )  # fmt: skip
