"""The state of one validation: the place of the current node, the issues found, and the contained resources."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.errors import Issue

Place = tuple[Any, str, int]
"""A node's place: the parent's place, the element's name in FHIRPath, and the index in an array or -1.

The root's place is (None, type name, -1).
"""

MAX_ISSUES: Final = 50
MAX_QUOTED: Final = 80  # characters of the caller's text repeated in a message


class TooManyIssuesError(Exception):
    """Ends a validation that has found the maximum number of issues."""


class ValidationRun:
    """Collects issues; ``resource`` and ``root`` are FHIRPath's %resource and %rootResource."""

    __slots__ = ("_contained", "issues", "resource", "root")

    def __init__(self, resource: Any) -> None:
        self.issues: list[Issue] = []
        self.resource = resource
        self.root = resource
        self._contained: dict[str, str] | None = None

    def contained(self) -> dict[str, str]:
        """Id -> type of the resources that the root resource contains."""
        if self._contained is None:
            contained = self.root.get("contained")
            resources = [inner for inner in contained if type(inner) is dict] if type(contained) is list else []
            self._contained = {str(inner.get("id")): str(inner.get("resourceType")) for inner in resources}
        return self._contained

    def add(self, code: str, text: str, place: Place) -> None:
        """Record an issue.  Raises TooManyIssuesError after the last one that is reported."""
        self.issues.append(Issue(code, text, (expression(place),)))
        if len(self.issues) >= MAX_ISSUES:
            raise TooManyIssuesError

    def within(self, resource: Any, *, contained: bool) -> ValidationRun:
        """A run over a resource inside this one; it reports to the same list of issues."""
        inner = ValidationRun(resource)
        inner.issues = self.issues
        if contained:
            inner.root = self.root
            inner._contained = self.contained()
        return inner


def expression(place: Place) -> str:
    """The place as FHIRPath, for example ``Observation.component[1].code``."""
    steps = []
    at: Place | None = place
    while at is not None:
        parent, name, index = at
        steps.append(name if index < 0 else f"{name}[{index}]")
        at = parent
    return ".".join(reversed(steps))


def quote(value: Any) -> str:
    """A value that the caller sent, in quotation marks and shortened, for a message."""
    text = str(value)
    return f"'{text}'" if len(text) <= MAX_QUOTED else f"'{text[:MAX_QUOTED]}…'"
