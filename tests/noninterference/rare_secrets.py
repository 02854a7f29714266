"""Secrets that only some cases have, drawn last, so that all other draws of a case stay as they are."""

from __future__ import annotations

import json
from typing import Any

from tests.noninterference.hidden_parts import STEP, Touches
from tests.noninterference.label_graphs import of_another
from tests.noninterference.paired_server import SECOND, Write
from tests.noninterference.resource_factory import restriction

Sides = tuple[tuple[Write, ...], tuple[Write, ...]]
HERE = "42.25|-83.69"


class RareSecrets(Touches):
    """Draws them: writes for both servers, or None if no row fits."""

    def rare(self) -> dict[str, Sides]:
        drawn = {"misfiled": self._misfiled(), "restricted place": self._restricted_place()}
        return {kind: sides for kind, sides in drawn.items() if sides is not None}

    def _misfiled(self) -> Sides | None:
        """Versions before the first visible one, and a deletion, when the row was filed under another patient."""
        me = self.caller.patient
        fit = [write for write in self.shown if write.resource and me and self._is_first(write) and _refers_only_to(write.resource, me)]
        if not fit:
            return None
        first = self.r.pick(*fit)
        at = first.at - 10 * STEP - self._ids * 1009
        made: list[Write] = []
        for number in range(self.random.randint(1, 2)):
            other = of_another(self._mutated(first.resource or {}), me, self.other())
            made.append(Write(at + number * SECOND, first.type, first.id, other))
        if self.random.random() < 0.3:
            made.append(Write(at + 5 * SECOND, first.type, first.id, None))
        return tuple(made), tuple(made[:1]) if self.random.random() < 0.4 else ()

    def _is_first(self, write: Write) -> bool:
        return next(one for one in self.shown if one.name == write.name) is write

    def _restricted_place(self) -> Sides | None:
        """A Location near the place that requests ask for, which a Consent withholds from the caller."""
        if not self.caller.me.startswith("RelatedPerson/"):
            return None
        latitude, longitude = map(float, HERE.split("|"))
        position = {"latitude": latitude, "longitude": longitude}
        row = {"resourceType": "Location", "status": "active", "name": self.r.word(), "position": position}
        place = Write(self._moment(), "Location", self._id(), row)
        consent = restriction(self.caller.patient, self.caller.me, place.name)
        return (place, Write(place.at + SECOND, "Consent", self._id(), consent)), ()


def _refers_only_to(resource: Any, patient: str) -> bool:
    """Whether the patient is all that a row refers to."""
    text = json.dumps(resource)
    return text.count('"reference"') == text.count(f'"reference": "Patient/{patient}"') > 0 and '"contained"' not in text
