"""The errors of terminology.  All depend on what the caller sent and on what the caller sees."""

from __future__ import annotations

from fhir_server.errors import Issue, Problem


class NotLoadedError(Problem):
    """A code system whose content is needed and is not loaded, or only in part."""

    def __init__(self, text: str) -> None:
        super().__init__("unprocessable", text, (Issue("not-supported", text),))


def not_loaded(system: str, version: str = "") -> NotLoadedError:
    """The Problem that a code system, or a version of it, is not loaded with all its codes."""
    name = f"{system}|{version}" if version else system
    return NotLoadedError(f"The content of the code system {name[:300]!r} is not loaded on this server.")


def too_costly(text: str) -> Problem:
    """The Problem of an answer that would be too large."""
    return Problem("unprocessable", text, (Issue("too-costly", text),))


def unknown(type: str, name: str) -> Problem:
    """The one answer for a resource that no source has: absent, hidden or without a scope."""
    return Problem("not_found", f"The {type} {name[:300]!r} is not known.")


def malformed(text: str) -> Problem:
    """The Problem of a value set, or of a filter in it, that cannot be followed."""
    return Problem("unprocessable", text, (Issue("invalid", text),))
