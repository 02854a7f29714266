"""Requests that search: by criteria, sorted, counted, with includes, of several types, of a compartment or with terminology."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.noninterference.criteria import Criteria
from tests.noninterference.paired_server import Ask
from tests.noninterference.resource_factory import CODES, KINDS, LOINC


class SearchRequests(Criteria):
    """Searches, and the terminology operations that searches by value set rest on."""

    _compartments: frozenset[str]

    def search(self) -> Ask:
        type = self._type()
        if self._random.random() < 0.08:
            return Ask.get("search", type, [self._filtered(type), *self._shape()])
        pairs = [self._criterion(type) for _ in range(self._pick(1, 1, 2))]
        strict = {"prefer": "handling=strict"} if self._random.random() < 0.2 else {}
        return Ask.get("search", type, [*pairs, *self._shape()], **strict)

    def chained(self) -> Ask:
        type = self._type()
        pairs = [self._chained(type)] + ([self._criterion(type)] if self._random.random() < 0.2 else [])
        shape = [("_summary", "count")] if self._random.random() < 0.2 else self._shape()
        return Ask.get("chained", type, [*pairs, *shape])

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
