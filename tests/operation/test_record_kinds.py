"""Each kind of key-value record is on the lists of operation: whether it is written while the server is read-only, and whether it
gives access."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.maintenance.end_access import ENDED
from fhir_server.operation.gate import STILL_WRITTEN
from tests.served import ROOT

# Kinds that give no access by themselves, or that end with what they belong to.
LASTING = {
    "account-preferences", "client", "contact", "contact-address", "demo-client-keys", "federated-subject", "former-user",
    "health-card-key", "history-horizon", "identity-provider", "invitation", "link-person", "link-tokens", "linked-organisation",
    "linking-key", "load-key", "notice", "operation", "package", "package-revision", "pending-contact", "record-reading",
    "recovery-code", "removed-client", "second-factor", "signing-key", "staff-app", "store-fact", "trusted-publisher", "user",
}  # fmt: skip
COUNTS_AND_LOCKS = {
    "async-job", "async-slot", "account-events", "app-as-allowed", "apps-after-sign-out", "attempt", "changing-account",
    "clients-of-session", "closure", "device", "dpop-proof", "export",
    "export-page", "export-slot", "export-turn", "import", "import-errors", "import-slot",
    "import-turn", "jti", "known-network", "link-pause", "link-place", "link-renewing",
    "logout-notice", "logout-request", "naming-client", "one-time-code", "open-app", "pairwise-account", "pairwise-subject", "rate-limit",
    "sent-form", "session-apps", "session-watch", "spent-code", "spent-refresh", "subscription", "subscription-change",
    "subscription-lease", "subscription-slot", "subscription-socket", "turn", "turns", "writes-in-progress",
}  # fmt: skip
INDEXES = {"client-name", "grant-index-complete", "user-index"}  # the first look-up may make them
GIVES_ACCESS = {"activation"}  # ended by the patient who made it: it opens nothing to anybody who is not signed in
# How many of a call's first arguments are kinds.
CALLS = {"put": 1, "put_if_absent": 1, "KeyValueRecord": 1, "Register": 1, "_new_token": 1, "SealedRecords": 1, "OwnedJobs": 2,
         "CodeSource": 1}  # fmt: skip


def kinds_in(path: Path) -> Iterator[str]:
    """The kind that each call in the file stores."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    names: dict[str, object] | None = None
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
        first = call.args[0]
        kinds = call.args[: CALLS.get(called, 0)]
        if called == "run_on_loop" and isinstance(first, ast.Attribute) and first.attr in CALLS:
            kinds = call.args[1:2]
        elif isinstance(call.func, ast.Attribute) and "values" not in ast.unparse(call.func):
            continue
        for kind in kinds:
            if isinstance(kind, ast.Constant):
                yield str(kind.value)
            elif isinstance(kind, ast.Name):
                names = names if names is not None else vars(importlib.import_module(module))
                if isinstance(found := names.get(kind.id), str):
                    yield found


def all_kinds() -> set[str]:
    files = [path for path in (ROOT / "fhir_server").rglob("*.py") if "store" not in path.relative_to(ROOT / "fhir_server").parts[:1]]
    return {kind for path in files for kind in kinds_in(path)}


def test_each_kind_of_record_is_on_the_lists_of_operation() -> None:
    found = all_kinds()
    assert {"user", "client", "access", "session", "request", "code", "attempt", "export", "launch"} <= found, "the search finds kinds"
    assert found == set(ENDED) | LASTING | COUNTS_AND_LOCKS | GIVES_ACCESS | INDEXES, "say of a new kind what it is"
    assert set(ENDED) | COUNTS_AND_LOCKS | INDEXES >= STILL_WRITTEN
    assert not STILL_WRITTEN & (LASTING | {"export", "export-page", "client-invitation"})


def test_search_finds_a_planted_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text('async def f(smart):\n    await smart.store.key_values.put("planted", "k", b"", 1)\n')
    monkeypatch.setattr("tests.operation.test_record_kinds.ROOT", tmp_path)
    assert list(kinds_in(planted)) == ["planted"]
