"""What is new for a person in what a search gave, and which results wait until the person asks for them.

Both follow from what the person's View gave and from the times of the person's own acts.  A resource arrives at the time that it bears
(``meta.lastUpdated``), or at its release if that is later: before it the person could not have seen it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server.clock import parsed_instant
from fhir_server.consent.security_labels import release_at
from fhir_server.display.texts import objects, plain

Json = dict[str, Any]
_RESULTS: Final = frozenset({"laboratory", "imaging", "procedure", "exam"})  # of an Observation; a report always is a result
_UTC: Final = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person has seen.  Instants in microseconds since 1970 UTC.

    ``opened``     when the person last opened what is listed; None: not yet
    ``ask_since``  results that arrived later are shown when the person asks for them; None: all are shown
    ``shown``      by ``Type/id``, when the person last asked for a result
    """

    opened: int | None = None
    ask_since: int | None = None
    shown: Mapping[str, int] = field(default_factory=dict)
    zone: ZoneInfo = _UTC

    def is_new(self, resource: Json, included: Mapping[str, Json]) -> bool:
        """Whether the resource, or a value of the report, arrived after the person opened the list."""
        return self.opened is not None and any(self._arrival(one) > self.opened for one in (resource, *members(resource, included)))

    def holds(self, resource: Json, included: Mapping[str, Json]) -> bool:
        """Whether this is a result that the person has not asked for since it arrived."""
        if self.ask_since is None or not is_result(resource):
            return False
        return self._arrived(resource, included) > max(self.ask_since, self.shown.get(name(resource), 0))

    def _arrived(self, resource: Json, included: Mapping[str, Json]) -> int:
        return max(self._arrival(one) for one in (resource, *members(resource, included)))

    def _arrival(self, resource: Json) -> int:
        return max(parsed_instant(resource["meta"]["lastUpdated"]), release_at(resource, self.zone))


def is_result(resource: Json) -> bool:
    """Whether the resource states a result of an examination, not what a person measures at home or tells."""
    if resource["resourceType"] != "Observation":
        return bool(resource["resourceType"] == "DiagnosticReport")
    categories = (coding.get("code") for category in objects(resource.get("category")) for coding in objects(category.get("coding")))
    return not _RESULTS.isdisjoint(map(plain, categories))


def members(resource: Json, included: Mapping[str, Json]) -> Iterator[Json]:
    """The values of a report that the answer has."""
    if resource["resourceType"] == "DiagnosticReport":
        targets = (plain(each.get("reference")) for each in objects(resource.get("result")))
        yield from (included[target] for target in targets if target.startswith("Observation/") and target in included)


def name(resource: Json) -> str:
    """``Type/id``."""
    return f"{resource['resourceType']}/{resource['id']}"
