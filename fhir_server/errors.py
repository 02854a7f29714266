"""Errors of the FHIR API, and their conversion to an OperationOutcome.

All code below the routes raises :class:`Problem`; one handler converts it to a response.  OAuth errors are Authlib's and
stay inside ``smart``.

Errors must not reveal hidden data.  A Problem that depends on a stored resource that the caller may not see is always
``not_found``, with the same text as for a resource that never existed.  ``forbidden`` is only for refusals that are decided
without reading stored data.  Texts contain only fixed words and what the caller sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from traceback import clear_frames
from typing import Final, Literal

ProblemKind = Literal[
    "invalid",
    "unauthenticated",
    "forbidden",
    "not_found",
    "gone",
    "method",
    "not_acceptable",
    "media_type",
    "range",
    "conflict",
    "precondition",
    "precondition_required",
    "too_many",
    "too_large",
    "unprocessable",
    "busy",
    "too_costly",
    "read_only",
    "fault",
]

# kind -> (HTTP status, FHIR issue type code)
KINDS: Final[dict[ProblemKind, tuple[int, str]]] = {
    "invalid": (400, "invalid"),
    "unauthenticated": (401, "login"),
    "forbidden": (403, "forbidden"),
    "not_found": (404, "not-found"),
    "method": (405, "not-supported"),
    "not_acceptable": (406, "not-supported"),
    "conflict": (409, "conflict"),
    "gone": (410, "deleted"),
    "precondition": (412, "conflict"),
    "too_large": (413, "too-long"),
    "media_type": (415, "not-supported"),
    "range": (416, "invalid"),
    "unprocessable": (422, "processing"),
    "precondition_required": (428, "required"),
    "too_many": (429, "throttled"),
    "fault": (500, "exception"),
    "busy": (503, "transient"),
    "too_costly": (503, "too-costly"),
    "read_only": (503, "transient"),
}

RETRY_READ_ONLY: Final = 60  # seconds; an operator decides when it ends


@dataclass(frozen=True, slots=True)
class Issue:
    """One OperationOutcome.issue: issue type code, text, and FHIRPath expressions that point into the request body."""

    code: str
    text: str
    expression: tuple[str, ...] = ()
    severity: Literal["fatal", "error", "warning", "information"] = "error"


class Problem(Exception):
    """An error of a kind in :data:`KINDS`, with a text for the caller.

    ``issues`` replaces the single issue of that text, ``headers`` the headers that a response of this status has.
    """

    def __init__(self, kind: ProblemKind, text: str, issues: tuple[Issue, ...] = (), headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.headers = headers
        self.kind: ProblemKind = kind
        self.issues = issues or (Issue(KINDS[kind][1], text),)

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return KINDS[self.kind][0]

    @property
    def retry_after(self) -> int:
        """The seconds of ``Retry-After`` of a 503."""
        return RETRY_READ_ONLY if self.kind == "read_only" else 1

    def let_go(self) -> None:
        """Forget where it was raised, when it becomes an answer.

        The frames hold what was worked on, such as the parsed entries of a transaction, and some hold the error: together they would
        stay in memory until the garbage collector comes.
        """
        error: BaseException | None = self
        while error is not None:
            clear_frames(error.__traceback__)
            error.__traceback__ = None
            error = error.__context__

    def outcome(self) -> bytes:
        """The OperationOutcome, as JSON text."""
        return outcome(self.issues)


def outcome(issues: tuple[Issue, ...]) -> bytes:
    """An R4 OperationOutcome of these issues, as JSON text (http://hl7.org/fhir/R4/operationoutcome.html)."""
    body = {"resourceType": "OperationOutcome", "issue": [_issue(issue) for issue in issues]}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _issue(issue: Issue) -> dict[str, object]:
    body: dict[str, object] = {"severity": issue.severity, "code": issue.code, "diagnostics": issue.text}
    if issue.expression:
        body["expression"] = list(issue.expression)
    return body
