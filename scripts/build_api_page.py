"""Write the generated tables of ``docs/api.md``: interactions, operations, errors and limits, from what the server is made of.

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; the text around them is written by hand.

    python scripts/build_api_page.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from fhir_server.errors import KINDS
from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.interactions.registry import REGISTRY
from fhir_server.interactions.wording import summary
from fhir_server.search.result_parameters import DEFAULT_COUNT, MAX_COUNT
from fhir_server.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MEANINGS = {
    "invalid": "the request is malformed: a parameter, a header, the body",
    "unauthenticated": "no token, or one that is unknown, expired or revoked",
    "forbidden": "scopes or policy do not allow it, whatever is stored",
    "not_found": "nothing the caller may know of is at this URL",
    "method": "the URL does not take this method",
    "not_acceptable": "the answer does not exist in a format that `Accept` or `_format` names",
    "conflict": "the change touches a part that the caller does not see",
    "gone": "it was deleted, and the caller may know that",
    "precondition": "`If-Match` or another precondition does not hold, or criteria match several resources",
    "too_large": "the body, or what the transaction stores, is too large",
    "media_type": "the body is not of a kind that the interaction takes",
    "range": "the content of a Binary has no byte of the `Range`",
    "unprocessable": "the resource is valid but cannot be stored: a reference does not resolve",
    "precondition_required": "the change needs `If-Match`",
    "too_many": "too many attempts; `Retry-After` says when to go on",
    "fault": "an error of the server, which is logged",
    "busy": "try again after `Retry-After`",
    "too_costly": "the request takes more than one request may; ask for less",
    "read_only": "the server is read-only for now",
}
_PART_OF = {
    "$export": "part of `$export`",
    "$import": "part of `$import`",
    "$async": "part of `Prefer: respond-async`",
}
_LIMITS = {
    "max_resource_bytes": "the body of a request, in bytes",
    "max_body_bytes": "the body of a batch or transaction, in bytes",
    "max_bundle_entries": "entries of a batch or transaction",
    "max_request_seconds": "seconds of work for one request",
    "max_request_resources": "resources that one request reads",
    "max_response_bytes": "their size, in bytes",
    "max_client_requests": "requests of one client or person at a time; others wait",
    "max_conditional_deletes": "resources that one conditional delete deletes",
}


def page(text: str) -> str:
    """The page with its tables as they are now."""
    return _TABLE.sub(lambda found: f"{found[1]}{_TABLES[found[2]]()}{found[3]}", text)


def _interactions() -> str:
    rows = [(served.method, f"`{served.template}`", summary(served)) for served in REGISTRY if not served.operation]
    return _table(("method", "path", "what it does"), rows)


def _operations() -> str:
    known = operation_definitions()
    names = dict.fromkeys(served.operation for served in REGISTRY if served.operation)
    return _table(("operation", "requests", "definition"), [(f"`{name}`", *_of_operation(name, known)) for name in names])


def _of_operation(name: str, known: Iterable[str]) -> tuple[str, str]:
    routes = [served for served in REGISTRY if served.operation == name]
    paths: dict[str, list[str]] = {}
    for served in routes:
        paths.setdefault(served.template, []).append(served.method)
    requests = "<br>".join(f"{', '.join(methods)} `{path}`" for path, methods in paths.items())
    definitions = dict.fromkeys(served.definition for served in routes if served.definition in known)
    return requests, "<br>".join(definitions) or _PART_OF.get(name.partition("-")[0], "")


def _errors() -> str:
    return _table(
        ("status", "issue code", "meaning"), [(str(status), f"`{code}`", _MEANINGS[kind]) for kind, (status, code) in KINDS.items()]
    )


def _limits() -> str:
    defaults = {field.name: field.default for field in fields(Settings)}
    rows = [(f"{defaults[name]:,}", text, f"`FHIR_SERVER_{name.upper()}`") for name, text in _LIMITS.items()]
    rows += [(f"{MAX_COUNT:,}", f"resources on one page (`_count`; {DEFAULT_COUNT} if the request does not say)", "")]
    return _table(("at most", "of what", "setting"), rows)


_TABLES: dict[str, Callable[[], str]] = {
    "interactions": _interactions,
    "operations": _operations,
    "errors": _errors,
    "limits": _limits,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Command line entry."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
