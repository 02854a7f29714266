"""The requests that are sent in every case: what a caller would ask who looks for traces of each hidden row."""

from __future__ import annotations

from tests.noninterference.criteria import Criteria
from tests.noninterference.import_requests import ImportRequests
from tests.noninterference.paired_server import Ask
from tests.noninterference.rare_secrets import HERE


class SteadyRequests(Criteria, ImportRequests):
    """Listings, reads, histories, $everything and exports, and searches by each reference to a hidden row."""

    def steady(self) -> list[Ask]:
        """Return the requests sent in every case, before and after the random ones: listings, reads, histories, $everything and exports."""
        asks = [Ask.get("whole", type, [("_count", count)]) for type in self._types for count in ("2", "50")]
        asks += [Ask.get("read", name) for name in (*self._probes.hidden_ids, *self._probes.shown_ids)]
        asks += self.steady_content()
        asks += [Ask.get("history", f"{name}/_history", [("_count", count)]) for name in self._probes.shown_ids for count in ("1", "50")]
        asks += self.steady_histories()
        if any(name.startswith("Location/") for name in self._probes.hidden_ids):
            asks += [Ask.get("near", "Location", [("near", HERE), *more]) for more in ((), (("_summary", "count"),))]
        if any(name.startswith("Questionnaire/") for name in self._probes.hidden_ids):
            named = [("instantiates-canonical:Questionnaire.status", "active")]
            asks += [Ask.get("chained", "Communication", [*named, *more]) for more in ((), (("_summary", "count"),))]
        asks += [Ask.get("everything", f"Patient/{self._patient}/$everything", [("_count", count)]) for count in ("3", "200")]
        since = ("_since", "2000-01-01T00:00:00Z")  # with it, an export has deletions, too
        asks += [Ask.get("export", path, pairs, prefer="respond-async") for path, pairs in (("$export", []), ("Patient/$export", [since]))]
        asks += [Ask.get("later", f"Patient/{self._patient}/{path}", prefer="respond-async") for path in ("$everything", "_history", "*")]
        named = [("_type", "Observation,Condition"), ("_count", "5")]
        asks.append(Ask.get("compartment", f"Patient/{self._patient}/*", named))
        asks += self.steady_imports()
        return asks + self.steady_operations() + self._by_reference() + self._through_hidden_elements() + self._by_elements_of_others()

    def _by_elements_of_others(self) -> list[Ask]:
        """Return searches sorted by the hidden elements of the rows to which references lead."""
        return [
            Ask.get("sort", type, [("_sort", f"{way.param}:{way.type}.{param}"), ("_count", "1")])
            for type in self._types
            for way in self._steps[type]
            for of_type, param in self._probes.inner
            if not way.is_reverse and way.type == of_type
            if any(name.startswith(f"{of_type}/") for name in self._probes.shown.get((type, way.param), ()))
        ]

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
            asks.append(Ask.get("sort", type, [("_sort", f"{param}:{of_type}._id"), ("_count", "1")]))
            if f"{type}:{param}" in self._capability.includes[type]:
                asks.append(Ask.get("include", type, [("_include", f"{type}:{param}")]))
        return asks

    def _through_hidden_elements(self) -> list[Ask]:
        """Return a chain and a ``_has`` through each reference to a visible row that is in a hidden element."""
        asks = []
        for type, param in self._probes.inner:
            for name in self._probes.hidden[type, param] if self._capability.params[type].get(param) == "reference" else ():
                if name in self._probes.shown_ids:
                    target, _, id = name.partition("/")
                    asks.append(Ask.get("chained", type, [(f"{param}:{target}._id", id)]))
                    asks += [Ask.get("sort", type, [("_sort", f"{sign}{param}:{target}._id"), ("_count", "1")]) for sign in ("", "-")]
                    asks.append(Ask.get("chained", target, [(f"_has:{type}:{param}:_lastUpdated", "ge2000"), ("_id", id)]))
        return asks
