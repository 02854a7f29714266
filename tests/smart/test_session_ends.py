"""Every end of a session or an account puts the clients of its sessions into the queue of logout tokens, on both stores."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fhir_server.maintenance import end_access
from fhir_server.smart.accounts import identity_providers, merging, sessions, users
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.logout_queue import SignedIn
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.scim.environment import Administration
from tests.served import ROOT, Served

PASSWORD = "A-long-pass-2026"
ISSUER = "https://idp.example"


class Office:
    """A server on a store of its own, and the operator of that store."""

    def __init__(self, operator: Operator, served: Served) -> None:
        self.operator, self.served = operator, served
        self.store, self.smart = served.parts.store, served.parts.smart

    def sign_in(self, *names: str) -> None:
        """Start a session of each account, with an app that wants to know of its end."""
        for name in names:
            self.served.run(self._sign_in(name))

    async def _sign_in(self, name: str) -> None:
        user = await users.find(self.store, name)
        assert user is not None
        key = digest(await sessions.start(self.smart, user, authenticated=self.smart.now()))
        signed_in = SignedIn("demo-public", user.subject, logout_queue.session_id(key, "demo-public"), name)
        await logout_queue.add(self.store, key, signed_in, self.smart.now())

    def told(self) -> list[str]:
        """The user names of the sessions of whose end apps will be told."""
        found = self.served.run(logout_queue.due_notices(self.store, self.smart.now(), 100))
        return sorted(notice.signed_in.username for notice in found)


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(end_access, "_PAUSE", 0.0)
    operator = new_operator(request.param, tmp_path, monkeypatch)
    operator.must("create-store")
    return operator


@pytest.fixture
def office(operator: Operator) -> Iterator[Office]:
    made = Office(operator, Served(operator.url, seeds=False))
    yield made
    made.served.close()


COMMANDS = {
    "sign-out": ("user", "sign-out", "adult"),
    "sign-out of everyone": ("user", "sign-out", "--everyone"),
    "lock": ("user", "lock", "adult"),
    "rename": ("user", "rename", "adult", "somebody"),
    "role": ("user", "set-role", "adult", "billing"),
    "second factor": ("user", "reset-second-factor", "adult"),
    "unlink": ("user", "unlink", "adult", "--patient"),
    "remove": ("user", "remove", "adult"),
    "end access": ("end-access", "--user", "adult", "--reason", "test"),
    "end access of everyone": ("end-access", "--everyone", "--reason", "test"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command_that_ends_sessions_tells_their_clients(office: Office, command: tuple[str, ...]) -> None:
    office.sign_in("adult", "clinician")
    assert office.told() == []
    office.operator.must(*command)
    assert office.told() == (["adult", "clinician"] if "--everyone" in command else ["adult"])


async def _set_password(office: Office) -> None:
    user = await users.find(office.store, "adult")
    assert user is not None
    await users.set_password(office.store, user, PASSWORD, office.smart.passwords, office.smart.now())


async def _unlink_provider(office: Office) -> None:
    await identity_providers.add(office.smart, Provider(ISSUER, "Provider", "client", "client_secret"), "s" * 32)
    await identity_providers.link(office.store, ISSUER, "sub", "adult")
    await identity_providers.remove(office.store, ISSUER)


async def _merge(office: Office) -> None:
    await users.create(office.store, "other", PASSWORD, "patient")
    await office._sign_in("other")
    await merging.merge(office.store, "other", "adult", office.smart.now())


CHANGES: dict[str, tuple[Callable[[Office], Awaitable[None]], list[str]]] = {
    "password": (_set_password, ["adult"]),
    "identity provider": (_unlink_provider, ["adult"]),
    "merge": (_merge, ["adult", "other"]),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_that_ends_sessions_tells_their_clients(
    office: Office, change: Callable[[Office], Awaitable[None]], expected: list[str]
) -> None:
    office.sign_in("adult", "clinician")
    office.served.run(change(office))
    assert office.told() == expected


@pytest.mark.parametrize("request_", ["delete", "deactivate", "password", "rename"])
def test_deprovisioning_by_scim_tells_the_clients_of_a_member_of_staff(operator: Operator, request_: str) -> None:
    administration = Administration(operator.url, seeds=False)
    office = Office(operator, administration.served)
    office.sign_in("adult", "clinician")
    id = administration.id("clinician")
    values = {"deactivate": ("active", False), "password": ("password", PASSWORD), "rename": ("userName", "former")}
    if request_ == "delete":
        assert administration.request("DELETE", f"/Users/{id}").status == 204
    else:
        path, value = values[request_]
        assert administration.patch(id, {"op": "replace", "path": path, "value": value}).status in (200, 204)
    assert office.told() == ["clinician"]
    administration.close()


def test_sessions_end_in_one_place_only() -> None:
    """So that none ends without its clients.  Only there the records of a session are removed."""
    own = ROOT / "fhir_server" / "smart" / "core" / "session_ends.py"
    assert removals(own.read_text(encoding="utf-8")) == 3, "the search finds removals"
    found = {path.name: removals(path.read_text(encoding="utf-8")) for path in (ROOT / "fhir_server").rglob("*.py") if path != own}
    assert {name for name, count in found.items() if count} == set()


def removals(source: str) -> int:
    """How many calls of a module remove records of sessions: by family, or one by one."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    named = [(call.func.attr, ast.unparse(call)) for call in calls if isinstance(call.func, ast.Attribute)]
    of_family = [text for name, text in named if name == "delete_family" and ("account_family(username)" in text or "family(key)" in text)]
    loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For) and "SESSION" in ast.unparse(node.iter)]
    return len(of_family) + sum(".pop(" in ast.unparse(loop) for loop in loops)
