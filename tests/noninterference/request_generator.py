"""Generates requests from the CapabilityStatement and from the values in visible and hidden data.

Every type, search parameter and include of the CapabilityStatement can occur, so new features are covered automatically.
Search values are mostly those of hidden rows and elements (:class:`Probes`), those of visible ones, and similar values.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.noninterference.capability import Capability, ways
from tests.noninterference.case_generator import Case
from tests.noninterference.paired_server import Ask
from tests.noninterference.probes import Probes
from tests.noninterference.read_requests import ReadRequests
from tests.noninterference.steady_requests import SteadyRequests


class Asker(ReadRequests, SteadyRequests):
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
        self._steps = {type: tuple(ways(type, self._types)) for type in capability.types}
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
