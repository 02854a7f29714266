"""One run of the validator: where we are, what was found, and what ``#id`` may mean."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.errors import Issue

# A node's place: the parent's place, the element's name as FHIRPath says it, and the index in an array or -1.
# The root's place is (None, type name, -1).
Place = tuple[Any, str, int]

MOST: Final = 50  # issues worth telling at once
QUOTED: Final = 80  # characters of the caller's text repeated in a message


class TooManyIssuesError(Exception):
    """Enough issues were found."""


class ValidationRun:
    """Collects issues; ``resource`` and ``root`` are FHIRPath's %resource and %rootResource."""

    __slots__ = ("_contained", "issues", "resource", "root")

    def __init__(self, resource: Any) -> None:
        self.issues: list[Issue] = []
        self.resource = resource
        self.root = resource
        self._contained: dict[str, str] | None = None

    def contained(self) -> dict[str, str]:
        """Id -> type of what the root resource contains."""
        if self._contained is None:
            parts = self.root.get("contained")
            found = [part for part in parts if type(part) is dict] if type(parts) is list else []
            self._contained = {str(part.get("id")): str(part.get("resourceType")) for part in found}
        return self._contained

    def add(self, code: str, text: str, place: Place) -> None:
        """Record an issue; raises Full after the last one worth telling."""
        self.issues.append(Issue(code, text, (expression(place),)))
        if len(self.issues) >= MOST:
            raise TooManyIssuesError

    def within(self, resource: Any, *, contained: bool) -> ValidationRun:
        """A run over a resource inside this one, which reports to the same list."""
        inner = ValidationRun(resource)
        inner.issues = self.issues
        if contained:
            inner.root = self.root
            inner._contained = self.contained()
        return inner


def expression(place: Place) -> str:
    """``Observation.component[1].code``."""
    steps = []
    at: Place | None = place
    while at is not None:
        parent, name, index = at
        steps.append(name if index < 0 else f"{name}[{index}]")
        at = parent
    return ".".join(reversed(steps))


def quote(value: Any) -> str:
    """What the caller sent, shortened, for a message."""
    text = str(value)
    return f"'{text}'" if len(text) <= QUOTED else f"'{text[:QUOTED]}…'"
